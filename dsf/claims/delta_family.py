"""Claims about the delta rule, its gates and products, and the linear memory of Titans."""

from __future__ import annotations

from typing import Any

from .rows import Identities, difference, identity

_T = 2


def _parts() -> tuple[Any, Any, Any]:
    from . import book

    return book.vectors("q", _T), book.vectors("k", _T), book.scalars("b", _T)


def _gdn_is_kda(true: bool) -> Identities:
    import sympy

    from . import book

    q, k, beta = _parts()
    g = book.scalars("g", _T)
    shared = [sympy.exp(x) * sympy.eye(book.KEYS) for x in g]
    channels = [sympy.diag(sympy.exp(x), sympy.exp(x if true else 2 * x)) for x in g]
    return book.compare(
        book.outputs(book.delta(q, k, beta, shared)), book.outputs(book.delta(q, k, beta, channels))
    )


def _deltanet_is_gdn(true: bool) -> Identities:
    import sympy

    from . import book

    q, k, beta = _parts()
    gate = [sympy.exp(sympy.Integer(0 if true else -1)) * sympy.eye(book.KEYS)] * _T
    return book.compare(
        book.outputs(book.delta(q, k, beta)), book.outputs(book.delta(q, k, beta, gate))
    )


def _gdn_is_comba(true: bool) -> Identities:
    import sympy

    from . import book

    q, k, beta = _parts()
    gate = [sympy.exp(x) * sympy.eye(book.KEYS) for x in book.scalars("g", _T)]
    weaker = [x if true else x / 2 for x in k]
    return book.compare(
        book.outputs(book.delta(q, k, beta, gate)),
        book.outputs(book.delta(q, k, beta, gate, weaker)),
    )


def _kda_is_dplr(true: bool) -> Identities:
    """(I - β k kᵀ) diag(α) = diag(α) - β k (α ⊙ k)ᵀ; the control leaves α out of the low rank."""
    import sympy

    from . import book

    (_, (k, *_), (beta, *_)) = _parts()
    alpha = sympy.Matrix(book.scalars("a", book.KEYS))
    seen = sympy.diag(*alpha) * k if true else k
    product = book.householder(k, beta) * sympy.diag(*alpha)
    return {"transition": (product, sympy.diag(*alpha) - beta * k * seen.T)}


def _orders(true: bool) -> Identities:
    """Erase after the decay against erase before it: equal where the decay is shared by the channels."""
    import sympy

    from . import book

    (_, (k, *_), (beta, *_)) = _parts()
    a, b = book.scalars("a", 2)
    decay = sympy.diag(a, a if true else b)
    erase = book.householder(k, beta)
    return {"transition": (erase * decay, decay * erase)}


def _undecayed(true: bool) -> Identities:
    """diag(α) - β k kᵀ, which erases from the undecayed state (RWKV-7, Titans), against KDA's."""
    import sympy

    from . import book

    (_, (k, *_), (beta, *_)) = _parts()
    a = sympy.Integer(1) if true else sympy.Symbol("a", positive=True)
    decay = a * sympy.eye(book.KEYS)
    return {"transition": (decay - beta * k * k.T, book.householder(k, beta) * decay)}


def _two_steps(true: bool) -> Identities:
    """DeltaProduct's transition and writes for R = 2 against two delta steps in turn."""
    import sympy

    from . import book

    _, k, beta = _parts()
    h = sympy.Matrix(book.scalars("h", book.KEYS))
    v = book.scalars("v", 2)
    first, second = (book.householder(x, b) for x, b in zip(k, beta, strict=True))
    state = first * h + beta[0] * k[0] * v[0]
    state = second * state + beta[1] * k[1] * v[1]
    product = second * first if true else first * second
    written = second * (beta[0] * k[0]) * v[0] + beta[1] * k[1] * v[1]
    return {"state": (state, product * h + written)}


