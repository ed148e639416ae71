"""Claims: examples to copy from, and the claims of the core."""
