"""What numbers an operator takes: tensors of one type on one device, and real ones where it knows no others."""

from __future__ import annotations

from torch import Tensor

from dsf.errors import InvalidInput, require


def check_alike(**tensors: Tensor) -> None:
    """Raise `InvalidInput` unless these are of one floating-point or complex type, on one device."""
    for name, x in tensors.items():
        require(name, x, Tensor)
    first = next(iter(tensors.values()))
    if all(x.dtype == first.dtype and x.device == first.device for x in tensors.values()):
        if first.is_floating_point() or first.is_complex():
            return
        wanted = "of a floating-point type"
    else:
        wanted = "of one type, on one device"
    names = [f"`{name}`" for name in tensors]
    given = ", ".join(f"`{name}` {x.dtype} on {x.device}" for name, x in tensors.items())
    raise InvalidInput(f"{', '.join(names[:-1])} and {names[-1]} must be {wanted}; got {given}")


def check_real(like: Tensor, **tensors: Tensor | None) -> None:
    """Raise `InvalidInput` unless these are real floating-point numbers of any type, on the device of `like`."""
    for name, x in tensors.items():
        if x is None:
            continue
        require(name, x, Tensor)
        if not x.is_floating_point() or x.device != like.device:
            raise InvalidInput(
                f"`{name}` must be real floating-point numbers on {like.device}; got {x.dtype} on {x.device}"
            )
