"""The algebra of transitions Λ: seven kinds, one product; `Discretised` is Elementwise held in factors.

Law: densify(compose(Λ₂, Λ₁)) = densify(Λ₂) densify(Λ₁), for every pair of the join table.
"""

from .base import Cost as Cost
from .base import Structure as Structure
from .discretised import Discretised as Discretised
from .dplr import DPLR as DPLR
from .gates import Diagonal as Diagonal
from .gates import Elementwise as Elementwise
from .gates import Gate as Gate
from .gates import Identity as Identity
from .gates import Scalar as Scalar
from .join import KINDS as KINDS
from .join import alike as alike
from .join import compose as compose
from .join import join as join
from .matrices import Block as Block
from .matrices import Dense as Dense
