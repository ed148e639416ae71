"""Kernels of first-order scans: a gate per channel, and the selective scan of S6."""
