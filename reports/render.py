"""The report: one HTML page that holds everything it shows, with figures and tables as files beside it.

Text from caches (datasets, prompts, models, warnings) is untrusted: the templates escape everything, and only the SVG
that this package drew goes in as markup. The page's own policy forbids scripts and requests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

import analyses
from analyses._cache import people_count, study_of
from analyses._claim import Claim, Finding
from reports import words
from reports.collect import RESULTS, Done, default_workers, label_caches, plan, run_jobs
from reports.details import dataset_pages
from reports.embed import inline_svg, theme_variables
from reports.record import PAGE
from reports.references import references_for
from reports.tables import MOST_ROWS, cells

SOFTWARE = ("steerstats", "numpy", "scipy", "pandas", "statsmodels", "scikit-learn", "matplotlib", "seaborn")
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
        With two or more they are also set side by side, the first against each other one.
    out : path
        Directory. Gets `report.html`, and in `results/LABEL/` every figure (SVG, PDF) and table (CSV, Parquet, TeX).
    seed : int
        Of every resampling.
    jobs : int, optional
        Processes; by default the cores of the machine, at most four.
    progress : rich.progress.Progress, optional

    Returns
    -------
    pathlib.Path
        The page.

    Raises
    ------
    CacheError
        If a path is no cache, or a cache is damaged. What a cache merely lacks is said in the report.
    """
    folder, labels = Path(out), label_caches(caches)
    for path in labels.values():
        study_of(path)
    workers = default_workers() if jobs is None else jobs
    done = run_jobs(plan(labels), folder, seed=seed, workers=workers, progress=progress)
    return write_page(labels, done, folder, seed=seed)


def write_page(labels: Mapping[str, str], done: Sequence[Done], out: Path, *, seed: int = 0) -> Path:
    """Write `report.html` from what the scripts left in `out/results`."""
    studies = {label: study_of(path) for label, path in labels.items()}
    several = len(labels) > 1
    sections = [_section(section, done, out, several) for section in analyses.SECTIONS]
    datasets, summary, methods, provenance, notices = [], [], [], [], []
    for k, (label, study) in enumerate(studies.items()):
        own = [one.finding for one in done if one.job.label == label]
        summary.append({"label": label if several else "", **words.summary(own, _prefix(label, several))})
        methods += words.methods(study, own, seed, software_versions())
        pages = dataset_pages(study, out / RESULTS / label, f"c{k + 1}-" if several else "")
        datasets += [page | {"name": f"{page['name']} in {label}"} if several else page for page in pages]
        provenance.append({"label": label if several else "", "rows": _provenance(study, seed)})
        notices += _notices(label if several else "", study, own)
    text = (
        _environment()
        .get_template("report.html.jinja")
        .render(
            title=_title(studies),
            version=software_versions()["steerstats"],
            style=_style(),
            facts=_facts(studies),
            summary=summary,
            notices=notices,
            sections=sections,
            datasets=datasets,
            claim_table=_claim_table(done, several),
            methods=list(dict.fromkeys(methods)),
            references=references_for(one.job.script for one in done if not one.finding.missing),
            provenance=provenance,
        )
    )
    out.mkdir(parents=True, exist_ok=True)
    page = out / PAGE
    page.write_text(text, encoding="utf-8", newline="\n")
    return page


def software_versions() -> dict[str, str]:
    """Versions of what the numbers and the figures depend on."""
    found = {}
    for name in SOFTWARE:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


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
    dark = f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {theme_variables(True)} {DARK} }} }}"
    return Markup(f"{light}\n{css}{dark}")


def _title(studies: Mapping[str, Any]) -> str:
    names = list(dict.fromkeys(_model_name(study.model) for study in studies.values()))
    if len(studies) == 1:
        return f"Does steering {names[0]} work?"
    listed = " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
    return f"Does steering work? {listed} side by side" if len(names) > 1 else f"Steering {names[0]}, side by side"


def _model_name(model: str) -> str:
    """A model's id as a title has it: without its owner."""
    return "the bundled demo model" if model.startswith("bundled:") else model.rstrip("/").rsplit("/", 1)[-1]


def _facts(studies: Mapping[str, Any]) -> list[tuple[str, str]]:
    study = next(iter(studies.values()))
    inputs = sum(len(study.unit(name).inputs) for name in study.datasets)
    facts = [("datasets", str(len(study.datasets))), ("test inputs", f"{inputs:,}")]
    if len(studies) > 1:
        facts = [("caches", ", ".join(studies))]
    return [*facts, ("settings", ", ".join(study.settings)), ("build", study.reader.spec_hash[:12])]


def _prefix(label: str, several: bool) -> str:
    return f"{label}-" if several else ""


def _section(section: analyses.Section, done: Sequence[Done], out: Path, several: bool) -> dict[str, Any]:
    own = [one for script in section.scripts for one in done if one.job.script == script]
    return {
        "id": section.id,
        "title": section.title,
        "lead": section.lead,
        "findings": [_finding_view(one, out, several) for one in own if not one.finding.missing],
        "missing": [_missing_view(one, several) for one in own if one.finding.missing],
    }


def _missing_view(one: Done, several: bool) -> dict[str, str]:
    anchor = f"{_prefix(one.job.label, several)}{one.finding.script}"
    cache = f" ({one.job.label})" if several else ""
    return {"id": anchor, "title": f"{one.finding.title}{cache}", "why": one.finding.missing}


