"""What every command shares: where it prints, how it shows progress, how it complains."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from steerstats.errors import InputError

out = Console(soft_wrap=True, highlight=False)
err = Console(stderr=True, soft_wrap=True, highlight=False)


def complain(error: BaseException) -> None:
    """One line on standard error; file names and prompts in it are shown as they are, never as markup."""
    message = " ".join(str(error).split()) or type(error).__name__
    err.print(Text.assemble(("error: ", "bold red"), message))


def notice(message: str) -> None:
    """Something a user should know and need not act on, on standard error."""
    err.print(Text.assemble(("note: ", "bold yellow"), message))


def say(message: str) -> None:
    """A plain line on standard output."""
    out.print(Text(message))


def directory(target: Path, what: str, *, empty: bool = False) -> Path:
    """`target`, where a directory can be made of it; otherwise an error that says what it is and what would be right.

    Parameters
    ----------
    target : path
    what : str
        What goes there ("the cache").
    empty : bool
        Whether it may hold nothing yet.
    """
    for path in (target, *target.parents):
        if path.exists() and not path.is_dir():
            raise InputError(f"{path} is a file; give a directory for {what}")
    if empty and target.exists() and any(target.iterdir()):
        raise InputError(f"{target} is not empty; choose another directory for {what}")
    return target


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A progress display on standard error; silent where that is no terminal, so that logs stay readable."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    hidden = not err.is_terminal or bool(os.environ.get("STEERSTATS_NO_PROGRESS"))
    with Progress(*columns, console=err, disable=hidden) as progress:
        yield progress
