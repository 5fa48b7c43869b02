"""Commands that look at caches and move them: inspect, verify, pack, import."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text
from rich.tree import Tree

from steerstats.cli.console import directory, notice, out, say
from steerstats.errors import InputError, first_few, how_many
from steerstats.protocol import UNNAMED

if TYPE_CHECKING:
    from steerstats.cache import Unit

CachePath = Annotated[Path, typer.Argument(help="A cache: a directory, or a packed .h5 file.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add this family's commands."""
    app.command("inspect")(inspect)
    app.command("verify")(verify)
    app.command("pack")(pack)
    app.command("import")(import_)


def inspect(cache: CachePath, unit: Annotated[str, typer.Option(help="Show this unit's arrays as well.")] = "") -> None:
    """Show what a cache holds, what is still missing, and which files have the wrong size.

    The numbers are not read: `steerstats verify` reads every one.
    """
    from cache_builder.workers.leases import is_held
    from steerstats.cache import CacheReader

    reader = CacheReader(cache, allow_damaged=True)
    tree = Tree(Text(f"{reader.path}  ({'packed file' if reader.packed else 'directory'}, {reader.kind})"))
    tree.add(Text(f"model: {reader.manifest.get('model', UNNAMED)}"))
    tree.add(Text(f"spec: {reader.spec_hash[:16]}"))
    lacking = [name for name in reader.missing if name not in reader.damaged]
    at_work = [name for name in lacking if not reader.packed and is_held(reader.path, name)]
    counts = {"being built": len(at_work), "missing": len(lacking) - len(at_work), "damaged": len(reader.damaged)}
    state = ", ".join(f"{count} {what}" for what, count in counts.items() if count) or "complete"
    branch = tree.add(Text(f"units: {len(reader.units)} of {len(reader.planned_units)}, {state}"))
    # Units that hold the same are described once: forty equal paragraphs tell less than one and forty names.
    alike: dict[str, list[str]] = {}
    for name in reader.units:
        alike.setdefault(_describe(reader[name]), []).append(name)
    for description, names in alike.items():
        leaf = branch.add(Text(", ".join(names)))
        leaf.add(Text(f"each: {description}" if len(names) > 1 else description))
        if unit in names:
            _arrays(reader[unit], leaf.add(Text(unit)))
    for name in lacking:
        branch.add(Text(f"{name}: {'being built' if name in at_work else 'missing'}", style="yellow"))
    for name, text in reader.damaged.items():
        branch.add(Text(f"{name}: damaged: {text}", style="bold red"))
    if unit and unit not in reader.units:
        reader[unit]  # raises, naming the units there are
    size = sum(int(reader[name].sidecar.get("bytes", 0)) for name in reader.units)
    tree.add(Text(f"size: {(reader.path.stat().st_size if reader.packed else size) / 1e6:.1f} MB"))
    sizes = "" if reader.packed or reader.damaged else "sizes fit; "
    tree.add(Text(f"{sizes}`steerstats verify` reads every number"))
    out.print(tree, soft_wrap=False)


def _describe(unit) -> str:
    from steerstats.cache.sidecar import parity_of

    coords, kinds = unit.coords, Counter(unit.read("vector_kind").tolist())
    parts = [f"{len(coords['input'])} inputs"]
    if "pair" in coords:
        parts.append(f"{len(coords['pair'])} training pairs")
    parts.append(f"settings {', '.join(map(str, coords['setting_eval']))}")
    parts.append("vectors " + ", ".join(f"{count} {kind}" for kind, count in kinds.items()))
    grid = coords["multiplier"]
    parts.append(f"{len(grid)} multipliers {grid[0]:g} to {grid[-1]:g}")
    if "layer" in coords and "activation" in unit:
        parts.append(f"activations of layer {', '.join(map(str, coords['layer']))}")
    if parity := parity_of(unit.sidecar):
        seen = "not measured" if parity.difference is None else f"{parity.difference:.1e}"
        parts.append(f"{parity.path} path, parity {seen} nats")
    return "; ".join(parts)


def _arrays(unit, leaf: Tree) -> None:
    from steerstats.cache import BY_NAME

    for name in unit.names:
        dims = " x ".join(f"{axis} {len(unit.coords[axis])}" for axis in BY_NAME[name].dims)
        leaf.add(Text(f"{name} ({dims}): {BY_NAME[name].doc}"))


def verify(
    path: Annotated[Path, typer.Argument(help="A cache, or a directory that `reproduce` wrote.", show_default=False)],
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the checks that hold as well.")] = False,
) -> None:
    """Check a cache, or what `reproduce` wrote, against its own hashes, the schema and the recorded parity."""
    failed = total = 0
    for check in _checks(path):
        total += 1
        failed += not check.ok
        if check.ok and not verbose:
            continue
        mark = Text("ok    ", style="green") if check.ok else Text("FAILED", style="bold red")
        out.print(Text.assemble(mark, f" {check.where}: {check.what}: {check.detail}"))
    say(f"{total - failed} of {total} checks hold")
    if failed:
        raise typer.Exit(1)


