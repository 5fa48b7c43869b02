"""The commands that run models: what they print; every mistake one line and exit code 2, nothing half-written."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from scipy import stats
from tiny_build import content

from cache_builder.spec import load_spec
from steerstats.cache import CacheReader


def write_spec(folder, model, **overrides):
    """A spec file of top-level keys and one level of tables."""
    values = content(model, **overrides)
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items() if not isinstance(value, dict)]
    for key, table in values.items():
        if isinstance(table, dict):
            lines += [f"[{key}]", *(f"{name} = {json.dumps(value)}" for name, value in table.items())]
    path = folder / "spec.toml"
    path.write_text("\n".join(lines))
    return path


def test_build_says_where_it_writes_and_what_it_did_and_does_it_once(run, tmp_path, model):
    spec = write_spec(tmp_path, model)
    code, out, errors = run("build", spec, "-o", tmp_path / "c")
    assert code == 0, errors
    assert f"building tiny into {tmp_path / 'c'}" in out
    assert "3 units built" in out
    assert "trie path: largest difference" in out
    code, out, _ = run("build", spec, "-o", tmp_path / "c")
    assert "0 units built" in out
    assert "3 were finished before" in out


def test_overrides_reach_the_spec(run, tmp_path, model):
    spec = write_spec(tmp_path, model)
    run("build", spec, "-o", tmp_path / "c", "-s", 'datasets=["bundled:demo/likes-rain"]', "-s", "controls={}")
    assert CacheReader(tmp_path / "c").planned_units == ("likes-rain",)


def test_a_cache_lies_where_the_command_says_else_the_spec_else_under_its_name(run, tmp_path, model, monkeypatch):
    spec, asked = write_spec(tmp_path, model), []
    monkeypatch.setattr(
        "steerstats.cli.build._build", lambda spec, target, *_: asked.append((target, spec.run.data_dir))
    )
    for options in (["-s", "run.out=there", "-o", "here"], ["-s", "run.out=there"], ["--data-dir", tmp_path]):
        assert run("build", spec, *options)[0] == 0
    assert asked == [(Path("here"), None), (Path("there"), None), (Path("tiny-cache"), str(tmp_path))]


def test_a_dry_run_prints_units_tokens_bytes_and_time_and_writes_nothing(run, tmp_path, model, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = write_spec(tmp_path, model)
    code, out, _ = run("build", spec, "--dry-run")
    assert code == 0
    assert all(word in out for word in ("likes-rain", "total", "MB", "tokens/s"))
    code, out, _ = run("build", spec, "--dry-run", "--no-probe")
    assert "not measured" in out
    assert os.listdir(tmp_path) == ["spec.toml"]


@pytest.mark.parametrize(("count", "datasets", "least"), [(19, 14, 14), (39, 14, 7), (99, 40, 8), (278, 14, 2)])
def test_a_dry_run_says_how_many_datasets_so_few_null_vectors_can_show(count, datasets, least):
    from steerstats.cli.build import _few_nulls

    said = _few_nulls("random", count, datasets)
    assert said.startswith(f"controls.random = {count} cannot show fewer than {least} of {datasets} datasets to differ")
    for together in (least - 1, least):
        p = [1 / (count + 1)] * together + [1.0] * (datasets - together)
        assert (min(stats.false_discovery_control(p)) <= 0.05 + 1e-9) == (together == least)
    assert _few_nulls("random", 18, 14).startswith("controls.random = 18 cannot show any of 14 datasets to differ")
    assert _few_nulls("random", 279, 14) == _few_nulls("random", 0, 14) == ""
    assert _few_nulls("shuffled", 10, 40).endswith(
        "799 can show one alone; all taken together, they can at best show that at least 39 do"
    )
    assert _few_nulls("shuffled", 3, 14).endswith("279 can show one alone"), "fourteen p-values of 1/4 show nothing"


def test_a_dry_run_notes_too_few_controls(run, tmp_path, model):
    errors = run("build", write_spec(tmp_path, model, controls={"random": 3}), "--dry-run", "--no-probe")[2]
    assert "note: controls.random = 3 cannot show any of 3 datasets to differ from the null" in errors


def test_a_dry_run_says_of_prompts_and_datasets_what_the_build_says(run, tmp_path, model):
    lines = [{"prompt": f"Is it {k % 9}?", "positive": "sun", "negative": "rain"} for k in range(12)]
    spec = own_lines(tmp_path, model, lines, controls={"debiased": True})
    odd = "-s", "prompt.template_args.think=false"
    dry = " ".join(run("build", spec, "--dry-run", "--no-probe", *odd)[2].split())
    code, _, errors = run("build", spec, "-o", tmp_path / "c", *odd)
    assert code == 0, errors
    for said in (
        "prompt.template_args.think changes nothing",
        "3 of 12 records repeat another one",
        "no debiased vector is made",
    ):
        assert said in dry
        assert said in " ".join(errors.split())


def test_a_sweep_names_a_layer(run, tmp_path, model):
    spec = write_spec(tmp_path, model, limit=40, split_percent=[40, 30, 30])
    code, out, errors = run("sweep", spec, "-o", tmp_path / "s", "--layers", "0,2", "-s", "order='tan2024'")
    assert code == 0, errors
    assert "nats per unit multiplier, best in" in out
    assert "settings, controls of the spec are left out" in " ".join(errors.split())
    assert CacheReader(tmp_path / "s").kind == "sweep"
    said = re.search(r"steerstats build (.*)", " ".join(out.split()))[1]
    assert re.search(r"-s 'layers=\[\d\]'", said), "zsh takes bare brackets for a pattern, and finds no such file"
    following = shlex.split(said)
    assert following[1::2] == ["-s", "-s", "-o"]
    grid = load_spec(following[0], following[2:5:2])
    assert grid.layers == (int(re.search(r"Layer (\d)", out)[1]),)
    assert (grid.order, load_spec(spec).order) == ("tan2024", "balanced"), "what the command line changed stays changed"


def test_the_grid_that_follows_a_sweep_is_of_all_that_its_command_line_said(run, tmp_path, model, monkeypatch):
    for name in ("my specs", "my data"):
        (tmp_path / name).mkdir()
    spec, data, chosen = write_spec(tmp_path / "my specs", model), str(tmp_path / "my data"), 'datasets=["my own"]'
    monkeypatch.setattr("steerstats.cli.build._load", lambda *said: asked.append(said))
    monkeypatch.setattr("cache_builder.spec.sweep.sweep_spec", lambda *_: None)
    monkeypatch.setattr("steerstats.cli.build._build", lambda *_: tmp_path)
    choice = SimpleNamespace(chosen=1, summary=lambda: "layer 1")
    monkeypatch.setattr("steerstats.sweeps.choose_sweep_layer", lambda root: choice)
    asked = []
    code, out, _ = run("sweep", spec, "-o", tmp_path / "s", "-s", chosen, "--data-dir", data)
    assert (code, asked) == (0, [(str(spec), [chosen], Path(data))])
    said = shlex.split(out.partition("on test inputs: ")[2])
    assert said[:3] == ["steerstats", "build", str(spec)]
    assert said[3:] == ["-s", chosen, "--data-dir", data, "-s", "layers=[1]", "-o", "DIRECTORY"]


def test_options_of_ray_reach_it_from_build_and_from_sweep(run, tmp_path, model, monkeypatch):
    from types import SimpleNamespace

    from cache_builder.workers import distributed

    asked = []

    def run_on_ray(spec, out, **options):
        asked.append((spec.sweep, {k: v for k, v in options.items() if k not in ("progress", "notice")}))
        return SimpleNamespace(root=out, summary=lambda: "done")

    monkeypatch.setattr(distributed, "run_on_ray", run_on_ray)
    monkeypatch.setattr("steerstats.cli.build.require", lambda *_: None)
    monkeypatch.setattr("steerstats.sweeps.choose_sweep_layer", lambda root: SimpleNamespace(summary=str, chosen=2))
    spec = write_spec(tmp_path, model)
    options = ["--backend", "ray", "--address", "a:1", "--workers", "3", "--gpus-per-worker", "0.5"]
    assert run("build", spec, "-o", tmp_path / "c", *options)[0] == 0
    assert run("sweep", spec, "-o", tmp_path / "s", "--layers", "0,2", *options)[0] == 0
    wanted = {"address": "a:1", "workers": 3, "gpus_per_worker": 0.5}
    assert asked == [((), wanted), ((0, 2), wanted)]


@pytest.mark.parametrize("options", [("--workers", "3"), ("--address", "a:1"), ("--gpus-per-worker", "0")])
@pytest.mark.parametrize("command", ["build", "sweep"])
def test_options_of_ray_without_ray_are_refused_and_nothing_is_built(run, model, tmp_path, command, options):
    code, _, text = run(command, write_spec(tmp_path, model), "-o", tmp_path / "c", *options)
    assert code == 2
    assert f"Invalid value for {options[0]}: only a build on Ray takes it; give --backend ray too" in text
    if command == "build":
        assert run(command, write_spec(tmp_path, model), "--dry-run", "--no-probe", *options)[0] == 2
    assert not (tmp_path / "c").exists()


def spoiled(model, folder):
    """A model whose weights are NaN in one place."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    network = AutoModelForCausalLM.from_pretrained(model)
    with torch.no_grad():
        network.model.layers[0].mlp.down_proj.weight[0, 0] = float("nan")
    network.save_pretrained(folder)
    AutoTokenizer.from_pretrained(model).save_pretrained(folder)
    return folder


