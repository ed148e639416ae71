"""Hard-margin SVMs of attention: instances, solvers of three norms, and certificates."""

from .infeasible import Infeasible as Infeasible
from .instance import Instance as Instance
from .solution import Solution as Solution
from .solve import att_svm as att_svm
from .solve import att_svm_batch as att_svm_batch
from .verification import Verification as Verification
