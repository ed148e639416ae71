"""What the codec refuses, in one place."""

from __future__ import annotations

MAX_BYTES = 256 * 2**20  # of a file, and of one array
MAX_DEPTH = 64  # containers inside one another, counted from the root of the file
MAX_EVIDENCE_DEPTH = 48  # of encoded evidence: leaves 16 levels to the file around it
MAX_VALUES = 4_000_000  # JSON values in one file
MAX_BITS = 2**20  # of an integer, a numerator, a denominator
MAX_PLAIN_INT = 2**53  # beyond it other JSON readers round
MAX_NUMBER_CHARS = 1_200  # the longest exact decimal of a float64 has 1 076
MAX_INLINE_BYTES = 64 * 2**10  # of an array written into the JSON where there is a store
MAX_NDIM = 32
MAX_TREE_NODES = 200_000  # of one symbolic tree
