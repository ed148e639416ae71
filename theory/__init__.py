"""Theory: solvers and theorem families; every claim returns a certificate."""

if __name__ != "dsf.theory":
    raise ImportError(f"this package is dsf.theory: import it by that name, not as {__name__}")