def _finding_view(one: Done, out: Path, several: bool) -> dict[str, Any]:
    finding, folder = one.finding, out / RESULTS / one.job.label
    anchor = f"{_prefix(one.job.label, several)}{finding.script}"
    svg = (folder / f"{finding.script}.svg").read_text(encoding="utf-8")
    table = pd.read_parquet(folder / f"{finding.script}.parquet")
    where = f"{RESULTS}/{one.job.label}/{finding.script}.csv"
    claims, said = [], ""
    for claim in finding.claims:
        view = _claim_view(claim)
        # Four shifts share one published value; its source and the reasons are said once.
        same, said = view["published"] + view["reason"] == said, view["published"] + view["reason"]
        if same and claim.published is not None:
            view |= {"published": f"Published: {words.number(claim.published)}, as above.", "reason": ""}
        claims.append(view)
    return {
        "id": anchor,
        "title": finding.title,
        "paper": f"paper: {finding.paper}" if finding.paper.startswith("figure") else finding.paper,
        "cache": one.job.label if several else "",
        "warnings": [words.tidy(text) for text in finding.warnings],
        "claims": claims,
        "svg": Markup(inline_svg(svg, anchor, finding.title, finding.alt)),
        "caption": _caption(finding),
        "table": cells(table, f"{finding.title}; as a file: {where}", label="The numbers as a table", most=MOST_ROWS),
    }


def _caption(finding: Finding) -> list[list[tuple[str, str]]]:
    """Paragraphs of (lead word, text): how to read it; bars and n; method and assumptions."""
    method = words.tidy(f"{finding.method.rstrip('.')}.")
    assumes = words.tidy(f"{'; '.join(finding.assumptions)}.") if finding.assumptions else ""
    paragraphs = [
        [("How to read it.", finding.reading)],
        [("Bars:", finding.bars), ("n:", finding.counted)],
        [("Method:", method), ("Assumes:", assumes)],
    ]
    return [[(name, text) for name, text in paragraph if text] for paragraph in paragraphs]


def _claim_view(claim: Claim) -> dict[str, str]:
    form = words.percent if claim.unit == "share" else words.number
    bounded = np.isfinite(claim.ci_low) or np.isfinite(claim.ci_high)
    published = "" if claim.published is None else f"Published: {words.number(claim.published)} ({claim.source})."
    return {
        "statement": claim.statement,
        "value": form(claim.estimate),
        "interval": f"[{form(claim.ci_low)}, {form(claim.ci_high)}]" if bounded else "",
        "unit": "" if claim.unit in ("1", "share") else claim.unit,
        "fine_print": words.tidy(f"n = {claim.n} {claim.n_of}; {claim.interval}"),
        "published": published,
        "verdict": claim.verdict,
        "reason": claim.reason,
    }


def _claim_table(done: Sequence[Done], several: bool) -> dict[str, Any]:
    rows = []
    for one in done:
        for claim in one.finding.claims:
            view = _claim_view(claim)
            published = "" if claim.published is None else words.number(claim.published)
            row = {"claim": claim.statement.rstrip(":"), "estimate": view["value"], "95% interval": view["interval"]}
            row |= {"unit": view["unit"], "n": f"{claim.n} {claim.n_of}", "published": published}
            row |= {"verdict": claim.verdict}
            rows.append(row | {"cache": one.job.label} if several else row)
    columns = [
        "claim",
        "estimate",
        "95% interval",
        "unit",
        "n",
        "published",
        "verdict",
        *(["cache"] if several else []),
    ]
    return cells(pd.DataFrame(rows, columns=columns), "Claims, in the order of the sections")


def _notices(label: str, study: Any, findings: Sequence[Finding] = ()) -> list[str]:
    before = f"{label}: " if label else ""
    found = []
    if study.kind == "simulated":
        found.append(f"{before}this cache is simulated: its numbers say nothing about a language model.")
    if study.missing:
        found.append(f"{before}{len(study.missing)} planned datasets are not finished and not in these numbers.")
    if len(study.datasets) < 8:
        found.append(
            f"{before}{people_count(len(study.datasets), 'dataset')} "
            f"{'is' if len(study.datasets) == 1 else 'are'} too few for an interval of a correlation over datasets."
        )
    untold = next((words.untold(one.warnings) for one in findings if one.script == "variance_explained"), "")
    if untold:
        found.append(
            f"{before}letter (A or B) and word (Yes or No) of the answer cannot be told apart {untold}: what is said "
            "of one may be the other's."
        )
    return found


def _provenance(study: Any, seed: int) -> list[tuple[str, str]]:
    manifest, first = study.reader.manifest, study.unit(study.datasets[0]).unit
    rows = [
        ("model", study.model),
        ("kind of cache", study.kind),
        ("identity of the build", study.reader.spec_hash),
        ("datasets", ", ".join(study.datasets)),
        ("score", str(first.attrs.get("score"))),
        ("multipliers", ", ".join(f"{value:g}" for value in study.unit(study.datasets[0]).multipliers)),
    ]
    rows += [(f"build: {key}", _flat(value)) for key, value in sorted((manifest.get("provenance") or {}).items())]
    parity = (first.sidecar.get("run") or {}).get("parity")
    if parity:
        rows.append(("engine parity, first dataset", _flat(parity)))
    digests = [str(study.unit(name).unit.sidecar.get("content_sha256"))[:16] for name in study.datasets]
    rows.append(("content hashes", ", ".join(f"{name} {digest}" for name, digest in zip(study.datasets, digests))))
    sources = dict.fromkeys(str(study.unit(name).unit.attrs.get("attribution") or "") for name in study.datasets)
    rows += [("attribution", text) for text in sources if text]
    rows.append(("seed of the analysis", str(seed)))
    rows.append(("analysed with", ", ".join(f"{name} {number}" for name, number in software_versions().items())))
    return rows


def _flat(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_flat(one)}" for key, one in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_flat(one) for one in value)
    return str(value)
