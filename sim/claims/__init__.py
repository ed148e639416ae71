"""Claims about Generalized Neighborhood Attention; each module has one tuple, `CLAIMS`."""
