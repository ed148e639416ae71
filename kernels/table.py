"""The one list of kernels."""

KERNELS: tuple[str, ...] = (
    "dsf.kernels.chunk_decay:KERNEL",
    "dsf.kernels.channel_scan:KERNEL",
    "dsf.kernels.selective:KERNEL",
)
