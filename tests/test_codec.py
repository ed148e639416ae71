"""Round trips: what goes into the codec comes out, through bytes, inline and through a store."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st

from dsf.certificate import Status
from dsf.codec import (
    ArrayStore,
    CodecError,
    canonical,
    decode,
    digest,
    dumps,
    encode,
    externalise,
    internalise,
    loads,
    write_atomically,
)

DTYPES = [
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float32", "float64", "complex64", "complex128"),
]
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**200), 2**200),
    st.floats(allow_nan=False, allow_infinity=False),
    texts,
    st.fractions(),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(texts.filter(lambda key: not key.startswith("$")), inner, max_size=4),
    ),
    max_leaves=20,
)

x, y = sympy.Symbol("x", real=True), sympy.Symbol("y", positive=True)
z, n = sympy.Symbol("z"), sympy.Symbol("n", integer=True, nonnegative=True)


def _powers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    exponents = st.sampled_from([sympy.Integer(-2), sympy.Integer(3), sympy.Rational(1, 2)])
    return st.builds(sympy.Pow, inner, exponents)


trees = st.recursive(
    st.one_of(
        st.sampled_from([x, y, z, n, sympy.pi, sympy.E, sympy.I]),
        st.integers(-(2**60), 2**60).map(sympy.Integer),
        st.fractions(max_denominator=50).map(lambda f: sympy.Rational(f.numerator, f.denominator)),
    ),
    lambda inner: st.one_of(
        st.builds(sympy.Add, inner, inner),
        st.builds(sympy.Mul, inner, inner),
        _powers(inner),
        st.builds(lambda e: sympy.exp(e, evaluate=False), inner),
        st.builds(lambda e: sympy.log(e, evaluate=False), inner),
        st.builds(lambda e: sympy.tanh(e, evaluate=False), inner),
    ),
    max_leaves=6,
).filter(lambda e: not e.has(sympy.zoo, sympy.nan, sympy.oo))


def through_bytes(value: Any) -> Any:
    return decode(loads(canonical(encode(value))))


def same(left: Any, right: Any) -> None:
    """Raise unless equal in value, in type and in the sign of zeros."""
    assert type(left) is type(right)
    if isinstance(left, list):
        assert len(left) == len(right)
        for a, b in zip(left, right, strict=True):
            same(a, b)
    elif isinstance(left, dict):
        assert left.keys() == right.keys()
        for key in left:
            same(left[key], right[key])
    elif isinstance(left, float):
        assert left == right and math.copysign(1, left) == math.copysign(1, right)
    else:
        assert left == right


@given(values)
def test_values_survive_the_bytes(value: Any) -> None:
    same(through_bytes(value), value)


@given(values, values)
def test_canonical_bytes_are_equal_exactly_where_values_are(left: Any, right: Any) -> None:
    try:
        same(left, right)
        equal = True
    except AssertionError:
        equal = False
    assert (canonical(encode(left)) == canonical(encode(right))) is equal


@given(values)
def test_reading_and_writing_again_gives_the_same_bytes(value: Any) -> None:
    written = canonical(encode(value))
    assert canonical(loads(written)) == written
    assert canonical(loads(dumps(encode(value)))) == written


@given(trees)
def test_symbolic_trees_survive_the_bytes(tree: Any) -> None:
    try:
        encoded = encode(tree)
        found = decode(loads(canonical(encoded)))
    except CodecError as refused:  # the guards against what evaluation would write out
        assert "bits" in refused.what or "deeper" in refused.what
        return
    assert encode(found) == encoded
    assert found == tree


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), (2, 0, 3)])
def test_arrays_survive_the_bytes(name: str, shape: tuple[int, ...]) -> None:
    drawn = np.random.default_rng(5).integers(0, 2 if name == "bool" else 100, shape)
    array = np.asarray(drawn).astype(name)
    found = through_bytes({"a": array})["a"]
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    assert found.tobytes() == array.tobytes()
    assert not found.flags.writeable and found.flags.c_contiguous


@pytest.mark.parametrize("make", ["big-endian", "fortran", "strided"])
def test_arrays_in_other_layouts_have_the_same_encoding(make: str) -> None:
    plain = np.arange(12.0).reshape(3, 4)
    other = {
        "big-endian": plain.astype(">f8"),
        "fortran": np.asfortranarray(plain),
        "strided": np.repeat(plain, 2, axis=1)[:, ::2],
    }[make]
    assert encode(other) == encode(plain)


def test_arrays_keep_nan_infinities_and_the_sign_of_zero() -> None:
    array = np.array([np.nan, np.inf, -np.inf, -0.0])
    assert through_bytes(array).tobytes() == array.tobytes()


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        (np.float32(0.5), 0.5),
        (np.float64(-0.0), -0.0),
        (np.int8(-3), -3),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.bool_(True), True),
        ((1, 2), [1, 2]),
        (Status.HOLDS, "holds"),
        (sympy.Matrix([[x, 1], [z, n]]), sympy.ImmutableDenseMatrix([[x, 1], [z, n]])),
    ],
)
def test_values_of_other_types_become_plain(given: Any, plain: Any) -> None:
    same(through_bytes(given), plain)


def test_symbols_keep_their_assumptions() -> None:
    for symbol in (x, y, z, n, sympy.Symbol("c", commutative=False)):
        assert through_bytes(symbol).assumptions0 == symbol.assumptions0
    assert encode(y) != encode(sympy.Symbol("y", real=True))


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("-inf"),
        1j,
        b"bytes",
        {1, 2},
        object(),
        {1: "key"},
        {"$int": "reserved"},
        "\ud800",
        np.array(["text"]),
        np.array([None]),
        np.zeros(2, "f2"),
        np.ma.masked_array([1.0]),
        np.zeros(2, [("a", "f8")]),
        1 << 2**20,
        Fraction(1, 1 << 2**20),
        sympy.Function("f")(x),
        sympy.Symbol("not a name"),
        sympy.Dummy("x"),
        sympy.Float(0.5),
        sympy.oo,
        sympy.nan,
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_outside_the_list_are_refused_with_their_place(value: Any) -> None:
    with pytest.raises(CodecError) as refused:
        encode({"outer": [0, value]})
    assert refused.value.pointer.startswith("/outer/1")


def test_evidence_too_deep_for_a_file_is_refused_when_written() -> None:
    deep: Any = 0
    for _ in range(49):
        deep = [deep]
    encode(deep[0])
    with pytest.raises(CodecError, match="deeper"):
        encode(deep)


def test_only_arrays_over_64_kib_go_to_the_store(tmp_path: Path) -> None:
    store = ArrayStore.beside(tmp_path / "file.json")
    small, large = np.zeros(8192), np.zeros(8193)
    encoded = encode({"small": small, "large": large}, store)
    assert encoded["large"]["$array"].keys() == {"dtype", "shape", "sha256"}
    assert encoded["small"]["$array"].keys() == {"dtype", "shape", "data"}
    (file,) = (tmp_path / "file.json.evidence").iterdir()
    assert file.name == encoded["large"]["$array"]["sha256"] + ".npy"
    assert decode(encoded, store)["large"].tobytes() == large.tobytes()


@pytest.mark.parametrize("name", DTYPES)
def test_numpy_reads_what_the_store_holds(name: str, tmp_path: Path) -> None:
    array = np.random.default_rng(1).integers(0, 2, (300, 300)).astype(name)
    store = ArrayStore(tmp_path)
    encode(np.broadcast_to(array, (8, 300, 300)), store)
    (file,) = tmp_path.iterdir()
    found = np.load(file, allow_pickle=False)
    assert found.dtype == array.dtype
    assert found.tobytes() == np.ascontiguousarray(np.broadcast_to(array, (8, 300, 300))).tobytes()


def test_moving_arrays_out_and_in_changes_nothing(tmp_path: Path) -> None:
    store = ArrayStore(tmp_path)
    inline = encode({"a": [np.arange(20_000), np.arange(3)], "b": {"c": np.ones(10_000)}})
    outside = externalise(inline, store)
    assert outside != inline and internalise(outside, store) == inline
    assert externalise(outside, store) == outside
    assert len(canonical(outside)) < 2_000


def test_a_damaged_array_in_the_store_is_written_anew(tmp_path: Path) -> None:
    store, array = ArrayStore(tmp_path), np.arange(20_000)
    encoded = encode(array, store)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CodecError, match="other bytes"):
        decode(encoded, store)
    assert encode(array, store) == encoded
    assert (decode(encoded, store) == array).all()


def test_the_digest_covers_everything_but_itself() -> None:
    record = {"a": 1, "digest": "x"}
    assert digest(record) == digest({"a": 1}) != digest({"a": 1.0})


def test_writing_replaces_the_whole_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "file"
    for content in (b"first, and longer", b"second"):
        write_atomically(target, content)
        assert target.read_bytes() == content
    with pytest.raises(TypeError):
        write_atomically(target, "not bytes")  # type: ignore[arg-type]
    assert target.read_bytes() == b"second" and list(tmp_path.iterdir()) == [target]
