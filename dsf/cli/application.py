"""The typer application over the table of commands, and how an error becomes an exit code."""

from __future__ import annotations

import io
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from . import COMMANDS

UNDECIDED, USAGE = 3, 2


class _Lazy(TyperGroup):
    """A group that lists its commands from the table and imports the one that is run."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for name, entry in COMMANDS.items():
            self.commands[name] = TyperCommand(name, help=entry.help)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # typer would end with code 1
            raise typer.Exit(UNDECIDED) from None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return name, command and _load(name), rest


def _load(name: Any) -> Any:
    from dsf.registry import resolve

    found = resolve(COMMANDS[name].reference)
    if isinstance(found, typer.Typer):
        return get_command(found)  # a command with commands of its own
    application = typer.Typer(add_completion=False)
    application.command(name)(found)
    return get_command(application)


def _version(asked: bool | None) -> None:
    if asked:
        from dsf import __version__

        typer.echo(f"dsf {__version__}")
        raise typer.Exit()


_application = typer.Typer(
    name="dsf",
    cls=_Lazy,
    add_completion=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@_application.callback()
def _dsf(
    version: Annotated[
        bool | None,
        typer.Option("--version", help="Show the version.", callback=_version, is_eager=True),
    ] = None,
) -> None:
    """Sequence mixers as one recurrence, with claims that are checked."""


def run(arguments: Sequence[str] | None) -> NoReturn:
    """Parse, run, exit. Nothing but a judged claim or a tampered file ends with code 1."""
    from dsf.errors import InvalidInput

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # not every terminal writes UTF-8
    command = get_command(_application)
    try:
        command.main(args=arguments and list(arguments), prog_name="dsf", standalone_mode=True)
    except SystemExit as leaving:
        code = _flushed(leaving.code)
    except InvalidInput as error:
        code = _failed(error, USAGE)
    except OSError as error:
        code = _failed(error, UNDECIDED)
    except Exception:
        traceback.print_exc()
        code = UNDECIDED
    sys.exit(code)


def _failed(error: Exception, code: int) -> int:
    typer.echo(f"dsf: {error}", err=True)
    return code


def _flushed(code: Any) -> Any:
    """The exit code, or 3 where the last of the output could not be written."""
    try:
        sys.stdout.flush()
    except OSError as error:
        # Python flushes once more at exit; there is nowhere left to write to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _failed(error, UNDECIDED)
    return code
