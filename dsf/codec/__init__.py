"""Evidence as JSON: values out, values in, and nothing a file says is ever executed.

    value --encode--> JSON value --canonical--> bytes --loads--> JSON value --decode--> value

Every refusal is a `CodecError` whose message begins with the JSON pointer of the culprit.
"""

from __future__ import annotations

from .arrays import ArrayStore, externalise, internalise
from .errors import CodecError
from .files import read_bytes, write_atomically
from .strict import canonical, digest, dumps, loads
from .values import decode, encode

__all__ = [
    "ArrayStore",
    "CodecError",
    "canonical",
    "decode",
    "digest",
    "dumps",
    "encode",
    "externalise",
    "internalise",
    "loads",
    "read_bytes",
    "write_atomically",
]
