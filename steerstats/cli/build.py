"""Commands that run models: build, sweep, demo, export. What they need beyond the analysis half they name."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress

from steerstats.cli.console import directory, notice, out, progress_bar, say
from steerstats.errors import InputError, require
from steerstats.interrupts import interruptible

Source = Annotated[str, typer.Argument(help="A TOML spec, or a preset: demo, tan2024.", show_default=False)]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", "-s", help="Override a key: -s model.id=... -s limit=100 (repeatable).")
]
Backend = Annotated[str, typer.Option(help="local, or ray.")]
Address = Annotated[str | None, typer.Option(help="Address of a running Ray cluster.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Ray: number of workers; default one for each GPU.")]
GpusPerWorker = Annotated[
    float | None, typer.Option(min=0, help="Ray: GPUs of each worker; default 1, or 0 on a cluster without any.")
]
DataDir = Annotated[Path | None, typer.Option(help="Folder of public data; what is there is not fetched.")]


def register(app: typer.Typer) -> None:
    """Add this family's commands."""
    app.command("build")(build)
    app.command("sweep")(sweep)
    app.command("demo")(demo)
    app.command("export")(export)


def build(
    source: Source,
    target: Annotated[
        Path | None, typer.Option("--out", "-o", help="Cache directory to create or continue; default NAME-cache.")
    ] = None,
    overrides: Overrides = None,
    data_dir: DataDir = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print units, tokens, bytes and time; build nothing.")
    ] = False,
    probe: Annotated[
        bool, typer.Option(help="With --dry-run: load the model and measure its speed, for the expected time.")
    ] = True,
    backend: Backend = "local",
    address: Address = None,
    workers: Workers = None,
    gpus_per_worker: GpusPerWorker = None,
) -> None:
    """Build a cache: activations, vectors and steered logit differences, one resumable unit for each dataset.

    Run it again after an interruption and it computes exactly what is
    missing. Several of these may work on one directory at once.
    """
    ray = _ray_options(backend, address=address, workers=workers, gpus_per_worker=gpus_per_worker)
    spec = _load(source, overrides, data_dir)
    if dry_run:
        from cache_builder.dryrun import dry_run as estimate

        with progress_bar() as progress:
            found = estimate(spec, probe=probe, progress=_steps(progress, "measuring"))
        out.print(found.render())
        for text in found.notes:
            notice(text)
        for kind in ("random", "shuffled"):
            if said := _few_nulls(kind, getattr(spec.controls, kind), len(found.units)):
                notice(said)
        return
    _build(spec, target or Path(spec.run.out or f"{spec.name}-cache"), backend, ray)


def _few_nulls(kind: str, count: int, datasets: int) -> str:
    """What so few null vectors can show over these datasets, jointly; empty where one dataset alone could pass."""
    from steerstats.nulls import differ_at_least, null_vectors_needed, shown_together

    needed = null_vectors_needed(datasets)
    if not 0 < count < needed:
        return ""
    together = shown_together(count, datasets)
    least = f"fewer than {together}" if together <= datasets else "any"
    most = differ_at_least([1 / (count + 1)] * datasets) if kind == "shuffled" else 0
    taken = f"; all taken together, they can at best show that at least {most} do" if most else ""
    return (
        f"controls.{kind} = {count} cannot show {least} of {datasets} datasets to differ from the null, at a false "
        f"discovery rate of 5%; {needed} can show one alone{taken}"
    )


def sweep(
    source: Source,
    target: Annotated[Path, typer.Option("--out", "-o", help="Cache directory of the sweep.", show_default=False)],
    layers: Annotated[str, typer.Option(help="Layers to try: all, or a list such as 8,10,12.")] = "all",
    overrides: Overrides = None,
    data_dir: DataDir = None,
    backend: Backend = "local",
    address: Address = None,
    workers: Workers = None,
    gpus_per_worker: GpusPerWorker = None,
) -> None:
    """Score every layer on the validation split, and name the best one with its uncertainty."""
    from steerstats.sweeps import choose_sweep_layer

    ray = _ray_options(backend, address=address, workers=workers, gpus_per_worker=gpus_per_worker)
    spec = _load(source, overrides, data_dir)
    from cache_builder.spec.sweep import sweep_spec

    root = _build(sweep_spec(spec, layers, notice), target, backend, ray)
    choice = choose_sweep_layer(root)
    say(choice.summary())
    # What was said on this command line is no part of the spec's file: without it another grid would be built.
    said = [f" -s {shlex.quote(one)}" for one in overrides or ()]
    said += [f" --data-dir {shlex.quote(str(data_dir))}"] * (data_dir is not None)
    layer = shlex.quote(f"layers=[{choice.chosen}]")  # some shells take bare brackets for a pattern
    grid = f"steerstats build {shlex.quote(source)}{''.join(said)} -s {layer} -o DIRECTORY"
    say(f"\nA grid at this layer, on test inputs: {grid}")


