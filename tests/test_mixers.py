"""The mixer protocol: every law over very different mixers, and over every architecture."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import pytest
import torch
from lawbook import mixers
from lawbook.mixers import B, H, T, V

from dsf.errors import InvalidInput, Refusal
from dsf.mixers import (
    ARCHITECTURES,
    EVERYTHING,
    Architecture,
    Band,
    DepthwiseConvolution,
    Draw,
    Recurrence,
    SigmoidAttention,
    SoftmaxAttention,
    agent_attention,
    flow_attention,
    inline_attention,
    moving_taps,
)
from dsf.mixers.recurrence import Backward
from dsf.numerics import require_within
from dsf.registry import resolve
from dsf.system import System

ROW_SUMS = {"rwkv4": 1.0}  # weights that are divided before they become gates


def of_architecture(architecture: Architecture) -> mixers.Row:
    """Its sample as a row; a time-invariant system is given its length."""

    def draw(generator):
        return dict(sample(generator).quantities)

    def sample(generator):
        return architecture.sample(Draw(generator, B, T, H, 4, V))

    def build(**quantities):
        system = architecture.build(**quantities)
        timed = system if system.length is not None else system.expand(T)
        return Recurrence(timed, rows=ROW_SUMS.get(architecture.name))

    drawn = sample(torch.Generator().manual_seed(0))
    timed = tuple(n for n, x in drawn.quantities.items() if x.ndim > 2 and x.shape[:2] == (B, T))
    tokens = tuple(drawn.tokens.shape[3:])
    return mixers.Row(architecture.name, build, draw, tokens=tokens, timed=timed)


ROWS = [*mixers.ROWS, *(of_architecture(resolve(reference)) for reference in ARCHITECTURES)]


@pytest.mark.parametrize("law", mixers.LAWS)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name.replace(" ", "-"))
def test_law(row: mixers.Row, law: str) -> None:
    mixers.LAWS[law](row)


# -- a mixer that is not linear, and one planted bug per law -------------------------------------------


@dataclass(frozen=True, eq=False)
class RunningMaximum(SigmoidAttention):
    """The largest value so far: no Φ, no system."""

    def __call__(self, values):
        return values.cummax(1).values

    def matrix(self):
        return Refusal("running maximum", "a maximum is not linear in the values.")

    def system(self):
        return Refusal("running maximum", "it is not linear in the values.")

    @property
    def linear_in_values(self):
        return False


MAXIMUM = mixers.Row("maximum", lambda q, k: RunningMaximum(q, k), mixers.queries_and_keys)


@pytest.mark.parametrize("law", ("system", "causality", "batch", "linearity"))
def test_a_mixer_without_a_matrix_passes_what_applies_to_it(law: str) -> None:
    mixers.LAWS[law](MAXIMUM)


NAMED = {row.name: row for row in ROWS}
says = property


def lying(row: str, **lies) -> mixers.Row:
    """A row whose mixers have some methods replaced."""
    honest = NAMED[row].build

    def build(**quantities):
        mixer = honest(**quantities)
        made = type("Lying", (type(mixer),), lies)
        return made(**{f.name: getattr(mixer, f.name) for f in fields(mixer)})

    return replace(NAMED[row], build=build)


def late(self):
    return moving_taps(Recurrence(SoftmaxAttention.system(self)).matrix().movedim(1, 2)[..., :4])


def leaking(self, values):
    return SoftmaxAttention.__call__(self, values) + 1e-9 * values.mean(0)


def bent(self, values):
    return SoftmaxAttention.__call__(self, values) + 1e-9 * values**2


def acausal(self, values):
    return SoftmaxAttention.__call__(self, values) + 1e-9 * values.flip(1)


def one_less(self, length):
    return type(self).__mro__[1].state_size(self, length) - 1


def one_more(self, length, values):
    return type(self).__mro__[1].multiply_adds(self, length, values) + 1


def more_bytes(self, length, values, width=4):
    return type(self).__mro__[1].moved_bytes(self, length, values, width) + width


def more_kept(self, length, values, width=4):
    return type(self).__mro__[1].state_bytes(self, length, values, width) + width


BUGS = [
    ("matrix", lying("softmax", matrix=lambda self: self.weights().roll(1, 1))),
    ("matrix", lying("sigmoid", weights=lambda self: SigmoidAttention.weights(self) * (1 + 1e-10))),
    ("system", lying("softmax in a window", system=late)),
    ("rank", lying("softmax in a window", state_size=one_less)),
    ("rank", lying("agent", state_size=one_less)),
    ("rank", lying("gla", state_size=one_less)),
    ("rank", lying("lru", state_size=lambda self, length: self.of.key_size)),
    ("rank", lying("flow", state_size=one_less)),
    ("causality", lying("softmax", __call__=acausal)),
    ("causality", lying("softmax", causal=says(lambda self: False))),
    ("causality", lying("agent", causal=says(lambda self: True))),
    ("gates", lying("softmax around", gate_looks_ahead=says(lambda self: False))),
    ("gates", lying("sigmoid over all", gate_looks_ahead=says(lambda self: True))),
    ("gates", lying("flow", gate_looks_ahead=says(lambda self: False))),
    ("batch", lying("softmax", __call__=leaking)),
    ("rows", lying("sigmoid", row_sum=says(lambda self: 1.0))),
    ("rows", lying("inline", row_sum=says(lambda self: None))),
    ("linearity", lying("softmax", __call__=bent)),
    ("linearity", lying("softmax", linear_in_values=says(lambda self: False))),
    ("adjoint", lying("softmax", adjoint=lambda self: self)),
    ("adjoint", lying("ssd", adjoint=lambda self: Backward(self, self.of))),
    ("counters", lying("softmax", multiply_adds=one_more)),
    ("counters", lying("agent", multiply_adds=one_more)),
    ("counters", lying("kda", multiply_adds=one_more)),
    ("counters", lying("convolution", band=says(lambda self: Band(4, 0)))),
    ("bytes", lying("softmax", moved_bytes=more_bytes)),
    ("bytes", lying("s6", moved_bytes=more_bytes)),
    ("bytes", lying("mlstm", state_bytes=more_kept)),
]


@pytest.mark.parametrize(("law", "row"), BUGS, ids=lambda x: getattr(x, "name", x))
def test_laws_catch_planted_bugs(law: str, row: mixers.Row) -> None:
    with pytest.raises(AssertionError):
        mixers.LAWS[law](row)


def test_every_law_has_a_planted_bug() -> None:
    assert {law for law, _ in BUGS} == set(mixers.LAWS)


# -- what only one of them promises --------------------------------------------------------------------


def queries(length: int = 12, keys: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return tuple(torch.randn(2, 1, length, 1, keys, generator=generator, dtype=torch.float64))


def test_flows_are_conserved_where_nothing_is_added() -> None:
    """Φ without competition and allocation sums to 1 over sources and, per source, over sinks."""
    q, k = queries()
    sinks, sources = q.sigmoid()[0, :, 0], k.sigmoid()[0, :, 0]
    weights = sinks @ sources.T
    entering, leaving = weights.sum(1), weights.sum(0)
    system = flow_attention(q, k, eps=0.0).system()
    kept = (weights / leaving).sum(1).sigmoid() / entering
    asked = system.read.weights[0, :, 0] / sinks
    bound = torch.tensor(64 * 12 * torch.finfo(torch.float64).eps)
    require_within(asked, kept[:, None].expand_as(asked), bound, "allocation")
    total = (weights / leaving).sum()
    require_within(total, torch.tensor(12.0, dtype=torch.float64), 12 * bound, "conserved")
    competition = (system.write.weights[0, :, 0] / sources)[:, 0].sum()
    require_within(competition, torch.tensor(12.0, dtype=torch.float64), 12 * bound, "competition")


def test_a_bounded_band_is_a_system_and_others_say_why_not() -> None:
    q, k = queries()
    assert isinstance(SoftmaxAttention(q, k, Band(3, 0)).system(), System)
    for band, word in ((Band(None, 0), "infinite"), (EVERYTHING, "later"), (Band(3, 1), "later")):
        refusal = SoftmaxAttention(q, k, band).system()
        assert isinstance(refusal, Refusal) and word in refusal.reason
    with pytest.raises(InvalidInput, match="later tokens"):
        SoftmaxAttention(q, k, EVERYTHING).continued(torch.zeros(1, 12, 1, 2), None)


def test_inline_attention_tells_lengths_of_queries_apart() -> None:
    """Reference 2412.06590: q and 2q get other weights; for keys that are all alike they do not."""
    q, k = queries()
    apart = inline_attention(q, k).matrix() - inline_attention(2 * q, k).matrix()
    assert float(apart.abs().max()) > 1 / 12
    same = torch.ones_like(k)
    assert torch.equal(inline_attention(q, same).matrix(), inline_attention(2 * q, same).matrix())


@pytest.mark.parametrize(
    "wrong",
    [
        lambda q, k: SoftmaxAttention(q, k[:, 1:]),
        lambda q, k: agent_attention(q, k, 5),
        lambda q, k: DepthwiseConvolution(torch.zeros(2, 0, 3), 4),
        lambda q, k: DepthwiseConvolution(torch.zeros(2, 1, 3), -1),
        lambda q, k: Band(-2, 1),
        lambda q, k: Band(1, 1).blocks(4, (0, 2)),
        lambda q, k: moving_taps(q[0]),
    ],
)
def test_bad_input_is_refused_at_construction(wrong) -> None:
    with pytest.raises(InvalidInput):
        wrong(*queries())
