"""Theory: solvers and theorem families; every claim returns a certificate."""

if __name__ != "dsf.theory":
    raise ImportError(f"this package is dsf.theory: import it by that name, not as {__name__}")

from .svm import Infeasible as Infeasible
from .svm import Instance as Instance
from .svm import Solution as Solution
from .svm import att_svm as att_svm
from .svm import att_svm_batch as att_svm_batch
