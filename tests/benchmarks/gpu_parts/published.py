"""Times that others have published, for a device on which they are not installed.

pytorch/helion, examples/fla/BENCHMARKS.md (commit fea89d2, 2026), H100, bf16: flash-linear-attention's
`linear_attn`, which has no gate, forward and forward with backward, in milliseconds and eager.
"""

from __future__ import annotations

DEVICE = "H100"
LINEAR_ATTENTION = {
    "1,8192,96,128": (0.726, 3.367),
    "2,16384,16,128": (0.609, 2.585),
    "4,2048,16,128": (0.148, 1.547),
    "4,4096,64,128": (0.950, 4.530),
    "8,2048,32,256": (1.338, 8.981),
    "8,1024,8,64": (0.137, 0.796),
}
