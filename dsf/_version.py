"""The version, in one place; importing this imports nothing else."""

__version__ = "0.1.0.dev0"
