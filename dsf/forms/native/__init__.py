"""The chunk form and the scan in C++: real gates and rank one, compiled on first use where there is g++.

`chunks.cpp` and `scan.cpp` have what Python calls and become a library each. Of the chunks, `block.h` has the
vectors and decays of sixteen steps, `forward.h` and `backward.h` the walks over them; `scan.h` has the recurrence
itself. Both stand on `walk.h`, heads over threads, `problem.h`, how tensors are handed over, and `lanes.h`, vectors,
products and transposes.
"""

from .chunks import NativeChunks as NativeChunks
from .chunks import admits as admits_chunks  # noqa: F401
from .chunks import suits as suits_chunks  # noqa: F401
from .library import is_compiled as is_compiled
from .library import missing as missing
from .library import uncompilable as uncompilable
from .scan import NativeScan as NativeScan
from .scan import admits as admits_scan  # noqa: F401
from .scan import can_join as can_join
from .scan import suits as suits_scan  # noqa: F401

CALLS = 600_000  # multiply-adds that calling compiled code costs, in the unit of `Form.operations`
