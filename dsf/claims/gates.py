r"""T5, T7, T9: what the gates of S6 are, exactly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dsf.certificate import Claim, Level, Status
from dsf.verify.judges import symbolic_identity

Identities = Mapping[str, tuple[Any, Any]]


def _symbols() -> tuple[Any, Any, Any]:
    import sympy

    a, z = sympy.Symbol("a", positive=True), sympy.Symbol("z", real=True)
    return a, z, sympy.log(1 + sympy.exp(z))


def _reversed_sigmoid(power: int) -> Identities:
    import sympy

    a, z, softplus = _symbols()
    reversed_sigmoid = 1 / (1 + sympy.exp(z))  # σ(-z)
    return {"gate": (sympy.exp(-a * softplus), reversed_sigmoid ** (power * a))}


_t5 = symbolic_identity(lambda: _reversed_sigmoid(1), lambda: _reversed_sigmoid(2))

REVERSED_SIGMOID = Claim(
    id="sieber2024.t5-reversed-sigmoid",
    title="The transition of scalar S6 is a power of a reversed sigmoid",
    statement=r"$\exp(-a\,\mathrm{softplus}(z)) = \sigma(-z)^a$",
    citation="Sieber et al., arXiv 2405.15731v3, section 4 (S6 against gated RNNs), own wording",
    level=Level.SYMBOLIC,
    expected=Status.HOLDS,
    bound_rule="exact algebra, a > 0 and z real",
    instance=_t5.instance,
    witness=_t5.witness,
    control=_t5.control,
    judge=_t5.judge,
)


def _gru(state: int) -> Identities:
    """Zero-order hold of h' = A h + B u with A = -1, B = 1 and Δ = softplus(z), N = 1."""
    import sympy

    _, z, step = _symbols()
    A, B = -sympy.Integer(state), sympy.Integer(1)
    transition, write = sympy.exp(step * A), (sympy.exp(step * A) - 1) / A * B
    g = 1 / (1 + sympy.exp(-z))
    return {"transition": (transition, 1 - g), "write": (write, g)}


_t9 = symbolic_identity(lambda: _gru(1), lambda: _gru(2))

GRU_GATE = Claim(
    id="sieber2024.t9-gru-gate",
    title="S6 with one state, A = -1 and exact zero-order hold is the GRU gate",
    statement=(
        r"$e^{\Delta A} = 1 - g, \quad \frac{e^{\Delta A} - 1}{A} B = g, \quad "
        r"g = \sigma(z), \; \Delta = \mathrm{softplus}(z)$"
    ),
    citation="Gu and Dao, arXiv 2312.00752, theorem 1; in the framework of arXiv 2405.15731v3, section 4",
    level=Level.SYMBOLIC,
    expected=Status.HOLDS,
    bound_rule="exact algebra, z real",
    instance=_t9.instance,
    witness=_t9.witness,
    control=_t9.control,
    judge=_t9.judge,
)


def _coupling(independent: bool) -> Identities:
    """S6's Λ is a function of its B; a gate of its own would need a second argument."""
    import sympy

    a, z, step = _symbols()
    b = sympy.Symbol("b", positive=True)
    other = sympy.Symbol("w", real=True)
    transition = sympy.exp(-a * (sympy.log(1 + sympy.exp(other)) if independent else step))
    write = step * b
    g = 1 / (1 + sympy.exp(-z))
    return {
        "forget from write": (transition, sympy.exp(-a * write / b)),
        "slope of the write": (sympy.diff(write, z), g * b),
        "slope of the transition": (
            sympy.diff(sympy.exp(-a * step), z),
            -a * g * sympy.exp(-a * step),
        ),
    }


_t7 = symbolic_identity(lambda: _coupling(False), lambda: _coupling(True))

TIED_GATES = Claim(
    id="sieber2024.t7-tied-gates",
    title="S6 ties forgetting and writing through one step size",
    statement=(
        r"$\Lambda = \exp(-a B / b), \quad \partial_z B = \sigma(z)\, b, \quad "
        r"\partial_z \Lambda = -a\, \sigma(z)\, \Lambda$"
    ),
    citation="Sieber et al., arXiv 2405.15731v3, section 4 (parameter coupling), own wording",
    level=Level.SYMBOLIC,
    expected=Status.HOLDS,
    bound_rule="exact algebra, a > 0, b > 0 and z real",
    instance=_t7.instance,
    witness=_t7.witness,
    control=_t7.control,
    judge=_t7.judge,
)
