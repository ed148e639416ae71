"""Kernels of one step of decoding, with the state updated in place."""
