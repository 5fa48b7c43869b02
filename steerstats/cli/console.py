"""What every command shares: where it prints, how it shows progress, how it complains."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from steerstats.errors import InputError

out = Console(soft_wrap=True, highlight=False)
err = Console(stderr=True, soft_wrap=True, highlight=False)
FIRST_S, LATER_S = 5.0, 60.0  # between lines of progress in a log, at first and in the end


def complain(error: BaseException) -> None:
    """One line on standard error; file names and prompts in it are shown as they are, never as markup."""
    named = isinstance(error, OSError) and error.filename and error.strerror
    text = f"{error.filename}: {error.strerror}" if named else str(error)  # without the system's number
    message = " ".join(text.split()) or type(error).__name__
    err.print(Text.assemble(("error: ", "bold red"), message))


def notice(message: str) -> None:
    """Something a user should know and need not act on, on standard error."""
    err.print(Text.assemble(("note: ", "bold yellow"), message))


def say(message: str) -> None:
    """A plain line on standard output."""
    out.print(Text(message))


def directory(target: Path, what: str, *, empty: bool = False) -> None:
    """Raise InputError where no directory can be made of `target`, saying what it is and what would be right.

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


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A progress display on standard error; a plain line now and then where that is no terminal but a log.

    With STEERSTATS_NO_PROGRESS set there is neither. A task may say in a field `of` what it counts ("units").
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    progress = Progress(*columns, console=err)
    if os.environ.get("STEERSTATS_NO_PROGRESS"):
        yield progress
    elif err.is_terminal:
        with progress:
            yield progress
    else:  # one that is only counted with is never started, since rich before 14.3 ends it with an empty line
        ended = Event()
        thread = Thread(target=_tell, args=(progress, ended), daemon=True)
        thread.start()
        try:
            yield progress
        finally:
            ended.set()
            thread.join()


def _tell(progress: Progress, ended: Event) -> None:
    """How far it is, soon at first and then once a minute: hours of work leave a log that one can still read."""
    start, pause = time.monotonic(), FIRST_S
    while not ended.wait(pause):
        if progress.tasks:
            err.print(Text(f"{_state(progress.tasks[-1])} ({time.monotonic() - start:.0f} s)"))
        pause = min(2 * pause, LATER_S)


def _state(task: Task) -> str:
    counted = task.fields.get("of", "")
    what = task.description.removeprefix(f"{counted}: ")
    if task.total is None:
        return what
    done = f"{int(task.completed)} of {int(task.total)} {counted}".rstrip()
    return done if what in ("", counted) else f"{done}: {what}"
