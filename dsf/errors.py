"""The two ways in which dsf says no."""

from __future__ import annotations

from dataclasses import dataclass


class InvalidInput(ValueError):
    """A value that cannot be used: the message names it, says what was given, what is allowed, what to do."""


def require(name: str, x: object, kind: type) -> None:
    """Raise `InvalidInput` unless `x`, which the caller knows as `name`, is of a kind."""
    if not isinstance(x, kind):
        module = kind.__module__.split(".")[0]
        raise InvalidInput(f"`{name}` must be a {module}.{kind.__name__}; got {type(x).__name__}")


@dataclass(frozen=True)
class Refusal:
    """Why a form does not admit a system, or why a mixer has no system.

    `what` names the thing that refuses, `reason` is one sentence, `remedy` says what to use instead.
    """

    what: str
    reason: str
    remedy: str = ""

    def __str__(self) -> str:
        tail = f" {self.remedy}" if self.remedy else ""
        return f"{self.what}: {self.reason}{tail}"

    def __bool__(self) -> bool:
        return False


class Refused(InvalidInput):
    """Raised where a computation was asked of a form that refuses the system."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal
