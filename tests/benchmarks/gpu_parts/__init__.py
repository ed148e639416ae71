"""The parts of `tests/benchmarks/gpu.py`: cases, references, checks, clocks, verdicts, the file and its page."""
