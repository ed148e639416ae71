"""The one list of kernels."""

KERNELS: tuple[str, ...] = (
    "dsf.kernels.decay.scalar:KERNEL",
    "dsf.kernels.decay.diagonal:KERNEL",
    "dsf.kernels.delta.contract:KERNEL",
    "dsf.kernels.scans.channel:KERNEL",
    "dsf.kernels.scans.selective:KERNEL",
    "dsf.kernels.scans.elementwise:KERNEL",
    "dsf.kernels.attention.flash:SOFTMAX",
    "dsf.kernels.attention.flash:SIGMOID",
    "dsf.kernels.attention.flash:SOFTPLUS",
    "dsf.kernels.attention.flash:NEIGHBORHOOD",
    "dsf.kernels.steps.matrix:KERNEL",
    "dsf.kernels.steps.vector:SCAN_STEP",
    "dsf.kernels.steps.vector:SELECTIVE_STEP",
)