def _checks(path: Path):
    if (path / "claims.json").is_file():
        from reports.verify import verify_reproduction

        return verify_reproduction(path)
    from steerstats.cache import verify as verify_cache

    if (path / "report.html").is_file():
        cache = f", and {path / 'cache'} is a cache that can be" if (path / "cache").is_dir() else ""
        raise InputError(f"{path} holds a report; `steerstats reproduce` writes one that can be verified{cache}")
    return verify_cache(path)


def pack(
    cache: CachePath,
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write.", show_default=False)],
    activations: Annotated[bool, typer.Option(help="Keep the activations.")] = True,
    overwrite: Annotated[bool, typer.Option(help="Replace a file that is there.")] = False,
) -> None:
    """Write a cache into one portable file, for publication."""
    from steerstats.cache import CacheReader
    from steerstats.cache import pack as pack_cache

    written = pack_cache(cache, out, leave_out=() if activations else ("activation",), overwrite=overwrite)
    packed = CacheReader(written)
    if packed.missing:
        notice(unfinished(written, packed.missing))
    units = f"{len(packed.units)} of {len(packed.planned_units)} units"
    say(f"{written}: {units}, {written.stat().st_size / 1e6:.1f} MB")


def import_(
    table: Annotated[Path, typer.Argument(help="A .csv or .parquet table, one row per value.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="Cache directory to create.", show_default=False)],
    model: Annotated[str, typer.Option(help="Name of the steered model, for the record.")] = UNNAMED,
    layer: Annotated[int | None, typer.Option(min=0, help="Of a table of several layers, take this one.")] = None,
) -> None:
    """Make a cache from a table of steered scores, for people who steer with other tools.

    Columns: dataset, input, setting_train, setting_eval, multiplier,
    propensity (nats); optional: vector, layer, question, text, pos_is_a,
    pos_is_yes, len_positive, len_negative, and nuisance factors of your
    own, each as factor_NAME (numbers, true/false, or text).

    Settings are base, sys_pos, sys_neg, user_pos, user_neg (setting_train
    also mean); if you steer in one prompt only, call it base. Multiplier 0,
    the unsteered model, is required, and every input at every multiplier.
    """
    from steerstats.cache import CacheReader
    from steerstats.cache.table import import_table
    from steerstats.cache.writer import name_fault

    directory(out, "the imported cache", empty=True)
    root = import_table(table, out, model=model, layer=layer)
    units = list(CacheReader(root))
    for unit in units:
        if (called := str(unit.attrs["dataset"])) != unit.name:
            notice(f"dataset {called!r} is called {unit.name} here, since a name {name_fault(called)}")
    if elsewhere := [unit.name for unit in units if not _at_home(unit)]:
        of = "" if len(elsewhere) == len(units) else f" of {first_few(elsewhere)}"
        notice(
            f"no rows{of} have both settings base, which nearly every question is about: if you steer under one "
            "prompt only, call it base, whatever it is"
        )
    if all(_like_shares(unit) for unit in units):
        notice(
            "every propensity lies from 0 to 1, as probabilities and accuracies do: the pages take them for nats (a "
            "difference of logits or log-probabilities, below 0 where the model prefers the other answer)"
        )
    inputs = sum(len(unit.coords["input"]) for unit in units)
    grids = {tuple(unit.coords["multiplier"].tolist()) for unit in units}
    grid = ", ".join(f"{value:g}" for value in next(iter(grids))) if len(grids) == 1 else "others in each dataset"
    read = f"{how_many(len(units), 'dataset')}, {inputs:,} input{'s' * (inputs > 1)}, multipliers {grid}"
    following = f"now `steerstats report {shlex.quote(str(root))} -o DIR`"
    if any(len(set(unit.read("vector_setting"))) < len(unit.coords["vector"]) for unit in units):
        from steerstats.study.unit import ONE_LAYER

        following = f"in Python open_cache(path, layer=N) takes one layer; {ONE_LAYER}"
    say(f"{root}: {read}; {following}")


def _like_shares(unit: Unit) -> bool:
    values = unit.read("propensity")
    values = values[values == values]  # what was not measured is NaN
    return bool(((values >= 0) & (values <= 1)).all())


def _at_home(unit: Unit) -> bool:
    """Whether the table has rows for base->base."""
    import numpy as np

    base = unit.coords["setting_eval"] == "base", unit.read("vector_setting") == "base"
    return bool(unit.read("planned")[np.ix_(*base)].any())


def unfinished(where: object, missing: Sequence[str]) -> str:
    """Which datasets are not in what was written, and why."""
    return f"not in {where}, since they are planned and not finished: {first_few(missing)}"