def _wy(true: bool) -> Identities:
    """Compact WY of two steps: I - Kᵀ T K with T = (I + tril(diag β K Kᵀ, -1))⁻¹ diag β."""
    import sympy

    from . import book

    _, k, beta = _parts()
    keys = sympy.Matrix.hstack(*k)
    cross = beta[1] * (k[1].T * k[0])[0]
    inverse = sympy.Matrix([[1, 0], [-cross if true else cross, 1]])
    compact = sympy.eye(book.KEYS) - keys * (inverse * sympy.diag(*beta)) * keys.T
    return {"product": (book.householder(k[1], beta[1]) * book.householder(k[0], beta[0]), compact)}


def _eigenvalues(true: bool) -> Identities:
    """Along k the factor is 1 - β‖k‖², across it 1."""
    import sympy

    from . import book

    (_, (k, *_), (beta, *_)) = _parts()
    across = sympy.Matrix([-k[1], k[0]])
    erase, length = book.householder(k, beta), (k.T * k)[0]
    return {
        "along": (erase * k, (1 - beta * (length if true else 1)) * k),
        "across": (erase * across, across),
    }


def _gradient(true: bool) -> Identities:
    """One step of gradient descent on ½ ‖hᵀk - v‖²; the control forgets the ½."""
    import sympy

    from . import book

    (_, (k, *_), (beta, *_)) = _parts()
    h = sympy.Matrix(book.scalars("h", book.KEYS))
    v = sympy.Symbol("v", real=True)
    loss = ((h.T * k)[0] - v) ** 2 / (2 if true else 1)
    slope = sympy.Matrix([sympy.diff(loss, x) for x in h])
    return {"state": (book.householder(k, beta) * h + beta * k * v, h - beta * slope)}


def _overwrite(true: bool) -> Identities:
    """A key of unit length (cos t, sin t as rational functions) with β = 1 reads back what was written last."""
    import sympy

    from . import book

    t, v = sympy.symbols("t v", real=True)
    key = sympy.Matrix([1 - t**2, 2 * t]) / (1 + t**2)
    h = sympy.Matrix(book.scalars("h", book.KEYS))
    beta = sympy.Integer(1) if true else sympy.Rational(1, 2)
    return {"read-out": ((key.T * (book.householder(key, beta) * h + beta * key * v))[0], v)}


def _repeated_key(true: bool) -> Identities:
    """Two writes under one key: the delta rule against linear attention; equal for orthogonal keys."""
    import sympy

    from . import book

    q, (k, _), beta = _parts()
    keys = [k, sympy.Matrix([-k[1], k[0]]) if true else k]
    written = [b * x for b, x in zip(beta, keys, strict=True)]
    return book.compare(
        book.outputs(book.delta(q, keys, beta)), book.outputs(book.linear(q, written))
    )


def _titans_affine(true: bool) -> Identities:
    """The gradient form, with the loss differentiated, against the stacked recurrence."""
    import sympy

    from . import book

    q, k, theta = _parts()
    eta, alpha, v = (book.scalars(name, _T) for name in ("e", "a", "v"))
    memory = momentum = sympy.zeros(book.KEYS, 1)
    found = []
    for i in range(_T):
        m = sympy.Matrix(book.scalars("m", book.KEYS))
        loss = ((m.T * k[i])[0] - v[i]) ** 2 / 2
        slope = sympy.Matrix([sympy.diff(loss, x) for x in m])
        slope = slope.subs([(m[c], memory[c]) for c in range(book.KEYS)], simultaneous=True)
        momentum = eta[i] * momentum - theta[i] * slope
        memory = (1 - alpha[i]) * memory + momentum
        found.append((q[i].T * memory)[0])
    steps = book.titans(q, k, theta, eta if true else [0, 0], alpha)
    return book.compare(found, book.outputs(steps))


def _titans(momentum: bool, forgetting: bool) -> tuple[Any, Any]:
    """Titans' outputs, and those of (1 - α) I - θ k kᵀ."""
    import sympy

    from dsf.symbolic import Step

    from . import book

    q, k, theta = _parts()
    zero = [sympy.Integer(0)] * _T
    eta = book.scalars("e", _T) if momentum else zero
    alpha = book.scalars("a", _T) if forgetting else zero
    own = book.outputs(book.titans(q, k, theta, eta, alpha))
    plain = [
        Step((1 - f) * sympy.eye(book.KEYS) - t * b * b.T, t * b, a.T)
        for a, b, t, f in zip(q, k, theta, alpha, strict=True)
    ]
    return own, book.outputs(plain)


