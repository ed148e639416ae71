"""The symbolic twin: architectures run on exact expressions, and proofs that two of them are equal."""

from .prove import prove_equal as prove_equal
from .tensors import Exact as Exact
from .tensors import Untraceable as Untraceable
from .twin import Twin as Twin
from .twin import evaluate as evaluate
from .twin import unroll as unroll
