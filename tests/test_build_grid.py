"""Finished caches with every part of a grid's spec changed: each stored cell is what one sequence at a time gives."""

from __future__ import annotations

import json

import numpy as np
import pytest
import slow_steering
import torch
from tiny_build import WORDS, content, tiny_spec

from cache_builder.build import Session, run_build
from cache_builder.engine import Engine, Steering
from cache_builder.prompts.inputs import EVALUATED
from cache_builder.spec import parse_spec
from cache_builder.spec.sweep import sweep_spec
from cache_builder.unit.summaries import crossfit_projection
from steerstats.cache import CacheReader
from steerstats.errors import ModelError, SpecError

TOLERANCE = 1e-4
SCORED = {"logit_diff": "logits", "logprob_sum": "completion_logprob", "logit_sum": "completion_logit"}


def check_cells(spec, cache, *, scope, operator, layers, score, every=3):
    """Compare stored propensities, of every third input, with the oracle steered as the test says."""
    session = Session(spec)
    plan, network = session.units[0], session.loaded.model
    unit = CacheReader(cache)[plan.name]
    stored, planned, xs = unit.read("propensity"), unit.read("planned"), unit.read("multiplier")
    directions = unit.read("direction").astype(np.float64)
    assert (unit.read("vector_layer") == layers).all()
    steering = Steering(directions, np.broadcast_to(layers, directions.shape[:2]), xs, operator=operator, scope=scope)
    moved = np.zeros(len(directions))
    for row, setting in enumerate(spec.settings):
        examples = session.builder.inputs.examples(plan, EVALUATED, setting)
        assert len(examples) == stored.shape[-1]
        assert np.isnan(stored[row][planned[row] == 0]).all()
        for i in range(0, len(examples), every):
            for v in np.flatnonzero(planned[row]):
                odds = []
                for x in xs:
                    how = steering
                    if x == 0 and operator != "ablate_add":  # the bare model
                        how = Steering(np.zeros_like(directions), steering.layers, [0.0], scope=scope)
                    values = slow_steering.cell(network, examples[i], how, v, float(x))[SCORED[score]]
                    odds.append(values[0] - np.logaddexp.reduce(values[1:]))
                np.testing.assert_allclose(stored[row, v, :, i], odds, atol=TOLERANCE)
                moved[v] = max(moved[v], np.ptp(odds))
    session.close()
    assert moved[planned.any(axis=0)].min() > 0.01, "steering has to matter for this test to mean anything"
    return unit


@pytest.mark.parametrize(
    ("scope", "operator", "score", "layers", "order"),
    [
        ("first_answer", "ablate", "logprob_sum", [0, 2], "counterbalance"),
        ("all", "add_keep_norm", "logit_sum", [0, 1], "balanced"),
        ("prompt", "ablate_add", "logit_diff", [0, 1], "counterbalance"),
        ("last_prompt", "ablate_add", "logprob_sum", [2], "tan2024"),
        ("prompt", "ablate", "logprob_sum", [1], "tan2024"),
        ("all", "add", "logit_diff", [1, 2], "counterbalance"),
    ],
)
def test_every_cell_of_a_cache_is_what_the_spec_says(model, tmp_path, scope, operator, score, layers, order):
    asked = {"scope": scope, "operator": operator, "score": score, "layers": layers, "order": order}
    controls = {"resampled": 1, "folds": 2, "random": 1, "shuffled": 1, "debiased": True, "shifts": ["base->base"]}
    spec = tiny_spec(
        model, datasets=["bundled:demo/likes-rain"], limit=12, settings=["base", "user_neg"], controls=controls, **asked
    )
    run_build(spec, tmp_path / "cache")
    unit = check_cells(spec, tmp_path / "cache", scope=scope, operator=operator, layers=layers, score=score)
    assert {name: unit.attrs[name] for name in ("scope", "operator", "score", "order")} == {
        name: asked[name] for name in ("scope", "operator", "score", "order")
    }
    assert unit.read("vector_kind").tolist().count("fold") == 2
    if order == "counterbalance":
        questions, first = unit.read("input_question"), unit.read("input_pos_is_a")
        for question in np.unique(questions):
            assert sorted(first[questions == question].tolist()) == [0, 1], "both orders of every question"