def _titans_without_momentum(true: bool) -> Identities:
    from . import book

    return book.compare(*_titans(not true, True))


def _titans_is_deltanet(true: bool) -> Identities:
    from . import book

    q, k, theta = _parts()
    own, _ = _titans(False, not true)
    return book.compare(own, book.outputs(book.delta(q, k, theta)))


def _spectrum(true: bool) -> Identities:
    """Along a key of unit length, α = 0: λ² - (1 + η - θ) λ + η."""
    import sympy

    theta, eta, x = sympy.symbols("theta eta x", real=True)
    step = sympy.Matrix([[1 - theta, eta], [-theta, eta]])
    characteristic = sympy.expand((x * sympy.eye(2) - step).det())
    sign = -1 if true else 1
    return {"polynomial": (characteristic, x**2 + sign * (1 + eta - theta) * x + eta)}


_YANG = "Yang, Kautz, Hatamizadeh, arXiv 2412.06464, own wording"
_SCHLAG = "Schlag et al., arXiv 2102.11174, section 4.2 (delta rule), own wording"
_TITANS = "Behrouz et al., arXiv 2501.00663 (a memory of one matrix), own wording"

YANG2024 = (
    identity(
        "yang2024.gated-deltanet-is-kda",
        "Gated DeltaNet is KDA with one decay for all key channels",
        r"$\alpha_i (I - \beta_i k_i k_i^T) = (I - \beta_i k_i k_i^T) \mathrm{diag}(\alpha_i, \ldots, \alpha_i)$",
        _YANG + "; KDA: arXiv 2510.26692",
        _gdn_is_kda,
    ),
    identity(
        "yang2024.deltanet-is-gated-deltanet",
        "DeltaNet is Gated DeltaNet without decay",
        r"$\alpha_i = e^0: \quad \alpha_i (I - \beta_i k_i k_i^T) = I - \beta_i k_i k_i^T$",
        _YANG,
        _deltanet_is_gdn,
    ),
    identity(
        "yang2024.gated-deltanet-is-comba",
        "Gated DeltaNet is Comba that erases with the whole key",
        r"$p_i = k_i: \quad \alpha_i (I - \beta_i k_i p_i^T) = \alpha_i (I - \beta_i k_i k_i^T)$",
        _YANG + "; Comba: arXiv 2506.02475",
        _gdn_is_comba,
    ),
    identity(
        "yang2024.kda-is-diagonal-plus-rank-one",
        "KDA's transition is diagonal plus rank one",
        r"$(I - \beta k k^T) \mathrm{diag}(\alpha) = \mathrm{diag}(\alpha) - \beta k (\alpha \odot k)^T$",
        "Kimi team, arXiv 2510.26692, own wording",
        _kda_is_dplr,
    ),
    difference(
        "yang2024.decay-and-erase-commute",
        "A decay per channel and the erasing of a key do not commute",
        r"$(I - \beta k k^T) \mathrm{diag}(\alpha) = \mathrm{diag}(\alpha) (I - \beta k k^T)$",
        "Kimi team, arXiv 2510.26692, own wording",
        _orders,
    ),
    difference(
        "yang2024.erasing-the-undecayed-is-erasing-the-decayed",
        "Erasing from the undecayed state is not the gated delta rule",
        r"$\alpha I - \beta k k^T = \alpha (I - \beta k k^T)$",
        "RWKV-7 (arXiv 2503.14456) and Titans against arXiv 2412.06464, own wording",
        _undecayed,
    ),
    identity(
        "yang2024.delta-product-is-delta-steps",
        "DeltaProduct with two keys per token is two delta steps in turn",
        r"$H_2 H_1 h + H_2 \beta_1 k_1 v_1^T + \beta_2 k_2 v_2^T = "
        r"H_2 (H_1 h + \beta_1 k_1 v_1^T) + \beta_2 k_2 v_2^T$",
        "Siems et al., arXiv 2502.10297, own wording",
        _two_steps,
    ),
    identity(
        "yang2024.compact-wy",
        "A product of Householder steps has a compact WY form",
        r"$(I - \beta_2 k_2 k_2^T)(I - \beta_1 k_1 k_1^T) = I - K^T T K, \quad "
        r"T = (I + \mathrm{tril}(\mathrm{diag}(\beta) K K^T, -1))^{-1} \mathrm{diag}(\beta)$",
        "Yang et al., arXiv 2406.06484 (parallel form), own wording",
        _wy,
    ),
)

