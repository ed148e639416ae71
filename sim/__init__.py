"""Generalized neighborhood attention, simulated: geometry, exact counts, cost, search."""

if __name__ != "dsf.sim":
    raise ImportError(f"this package is dsf.sim: import it by that name, not as {__name__}")