def demo(
    target: Annotated[Path, typer.Option("--out", "-o", help="Directory for the cache and the report.")] = Path(
        "demo-out"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Seed of every resampling.")] = 0,
) -> None:
    """Build a cache with the bundled micro model, analyse it and write the report: everything, in a few minutes."""
    from reports.record import refuse_strangers
    from reports.render import render_report

    refuse_strangers(target, [target / "cache"])  # before a minute's work
    root = _build(_load("demo", None, None), target / "cache", "local", {})
    with progress_bar() as progress:
        page = render_report([root], target, seed=seed, progress=progress)
    say(f"cache:  {root}")
    say(f"report: {page}")


def export(
    cache: Annotated[Path, typer.Argument(help="A cache.", show_default=False)],
    dataset: Annotated[str, typer.Argument(help="The dataset whose vector to write.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write: .safetensors or .gguf.", show_default=False)],
    vector: Annotated[str, typer.Option(help="Label of the vector.")] = "base",
    architecture: Annotated[
        str | None, typer.Option(help="GGUF: the model's type, as llama.cpp names it; default: that of the cache.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace a file that is there.")] = False,
) -> None:
    """Write one steering vector for use elsewhere: safetensors, or a GGUF control vector for llama.cpp."""
    from steerstats.cache import CacheReader
    from steerstats.cache.disk import folders_for

    if out.suffix not in (".safetensors", ".gguf"):
        raise InputError(f"{out}: {out.suffix or 'no ending'} is not written; give .safetensors or .gguf")
    if out.is_dir():
        raise InputError(f"{out} is a directory; give the name of a file")
    if out.exists() and not overwrite:
        raise InputError(f"{out} exists; choose another name, or overwrite it (--overwrite)")
    require("safetensors", "build", "exporting a vector")
    from cache_builder.vectors.interop import gguf_architecture, save_gguf, save_vector

    unit = CacheReader(cache)[dataset]
    if "direction" not in unit.names:
        raise InputError(f"{unit.where}: this cache holds no vectors, only what they did")
    layers, slots = unit.read("vector_layer", vector=vector), unit.read("direction", vector=vector)
    by_layer = {int(layer): direction for layer, direction in zip(layers, slots)}
    model = str(unit.attrs.get("model"))
    if out.suffix == ".gguf":
        known = _model_type(str(unit.attrs.get("provenance", "{}")))
        if architecture is None and not known:
            raise InputError(f"{out}: this cache does not say which type its model is; give --architecture")
        with folders_for(out):
            save_gguf(out, by_layer, architecture or gguf_architecture(known))
    else:
        facts = {"model": model, "dataset": dataset, "label": vector, "spec_hash": str(unit.attrs["spec_hash"])}
        with folders_for(out):
            save_vector(out, by_layer, **facts)
    say(f"{out}: vector {vector} of {dataset}, layer {', '.join(map(str, by_layer))} of {model}")


def _model_type(provenance: str) -> str:
    """The model's type as the builder recorded it; "" in caches that do not say."""
    try:
        return str(json.loads(provenance)["model"]["architecture"])
    except (ValueError, KeyError, TypeError):
        return ""


def _load(source: str, overrides: list[str] | None, data_dir: Path | None):
    require("torch", "build", "building a cache")
    require("transformers", "build", "building a cache")
    from cache_builder.spec import load_spec

    more = list(overrides or [])
    if data_dir is not None:
        more.append(f"run.data_dir={data_dir}")
    return load_spec(source, more)


def _ray_options(backend: str, **ray: Any) -> dict[str, Any]:
    """Refused where they make no sense together, before anything is read: a dry run is of the command as it stands."""
    if backend not in ("local", "ray"):
        raise typer.BadParameter(f"{backend!r} is neither local nor ray", param_hint="--backend")
    given = [f"--{name.replace('_', '-')}" for name, value in ray.items() if value is not None]
    if given and backend == "local":
        raise typer.BadParameter("only a build on Ray takes it; give --backend ray too", param_hint=given[0])
    return ray


def _build(spec: Any, target: Path, backend: str, ray: dict[str, Any]) -> Path:
    from cache_builder.build import run_build

    directory(target, "the cache")
    say(f"building {spec.name} into {target}")
    try:
        with interruptible() as ears, progress_bar() as progress:
            if backend == "ray":
                require("ray", "ray", "building on Ray")
                from cache_builder.workers.distributed import run_on_ray

                report = run_on_ray(spec, target, **ray, progress=_steps(progress, "units", ears.check), notice=notice)
            else:
                report = run_build(spec, target, progress=_steps(progress, "units", ears.check), notice=notice)
    except KeyboardInterrupt:
        begun = (target / "manifest.json").exists()
        kept = f"finished units are kept in {target}; the same command goes on from there"
        notice(f"interrupted: {kept if begun else 'nothing was written yet'}")
        raise typer.Exit(130) from None
    say(report.summary())
    return report.root


def _steps(progress: Progress, label: str, check: Callable[[], None] = lambda: None) -> Callable[..., None]:
    """A listener `(done, total, what)` that moves one bar, after a `check` that may end the work."""
    task = progress.add_task(label, total=None, of="units")

    def step(done: float, total: float, what: str = "") -> None:
        check()
        progress.update(task, completed=done, total=total, description=what or label)

    return step
