"""Memory that the pieces of one run share."""

from __future__ import annotations

import pytest
import torch

from dsf.forms.workspace import Workspace, fresh

TYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128, torch.bfloat16)


@pytest.mark.parametrize("kind", TYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3, 5), (1 << 21,)], ids=str)
def test_fresh_memory_has_the_shape_and_the_type_that_were_asked_for(kind, shape) -> None:
    like = torch.zeros(1, dtype=kind)
    one, other = fresh(shape, like), fresh(shape, like)
    assert one.shape == shape and one.dtype == kind and one.is_contiguous()
    one.fill_(1)
    other.fill_(2)
    assert bool((one == 1).all()) and bool((other == 2).all())


def test_a_subclass_of_tensor_gets_memory_of_its_own_kind() -> None:
    class Named(torch.Tensor):
        pass

    like = torch.zeros(3).as_subclass(Named)
    assert isinstance(fresh((4,), like), Named)


def test_what_is_kept_of_each_piece_is_apart() -> None:
    space, like = Workspace(keeps=True, pieces=3), torch.zeros(())
    pieces = [
        space.keep("x", shape, like).fill_(i) for i, shape in enumerate([(4, 2), (4, 2), (1, 2)])
    ]
    for i, piece in enumerate(pieces):
        assert torch.equal(piece, torch.full(piece.shape, float(i)))


def test_a_buffer_is_the_same_until_it_must_grow() -> None:
    space, like = Workspace(keeps=False), torch.zeros(())
    small = space("x", (2, 3), like)
    assert (
        space("x", (2, 3), like).data_ptr() == space("x", (6,), like).data_ptr() == small.data_ptr()
    )
    large = space("x", (4, 3), like).fill_(7)
    small.fill_(1)
    assert bool((large == 7).all())
    assert space("x", (2,), like.double()).dtype == torch.float64


def test_views_are_cut_once_for_each_key() -> None:
    space, made = Workspace(keeps=False), []
    for key in ("a", "a", "b", "a"):
        space.once(key, lambda key=key: made.append(key))
    assert made == ["a", "b"]