def test_summaries_of_inputs_are_of_where_the_answer_is_predicted_and_of_the_two_answers(model, tmp_path):
    shifts = [*(f"{name}->base" for name in ("base", "sys_pos", "user_neg", "mean")), "mean->sys_pos"]
    asked = {"layers": [1, 2], "shifts": shifts, "controls": {}}  # in the third setting there is nothing to steer
    spec = tiny_spec(model, datasets=["bundled:demo/likes-rain"], limit=12, **asked)
    run_build(spec, tmp_path / "cache")
    session = Session(spec)
    plan, network = session.units[0], session.loaded.model
    unit = CacheReader(tmp_path / "cache")[plan.name]
    units = unit.read("direction")[:, 0].astype(np.float64)
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    planned = unit.read("planned").astype(bool)
    assert planned.tolist() == [[True] * 4, [False] * 3 + [True], [False] * 4]

    def after_block_1(ids):
        with torch.no_grad():
            return network(torch.tensor(ids[None]), output_hidden_states=True).hidden_states[2][0].double().numpy()

    for row, setting in enumerate(spec.settings):
        examples = session.builder.inputs.examples(plan, EVALUATED, setting)
        encoded = session.builder.encode(plan, plan.evaluated, setting)
        assert unit.read("input_prompt_tokens")[row].tolist() == [len(one.prompt_ids) for one in encoded]
        stored = [unit.read(name)[row] for name in ("input_projection", "input_difference_cosine")]
        for i, example in enumerate(examples):
            positive, negative = map(after_block_1, example.options)
            difference = positive[example.branch] - negative[example.branch]
            expected = units @ positive[example.branch - 1], units @ difference / np.linalg.norm(difference)
            for found, values in zip(stored, expected):
                np.testing.assert_allclose(found[planned[row], i], values[planned[row]], atol=1e-4)
    session.close()


def test_training_summaries_are_of_the_first_steered_layer_and_cosines_with_the_letters_of_the_last(model, tmp_path):
    asked = {"limit": 12, "layers": [1, 2], "controls": {}, "activation_dtype": "float32", "seed": 1}
    asked |= {"activation_layers": [0, 1]}
    spec = tiny_spec(model, datasets=["bundled:demo/likes-rain"], **asked)
    run_build(spec, tmp_path / "cache")
    unit = CacheReader(tmp_path / "cache")["likes-rain"]
    assert unit.read("pair_pos_is_a")[0] == 0, "A minus B, and not the first pair's positive answer minus the other"
    settings = unit.coords["setting_train"].tolist()
    activation, direction = unit.read("activation", layer=1), unit.read("direction", vector=settings)
    np.testing.assert_allclose(unit.read("activation_norm"), np.linalg.norm(activation, axis=-1).mean((1, 2)), 1e-5)
    for row, values in enumerate(activation):
        apart, vector = values[0] - values[1], direction[row, 0]
        cosine = apart @ vector / np.linalg.norm(apart, axis=1) / np.linalg.norm(vector)
        np.testing.assert_allclose(unit.read("pair_difference_cosine")[row], cosine, atol=1e-5)
        held_out = crossfit_projection(values, unit.read("pair_question"), spec.controls.crossfit_folds, spec.seed)
        np.testing.assert_allclose(unit.read("crossfit_projection")[row], held_out, atol=1e-5)
    session = Session(spec)
    head = session.loaded.model.get_output_embeddings().weight.detach().numpy()
    letters = np.subtract(*head[session.loaded.tokenizer.convert_tokens_to_ids(["A", "B"])])
    last = unit.read("direction")[:, -1]
    cosine = last @ letters / np.linalg.norm(last, axis=1) / np.linalg.norm(letters)
    np.testing.assert_allclose(unit.read("vector_unembedding_cosine"), cosine, atol=1e-5)
    session.close()


