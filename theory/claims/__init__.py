"""Claims about what attention training selects; the judges need numpy alone."""
