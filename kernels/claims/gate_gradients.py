r"""The gradient of log-decays from those of reads and writes, without a product of matrices of its own.

Every path from a write before t to a read after it passes through the decay g_t. Reads from t on count all paths
to them, writes from t on those that do not pass, and ⟨dS_T, S_T⟩ the paths to the last state.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from dsf.claims.rows import Identities, difference, identity

_YANG = "Yang et al., arXiv 2312.06635 (gradient of the log-gates), own wording"
_STEPS, _KEYS, _VALUES = 3, 2, 1


@cache
def _parts(per_key: bool) -> tuple[Any, ...]:
    """Per step and key: the gradient of the log-decay, q ∘ dq, k ∘ dk and the last state's share."""
    from .symbols import Symbols, gradient, hadamard, matrix, pairing

    x = Symbols.of(_STEPS, _KEYS, _VALUES, per_key=per_key)
    outputs, last = x.run()
    up, end = matrix("y", *outputs.shape), matrix("z", *last.shape)
    loss = pairing(up, outputs) + pairing(end, last)
    gates = x.a if per_key else x.a[:, 0]
    logs = hadamard(gates, gradient(loss, gates))
    reads, writes = (hadamard(s, gradient(loss, s)) for s in (x.q, x.k))
    final = hadamard(end, last)
    return logs, reads, writes, [sum(final.row(key)) for key in range(_KEYS)]


def _compare(
    per_key: bool, rule: Callable[[Any, Any, int, int, Any], Any]
) -> dict[str, tuple[Any, Any]]:
    """The gradient of each log-decay against the rule for one key, summed over keys where they share it."""
    logs, reads, writes, final = _parts(per_key)
    found = {}
    for t in range(_STEPS):
        of_keys = [rule(reads, writes, t, key, final[key]) for key in range(_KEYS)]
        for key, right in enumerate(of_keys if per_key else [sum(of_keys)]):
            found[f"dg{t + 1}" + (f", key {key + 1}" if per_key else "")] = (logs[t, key], right)
    return found


def _later(reads: Any, writes: Any, t: int, key: int, final: Any) -> Any:
    return sum(reads[s, key] - writes[s, key] for s in range(t, _STEPS)) + final


def _strictly_later(reads: Any, writes: Any, t: int, key: int, final: Any) -> Any:
    return sum(reads[s, key] - writes[s, key] for s in range(t + 1, _STEPS)) + final


def _without_last_state(reads: Any, writes: Any, t: int, key: int, final: Any) -> Any:
    return sum(reads[s, key] - writes[s, key] for s in range(t, _STEPS))


@cache
def _scalar(true: bool) -> Identities:
    return _compare(False, _later if true else _strictly_later)


@cache
def _per_key(true: bool) -> Identities:
    return _compare(True, _later if true else _strictly_later)


@cache
def _last_state(true: bool) -> Identities:
    return _compare(False, _later if true else _without_last_state)


@cache
def _summed_keys(true: bool) -> Identities:
    """Decays of their own, but the gradient summed over keys, as if they shared one."""
    logs, reads, writes, final = _parts(True)
    found = {}
    for t in range(_STEPS):
        of_keys = [_later(reads, writes, t, key, final[key]) for key in range(_KEYS)]
        for key in range(_KEYS):
            found[f"dg{t + 1}, key {key + 1}"] = (
                logs[t, key],
                of_keys[key] if true else sum(of_keys),
            )
    return found


@cache
def _first_without_state(true: bool) -> Identities:
    """From the empty state the first decay multiplies nothing; the control starts from a state."""
    _, reads, writes, final = _parts(False)
    first: Any = sum(_later(reads, writes, 0, key, final[key]) for key in range(_KEYS))
    if true:
        first = first.subs([(s, 0) for s in first.free_symbols if s.name.startswith("s")])
    return {"dg1": (first, 0 * first)}


_FORM = r"\sum_{s \geq t} (\langle q_s, dq_s \rangle - \langle k_s, dk_s \rangle)"
_BUDGET = f"exact algebra over free symbols: {_STEPS} steps, {_KEYS} keys, free loss"

SYMBOLIC = (
    identity(
        "yang2023.gate-gradient",
        "The gradient of a log-decay is a sum over later steps of what reads and writes have already",
        rf"$dg_t = {_FORM} + \langle dS_T, S_T \rangle$ for $S_t = e^{{g_t}} S_{{t-1}} + k_t v_t^T$",
        f"{_YANG}; with one decay a step as in simple GLA, and a last state that is read",
        _scalar,
        rule=f"{_BUDGET}; the control sums over strictly later steps",
    ),
    identity(
        "yang2023.gate-gradient-per-key",
        "The same for a decay per key, without the sum over keys",
        r"$dg_t = \sum_{s \geq t} (q_s \odot dq_s - k_s \odot dk_s) + \mathrm{rowsum}(dS_T \odot S_T)$",
        _YANG,
        _per_key,
        rule=f"{_BUDGET}; the control sums over strictly later steps",
    ),
    difference(
        "yang2023.gate-gradient-without-the-last-state",
        "Without the last state's share the gradient of a log-decay is wrong where that state is read",
        rf"$dg_t = {_FORM}$ where $dS_T \neq 0$",
        f"{_YANG}: a term that is needed where sequences go on",
        _last_state,
    ),
    difference(
        "yang2023.gate-gradient-of-shared-keys-for-each",
        "Summed over keys the rule is not the gradient of decays that keys have of their own",
        rf"$dg_{{t,d}} = {_FORM} + \langle dS_T, S_T \rangle$ for every key $d$",
        f"{_YANG}: where the scalar rule stops",
        _summed_keys,
    ),
    identity(
        "yang2023.first-gate-has-no-gradient",
        "From the empty state the first log-decay has no gradient: all its terms cancel",
        r"$S_0 = 0: \quad \sum_{s \geq 1} (\langle q_s, dq_s \rangle - \langle k_s, dk_s \rangle) "
        r"+ \langle dS_T, S_T \rangle = 0$",
        f"{_YANG}; a consequence: outputs are linear in queries and in writes",
        _first_without_state,
        rule=f"{_BUDGET}; the control starts from a state",
    ),
)
