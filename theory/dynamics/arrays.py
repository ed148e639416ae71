"""What numpy returns where a batch axis may be missing."""

from __future__ import annotations

import numpy as np

Values = np.ndarray | np.floating
"""An array (...), or the single number that numpy makes of it where there are no axes."""