SCHLAG2021 = (
    identity(
        "schlag2021.eigenvalues",
        "The delta rule shrinks along its key by 1 - β‖k‖² and nowhere else",
        r"$(I - \beta k k^T) k = (1 - \beta \|k\|^2) k, \quad (I - \beta k k^T) w = w$ for $w \perp k$",
        _SCHLAG,
        _eigenvalues,
    ),
    identity(
        "schlag2021.delta-rule-is-a-gradient-step",
        "The delta rule is a gradient step on half the squared error",
        r"$(I - \beta k k^T) h + \beta k v^T = h - \beta \nabla_h \frac{1}{2} \|h^T k - v\|^2$",
        _SCHLAG,
        _gradient,
    ),
    identity(
        "schlag2021.delta-rule-overwrites",
        "With strength one and a key of unit length the last value is read back exactly",
        r"$k^T ((I - k k^T) h + k v^T) = v^T$ where $\|k\| = 1$",
        _SCHLAG,
        _overwrite,
    ),
    difference(
        "schlag2021.repeated-keys-add-up",
        "Under a repeated key the delta rule is not linear attention",
        r"$(I - \beta_2 k k^T) \beta_1 k v_1^T + \beta_2 k v_2^T = \beta_1 k v_1^T + \beta_2 k v_2^T$",
        _SCHLAG,
        _repeated_key,
    ),
)

BEHROUZ2025 = (
    identity(
        "behrouz2025.linear-memory-is-affine",
        "Titans with a linear memory is an affine recurrence of memory and momentum",
        r"$[M; S]_i = \Lambda_i [M; S]_{i-1} + \theta_i [k_i; k_i] v_i^T, \quad \Lambda_i = "
        r"[[(1 - \alpha_i) I, \eta_i I], [0, \eta_i I]] - \theta_i [k_i; k_i] [k_i; 0]^T$",
        _TITANS,
        _titans_affine,
    ),
    identity(
        "behrouz2025.without-momentum",
        "Titans without momentum is a decay minus a rank-one term",
        r"$\eta_i = 0: \quad M_i = ((1 - \alpha_i) I - \theta_i k_i k_i^T) M_{i-1} + \theta_i k_i v_i^T$",
        _TITANS,
        _titans_without_momentum,
    ),
    difference(
        "behrouz2025.momentum-needs-a-state",
        "Titans with momentum is not that recurrence of the memory alone",
        r"$\eta_i \neq 0: \quad M_i = ((1 - \alpha_i) I - \theta_i k_i k_i^T) M_{i-1} + \theta_i k_i v_i^T$",
        _TITANS,
        _titans_without_momentum,
    ),
    identity(
        "behrouz2025.without-momentum-and-forgetting",
        "Titans without momentum and forgetting is DeltaNet",
        r"$\eta_i = \alpha_i = 0: \quad M_i = (I - \theta_i k_i k_i^T) M_{i-1} + \theta_i k_i v_i^T$",
        _TITANS,
        _titans_is_deltanet,
    ),
    identity(
        "behrouz2025.spectrum",
        "Along a key of unit length Titans is a damped oscillator",
        r"$\det(x I - \Lambda) = x^2 - (1 + \eta - \theta) x + \eta$ for $\alpha = 0, \|k\| = 1$",
        _TITANS,
        _spectrum,
    ),
)
