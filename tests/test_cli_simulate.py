"""`steerstats simulate`: every parameter of the truth by file or by option, and one line for every mistake."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from steerstats.errors import InputError
from steerstats.simulate import SimulationTruth

SMALL = ("--set", "n_pairs=6", "--set", "logits=false", "--set", "activations=false")


def told(folder) -> dict:
    return json.loads((folder / "manifest.json").read_text())["spec"]["simulation"]


def test_a_truth_comes_from_a_file_and_options_go_over_it(run, tmp_path):
    (tmp_path / "truth.toml").write_text(
        'datasets = ["honesty", "myopia"]\nn_inputs = 8\na_slope = [0.0, 1.5]\nshape = "lognormal"\n'
        "[prompt_loss]\nuser_neg = 0.4\n"
    )
    code, out, _ = run(
        "simulate", "-o", tmp_path / "c", "--truth", tmp_path / "truth.toml", "--set", "shape=mixture",
        "--set", "multipliers=[-1, 0, 1]", "--set", "prompt_intercept={user_neg = -2.0}", "--seed", 3, *SMALL,
    )  # fmt: skip
    assert code == 0
    assert "simulated cache" in out
    truth = told(tmp_path / "c")
    assert truth["datasets"] == ["honesty", "myopia"]
    assert (truth["n_inputs"], truth["a_slope"], truth["shape"]) == (8, [0.0, 1.5], "mixture")
    assert (truth["prompt_loss"], truth["prompt_intercept"]) == ({"user_neg": 0.4}, {"user_neg": -2.0})
    assert (truth["multipliers"], truth["logits"], truth["seed"]) == ([-1.0, 0.0, 1.0], False, 3)
    assert run("verify", tmp_path / "c")[0] == 0


def test_a_directory_that_holds_something_is_refused_and_left_alone(run, tmp_path):
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "notes.txt").write_text("mine")
    code, _, told_of = run("simulate", "-o", tmp_path / "c", "--datasets", 1, *SMALL)
    assert code == 2
    assert "is not empty; choose another directory for the simulated cache" in " ".join(told_of.split())
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["notes.txt"]


def test_the_old_options_are_still_there_and_go_over_a_file(run, tmp_path):
    (tmp_path / "truth.toml").write_text("datasets = 7\nn_inputs = 9\n")
    assert run("simulate", "-o", tmp_path / "c", "--truth", tmp_path / "truth.toml", "--datasets", 1, *SMALL)[0] == 0
    truth = told(tmp_path / "c")
    assert (truth["datasets"], truth["n_inputs"]) == (["sim-00"], 9)
    assert run("simulate", "-o", tmp_path / "d", "--datasets", 1, "--inputs", 4, *SMALL)[0] == 0
    assert told(tmp_path / "d")["n_inputs"] == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "a_slop=1"], "--set: parameter 'a_slop' is unknown; did you mean a_slope"),
        (["--set", "qqqq=1"], "parameter 'qqqq' is unknown; there are datasets, n_inputs"),
        (["--set", "a_slope"], "--set 'a_slope' is not of the form name=value"),
        (["--set", "a_slope=[1,"], "--set a_slope=[1,: the value is neither TOML"),
        (["--set", "a_slope=steep"], "a_slope is 'steep'; a finite number, or one for each dataset, is needed"),
        (["--set", "n_inputs=2.5"], "n_inputs is 2.5"),
        (["--set", "n_random=-1"], "n_random is -1"),
        (["--set", "logits=1"], "logits is 1; true or false is needed"),
        (["--set", "shape=2"], "shape is 2; a text such as 'normal'"),
        (["--set", "shape=cauchy"], "shape is 'cauchy'; one of normal, lognormal, mixture"),
        (["--set", "prompt_loss=0.3"], "prompt_loss is 0.3; a mapping of settings to numbers"),
        (["--set", "settings=base"], "settings is 'base'; a sequence of names"),
        (["--set", "multipliers=['a']"], "multipliers is ['a']; a sequence of numbers"),
        (["--set", "datasets=3", "--datasets", "3"], "datasets is given by its own option and by --set"),
        (["--truth", "nowhere.toml"], "nowhere.toml cannot be read as TOML"),
    ],
)
def test_one_line_names_the_mistake(run, tmp_path, arguments, message):
    code, _, said = run("simulate", "-o", tmp_path / "c", *arguments)
    assert code == 2
    assert message in " ".join(said.split())
    assert not (tmp_path / "c").exists()


def test_a_file_is_named_with_what_is_wrong_in_it(run, tmp_path):
    path = tmp_path / "truth.toml"
    for text, message in (("colour = 1", "parameter 'colour' is unknown"), ("a_slope = = 1", "cannot be read as TOML")):
        path.write_text(text)
        code, _, said = run("simulate", "-o", tmp_path / "c", "--truth", path)
        assert code == 2
        assert message in " ".join(said.split())
        assert "truth.toml" in "".join(said.split())


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_inputs": "many"}, "n_inputs is 'many'"),
        ({"between_sd": float("nan")}, "between_sd is nan; a finite number is needed"),
        ({"a_slope": "1"}, "a_slope is '1'"),
        ({"mean_steerability": ["a"] * 8}, r"mean_steerability is \['a'"),
        ({"datasets": [1, 2]}, r"datasets is \[1, 2\]; a sequence of names"),
        ({"cross_model_input_correlation": 2.0}, "cross_model_input_correlation is 2.0; between 0 and 1"),
    ],
)
def test_values_of_another_kind_are_refused_by_name(parameters, message):
    with pytest.raises(InputError, match=message):
        SimulationTruth(**parameters)


def test_one_dataset_may_be_named_alone():
    assert SimulationTruth(datasets="honesty").datasets == ("honesty",)


@pytest.mark.parametrize("option", ["--datasets=3", "--inputs=9", "--truth=t.toml", "--set=shape=lognormal"])
def test_a_calibration_takes_no_truth_and_does_not_pass_over_one(run, option):
    code, _, errors = run("simulate", "--calibrate", option)
    assert code == 2
    assert f"{option.partition('=')[0]}: --calibrate measures at truths of its own, and takes none" in errors


def test_a_calibration_has_the_seed_that_is_asked_for_and_shows_what_was_measured_beside_its_target(run, monkeypatch):
    row = {"quantity": "coverage", "setting": "mean", "method": "t", "target": 0.95, "measured": 0.947, "mc_se": 0.007}
    asked = []

    def measured(*, seed, jobs, progress):
        asked.append(seed)
        return pd.DataFrame([row])

    monkeypatch.setattr("steerstats.simulate.calibration.calibration_table", measured)
    code, out, _ = run("simulate", "--calibrate", "--seed", 7)
    assert (code, asked) == (0, [7])
    assert out.split()[-6:] == ["coverage", "mean", "t", "0.950", "0.947", "0.007"]
