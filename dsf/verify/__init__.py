"""Verification of certificates, without the solvers that produced them and without torch.

Standard library and numpy only; sympy is imported when a symbolic tree is met.
"""

from __future__ import annotations

from .envelope import ENVELOPE
from .files import verify_file
from .record import SCHEMA, MalformedFile
from .verification import AGREEMENT, Verification, verify

__all__ = [
    "AGREEMENT",
    "ENVELOPE",
    "SCHEMA",
    "MalformedFile",
    "Verification",
    "verify",
    "verify_file",
]
