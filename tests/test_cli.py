"""The command line on caches: what it prints, and one line with exit code 2 for every mistake."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pandas as pd
import pytest
from example_table import example_rows
from test_cache import edit, make_cache

from cache_builder.workers.leases import claim
from steerstats import demo_cache
from steerstats.cache.disk import machine_tag

BUILDING = ("build", "sweep", "demo") if find_spec("torch") else ()  # the commands of the other half


def test_inspect_shows_units_and_what_is_missing(run, tmp_path):
    make_cache(tmp_path / "c", ("openness", "narcissism"), write=("openness",))
    code, out, _ = run("inspect", tmp_path / "c", "--unit", "openness")
    assert code == 0
    assert "units: 1 of 2, 1 missing" in out
    assert "narcissism: missing" in out
    assert "sizes fit; `steerstats verify` reads every number" in out
    assert "propensity (setting_eval 5 x vector 6 x multiplier 3 x input 6)" in " ".join(out.replace("│", " ").split())


def test_inspect_describes_units_that_are_alike_once(run, tmp_path):
    make_cache(tmp_path / "c", ("openness", "narcissism"))
    code, out, _ = run("inspect", tmp_path / "c")
    said = " ".join(out.translate(dict.fromkeys(map(ord, "│├└─"), " ")).split())
    assert code == 0
    assert "units: 2 of 2, complete openness, narcissism each: 6 inputs; 4 training pairs; settings base, " in said
    assert "; vectors 5 trained, 1 mean; 3 multipliers -1 to 1; activations of layer 2 size: " in said
    demo = demo_cache()
    assert f"size: {demo.stat().st_size / 1e6:.1f} MB" in run("inspect", demo)[1]


def test_inspect_tells_a_unit_that_is_being_built_from_one_that_is_missing(run, tmp_path):
    make_cache(tmp_path / "c", ("openness", "narcissism", "agreeableness"), write=("openness",))
    killed = {"machine": machine_tag(), "pid": 10**20}
    (tmp_path / "c" / "units" / ".agreeableness.lease").write_text(json.dumps(killed))
    with claim(tmp_path / "c", "narcissism"):
        out = run("inspect", tmp_path / "c")[1]
    assert "units: 1 of 3, 1 being built, 1 missing" in out
    assert "narcissism: being built" in out
    assert "2 missing" in run("inspect", tmp_path / "c")[1]


def test_pack_says_which_units_are_not_in_the_file(run, tmp_path):
    make_cache(tmp_path / "c", ("openness", "narcissism"), write=("openness",))
    code, out, errors = run("pack", tmp_path / "c", "-o", tmp_path / "c.h5")
    assert code == 0
    assert "1 of 2 units" in out
    assert "since they are planned and not finished: narcissism" in errors
    code, out, _ = run("verify", tmp_path / "c.h5")
    assert code == 1
    assert "complete: 1 of 2 units; planned and not finished: narcissism" in out


def test_a_report_on_a_half_built_cache_says_so_in_the_terminal(run, tmp_path, monkeypatch):
    make_cache(tmp_path / "half", ("openness", "narcissism"), write=("openness",))
    make_cache(tmp_path / "whole", ("openness",))
    monkeypatch.setattr("reports.render.render_report", lambda caches, target, **_: target / "report.html")
    monkeypatch.setattr("reports.reproduce.reproduce", lambda *_, **__: {"caches": [], "findings": []})
    for command in ("report", "reproduce"):
        code, out, errors = run(command, tmp_path / "whole", tmp_path / "half", "-o", tmp_path / "out")
        assert code == 0
        said = f"note: {tmp_path / 'half'}: not in the report, since they are planned and not finished: narcissism"
        assert " ".join(errors.split()) == said
        assert "report: " in out


def test_verify_fails_with_code_1_and_says_what(run, tmp_path):
    make_cache(tmp_path / "c")
    assert run("verify", tmp_path / "c")[0] == 0
    assert "ok     openness: contract" in run("verify", tmp_path / "c", "-v")[1]
    edit(tmp_path / "c", lambda root: root["propensity"].__setitem__((0, 0, 0, 0), 9.0))
    code, out, _ = run("verify", tmp_path / "c")
    assert code == 1
    assert "ok  " not in out
    assert "FAILED openness: file hash" in out


def test_a_report_that_cannot_be_verified_says_what_can(run, tmp_path):
    make_cache(tmp_path / "demo" / "cache")
    (tmp_path / "demo" / "report.html").write_text("a page")
    code, _, err = run("verify", tmp_path / "demo")
    assert code == 2
    assert "`steerstats reproduce` writes one that can be verified" in err
    assert f"{tmp_path / 'demo' / 'cache'} is a cache" in err


@pytest.mark.parametrize("command", ["fit", "import", "simulate", *BUILDING])
@pytest.mark.parametrize("below", [False, True])
def test_a_file_where_a_directory_goes_is_one_line_in_words(run, tmp_path, command, below):
    make_cache(tmp_path / "c")
    pd.DataFrame(list(example_rows())).to_csv(tmp_path / "t.csv", index=False)
    given = {"fit": ["c"], "import": ["t.csv"], "build": ["demo"], "sweep": ["demo"]}.get(command, [])
    given = [tmp_path / one if (tmp_path / one).exists() else one for one in given]
    file = tmp_path / "notes.txt"
    file.write_text("mine")
    code, _, err = run(command, *given, "-o", file / "x" if below else file)
    assert code == 2
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert line.startswith(f"error: {file} is a file; give a directory for")
    assert file.read_text() == "mine"


def test_a_number_out_of_range_is_named(run, tmp_path):
    code, _, err = run("report", tmp_path, "--seed", "-1")
    assert code == 2
    assert "'--seed'" in err
    assert "greater than or equal to 0, not -1" in err


def test_a_command_that_draws_nothing_takes_no_seed(run, tmp_path):
    code, _, err = run("fit", tmp_path, "--seed", "1")
    assert code == 2
    assert "--seed" in err


def test_help_is_not_broken_in_the_middle_of_lines(run):
    code, out, _ = run("import", "--help")
    assert code == 0
    body = out[: out.index("Arguments")]
    lines = [line.strip() for line in body.splitlines()]
    short = [k for k, line in enumerate(lines[:-1]) if 0 < len(line) < 50 and lines[k + 1] and not line.endswith(".")]
    assert not short, lines


def test_pack_then_inspect(run, tmp_path):
    make_cache(tmp_path / "c")
    assert run("pack", tmp_path / "c", "-o", tmp_path / "c.h5", "--no-activations")[0] == 0
    code, out, _ = run("inspect", tmp_path / "c.h5")
    assert code == 0
    assert "packed file" in " ".join(out.split())
    assert "activations" not in out


def test_import_makes_a_cache_and_says_what_to_do_next(run, tmp_path):
    pd.DataFrame(list(example_rows())).to_csv(tmp_path / "t.csv", index=False)
    code, out, errors = run("import", tmp_path / "t.csv", "-o", tmp_path / "c", "--model", "mine")
    assert code == 0
    assert "1 dataset, 4 inputs, multipliers -1, 0, 1; now `steerstats report" in out
    assert not errors
    assert run("verify", tmp_path / "c")[0] == 0


def test_import_sends_no_table_of_several_layers_to_a_report_which_takes_one(run, tmp_path):
    rows = [row | {"layer": layer} for layer in (3, 4) for row in example_rows()]
    pd.DataFrame(rows).to_csv(tmp_path / "t.csv", index=False)
    code, out, _ = run("import", tmp_path / "t.csv", "-o", tmp_path / "c")
    assert code == 0
    own = "`steerstats report` wants each in a cache of its own (`steerstats import --layer N`)"
    assert f"open_cache(path, layer=N) takes one layer; {own}" in out
    code, _, errors = run("report", tmp_path / "c", "-o", tmp_path / "r")
    assert code == 2
    assert f"open_cache(path, layer=3); {own}" in errors
    code, out, _ = run("import", tmp_path / "t.csv", "-o", tmp_path / "c4", "--layer", 4)
    assert code == 0
    assert "now `steerstats report" in out
    code, _, errors = run("import", tmp_path / "t.csv", "-o", tmp_path / "c5", "--layer", 5)
    assert (code, "no row is of layer 5; its layers are 3, 4" in errors) == (2, True)


def test_import_names_no_multipliers_that_only_one_dataset_has(run, tmp_path):
    rows = list(example_rows())
    rows += [row | {"dataset": "other", "multiplier": 2 * row["multiplier"]} for row in rows]
    pd.DataFrame(rows).to_csv(tmp_path / "t.csv", index=False)
    code, out, _ = run("import", tmp_path / "t.csv", "-o", tmp_path / "c")
    assert code == 0
    assert "2 datasets, 8 inputs, multipliers others in each dataset" in out


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"a": "base", "b": "base"}, ""),
        ({"a": "sys_pos", "b": "sys_pos"}, "note: no rows have both settings base"),
        ({"a": "base", "b": "sys_pos"}, "note: no rows of b have both settings base"),
    ],
    ids=["base", "none", "one"],
)
def test_import_says_where_no_vector_is_used_under_its_own_base_prompt(run, tmp_path, settings, said):
    rows = [
        r | {"dataset": d, "setting_train": s, "setting_eval": s} for d, s in settings.items() for r in example_rows()
    ]
    # under another prompt there are rows, and a vector of base is there
    rows += [row | {"dataset": name, "setting_eval": "user_pos"} for name in settings for row in example_rows()]
    pd.DataFrame(rows).to_csv(tmp_path / "t.csv", index=False)
    code, _, errors = run("import", tmp_path / "t.csv", "-o", tmp_path / "c")
    assert code == 0
    assert " ".join(errors.split()).startswith(said)
    assert bool(errors) == bool(said)


@pytest.mark.parametrize(("shift", "said"), [(0.0, True), (-0.5, False)])
def test_import_doubts_that_shares_are_nats(run, tmp_path, shift, said):
    table = pd.DataFrame(list(example_rows()))
    table["propensity"] = np.linspace(0, 1, len(table)) + shift
    table.to_csv(tmp_path / "t.csv", index=False)
    code, _, errors = run("import", tmp_path / "t.csv", "-o", tmp_path / "c")
    assert code == 0
    assert ("every propensity lies from 0 to 1" in " ".join(errors.split())) is said


def test_import_says_what_it_calls_a_dataset_whose_name_makes_no_file(run, tmp_path):
    rows = [row | {"dataset": name} for name in ("émotion", "my data", "plain") for row in example_rows()]
    pd.DataFrame(rows).to_csv(tmp_path / "t.csv", index=False)
    code, out, errors = run("import", tmp_path / "t.csv", "-o", tmp_path / "c")
    assert code == 0
    assert "3 datasets, 12 inputs" in out
    first, second = errors.splitlines()
    assert first.startswith("note: dataset 'émotion' is called emotion here, since a name should be ASCII")
    assert second.startswith("note: dataset 'my data' is called my-data here")
    assert "factor_NAME" in run("import", "--help")[1]


def test_commands_that_are_said_to_come_next_can_be_pasted_whatever_the_folder_is_called(run, tmp_path):
    table, cache = tmp_path / "my scores.csv", tmp_path / "my cache"
    pd.DataFrame(list(example_rows())).to_csv(table, index=False)
    said = run("import", table, "-o", cache)[1]
    said += run("reproduce", cache, "-o", tmp_path / "my claims", "-j", "1")[1]
    said += run("report", table, "-o", tmp_path / "new")[2]
    said = said.replace("\n", "")
    assert f"steerstats report '{cache}' -o DIR" in said
    assert f"steerstats verify '{tmp_path / 'my claims'}'" in said
    assert f"steerstats import '{table}' -o DIR" in said


def mistakes(tmp_path):
    make_cache(tmp_path / "good")
    make_cache(tmp_path / "old")
    edit(tmp_path / "old", lambda root: root.attrs.__setitem__("version", 99))
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.csv").write_text("dataset,input\nx,y\n")
    (tmp_path / "junk.h5").write_bytes(b"junk")
    (tmp_path / "base.toml").write_text('name = "x"')
    (tmp_path / "semi.csv").write_text("dataset;input;propensity\nx;y;1\n")
    return {
        "no such cache": (["inspect", tmp_path / "nowhere"], "nowhere"),
        "no manifest": (["inspect", tmp_path / "empty"], "is not a cache: it has no manifest.json"),
        "not hdf5": (["inspect", tmp_path / "junk.h5"], "cannot be opened as HDF5"),
        "version": (["inspect", tmp_path / "old"], "schema version 99 cannot be read; this steerstats reads 1"),
        "spec": (
            ["fit", tmp_path / "base.toml", "-o", tmp_path / "new"],
            "base.toml is a spec, not a cache; `steerstats",
        ),
        "scores": (
            ["report", tmp_path / "semi.csv", "-o", tmp_path / "new"],
            "semi.csv is a table, not a cache; `steerstats import",
        ),
        "semicolons": (["import", tmp_path / "semi.csv", "-o", tmp_path / "new"], "seem to be by ';'"),
        "unit": (["inspect", tmp_path / "good", "--unit", "x"], "dataset 'x' is not in this cache; it has openness"),
        "table": (
            ["import", tmp_path / "bad.csv", "-o", tmp_path / "new"],
            "columns 'setting_train', 'setting_eval', 'multiplier', 'propensity' are missing",
        ),
        "no table": (["import", tmp_path / "no.csv", "-o", tmp_path / "new"], "no such file"),
        "taken": (["pack", tmp_path / "good", "-o", tmp_path / "junk.h5"], "junk.h5 exists"),
        "report": (["report", tmp_path / "nowhere", "-o", tmp_path / "new"], "nowhere"),
        "fit into a cache": (["fit", tmp_path / "good", "-o", tmp_path / "good"], "good is a cache"),
        "fit": (["fit", tmp_path / "old", "-o", tmp_path / "new"], "schema version 99"),
    }


CASES = (
    "no such cache",
    "no manifest",
    "not hdf5",
    "spec",
    "scores",
    "semicolons",
    "version",
    "unit",
    "table",
    "no table",
    "taken",
    "report",
    "fit into a cache",
    "fit",
)


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_is_one_line_and_exit_code_2(run, tmp_path, case):
    arguments, message = mistakes(tmp_path)[case]
    code, out, errors = run(*arguments)
    assert code == 2
    assert errors.count("\n") == 1, errors
    assert errors.startswith("error: ")
    assert message in errors
    assert "Traceback" not in out + errors
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("named", [True, False])
def test_an_error_of_the_system_is_told_in_words(run, tmp_path, monkeypatch, named):
    def full(*_, **__):
        raise OSError(28, "No space left on device", *[str(tmp_path / "new")] * named)

    monkeypatch.setattr("reports.render.render_report", full)
    code, _, errors = run("report", tmp_path, "-o", tmp_path / "new")
    assert (code, errors) == (2, f"error: {tmp_path / 'new'}: No space left on device\n")


@pytest.mark.parametrize("how", ["option", "environment"])
def test_debug_shows_the_traceback(run, tmp_path, monkeypatch, how):
    if how == "environment":
        monkeypatch.setenv("STEERSTATS_DEBUG", "1")
    code, _, errors = run("inspect", tmp_path / "nowhere", *["--debug"] * (how == "option"))
    assert code == 2
    assert "Traceback" in errors


def test_markup_in_a_name_is_shown_and_not_interpreted(run, tmp_path):
    code, _, errors = run("inspect", tmp_path / "[red]x[")
    assert code == 2
    assert "[red]x[" in errors
    pd.DataFrame(list(example_rows())).to_csv(tmp_path / "t.csv", index=False)
    code, out, _ = run("import", tmp_path / "t.csv", "-o", tmp_path / "[red]c")
    assert code == 0
    assert f"{tmp_path / '[red]c'}: 1 dataset" in out


def test_the_seed_and_the_jobs_that_are_asked_for_are_those_of_the_run(run, tmp_path, monkeypatch):
    import reports.render
    import reports.reproduce

    make_cache(tmp_path / "c")
    asked = []

    def noted(caches, target, *, progress, **options):
        asked.append((len(caches), options))
        return {"caches": [], "findings": []}

    monkeypatch.setattr(reports.render, "render_report", noted)
    monkeypatch.setattr(reports.reproduce, "reproduce", noted)
    assert run("report", tmp_path / "c", tmp_path / "c", "-o", tmp_path / "r", "--seed", 5)[0] == 0
    assert run("reproduce", tmp_path / "c", "-o", tmp_path / "r", "--seed", 6, "--jobs", 2)[0] == 0
    assert asked == [(2, {"seed": 5}), (1, {"seed": 6, "jobs": 2})]


def test_the_analysis_half_starts_without_torch(tmp_path):
    make_cache(tmp_path / "c")
    script = (
        "import sys; sys.modules['torch'] = None; sys.modules['transformers'] = None; "
        "from steerstats.cli import main; main(sys.argv[1:])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "inspect", str(tmp_path / "c")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    done = subprocess.run([sys.executable, "-c", script, "build", "demo"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "building a cache needs torch, which is not installed: pip install 'steerstats[build]'" in done.stderr


def test_version_is_the_installed_one(run, monkeypatch):
    from importlib import metadata

    import steerstats

    assert run("--version")[1].strip() == f"steerstats {metadata.version('steerstats')}"
    assert steerstats.__version__ == metadata.version("steerstats")
    monkeypatch.setattr(metadata.Distribution, "discover", lambda **_: iter(()))
    assert not hasattr(steerstats, "__version__"), "a bare checkout has none"


def test_pack_does_not_take_a_directory_for_a_file_to_overwrite(run, tmp_path):
    make_cache(tmp_path / "c")
    (tmp_path / "there").mkdir()
    code, _, errors = run("pack", tmp_path / "c", "-o", tmp_path / "there", "--overwrite")
    assert code == 2
    assert " ".join(errors.split()).endswith("is a directory; give the name of a file")
    assert not list((tmp_path / "there").iterdir())
