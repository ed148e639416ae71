"""Between the numpy arrays of evidence and the tensors of a witness."""

from __future__ import annotations

from typing import Any

import numpy as np


def tensor(array: np.ndarray) -> Any:
    """A torch tensor that shares nothing with `array`."""
    import torch

    return torch.from_numpy(np.array(array))


def array(tensor: Any) -> np.ndarray:
    """A numpy array of a tensor without its graph."""
    return tensor.detach().cpu().numpy().copy()
