"""The report: one HTML page that holds everything it shows, with figures and tables as files beside it.

Text from caches (datasets, prompts, models, warnings) is untrusted: the templates escape everything, and only the SVG
that this package drew goes in as markup. The page's own policy forbids scripts and requests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from analyses._cache import check_distinct, facts_of, label_caches, study_of, vectors_of_kind
from analyses._words import listed
from reports import operators, words
from reports.collect import RESULTS, Done, default_workers, plan, run_jobs
from reports.details import dataset_pages
from reports.embed import theme_variables
from reports.methods import methods as write_methods
from reports.notices import begun, by_cache, notices_between, notices_of
from reports.provenance import provenance_rows
from reports.record import PAGE, software_versions, staged, write_claim_tables
from reports.sections import anchor_prefix, claim_view, sections_of, sections_of_a_sweep
from reports.tables import cells
from reports.terminal import UNITS
from steerstats.errors import check_count
from steerstats.protocol import UNNAMED, differences

SWEEP_NAME = "-sweep"  # what the builder appends to the name of a spec whose layers it sweeps
PRESETS = ("", "demo", "tan2024")  # names of specs that name no study; the builder, which has them, may be absent
DIFFERENCES = "Differences in steerability between the caches, nats per unit multiplier"
DARK = "--page: #14171b; --surface: #1b1f25; --link: #9cc4f5;"


def render_report(
    caches: Sequence[str | Path],
    out: str | Path,
    *,
    seed: int = 0,
    jobs: int | None = None,
    progress: Any = None,
) -> Path:
    """Analyse caches and write the report.

    Parameters
    ----------
    caches : sequence of path
        With two or more they are also set side by side, each pair of them.
    out : path
        Directory. Gets `report.html`, and in `results/LABEL/` every figure (SVG, PDF) and table (CSV, Parquet, TeX).
        An earlier report there is replaced, once the new one is whole.
    seed : int
        Of every resampling.
    jobs : int, optional
        Processes; by default, and with 0, the cores of the machine, at most four.
    progress : rich.progress.Progress, optional

    Returns
    -------
    pathlib.Path
        The page.

    Raises
    ------
    CacheError
        If a path is no cache, or a cache is damaged. What a cache merely lacks is said in the report.
    InputError
        If `out` is a file or a cache, or holds files and no earlier report.
    """
    check_count("seed", seed, at_least=0)
    folder, labels = Path(out), label_caches(caches)
    check_distinct(labels.values())
    with staged(folder, list(labels.values())) as stage:
        done = run_jobs(plan(labels), stage, seed=seed, workers=jobs or default_workers(), progress=progress)
        write_claim_tables(stage, done)
        write_page(labels, done, stage, seed=seed)
    return folder / PAGE


def write_page(labels: Mapping[str, str], done: Sequence[Done], out: Path, *, seed: int = 0) -> None:
    """Write `report.html` from what the scripts left in `out/results`."""
    studies = {label: study_of(path) for label, path in labels.items()}
    several = len(labels) > 1
    sweep = all(study.kind == "sweep" for study in studies.values())
    names = {*studies, *(name for study in studies.values() for name in study.datasets)}
    grids = [study for study in studies.values() if study.kind != "sweep"]
    names.update(name for study in grids for name in vectors_of_kind(study, "imported"))
    sections = (
        sections_of_a_sweep(done, out, names=names) if sweep else sections_of(done, out, several=several, names=names)
    )
    datasets, summary, provenance, notices = [], [], [], {}
    for k, (label, study) in enumerate(studies.items()):
        own, named = [one.finding for one in done if one.job.label == label], {"label": label if several else ""}
        summary.append(named | operators.summary(study, own, anchor_prefix(label, several)))
        # Several caches would make several books: the first one's datasets are shown whole, the others' in brief.
        pages = dataset_pages(study, out / RESULTS / label, f"c{k + 1}-" if several else "", brief=k > 0)
        datasets.append(named | {"pages": pages})
        provenance.append(named | {"rows": provenance_rows(study, seed)})
        notices[label] = notices_of(study, own)
    apart = [f"{text}." for text in differences(studies)]  # beside the first table, which a reader takes for the rest
    notices = [*notices_between(studies), *apart, *(by_cache(notices) if several else chain(*notices.values()))]
    methods, references = write_methods(studies, [one.finding for one in done], seed, software_versions())
    between = words.differences([one.finding for one in done])
    text = (
        _environment()
        .get_template("report.html.jinja")
        .render(
            title=_title(studies),
            version=software_versions()["steerstats"],
            style=_style(),
            facts=_facts(studies),
            summary=summary,
            differences=_differences(between) if between else None,
            glossary=operators.glossary(studies.values()),
            notices=[begun(text, names) for text in notices],
            sections=sections,
            datasets=[group for group in datasets if group["pages"]],
            claim_table=_claim_table(done, several),
            methods=methods,
            references=references,
            provenance=provenance,
        )
    )
    out.mkdir(parents=True, exist_ok=True)
    (out / PAGE).write_text(text, encoding="utf-8", newline="\n")


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("reports", "templates"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=False,
    )


def _style() -> Markup:
    css = resources.files("reports").joinpath("templates", "report.css").read_text("utf-8")
    light = f":root {{ {theme_variables(False)} }}"
    # Dots are a picture inside the drawing, in colours that cannot be exchanged: a dark page lights them up, and only
    # as far as they still have the colours of their key.
    lit = ".plot image { filter: brightness(1.15); }"
    dark = f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {theme_variables(True)} {DARK} }} {lit} }}"
    return Markup(f"{light}\n{css}{dark}")


def _differences(rows: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """The table between the caches; a caption for all rows where they are of the same datasets, as they mostly are."""
    frame = pd.DataFrame(rows)
    over = frame["over"].unique()
    if len(over) == 1:
        return cells(frame.drop(columns="over"), f"{DIFFERENCES}, {over[0]}")
    return cells(frame, DIFFERENCES)


def _title(studies: Mapping[str, Any]) -> str:
    sweep = all(study.kind == "sweep" for study in studies.values())
    names = list(dict.fromkeys(_model_name(study.model) for study in studies.values()))
    if UNNAMED in names:
        names = []
    if sweep:  # which is always alone
        return f"At which layer to steer{''.join(f' {name}' for name in names)}?"
    if not names:
        return f"Does steering work?{' Caches side by side' if len(studies) > 1 else ''}"
    if len(studies) == 1:
        return f"Does steering {names[0]} work?"
    if len(names) == 1:
        return f"Steering {names[0]}, side by side"
    return f"Does steering work? {listed(names)} side by side"


def _model_name(model: str) -> str:
    """A model's id as a title has it: without its owner."""
    return "the bundled demo model" if model.startswith("bundled:") else model.rstrip("/").rsplit("/", 1)[-1]


