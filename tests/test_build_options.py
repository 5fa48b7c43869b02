"""What a spec can ask for beyond the paper: reads, several wrong answers, own factors, vectors made elsewhere."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_build import WORDS, content, write_model
from transformers import AutoTokenizer

import analyses
import steerstats
from cache_builder.blocks import ActivationStore
from cache_builder.build import Session, run_build
from cache_builder.dryrun import dry_run
from cache_builder.spec import parse_spec
from cache_builder.unit.builder import UnitBuilder
from cache_builder.vectors.interop import load_vector, save_vector
from steerstats.cache import CacheReader, verify
from steerstats.errors import InputError
from steerstats.frames import inputs_frame, propensity_frame, slopes_frame
from steerstats.predictors import d_prime

SHIFTED = {"sys_pos": "sys", "base": "sys", "user_neg": "user"}


def demo(model, **overrides):
    changes = {"datasets": ["bundled:demo/likes-rain"], "controls": {}}
    return parse_spec(content(model) | changes | overrides)


def own(model, folder, made, **overrides):
    path = folder / "mine.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in made))
    changes = {"datasets": ["mine"], "custom_datasets": {"mine": str(path)}, "settings": ["base"], "prompt": {}}
    return parse_spec(content(model) | {"controls": {}, "order": "tan2024"} | changes | overrides)


def hidden(network, ids, layer: int = 1) -> np.ndarray:
    """(tokens, width) at the output of a block, from the model itself."""
    with torch.inference_mode():
        states = network(torch.tensor([list(ids)]), output_hidden_states=True).hidden_states
    return states[layer + 1][0].double().numpy()


def cosine(a, b) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def built(spec, folder):
    run_build(spec, folder / "cache")
    assert all(check.ok for check in verify(folder / "cache"))
    session = Session(spec)
    return CacheReader(folder / "cache")[session.units[0].name], session


@pytest.mark.parametrize("read", ["answer", "last_token", "completion_mean"])
def test_inputs_are_read_where_training_pairs_are(model, tmp_path, read):
    made = [{"prompt": f"Question {k}?", "positive": "Yes, I do agree", "negative": f"No {k % 3}"} for k in range(14)]
    unit, session = built(own(model, tmp_path, made, vectors={"read": read}), tmp_path)
    assert unit.attrs["read"] == read
    plan, network = session.units[0], session.loaded.model

    def difference(pair):
        encoded = session.builder.encode(plan, [pair], "base")[0]
        ends = []
        for ids, at in zip(encoded.options, encoded.reads):
            states = hidden(network, ids)
            span = {"answer": slice(at, at + 1), "last_token": slice(-1, None)}.get(
                read, slice(encoded.answer_start, None)
            )
            ends.append(states[span].mean(axis=0))
        return ends[0] - ends[1]

    direction = unit.read("direction", vector="base")[0]
    np.testing.assert_allclose(direction, np.mean([difference(pair) for pair in plan.training], axis=0), atol=1e-4)
    got = unit.read("input_difference_cosine", setting_eval="base", vector="base")
    expected = [cosine(difference(pair), direction) for pair in plan.evaluated]
    np.testing.assert_allclose(got, expected, atol=1e-4)


def test_the_last_prompt_token_contrasts_the_two_descriptions(model, tmp_path):
    spec = demo(model, vectors={"read": "last_prompt", "settings": ["base", "user_neg"], "rescale": "none"})
    unit, session = built(spec, tmp_path)
    plan, network, builder = session.units[0], session.loaded.model, session.builder

    def difference(pair, place):
        ends = []
        for sign in ("pos", "neg"):
            encoded = builder.encode(plan, [pair], f"{place}_{sign}")[0]
            ends.append(hidden(network, encoded.prompt_ids)[-1])
        return ends[0] - ends[1]

    for setting, place in (("base", "sys"), ("user_neg", "user")):
        expected = np.mean([difference(pair, place) for pair in plan.training], axis=0)
        np.testing.assert_allclose(unit.read("direction", vector=setting)[0], expected, atol=1e-4)
    for setting, place in SHIFTED.items():
        got = unit.read("input_difference_cosine", setting_eval=setting, vector="base")
        direction = unit.read("direction", vector="base")[0]
        expected = [cosine(difference(pair, place), direction) for pair in plan.evaluated]
        np.testing.assert_allclose(got, expected, atol=1e-4)
    assert unit.attrs["read"] == "last_prompt"
    assert np.abs(unit.read("pair_difference_cosine")).max() <= 1 + 1e-6


def test_a_prefill_is_what_a_template_that_writes_it_would_be(model, tmp_path):
    begun = "Well, I choose"
    templated = shutil.copytree(model, tmp_path / "templated")
    tokenizer = AutoTokenizer.from_pretrained(templated)
    tokenizer.chat_template += f"{{% if add_generation_prompt %}}{{{{ {begun!r} }}}}{{% endif %}}"
    tokenizer.save_pretrained(templated)
    asked, _ = built(demo(model, prompt=content(model)["prompt"] | {"prefill": begun}), tmp_path / "asked")
    plain, _ = built(demo(templated), tmp_path / "plain")
    for name in ("propensity", "direction", "activation"):
        np.testing.assert_array_equal(asked.read(name), plain.read(name))
    assert "begins with 'Well, I choose'" in asked.attrs["notes"]


def test_a_base_only_build_at_the_last_prompt_token_still_needs_descriptions(model, tmp_path):
    only = {"settings": ["base"], "vectors": {"read": "last_prompt"}}
    with pytest.raises(steerstats.SteerstatsError, match=r"prompt\.descriptions: dataset 'likes-rain' has none"):
        Session(demo(model, prompt={}, **only))
    assert built(demo(model, **only), tmp_path)[0].coords["vector"].tolist() == ["base", "mean"]


def options() -> list[dict]:
    letters = ("(A)", "(B)", "(I)", "(Do)")
    made = []
    for k, word in enumerate(WORDS):
        right = k % 4
        wrong = [letter for letter in letters if letter != letters[right]]
        prompt = f"Which {word} do I admire?\n(A) all\n(B) others\n(I) old\n(Do) new"
        made.append({"prompt": prompt, "positive": letters[right], "negative": wrong, "factors": {"right": right}})
    return made


@pytest.mark.parametrize("score", ["logit_diff", "logprob_sum"])
def test_several_wrong_answers_go_through_build_and_study(model, tmp_path, score):
    spec = own(model, tmp_path, options(), score=score, controls={"random": 1, "resampled": 1})
    unit, session = built(spec, tmp_path)
    plan, network = session.units[0], session.loaded.model
    assert unit.coords["answer"].tolist() == ["positive", "negative", "negative_2", "negative_3"]
    assert unit.read("activation").shape[2] == 4
    assert unit.read("crossfit_projection").shape[1] == 4
    by_pair, differences = [], []
    for pair in plan.training:
        encoded = session.builder.encode(plan, [pair], "base")[0]
        ends = np.array([hidden(network, ids)[at] for ids, at in zip(encoded.options, encoded.reads)])
        by_pair.append(ends)
        differences.append(ends[0] - ends[1:].mean(axis=0))
    direction = unit.read("direction", vector="base")[0]
    np.testing.assert_allclose(direction, np.mean(differences, axis=0), atol=1e-4)
    np.testing.assert_allclose(unit.read("activation")[0, 0], np.array(by_pair).transpose(1, 0, 2), atol=2e-2)
    for pair in plan.evaluated:
        encoded = session.builder.encode(plan, [pair], "base")[0]
        with torch.inference_mode():
            at = [torch.log_softmax(network(torch.tensor([ids])).logits[0].double(), -1) for ids in encoded.options]
        if score == "logit_diff":
            values = [float(at[0][encoded.first_diff - 1, ids[encoded.first_diff]]) for ids in encoded.options]
        else:
            values = [
                sum(float(log[k - 1, ids[k]]) for k in range(encoded.answer_start, len(ids)))
                for log, ids in zip(at, encoded.options)
            ]
        place = {"setting_eval": "base", "vector": "base", "multiplier": 0.0, "input": pair.id}
        assert unit.read("propensity", **place) == pytest.approx(values[0] - np.logaddexp.reduce(values[1:]), abs=1e-4)
    study = steerstats.open_cache(tmp_path / "cache")
    assert np.isfinite(study.slopes("mine").at("base->base")).all()
    frame = propensity_frame(unit, vector="base")
    logits = unit.read("answer_logit", setting_eval="base", vector="base").astype(float)
    total = unit.read("logsumexp", setting_eval="base", vector="base").astype(float)
    mass = np.exp(logits - total[:, None]).sum(axis=1).ravel()
    np.testing.assert_allclose(frame["answer_mass"], mass, rtol=1e-6)
    assert unit.read("input_negative_3").tolist() == [pair.others[1] for pair in plan.evaluated]
    if score == "logit_diff":
        found = study.answer_mass()
        assert found.n.tolist() == [len(plan.evaluated)]
        projection = unit.read("crossfit_projection", setting_train="base").astype(float)
        found = study.predictors(n_permutations=100).results["mine"].to_frame()
        assert d_prime(np.stack([projection[0], projection[1:].mean(axis=0)])).estimate in found["estimate"].to_numpy()


def test_a_unit_says_how_it_was_steered_read_and_ordered_and_whose_its_data_are(model):
    asked = {"operator": "ablate", "scope": "all", "order": "counterbalance", "score": "logprob_sum"}
    made = Session(parse_spec(content(model) | asked))
    plan = replace(made.units[0], name="openness", dataset=replace(made.units[0].dataset, attribution="theirs"))
    told = asked | {"dataset": "openness", "category": "persona", "attribution": "theirs", "split": plan.split.rule}
    told |= {
        "crossfit_origin": "midpoint",
        "read": "answer",
        "spec_hash": "ab12",
        "model": str(model),
        "notes": '["one", "two"]',
    }
    said = made.builder._attrs(plan, "ab12", ["one", "two", "one"])
    assert {name: said[name] for name in told} == told
    made.close()


def test_vectors_are_fitted_as_the_spec_says_with_the_builds_seed_and_the_units_name(model, monkeypatch):
    asked, controls = {}, {"resampled": 2, "folds": 3, "random": 4, "shuffled": 5, "debiased": True}
    monkeypatch.setattr("cache_builder.unit.builder.fit_vectors", lambda *_, **options: asked.update(options))
    vectors = {"method": "logistic", "mean": False, "rescale": "unit"}
    made = Session(parse_spec(content(model) | {"seed": 3, "controls": controls, "vectors": vectors}))
    made.builder._vectors(made.units[0], SimpleNamespace(layers=lambda _: None))
    told = controls | vectors | {"seed": 3, "name": "likes-rain", "control_settings": ("base",)}
    assert {name: tuple(asked[name]) if name == "control_settings" else asked[name] for name in told} == told
    pairs = made.units[0].training
    assert list(asked["questions"]) == [pair.question for pair in pairs]
    for name in ("pos_is_a", "pos_is_yes"):
        assert [{1: True, 0: False, -1: None}[k] for k in asked[name]] == [getattr(pair, name) for pair in pairs]
    made.close()


def test_own_factors_reach_the_frames(model, tmp_path):
    made = options()
    made[3]["factors"] |= {"topic": "law", "seen": True}
    unit, session = built(own(model, tmp_path, made), tmp_path)
    plan = session.units[0]
    frame = inputs_frame(unit)
    assert frame["factor_right"].tolist() == [pair.factors["right"] for pair in plan.evaluated]
    known = [pair.factors.get("topic") for pair in plan.evaluated]
    assert frame["factor_topic"].isna().tolist() == [value is None for value in known]
    assert unit.read("pair_factor_seen").tolist() == [int(pair.factors.get("seen", -1)) for pair in plan.training]


def test_own_factors_are_judged_like_any_other(model, tmp_path):
    made = [
        one | {"factors": {"load": k % 7, "topic": ("law", "art", "law", "tax")[k % 4], "seen": k % 2 == 0}}
        for k, one in enumerate(options())
    ]
    built(own(model, tmp_path, made), tmp_path)
    study = steerstats.open_cache(tmp_path / "cache")
    columns = study.unit("mine").factors(["factor_topic", "factor_seen", "factor_load"])
    assert list(columns) == ["factor_topic=art vs law", "factor_topic=tax vs law", "factor_seen", "factor_load"]
    found = study.spurious_factors(factors=["factor_seen", "factor_load"], n_resamples=100)
    assert {"factor_seen", "factor_load"} <= set(found.to_frame()["term"])
    with pytest.raises(InputError, match=r"factor 'topic' is not known; .* factor_topic"):
        study.spurious_factors(factors="topic")


@pytest.mark.parametrize("rescale", ["none", "base", "unit"])
def test_a_vector_made_elsewhere_is_evaluated_as_it_is_or_at_the_norm_asked_for(model, tmp_path, rescale):
    rng = np.random.default_rng(0)
    save_vector(tmp_path / "v.safetensors", {2: rng.normal(size=32)})
    found = load_vector(tmp_path / "v.safetensors")[0][2]
    files = {"mine": str(tmp_path / "v.safetensors")}
    unit, session = built(demo(model, vectors={"files": files, "files_rescale": rescale}), tmp_path)
    direction, norm = unit.read("direction", vector="mine")[0], np.linalg.norm(found)
    wanted = {"none": norm, "base": unit.read("vector_norm", vector="base"), "unit": 1.0}[rescale]
    np.testing.assert_allclose(direction, found * wanted / norm, rtol=1e-5)
    place = {"vector": "mine"}
    assert (unit.read("vector_kind", **place), unit.read("vector_setting", **place)) == ("imported", "mine")
    assert unit.read("vector_layer", **place).tolist() == [2]
    assert unit.read("planned", **place).tolist() == [1, 1, 1]
    # steered by hand, at the layer that the file names
    plan, network = session.units[0], session.loaded.model
    encoded = session.builder.encode(plan, plan.evaluated[:1], "base")[0]

    def steer(_module, _inputs, output):
        states = output[0] if isinstance(output, tuple) else output
        states[:, encoded.last_prompt :] += 2.0 * torch.tensor(direction)
        return output

    handle = network.model.layers[2].register_forward_hook(steer)
    with torch.inference_mode():
        logits = network(torch.tensor([encoded.ids_positive])).logits[0, encoded.first_diff - 1]
    handle.remove()
    expected = logits[encoded.ids_positive[encoded.first_diff]] - logits[encoded.ids_negative[encoded.first_diff]]
    got = unit.read("propensity", vector="mine", setting_eval="base", multiplier=2.0, input=plan.evaluated[0].id)
    assert got == pytest.approx(float(expected), abs=1e-4)
    assert set(slopes_frame(unit, vector="mine")["setting_train"]) == {"mine"}
    study = steerstats.open_cache(tmp_path / "cache")
    assert np.isfinite(study.slopes(study.datasets[0]).at("mine->base")).all()
    assert list(study.steerability("mine->base").results) == list(study.datasets)
    finding = analyses.run("own_vectors", study, tmp_path / "claims")
    assert "own_vectors.mine.base.difference" in [claim.key for claim in finding.claims]
    assert any("mine has the norm" in text for text in finding.warnings) == (rescale != "base")


def test_a_norm_for_files_is_asked_of_no_vector_where_there_are_none(model, tmp_path):
    asked = {"settings": ["user_neg"], "vectors": {"rescale": "none", "files_rescale": "base"}}
    assert built(demo(model, **asked), tmp_path)[0].coords["vector"].tolist() == ["user_neg", "mean"]


def test_the_identity_holds_the_content_of_imported_vectors_and_not_their_place(model, tmp_path):
    save_vector(tmp_path / "v.safetensors", {1: np.ones(32)})
    shutil.copy(tmp_path / "v.safetensors", tmp_path / "w.safetensors")
    save_vector(tmp_path / "x.safetensors", {1: 2 * np.ones(32)})
    one, two, three = (
        Session(demo(model, vectors={"files": {"mine": str(tmp_path / f"{name}.safetensors")}})).spec_hash
        for name in "vwx"
    )
    assert one == two != three


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        ({1: np.ones(31)}, r"vectors\.files\.mine: has 31 dimensions; the model has 32"),
        ({7: np.ones(32)}, r"vectors\.files\.mine: layer 7 is not in this model; it has 0-2"),
        (
            {0: np.ones(32), 1: np.ones(32)},
            r"vectors\.files\.mine: steers 2 layers \(0, 1\), and this build's vectors 1 at once; the file should hold",
        ),
        ({1: np.zeros(32)}, r"vectors\.files\.mine: is zero at layer 1"),
        (None, r"vectors\.files\.mine: .*v\.safetensors: not a readable safetensors file"),
    ],
)
def test_an_imported_vector_that_does_not_fit_is_named_before_anything_is_written(model, tmp_path, vector, message):
    if vector is not None:
        save_vector(tmp_path / "v.safetensors", vector)
    with pytest.raises(InputError, match=message):
        run_build(demo(model, vectors={"files": {"mine": str(tmp_path / "v.safetensors")}}), tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
    with pytest.raises(InputError, match=message):  # whoever asks for the cost first is told the same
        dry_run(demo(model, vectors={"files": {"mine": str(tmp_path / "v.safetensors")}}), probe=False)


def test_descriptions_that_a_sliding_window_hides_from_the_place_read_make_no_vector_of_rounding(tmp_path):
    narrow = write_model(tmp_path / "model", "mistral", sliding_window=3)
    contrasted = {"read": "last_prompt", "settings": ["base"], "rescale": "unit"}
    with pytest.raises(InputError, match="setting base: the steering vector is zero"):
        run_build(demo(narrow, layers=[0], vectors=contrasted), tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_letter_against_no_letter_has_no_direction_from_b_to_a(model, tmp_path):
    made = [{"prompt": f"Do you like {word}?", "positive": "(A)", "negative": "(A) or so"} for word in WORDS]
    run_build(own(model, tmp_path, made, score="logprob_sum"), tmp_path / "cache")
    unit = CacheReader(tmp_path / "cache")["mine"]
    assert "vector_unembedding_cosine" not in unit
    assert (unit.read("input_pos_is_a") == -1).all()


def test_a_head_without_weights_leaves_one_summary_out_and_nothing_else(model, tmp_path):
    session = Session(demo(model))
    session.prove()
    session.loaded.model.lm_head.weight = torch.nn.Parameter(torch.empty(2, 32, device="meta"))
    plan = session.units[0]
    assert session.builder._unembedding_cosine(plan, session.builder.train(plan)[1]) is None
    session.close()


@pytest.mark.parametrize("step", ["_vectors", "_training_summaries", "_kept", "_grid"])
def test_a_unit_that_fails_leaves_no_activations_open(step, model, tmp_path, monkeypatch):
    def fails(*_):
        raise KeyboardInterrupt

    made, plain = [], ActivationStore.__init__
    monkeypatch.setattr(ActivationStore, "__init__", lambda self, *rest: plain(self, *rest) or made.append(self))
    monkeypatch.setattr(UnitBuilder, step, fails)
    with pytest.raises(KeyboardInterrupt):
        run_build(demo(model), tmp_path / "cache")
    assert made
    assert all(store._file.closed for store in made)


def test_what_a_dataset_does_not_allow_is_said_before_it_is_built(model, tmp_path):
    made = [
        {"prompt": f"Do you like {word}?", "positive": f" {WORDS[0]}", "negative": f" {WORDS[1]}"} for word in WORDS
    ]
    made[1]["prompt"] += "\0"
    spec, said = own(model, tmp_path, [*made, made[0]], controls={"debiased": True}), []
    run_build(spec, tmp_path / "cache", notice=said.append)
    assert "mine: no debiased vector is made, since the training pairs define neither A/B nor Yes/No" in said
    unit = CacheReader(tmp_path / "cache")["mine"]
    assert dry_run(spec, probe=False).vectors == len(unit.read("vector")), "nor is it counted"
    for told in ("no debiased vector for base: the pairs define neither", "1 records hold NUL characters"):
        assert told in unit.attrs["notes"]
    lacks = analyses.run("debiased_vectors", tmp_path / "cache", tmp_path / "claims").missing
    assert lacks.endswith(": debiased vectors, as no training pairs define A/B or Yes/No, or vectors are nothing else")
    assert any(text.startswith(f"mine: 1 of {len(WORDS) + 1} records repeat another one (1 exactly)") for text in said)
    said.clear()
    run_build(demo(model, controls={"debiased": True}), tmp_path / "other", notice=said.append)
    assert not any("debiased" in text for text in said)
