"""Hard-margin SVMs of attention: instances, solvers of three norms, and certificates."""

from .constructors import causal as causal
from .constructors import finite_part as finite_part
from .constructors import kept_sets as kept_sets
from .constructors import self_attention as self_attention
from .constructors import token_graph as token_graph
from .exact import Enclosure as Enclosure
from .exact import enclose as enclose
from .exact import refute as refute
from .infeasible import Infeasible as Infeasible
from .instance import Instance as Instance
from .solution import Solution as Solution
from .solve import att_svm as att_svm
from .solve import att_svm_batch as att_svm_batch
from .verification import Verification as Verification
from .verification import verify as verify
