"""The one list of architectures."""

ARCHITECTURES: tuple[str, ...] = (
    "dsf.mixers.linear_attention:LINEAR_ATTENTION",
    "dsf.mixers.retnet:RETNET",
    "dsf.mixers.s6:S6",
    "dsf.mixers.s4d:S4D",
    "dsf.mixers.gated_deltanet:GATED_DELTANET",
    "dsf.mixers.mlstm:MLSTM",
)