def own_lines(folder, model, lines, **overrides):
    (folder / "mine.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    own = {"datasets": ["mine"], "custom_datasets": {"mine": "mine.jsonl"}, "settings": ["base"], "prompt": {}}
    return write_spec(folder, model, **own, order="tan2024", **overrides)


MISTAKES = {
    "no spec": (lambda p, m: ["nowhere.toml"], "nowhere.toml: is neither a file nor a preset (demo, tan2024)"),
    "bad key": (lambda p, m: [write_spec(p, m), "-s", "multiplier=[0,1]"], "multiplier: key is not known"),
    "bad toml": (lambda p, m: [(p / "spec.toml").write_text("x = [") and p / "spec.toml"], "is not TOML"),
    "dataset": (
        lambda p, m: [write_spec(p, m, datasets=["opennes"])],
        "dataset 'opennes' is not known; did you mean openness",
    ),
    "layer": (lambda p, m: [write_spec(p, m, layers=[9])], "layer 9 is not in"),
    "model": (lambda p, m: [write_spec(p, p / "gone")], "no such directory"),
    "nan": (lambda p, m: [write_spec(p, spoiled(m, p / "nan"))], "not finite"),
    "line": (
        lambda p, m: [
            (p / "mine.jsonl").write_text('{"prompt": "x", "positive": "a", "negative": "b"}\n{"prompt": "y"}\n')
            and write_spec(
                p, m, datasets=["mine"], custom_datasets={"mine": "mine.jsonl"}, settings=["base"], prompt={}
            )
        ],
        "mine.jsonl, line 2",
    ),
    "backend": (lambda p, m: [write_spec(p, m), "--backend", "slurm"], "neither local nor ray"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_line_exit_code_2_and_nothing_half_written(run, tmp_path, model, case):
    arguments, message = MISTAKES[case]
    code, out, errors = run("build", *arguments(tmp_path, model), "-o", tmp_path / "new")
    assert code == 2, errors
    assert message in " ".join(errors.split())
    assert "Traceback" not in out + errors
    if case != "backend":
        assert errors.splitlines()[-1].startswith("error: ")
    assert not list(tmp_path.glob("new/units/*"))


def test_folds_are_refused_before_the_first_unit_is_built(run, tmp_path, model):
    few = [{"prompt": f"Is it {word}?", "positive": "Yes", "negative": "No"} for word in ("sun", "rain", "snow")]
    spec = own_lines(tmp_path, model, few, controls={"folds": 3})
    code, _, errors = run("build", spec, "-o", tmp_path / "c", "-s", 'datasets=["bundled:demo/likes-rain", "mine"]')
    assert code == 2, errors
    message = "controls.folds: 3 disjoint folds need as many training questions, and dataset mine has 1"
    assert message in " ".join(errors.split())
    assert not list(tmp_path.glob("c/units/*"))


def test_a_full_disk_in_the_middle_is_one_line_and_the_build_goes_on_later(run, tmp_path, model, monkeypatch):
    from steerstats.cache import writer

    spec, whole, calls = write_spec(tmp_path, model), writer.fsync_and_hash, []

    def full(path):
        calls.append(path)
        if len(calls) == 2:
            raise OSError(28, "No space left on device", str(path))
        return whole(path)

    monkeypatch.setattr(writer, "fsync_and_hash", full)
    code, _, errors = run("build", spec, "-o", tmp_path / "c")
    assert code == 2
    assert "could not be written: [Errno 28] No space left on device" in errors.splitlines()[-1]
    assert len(list((tmp_path / "c" / "units").iterdir())) == 2  # one unit with its sidecar, nothing else
    code, out, _ = run("build", spec, "-o", tmp_path / "c")
    assert "2 units built" in out


def _as_a_library_tells_it(progress):
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        raise TypeError("Cannot compare structured arrays") from None


def _dropped_by_a_library(progress):
    with contextlib.suppress(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    progress(1, 2, "")


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize(
    "interrupt",
    [lambda _: signal.raise_signal(signal.SIGINT), _as_a_library_tells_it, _dropped_by_a_library],
    ids=["plain", "another error", "dropped"],
)
def test_ctrl_c_says_what_is_kept_only_where_something_is(
    run, tmp_path, model, monkeypatch, listening, begun, interrupt
):
    from cache_builder import build

    def interrupted(spec, out, progress, **_):
        if begun:
            out.mkdir()
            (out / "manifest.json").write_text("{}")
        interrupt(progress)

    monkeypatch.setattr(build, "run_build", interrupted)
    code, _, errors = run("build", write_spec(tmp_path, model), "-o", tmp_path / "c")
    assert code == 130
    kept = f"finished units are kept in {tmp_path / 'c'}; the same command goes on from there"
    assert errors == f"note: interrupted: {kept if begun else 'nothing was written yet'}\n"


def test_a_demo_reports_its_own_cache_with_the_seed_that_is_asked_for(run, tmp_path, monkeypatch):
    folder, asked = tmp_path / "d", []

    def build(spec, target, *_):
        asked.append((spec.name, target))
        return target

    def render(caches, target, *, seed, progress):
        asked.append((caches, target, seed))
        return target / "report.html"

    monkeypatch.setattr("steerstats.cli.build._build", build)
    monkeypatch.setattr("reports.render.render_report", render)
    code, out, _ = run("demo", "-o", folder, "--seed", 7)
    assert (code, asked) == (0, [("demo", folder / "cache"), ([folder / "cache"], folder, 7)])
    assert f"report: {folder / 'report.html'}" in out


def test_demo_refuses_a_directory_that_is_a_cache_before_it_builds(run, tmp_path, model):
    spec = write_spec(tmp_path, model, datasets=["bundled:demo/likes-rain"], controls={})
    run("build", spec, "-o", tmp_path / "c")
    before = sorted(path.name for path in (tmp_path / "c").iterdir())
    code, _, errors = run("demo", "-o", tmp_path / "c")
    assert code == 2
    assert "is a cache" in errors
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == before
