"""Kernels of attention in tiles: softmax, sigmoid and softplus, and neighborhoods of several axes."""