def _of(study: Any) -> str:
    return f"model {UNNAMED}" if study.model == UNNAMED else study.model


def _facts(studies: Mapping[str, Any]) -> list[tuple[str, str]]:
    study = next(iter(studies.values()))
    if len(studies) > 1:
        built = [
            (label, f"{_of(one)}{_layer(one, ', layer ')}, build {one.reader.spec_hash[:12]}{_name(one, ', study ')}")
            for label, one in studies.items()
        ]
        return [("caches", str(len(studies))), *built]
    inputs = sum(len(unit.inputs) for unit in study.units.values())
    facts = [
        *([("study", name)] if (name := _name(study)) else []),
        ("datasets", str(len(study.datasets))),
        (f"{'validation' if study.kind == 'sweep' else 'test'} inputs", f"{inputs:,}"),
    ]
    facts.append(("settings", str(len(study.settings))))
    if layer := _layer(study):
        facts.append(("layers" if "," in layer else "layer", layer))
    return [*facts, ("build", study.reader.spec_hash[:12])]


def _name(study: Any, before: str = "") -> str:
    """The study's name, where its author gave it one; "" where it is a preset's, or a table's, which has none."""
    name = str(study.spec.get("name") or "")
    return "" if name.removesuffix(SWEEP_NAME) in PRESETS else f"{before}{name}"


def _layer(study: Any, before: str = "") -> str:
    """The steered layer, "" where the cache does not say; several are named."""
    layer = None if study.kind == "sweep" else facts_of(study)["layer"]
    if layer is None:
        return ""
    return before + (", ".join(map(str, layer)) if isinstance(layer, (list, tuple)) else str(layer))


def _claim_table(done: Sequence[Done], several: bool) -> dict[str, Any]:
    rows = []
    for one in done:
        for claim in one.finding.claims:
            view = claim_view(claim)
            text, value = claim.statement.rstrip(":"), view["value"]
            if claim.counts:
                text, value = f"{text} ({' / '.join(claim.counts)})", " / ".join(map(str, claim.counts.values()))
            elif not np.isfinite(claim.estimate):
                text, value = f"{text}: {value}", "—"
            row = {"claim": text, "estimate": value, "95% interval": view["interval"]}
            row |= {"unit": UNITS.get(view["unit"], view["unit"]), "n": f"{claim.n} {claim.n_of}" if claim.n else ""}
            row |= {"published": claim.shown_published, "verdict": claim.verdict}
            rows.append(row | {"cache": one.job.label} if several else row)
    columns = ["claim", "estimate", "95% interval", "unit", "n", "published", "verdict", *["cache"] * several]
    caption = "Claims, in the order of the sections; nat/λ is nats per unit multiplier"
    return cells(pd.DataFrame(rows, columns=columns), caption)
