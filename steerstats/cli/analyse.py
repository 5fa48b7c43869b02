"""Commands that turn caches into numbers and pages: fit, report, reproduce, simulate."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from steerstats.cli.caches import CachePath, unfinished
from steerstats.cli.console import directory, notice, out, progress_bar, say
from steerstats.errors import InputError
from steerstats.interrupts import interruptible

if TYPE_CHECKING:
    import pandas as pd

CachePaths = Annotated[list[Path], typer.Argument(help="Caches: directories, or packed .h5 files.", show_default=False)]
OutDir = Annotated[Path, typer.Option("--out", "-o", help="Directory to write to.")]
TABLES = tuple(f"{name}.{end}" for name in ("steerability_per_input", "steerability") for end in ("csv", "parquet"))
Seed = Annotated[int, typer.Option(min=0, help="Seed of every resampling; the same seed gives the same numbers.")]


def register(app: typer.Typer) -> None:
    """Add this family's commands."""
    app.command("fit")(fit)
    app.command("report")(report)
    app.command("reproduce")(reproduce)
    app.command("simulate")(simulate)


def fit(cache: CachePath, target: OutDir = Path("steerstats-fit")) -> None:
    """Write the per-input steerability table and each dataset's summary (CSV and Parquet), and show the summary."""
    import pandas as pd

    import steerstats
    from steerstats.frames import slopes_frame

    directory(target, "the tables")
    _refuse_bytes(target)
    if (target / "manifest.json").exists():
        raise InputError(f"{target} is a cache, or a reproduction; choose another directory for the tables")
    # An earlier fit left all of them; a table that stands there alone is someone's own.
    there = [target / name for name in TABLES if (target / name).exists()]
    if 0 < len(there) < len(TABLES):
        raise InputError(f"{there[0]} is not from an earlier fit and would be replaced; choose another directory")
    study = steerstats.open_cache(cache)
    result = study.steerability()
    per_input = pd.concat([slopes_frame(study.reader[name]) for name in study.datasets], ignore_index=True)
    frames = (per_input, per_input, result.to_frame(), result.to_frame())
    _write_all({target / name: frame for name, frame in zip(TABLES, frames, strict=True)})
    say(result.tables())
    for warning in result.warnings:
        notice(warning)
    say(f"{len(per_input):,} per-input slopes and the summary with its methods are in {target}")


def _write_all(tables: Mapping[Path, pd.DataFrame]) -> None:
    """Tables of one directory, which appear together once the last is on disk."""
    from steerstats.cache.disk import folders_for, fsync_file, whole_file

    at = folder = next(iter(tables)).parent
    try:
        with folders_for(next(iter(tables))), ExitStack() as unfinished_files:
            for at, frame in tables.items():
                partial = unfinished_files.enter_context(whole_file(at))
                if at.suffix == ".csv":
                    frame.to_csv(partial, index=False, lineterminator="\n")
                else:
                    frame.to_parquet(partial, index=False)
                fsync_file(partial)
    except OSError as error:
        what = "no directory can be made there" if at == folder else "the table cannot be written"
        raise InputError(f"{at}: {what} ({error.strerror or error})") from error


def report(
    caches: CachePaths,
    target: OutDir = Path("steerstats-report"),
    seed: Seed = 0,
) -> None:
    """Write the statistical report: one self-contained HTML page, with its figures and tables beside it.

    Several caches are set side by side, matched by dataset and input.
    """
    from reports.render import render_report

    with _kept_whole(target), progress_bar() as progress:
        page = render_report(caches, target, seed=seed, progress=progress)
    _name_unfinished(caches)
    say(f"report: {page}")


def reproduce(
    caches: CachePaths,
    target: OutDir = Path("steerstats-reproduction"),
    seed: Seed = 0,
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", min=0, help="Scripts run at once; 0: one per core, at most 4.")
    ] = 0,
) -> None:
    """Recompute every claim, figure and table from caches, the published value beside the recomputed one."""
    from reports.reproduce import reproduce as run
    from reports.terminal import claims_table

    with _kept_whole(target), progress_bar() as progress:
        record = run(caches, target, seed=seed, jobs=jobs, progress=progress)
    out.print(claims_table(record), soft_wrap=False)
    _name_unfinished(caches)
    say(f"report: {Path(target) / 'report.html'}")
    say(f"check it later with: steerstats verify {shlex.quote(str(target))}")


