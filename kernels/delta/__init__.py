"""Kernels of the delta family: diagonal decays and rank-one corrections, in chunks."""
