"""The one list of kernels."""

KERNELS: tuple[str, ...] = ("dsf.kernels.chunk_decay:KERNEL",)