def _name_unfinished(caches: Sequence[Path]) -> None:
    """What a page says first is said here, too: whoever looks at the terminal alone takes a half for the whole."""
    from steerstats.cache import CacheReader

    for path in caches:
        missing = CacheReader(path).missing
        if missing:
            notice(f"{path}: {unfinished('the report', missing)}")


def _refuse_bytes(target: Path) -> None:
    """Raise InputError for a name that is no text, of which nothing that writes Parquet makes a file."""
    try:
        str(target).encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{target}: the name is not UTF-8, as those of tables have to be; choose another") from error


@contextmanager
def _kept_whole(target: Path) -> Iterator[None]:
    """Reports are made beside the directory and moved in at the end: Ctrl-C says so, and a full disk which it was."""
    _refuse_bytes(target)
    try:
        with interruptible():
            yield
    except KeyboardInterrupt:
        notice(f"interrupted: nothing new is in {target}")
        raise typer.Exit(130) from None
    except OSError as error:
        if error.filename is None and error.strerror:  # where not the opening but the writing fails
            raise OSError(error.errno, error.strerror, str(target)) from error
        raise


def simulate(
    target: OutDir = Path("steerstats-simulated"),
    seed: Seed = 0,
    datasets: Annotated[int | None, typer.Option(min=1, help="How many datasets; 12 by default.")] = None,
    inputs: Annotated[int | None, typer.Option(min=2, help="Evaluated inputs per dataset; 200 by default.")] = None,
    truth: Annotated[
        Path | None, typer.Option(help="TOML file of SimulationTruth's parameters.", show_default=False)
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Set one parameter; overrides the file (repeatable)."),
    ] = None,
    calibrate: Annotated[
        bool, typer.Option(help="Measure coverage and error rates instead; an hour on one core.")
    ] = False,
) -> None:
    """Write a cache with a known truth, or measure the intervals' coverage against known truths."""
    if calibrate:
        given = {"--datasets": datasets, "--inputs": inputs, "--truth": truth, "--set": settings}
        if said := [name for name, value in given.items() if value]:
            raise InputError(f"{said[0]}: --calibrate measures at truths of its own, and takes none")
        from steerstats.simulate.calibration import calibration_table

        with progress_bar() as progress:
            table = calibration_table(seed=seed, jobs=os.cpu_count() or 1, progress=progress)
        out.print(_calibration(table), soft_wrap=False)
        return
    from steerstats.simulate import SimulationTruth, simulate_cache
    from steerstats.simulate.parameters import read_parameters

    asked = {name: value for name, value in (("datasets", datasets), ("n_inputs", inputs)) if value is not None}
    told = read_parameters(tuple(SimulationTruth.__dataclass_fields__), truth, settings or ())
    twice = [name for name in asked if any(text.partition("=")[0].strip() == name for text in settings or ())]
    if twice:
        raise InputError(f"{twice[0]} is given by its own option and by --set; once is enough")
    chosen = SimulationTruth(**{"datasets": 12, "n_inputs": 200, **told, **asked})
    directory(target, "the simulated cache", empty=True)
    simulate_cache(target, chosen, seed=seed)
    say(f"simulated cache: {target}; now `steerstats report {shlex.quote(str(target))} -o DIR`")


def _calibration(table: Any) -> Any:
    """One row a cell: what was measured against its target, with the simulation's own error."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    shown = Table(title="Measured against known truth", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("quantity", "setting", "method"):
        shown.add_column(name, overflow="fold")
    for name in ("target", "measured", "± mc se"):
        shown.add_column(name, justify="right", no_wrap=True)
    for row in table.itertuples():
        numbers = [f"{value:.3f}" for value in (row.target, row.measured, row.mc_se)]
        shown.add_row(*(Text(str(text)) for text in (row.quantity, row.setting, row.method)), *numbers)
    return shown
