"""The command line: one visible table of commands, each imported when it is run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, NoReturn


class Entry(NamedTuple):
    """Where a command's function, or group of commands, is, and its one line in `dsf --help`."""

    reference: str
    help: str


COMMANDS: dict[str, Entry] = {
    "check": Entry("dsf.cli.check:check", "Check claims and write their certificates."),
    "verify": Entry("dsf.cli.verify:verify", "Judge certificates again from their evidence."),
    "papers": Entry("dsf.cli.papers:papers", "List the papers and their claims."),
    "simulate": Entry("dsf.cli.simulate:application", "Simulate sparse attention patterns."),
    "kernels": Entry("dsf.cli.kernels:application", "Triton kernels, compiled without a GPU."),
    "architectures": Entry("dsf.cli.architectures:architectures", "List the sequence mixers."),
}


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line (`sys.argv` by default) and leave with its exit code.

    0: all as expected. 1: a definite status differs from the expected one, a negative control
    passes, or a file was tampered with. 2: bad usage or a malformed file. 3: undecided, or a
    failure of input or output. 130: interrupted.
    """
    from .application import run

    run(arguments)
