"""What a system remembers, and how small it can be.

| question                                     | function                                  |
|----------------------------------------------|-------------------------------------------|
| how many states does this map need?          | `hankel`, `minimal_realization`           |
| how small a recurrence is within 1 %?        | `smallest_recurrence`                     |
| what is the best of n states?                | `reduce`                                  |
| which states are reached, which are seen?    | `gramians`                                |
| how far back does it reach, how fast forget? | `memory`, `gate_half_life`                |
| what do its transitions do?                  | `spectrum`, `lyapunov_spectrum`           |

All take a `System`, or mixing matrices Φ (…, T, T) where no state is asked about, compute in float64
over all heads, and give numpy arrays with the heads in front. `dsf.analysis.plots` draws them.
"""

from .eigenvalues import Spectrum as Spectrum
from .eigenvalues import spectrum as spectrum
from .exact import ExactRealization as ExactRealization
from .exact import exact_realization as exact_realization
from .hankel_blocks import Gramians as Gramians
from .hankel_blocks import Hankel as Hankel
from .hankel_blocks import gramians as gramians
from .hankel_blocks import hankel as hankel
from .hankel_blocks import hankel_block as hankel_block
from .lyapunov import Lyapunov as Lyapunov
from .lyapunov import lyapunov_spectrum as lyapunov_spectrum
from .reach import Memory as Memory
from .reach import gate_half_life as gate_half_life
from .reach import memory as memory
from .realization import Heads as Heads
from .realization import Realization as Realization
from .realization import realize as realize
from .realization import system_of as system_of
from .reduction import Reduction as Reduction
from .reduction import minimal_realization as minimal_realization
from .reduction import reduce as reduce
from .reduction import smallest_recurrence as smallest_recurrence
