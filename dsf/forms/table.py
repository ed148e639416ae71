"""The one list of forms."""

FORMS: tuple[str, ...] = (
    "dsf.forms.recurrent:Recurrent",
    "dsf.forms.scan:Scan",
    "dsf.forms.chunkwise:Chunkwise",
    "dsf.forms.convolution:Convolution",
    "dsf.forms.matrix:Matrix",
    "dsf.kernels.decay.scalar_form:ScalarDecay",
    "dsf.kernels.decay.diagonal_form:DiagonalDecay",
    "dsf.kernels.delta.form:Delta",
    "dsf.kernels.scans.channel_form:GatedScan",
    "dsf.kernels.scans.selective_form:SelectiveScan",
)
