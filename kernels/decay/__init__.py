"""Kernels of decays in chunks: scalar and per key."""
