r"""Claims about measured times of this package's kernels: they read the files that a GPU has left in the package.

A file `kernels/claims/measured/NAME.json` is what `tests/benchmarks/gpu.py --out NAME.json` writes. Where there is no
such folder these claims are `not-run` and name it; no figure stands in this module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any

from dsf.certificate import Claim, Evidence, Hypothesis, Level, Status, Task, Verdict
from dsf.codec import loads
from dsf.verify.judges import under, within

FOLDER = "dsf.kernels.claims.measured"
SCHEMA = "dsf.gpu/1"
_SCRIPT = "tests/benchmarks/gpu.py of this repository, its file in kernels/claims/measured"

Times = dict[str, tuple[int, float]]
"""Tokens and milliseconds by the name of the sizes."""


def documents() -> dict[str, Any]:
    """The measured files of the package by name; raises `ModuleNotFoundError` where there is no folder."""
    found = sorted((each for each in files(FOLDER).iterdir()), key=lambda each: each.name)
    return {each.name: loads(each.read_bytes()) for each in found if each.name.endswith(".json")}


def times(document: Mapping[str, Any], case: str, group: str, part: str) -> Times:
    """A case's times of forward, or of forward and backward ("both"), without the host where that was timed."""
    found: Times = {}
    for row in document["rows"]:
        if (row["kind"], row["case"], row.get("group")) == ("time", case, group):
            clocks = row.get(part) or {}
            ms = clocks.get("graph_ms") or clocks.get("eager_ms")
            if ms:
                found[row["sizes"]] = (int(row["tokens"]), float(ms))
    return found


def _nothing(task: Task) -> Evidence:
    return {}


def _of_a_gpu(read: Mapping[str, Any]) -> list[Hypothesis]:
    """That there are files, each of a whole run on a GPU."""
    whole = [
        name
        for name, each in read.items()
        if each.get("schema") == SCHEMA
        and each["identity"]["kind"] == "cuda"
        and not each["identity"]["quick"]
        and each.get("complete")
    ]
    return [Hypothesis("files of whole runs on a GPU", len(whole), 0 < len(whole) == len(read))]


def _numbers(
    number: Callable[..., dict[str, float]], *given: Any
) -> Callable[[Evidence], Evidence]:
    def produce(_: Evidence) -> Evidence:
        read = documents()
        return {"given": list(given), "found": {name: number(read[name], *given) for name in read}}

    return produce


def _judge(
    number: Callable[..., dict[str, float]], allowed: tuple[list[Any], ...], bound: float
) -> Callable[[Evidence], Verdict]:
    """The largest number of all files, computed again from the files that the package carries."""

    def judge(evidence: Evidence) -> Verdict:
        read, given = documents(), list(evidence["given"])

        def conclude() -> Verdict:
            if given not in allowed:
                return Verdict(Status.INCONCLUSIVE, remark="the evidence is of another question")
            own = {name: number(read[name], *given) for name in read}
            if own != evidence["found"]:
                return Verdict(
                    Status.INCONCLUSIVE, remark="the numbers are not those of the package's files"
                )
            if not all(own.values()):
                return Verdict(Status.INCONCLUSIVE, remark="a file has none of the rows")
            worst, where = max((x, f"{n}: {s}") for n, row in own.items() for s, x in row.items())
            verdict = within(worst, bound)
            devices = ", ".join(sorted({each["identity"]["device"] for each in read.values()}))
            remark = f"worst {where}; {devices}"
            return Verdict(verdict.status, verdict.measured, None, verdict.bound, remark=remark)

        return under(_of_a_gpu(read), conclude)

    return judge


def spread(document: Mapping[str, Any], power: int) -> dict[str, float]:
    """Each length's time over tokens to a power, over the least of them, from 8192 tokens on."""
    found = {}
    for part in ("forward", "both"):
        rows = times(document, "scalar decay", "long", part)
        rates = {size: ms / n**power for size, (n, ms) in rows.items() if n >= 8192}
        if len(rates) > 1:
            least = min(rates.values())
            found |= {f"{part}, {size}": rate / least for size, rate in rates.items()}
    return found


def against_softmax(document: Mapping[str, Any], part: str) -> dict[str, float]:
    """Sigmoid attention's time (of a part) over softmax attention's forward time, at every size."""
    own = times(document, "sigmoid attention", "times", part)
    other = times(document, "softmax attention", "times", "forward")
    shared = own.keys() & other.keys()
    return {size: own[size][1] / other[size][1] for size in sorted(shared)} if shared else {}


def _claim(
    slug: str,
    title: str,
    statement: str,
    number: Callable[..., dict[str, float]],
    given: Any,
    control: Any,
    bound: float,
    rule: str,
) -> Claim:
    return Claim(
        id=slug,
        title=title,
        statement=statement,
        citation=f"{_SCRIPT}; the paper's own measurement is of another kernel",
        level=Level.MEASURED,
        expected=Status.HOLDS,
        bound_rule=rule,
        instance=_nothing,
        witness=_numbers(number, given),
        control=_numbers(number, control),
        judge=_judge(number, ([given], [control]), bound),
        requires=(FOLDER,),
    )


CONSTANT_TIME = _claim(
    "qin2024-lightning.measured-time-is-constant",
    "The time of this package's scalar decay per token is flat within 10 % from 8192 tokens to a million",
    r"$\max_T \frac{t(T)}{T} \, / \, \min_T \frac{t(T)}{T} \leq 1.1$, forward, and forward and backward",
    spread,
    1,
    0,
    1.1,
    "10 % on measured times; the control does not divide by the tokens",
)
SIGMOID_IS_FASTER = _claim(
    "ramapuram2024.measured-forward-against-softmax",
    "Sigmoid attention's forward pass is not slower than softmax's of the same template, at every size",
    r"$t_{\sigma} / t_{\mathrm{softmax}} \leq 1$",
    against_softmax,
    "forward",
    "both",
    1.0,
    "measured times of one file; the control sets sigmoid's forward and backward against softmax's forward",
)
