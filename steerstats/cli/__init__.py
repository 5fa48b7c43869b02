"""The `steerstats` command: one file for each family of commands, errors as one line and exit code 2."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from itertools import pairwise

import typer

from steerstats.cli import analyse, build, caches
from steerstats.cli.console import complain
from steerstats.errors import SteerstatsError
from steerstats.interrupts import interruptible

app = typer.Typer(
    name="steerstats",
    help="Does a steering vector really work? Build caches of steered logit differences, analyse them, report.",
    epilog="Any command takes --debug, which shows the traceback behind an error.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for family in (build, caches, analyse):
    family.register(app)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"steerstats {version('steerstats')}")
        raise typer.Exit


@app.callback()
def root(
    _: bool = typer.Option(False, "--version", help="Print the version and stop.", callback=_version, is_eager=True),
) -> None:
    """Statistics on steering vectors, from cached activations."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; a mistake of the user's is one line and exit code 2, never a traceback."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments or bool(os.environ.get("STEERSTATS_DEBUG"))
    arguments = [argument for argument in arguments if argument != "--debug"]
    for stream in (sys.stdout, sys.stderr):
        if getattr(stream, "errors", "") == "strict":  # a name that the terminal cannot show is no reason to stop
            stream.reconfigure(errors="backslashreplace")
    try:
        with interruptible():
            code = app(args=arguments, prog_name="steerstats", standalone_mode=False)
    except (SteerstatsError, OSError) as error:
        if debug:
            traceback.print_exc()
        complain(error)
        raise SystemExit(2) from None
    except (typer.Abort, KeyboardInterrupt):
        raise SystemExit(130) from None
    except Exception as error:
        # Usage errors are click's, which typer brings under a name of its own: told by what they can do.
        message = getattr(error, "format_message", None)
        if message is None:
            raise
        if debug:
            traceback.print_exc()
        _misused(error, message(), arguments)
        raise SystemExit(getattr(error, "exit_code", 2)) from None
    raise SystemExit(code if isinstance(code, int) else 0)


def _misused(error: Exception, message: str, arguments: Sequence[str]) -> None:
    """One line for a command that was called wrongly; the bare command shows its help instead."""
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(message, err=True)  # the help itself, for who typed nothing more
        return
    hint = f"; `{context.command_path} --help` shows how" if context is not None else ""
    complain(typer.BadParameter(f"{message.rstrip('.')}{_given(error, message, arguments)}{hint}"))


def _given(error: Exception, message: str, arguments: Sequence[str]) -> str:
    """What was given to the option that is complained of, where the message does not say it."""
    names = getattr(getattr(error, "param", None), "opts", ())
    for name, value in pairwise(arguments):
        if name in names and message.startswith("Invalid value") and value not in message.partition(": ")[2]:
            return f", not {value}"
    return ""