@pytest.mark.parametrize("layer", [1, 2])
def test_whole_completions_that_differ_at_once_are_built_from_the_answer_on(model, tmp_path, layer):
    lines = [{"prompt": f"Do I admire {w}?", "positive": "Yes I do", "negative": "No I do not"} for w in WORDS[:10]]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    own = {"datasets": [], "custom_datasets": {"mine": str(tmp_path / "mine.jsonl")}, "settings": ["base"]}
    own |= {"controls": {}, "order": "tan2024", "prompt": {}, "layers": [layer], "scope": "first_answer"}
    own |= {"run": {"threads": 1}}  # with a budget that is measured
    spec = parse_spec(content(model) | own | {"score": "logprob_sum"})
    run_build(spec, tmp_path / "cache")
    check_cells(spec, tmp_path / "cache", scope="first_answer", operator="add", layers=[layer], score="logprob_sum")
    with pytest.raises(ModelError, match=r"mine, base, mine\.jsonl, line \d+: scope 'first_answer' cannot act"):
        run_build(parse_spec(content(model) | own), tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("score", ["logit_diff", "logprob_sum"])
def test_a_sweep_with_a_layer_that_cannot_act_is_refused_and_built_without_it(model, tmp_path, score):
    asked = {"datasets": ["bundled:demo/likes-rain"], "controls": {}, "scope": "prompt", "score": score}
    with pytest.raises(ModelError, match=r"cannot act at layer 2, the last: .* leave that layer out"):
        run_build(sweep_spec(tiny_spec(model, **asked), "all"), tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
    run_build(sweep_spec(tiny_spec(model, **asked), "0,1"), tmp_path / "cache")
    propensity = CacheReader(tmp_path / "cache")["likes-rain"].read("propensity")
    assert np.ptp(propensity, axis=2).max(axis=(0, 2)).min() > 0.01


def test_a_sweep_scores_every_layer_in_one_pass_that_costs_little_more_than_one_layer(model, tmp_path, monkeypatch):
    asked = {
        "datasets": ["bundled:demo/likes-rain"],
        "controls": {},
        "limit": 60,
        "run": {"budget": 2048, "threads": 1},
    }
    spec, scored, plain = tiny_spec(model, **asked), [], Engine.stream

    def counted(self, requests):
        requests = list(requests)
        scored.extend(np.unique(one.steering.layers).tolist() for one in requests if one.steering is not None)
        return plain(self, requests)

    monkeypatch.setattr(Engine, "stream", counted)
    tokens = {}
    for layers in ("all", "0"):
        scored.clear()
        root = tmp_path / layers
        run_build(sweep_spec(spec, layers), root)
        assert scored == [[0, 1, 2] if layers == "all" else [0]]
        record = CacheReader(root)["likes-rain"].sidecar["run"]
        tokens[layers] = record["tokens"]
        assert 0 <= record["padding"] < 0.02
    assert tokens["0"] < tokens["all"] < 1.5 * tokens["0"]


@pytest.mark.parametrize(
    ("split", "hint"),
    [
        ({"split": "tan2024-literal", "limit": None}, r'the split "tan2024-literal" has none; use split = "content"'),
        ({"split_percent": [50, 0, 50]}, "give split_percent a middle share above 0"),
    ],
)
def test_a_sweep_without_validation_inputs_says_what_would_give_some(model, tmp_path, split, hint):
    with pytest.raises(SpecError, match=f"likes-rain has no validation part; {hint}"):
        run_build(sweep_spec(tiny_spec(model, **split), "0"), tmp_path / "cache")


def test_a_unit_records_the_tokens_of_its_training_whether_or_not_the_proof_has_made_them(model, tmp_path):
    """The first unit's training activations are made for the proof, and kept."""
    names = ["bundled:demo/likes-rain", "bundled:demo/plans-ahead"]
    records = []
    for order in (names, names[::-1]):
        root = tmp_path / str(len(records))
        run_build(tiny_spec(model, datasets=order, controls={}), root)
        sides = [CacheReader(root)[name.partition("/")[2]].sidecar["run"] for name in names]
        records.append([(side["tokens"], side["padding"]) for side in sides])
    assert records[0] == records[1]
