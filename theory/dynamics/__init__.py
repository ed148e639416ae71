"""Training dynamics of one attention layer, with gradients that neither underflow nor cancel."""

from .classify import Outcome as Outcome
from .classify import classify as classify
from .descent import descend as descend
from .flow import flow as flow
from .heads import QuadraticHead as QuadraticHead
from .heads import ReluHead as ReluHead
from .joint import joint_path as joint_path
from .losses import LOSSES as LOSSES
from .measures import correlation as correlation
from .measures import direction_error as direction_error
from .measures import margin_ratio as margin_ratio
from .measures import margins as margins
from .mirror import mirror_descent as mirror_descent
from .objective import Objective as Objective
from .path import regularisation_path as regularisation_path
from .trajectory import Trajectory as Trajectory
