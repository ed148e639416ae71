"""Hostile files: refused with one clear error that says where, and never executed."""

from __future__ import annotations

import base64
import hashlib
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sympy

from dsf.codec import ArrayStore, CodecError, canonical, decode, encode, loads
from dsf.codec import limits as codec_limits
from dsf.codec.strict import check

X = ["Symbol", "x", {}]


def nested(depth: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    return opening * depth + closing * depth


BYTES = {
    "repeated key": (b'{"a": {"b": 1, "b": 1}}', "/a", "twice"),
    "repeated key, escaped": (b'{"b": 1, "\\u0062": 2}', "", "twice"),
    "NaN": (b'[0, {"x": NaN}]', "/1/x", "NaN"),
    "Infinity": (b'{"x": Infinity}', "/x", "Infinity"),
    "-Infinity": (b"[-Infinity]", "/0", "Infinity"),
    "overflow": (b'{"x": 1e999}', "/x", "overflows"),
    "overflow, negative": (b"[-1e400]", "/0", "overflows"),
    "long float": (b"[0." + b"1" * 5_000 + b"]", "/0", "characters"),
    "plain integer beyond 2^53": (b"[9007199254740993]", "/0", "2\\^53"),
    "integer beyond Python's limit": (b"[" + b"9" * 5_000 + b"]", "/0", "2\\^53"),
    "integer of a million digits": (b"[-" + b"7" * 1_000_000 + b"]", "/0", "2\\^53"),
    "depth 65": (nested(65), "/0" * 64, "deeper"),
    "depth 65 of objects": (b'{"a":' * 65 + b"1" + b"}" * 65, "/a" * 64, "deeper"),
    "depth 100 000": (nested(100_000), "", "deeper"),
    "unclosed": (b"[" * 100_000, "", "deeper|not JSON"),
    "too many values": (b"[" + b"0," * 4_000_001 + b"0]", "", "values"),
    "not UTF-8": (b'{"a": "\xff"}', "", "UTF-8"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "", "UTF-8"),
    "byte order mark": (b"\xef\xbb\xbf{}", "", "not JSON"),
    "lone surrogate": (b'{"a": "\\ud800"}', "/a", "surrogate"),
    "lone surrogate in a key": (b'{"a": {"\\udfff": 1}}', "/a", "surrogate"),
    "two values": (b"{} {}", "", "not JSON"),
    "comment": (b"{} // no", "", "not JSON"),
    "trailing comma": (b"[1,]", "", "not JSON"),
    "leading zero": (b"[01]", "", "not JSON"),
    "hexadecimal": (b"[0x10]", "", "not JSON"),
    "raw control character": (b'["\x01"]', "", "not JSON"),
    "empty": (b"", "", "not JSON"),
}


@pytest.mark.parametrize("name", BYTES)
def test_hostile_bytes_are_refused(name: str) -> None:
    data, where, why = BYTES[name]
    with pytest.raises(CodecError, match=why) as refused:
        loads(data)
    assert refused.value.pointer == where
    assert len(str(refused.value)) < 1_000


def test_bytes_at_the_limits_are_read() -> None:
    assert loads(nested(64)) is not None
    assert loads(b"[9007199254740992, 1.7976931348623157e308]")


def test_files_over_the_limit_are_refused_unparsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsf.codec.strict.MAX_BYTES", 16)
    loads(b"[1,2,3,4,5,6,77]")
    with pytest.raises(CodecError, match="17 bytes"):
        loads(b"[1,2,3,4,5,6,777]")
    assert codec_limits.MAX_BYTES == 256 * 2**20


def test_a_cycle_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    for function in (canonical, encode, decode, check):
        with pytest.raises(CodecError, match="deeper"):
            function(loop)


def array(**changes: Any) -> Any:
    body = {"dtype": "float64", "shape": [1], "data": base64.b64encode(bytes(8)).decode()}
    return {"$array": {k: v for k, v in (body | changes).items() if v is not None}}


VALUES: dict[str, tuple[Any, str]] = {
    "unknown tag": ({"$pickle": "gASVAAAA"}, "unknown tag"),
    "tag with company": ({"$int": "0x40000000000000", "a": 1}, "alone"),
    "int, decimal": ({"$int": "18014398509481984"}, "hexadecimal"),
    "int, number": ({"$int": 2**53}, "hexadecimal"),
    "int, capitals": ({"$int": "0xFFFFFFFFFFFFFFFF"}, "hexadecimal"),
    "int, underscore": ({"$int": "0xffff_ffff_ffff_ffff"}, "hexadecimal"),
    "int, leading zero": ({"$int": "0x0ffffffffffffffff"}, "hexadecimal"),
    "int, newline": ({"$int": "0xffffffffffffffff\n"}, "hexadecimal"),
    "int, other digits": ({"$int": "0x\u0661\u0661\u0661\u0661"}, "hexadecimal"),
    "int, expression": ({"$int": "0x1+0x1"}, "hexadecimal"),
    "int, small": ({"$int": "0x5"}, "plainly"),
    "int, huge": ({"$int": "0x1" + "0" * (2**18)}, "bits"),
    "int, very huge": ({"$int": "-0x" + "f" * 3_000_000}, "bits"),
    "rational, zero below": ({"$rational": ["0x1", "0x0"]}, "lowest terms"),
    "rational, negative below": ({"$rational": ["0x1", "-0x3"]}, "lowest terms"),
    "rational, common factor": ({"$rational": ["0x2", "0x4"]}, "lowest terms"),
    "rational, three parts": ({"$rational": ["0x1", "0x2", "0x3"]}, "numerator"),
    "rational, huge": ({"$rational": ["0x1", "0x1" + "0" * 2**18]}, "bits"),
    "array, object dtype": (array(dtype="object"), "dtype"),
    "array, descr": (array(dtype="|O8"), "dtype"),
    "array, structured": (array(dtype=[["a", "<f8"]]), "dtype"),
    "array, big-endian": (array(dtype=">f8"), "dtype"),
    "array, half": (array(dtype="float16"), "dtype"),
    "array, too short": (array(shape=[2]), "16 expected"),
    "array, too long": (array(shape=[0]), "0 expected"),
    "array, negative": (array(shape=[-1]), "negative"),
    "array, both negative": (array(shape=[-1, -1]), "negative"),
    "array, fractional": (array(shape=[1.0]), "integers"),
    "array, bool size": (array(shape=[True]), "integers"),
    "array, no list": (array(shape="1"), "list"),
    "array, many axes": (array(shape=[1] * 33), "32"),
    "array, huge": (array(shape=[2**62, 4]), "larger"),
    "array, huge and empty": (array(shape=[0, 2**40], data=""), "larger"),
    "array, no base64": (array(data="!!!!"), "base64"),
    "array, padding": (array(data="AAAAAAAAAAA"), "base64"),
    "array, spare bits": (array(data="AAAAAAAAAAB="), "canonical"),
    "array, line breaks": (array(data="AAAA\nAAAAAAA="), "base64"),
    "array, other script": (array(data="\u0661" * 12), "base64"),
    "array, no data": (array(data=None), "either"),
    "array, both": (array(sha256="0" * 64), "either"),
    "array, path": (array(data=None, path="/etc/passwd"), "either"),
    "array, hash is a path": (array(data=None, sha256="../../../etc/passwd"), "64 hex"),
    "array, hash with a newline": (array(data=None, sha256="0" * 64 + "\n"), "64 hex"),
    "array, capitals": (array(data=None, sha256="A" * 64), "64 hex"),
    "array, no store": (array(data=None, sha256="0" * 64), "side file"),
    "array, a bool of 2": (array(dtype="bool", data="Ag=="), "0 and 1"),
    "array, a list": ({"$array": [1, 2]}, "dtype, shape"),
}

POWERS = {
    "10^10^10": ["Pow", 10, ["Pow", 10, 10]],
    "2^(2^21)": ["Pow", 2, 2**21],
    "(2x)^(10^9)": ["Pow", ["Mul", 2, X], 10**9],
    "x^(10^9)": ["Pow", X, 10**9],
    "(3/7)^(-10^7)": ["Pow", {"$rational": ["0x3", "0x7"]}, -(10**7)],
    "((2^999)^999)^999": ["Pow", ["Pow", ["Pow", 2, 999], 999], 999],
    "10^(1000*1000*1000)": ["Pow", 10, ["Mul", 1000, 1000, 1000]],
    "10^(2^(1/2)*10^9)": ["Pow", 10, ["Mul", ["Pow", 2, {"$rational": ["0x1", "0x2"]}], 10**9]],
    "exp(10^9 log 3)": ["exp", ["Mul", 10**9, ["log", 3]]],
    "exp(x + 10^5*10^5*log 3)": ["exp", ["Add", X, ["Mul", 10**5, ["Mul", 10**5, ["log", 3]]]]],
}

TREES: dict[str, tuple[Any, str]] = {
    "text": ("x + 1", "not a node"),
    "command as text": ("__import__('os').system('true')", "not a node"),
    "command as head": (["__import__('os').system('true')", 1], "not an allowed head"),
    "command as name": (["Symbol", "__import__('os').system('true')", {}], "symbol name"),
    "eval": (["eval", X], "not an allowed head"),
    "sympify": (["sympify", X], "not an allowed head"),
    "lambda": (["Lambda", X, X], "not an allowed head"),
    "function": (["Function", "f", X], "not an allowed head"),
    "integral": (["Integral", X, X], "not an allowed head"),
    "dunder head": (["__class__", X], "not an allowed head"),
    "name with a line break": (["Symbol", "x\n", {}], "symbol name"),
    "name too long": (["Symbol", "x" * 65, {}], "symbol name"),
    "name in another script": (["Symbol", "\u03bb", {}], "symbol name"),
    "name not text": (["Symbol", ["x"], {}], "symbol name"),
    "unknown assumption": (["Symbol", "x", {"__class__": True}], "assumption"),
    "assumption not a bool": (["Symbol", "x", {"real": "eval"}], "assumption"),
    "contradiction": (["Symbol", "x", {"positive": True, "negative": True}], "contradict"),
    "float": (["Add", X, 0.5], "not a node"),
    "bool": (["Add", X, True], "not a node"),
    "null": (None, "not a node"),
    "empty": ([], "not a node"),
    "head not text": ([["Add"], 1], "not a node"),
    "too few": (["Pow", X], "2 arguments"),
    "too many": (["exp", X, X], "1 arguments"),
    "evaluate": (["exp", X, {"evaluate": True}], "1 arguments"),
    "none": (["Add"], "1 arguments"),
    "integer as rational": ({"$rational": ["0x3", "0x1"]}, "as an integer"),
    "matrix shape": (["Matrix", 2, 2, 1, 2, 3], "shape"),
    "matrix negative": (["Matrix", -1, -3, 1, 2, 3], "shape"),
    "matrix of text": (["Matrix", "1", "1", X], "shape"),
    "matrix of equations": (["Matrix", 1, 1, ["Equality", X, 1]], "scalar"),
    "sum of matrices": (["Add", ["Matrix", 1, 1, X], 1], "scalar"),
    "equation in a sum": (["Add", ["Equality", X, 1], 1], "scalar"),
    "huge integer": (["Add", X, {"$int": "0x1" + "0" * 2**18}], "bits"),
    **{name: (tree, "bits") for name, tree in POWERS.items()},
}
ALL = VALUES | {f"tree, {name}": ({"$sympy": t}, why) for name, (t, why) in TREES.items()}


@pytest.mark.parametrize("name", ALL)
def test_hostile_values_are_refused_with_their_place(name: str) -> None:
    value, why = ALL[name]
    with pytest.raises(CodecError, match=why) as refused:
        decode({"here": [None, value]})
    assert refused.value.pointer.startswith("/here/1")
    assert len(str(refused.value)) < 1_000


def test_a_tree_with_too_many_nodes_is_refused() -> None:
    row = ["Add", *[1] * 1_000]
    with pytest.raises(CodecError, match="nodes"):
        decode({"$sympy": ["Add", *[row] * 200]})


def test_a_symbolic_tree_too_deep_is_refused() -> None:
    tree: Any = X
    for _ in range(100):
        tree = ["exp", tree]
    with pytest.raises(CodecError, match="deeper"):
        decode({"$sympy": tree})


def test_nothing_in_a_tree_is_evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoding calls neither a parser nor any evaluation, even for names that look like code."""

    def forbidden(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("a file made code run")

    decode({"$sympy": 1})  # whatever is imported lazily is imported now
    for name in ("eval", "exec", "compile"):
        monkeypatch.setattr(f"builtins.{name}", forbidden)
    for name in ("os.system", "sympy.parse_expr", "sympy.parsing.sympy_parser.parse_expr"):
        monkeypatch.setattr(name, forbidden)
    tree = ["Pow", ["Add", ["Symbol", "__import__", {}], ["Symbol", "os", {}]], 1000]
    found = decode({"$sympy": tree})
    assert {symbol.name for symbol in found.free_symbols} == {"__import__", "os"}
    assert encode(found) == {"$sympy": tree}


def test_numbers_in_a_tree_stay_as_they_stand() -> None:
    found = decode({"$sympy": ["Pow", 2, 100_000]})
    assert found.args == (sympy.Integer(2), sympy.Integer(100_000))


@dataclass(frozen=True)
class Malicious:
    """An object whose unpickling would make a folder."""

    folder: str

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (os.mkdir, (self.folder,))


def stored(folder: Path, data: bytes, shape: list[int], dtype: str = "float64") -> Any:
    sha256 = hashlib.sha256(data).hexdigest()
    (folder / f"{sha256}.npy").write_bytes(data)
    return {"$array": {"dtype": dtype, "shape": shape, "sha256": sha256}}


def npy(folder: Path, value: np.ndarray) -> bytes:
    file = folder / "made.npy"
    np.save(file, value, allow_pickle=True)
    return file.read_bytes()


def test_pickles_in_the_store_are_refused_unread(tmp_path: Path) -> None:
    attack = Malicious(str(tmp_path / "attacked"))
    boxed = np.empty(1, object)
    boxed[0] = attack
    for data in (npy(tmp_path, boxed), pickle.dumps(attack)):
        with pytest.raises(CodecError, match="not a plain array"):
            decode(stored(tmp_path, data, [1]), ArrayStore(tmp_path))
    assert not (tmp_path / "attacked").exists()


def test_files_of_another_form_than_declared_are_refused(tmp_path: Path) -> None:
    store, plain = ArrayStore(tmp_path), np.arange(6.0).reshape(2, 3)
    good = npy(tmp_path, plain)
    cases = {
        "dtype": stored(tmp_path, good, [2, 3], "int64"),
        "shape": stored(tmp_path, good, [3, 2]),
        "order": stored(tmp_path, npy(tmp_path, np.asfortranarray(plain)), [2, 3]),
        "short": stored(tmp_path, good[:-8], [2, 3]),
        "long": stored(tmp_path, good + bytes(8), [2, 3]),
        "nothing": stored(tmp_path, b"", [2, 3]),
    }
    for encoded in cases.values():
        with pytest.raises(CodecError, match="not a plain array|expected"):
            decode(encoded, store)


def test_a_missing_or_altered_file_is_refused(tmp_path: Path) -> None:
    store = ArrayStore(tmp_path / "store")
    encoded = encode(np.arange(10_000), store)
    (file,) = store.folder.iterdir()
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(CodecError, match="other bytes"):
        decode(encoded, store)
    file.unlink()
    with pytest.raises(CodecError, match="missing"):
        decode(encoded, store)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_in_the_place_of_an_array_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / f"{'0' * 64}.npy")
    encoded = array(data=None, sha256="0" * 64)
    with pytest.raises(CodecError, match="regular file"):
        decode(encoded, ArrayStore(tmp_path))
