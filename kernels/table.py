"""The one list of kernels."""

KERNELS: tuple[str, ...] = (
    "dsf.kernels.decay.scalar:KERNEL",
    "dsf.kernels.decay.diagonal:KERNEL",
    "dsf.kernels.scans.channel:KERNEL",
    "dsf.kernels.scans.selective:KERNEL",
)
