"""Oracles for the simulator of Generalized Neighborhood Attention."""
