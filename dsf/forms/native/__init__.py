"""The chunk form in C++: real gates and rank one, compiled on first use where there is g++.

`chunks.cpp` has what Python calls, `block.h` the vectors and decays of sixteen steps, `forward.h` and `backward.h` the
walks over them, `lanes.h` the products, `problem.h` how tensors are handed over.
"""

from .library import missing as missing
from .step import NativeChunks as NativeChunks
from .step import admits as admits
