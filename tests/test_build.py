"""A build end to end on a tiny random model: what lands in the cache, what resumes, what is refused."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil

import numpy as np
import pytest
import torch
from tiny_build import DATASETS, content, tiny_spec, write_model

from cache_builder import session
from cache_builder.build import Session, run_build, sweep_spec
from cache_builder.dryrun import dry_run
from cache_builder.spec import ModelSpec, parse_spec
from cache_builder.spec.differences import what_differs
from steerstats.cache import CacheReader, verify
from steerstats.errors import CacheError, ModelError, SpecError


@pytest.fixture(scope="module")
def built(model, tmp_path_factory):
    root = tmp_path_factory.mktemp("built") / "cache"
    notices = []
    report = run_build(tiny_spec(model), root, notice=notices.append)
    return root, report, notices


def hashes(root) -> dict[str, str]:
    return {name: CacheReader(root)[name].sidecar["content_sha256"] for name in CacheReader(root).units}


def test_a_build_is_complete_and_verifies(built):
    root, report, _ = built
    assert report.built == DATASETS
    assert not (checks := [check for check in verify(root) if not check.ok]), checks
    assert sorted(os.listdir(root / "units")) == sorted(f"{n}.{end}" for n in DATASETS for end in ("h5", "json"))


def test_every_kind_of_vector_lands_under_its_name(built):
    unit = CacheReader(built[0])["likes-rain"]
    labels = unit.coords["vector"].tolist()
    assert labels[:4] == ["base", "sys_pos", "user_neg", "mean"]
    kinds = dict(zip(labels, unit.read("vector_kind")))
    assert {kinds[label] for label in labels[4:]} == {"resampled", "random", "shuffled", "debiased"}
    planned = dict(zip(labels, unit.read("planned").T.tolist()))
    assert all(planned[label] == [1, 1, 1] for label in labels[:4])
    assert all(planned[label] == [1, 0, 0] for label in labels[4:])
    methods = dict(zip(kinds.values(), unit.read("vector_method")))
    assert methods == dict.fromkeys(methods, "mean_difference") | {"random": "random"}
    last = [label.split(":") for label in labels[4:]]
    assert unit.read("vector_setting").tolist() == labels[:4] + [setting for _, setting, *_ in last]
    assert unit.read("vector_replicate").tolist() == [-1] * 4 + [int(k[0]) if k else -1 for _, _, *k in last]


def test_vectors_are_mean_differences_at_the_base_norm(built):
    unit = CacheReader(built[0])["tells-truth"]
    activation = unit.read("activation", layer=1).astype(np.float64)
    raw = (activation[:, 0] - activation[:, 1]).mean(axis=1)
    norm = np.linalg.norm(raw[0])
    expected = raw / np.linalg.norm(raw, axis=1, keepdims=True) * norm
    mean = expected.mean(axis=0)
    expected = np.vstack([expected, mean / np.linalg.norm(mean) * norm])
    got = unit.read("direction")[:4, 0]
    np.testing.assert_allclose(got, expected, atol=2e-3 * norm)
    np.testing.assert_allclose(unit.read("vector_raw_norm")[:3], np.linalg.norm(raw, axis=1), rtol=1e-3)
    kinds, norms = unit.read("vector_kind"), unit.read("vector_norm")
    # A refit on a resample repeats the whole procedure, and has its own base norm.
    np.testing.assert_allclose(norms[kinds != "resampled"], norm, rtol=1e-3)


def test_grid_cells_are_what_the_model_says_when_steered_by_hand(built, model):
    session = Session(tiny_spec(model))
    unit, plan = CacheReader(built[0])["plans-ahead"], session.units[1]
    network = session.loaded.model
    for setting, vector, multiplier, i in [
        ("base", "base", 2.0, 0),
        ("user_neg", "mean", -1.0, 3),
        ("sys_pos", "sys_pos", 0.0, 6),
    ]:
        encoded = session.builder.encode(plan, plan.evaluated[i : i + 1], setting)[0]
        push = multiplier * torch.tensor(unit.read("direction", vector=vector)[0])
        start = encoded.last_prompt

        def steer(_module, _inputs, output, push=push, start=start):
            hidden = output[0] if isinstance(output, tuple) else output
            hidden[:, start:] += push
            return output

        handle = network.model.layers[1].register_forward_hook(steer)
        with torch.inference_mode():
            logits = network(torch.tensor([encoded.ids_positive])).logits[0, encoded.first_diff - 1]
        handle.remove()
        expected = logits[encoded.ids_positive[encoded.first_diff]] - logits[encoded.ids_negative[encoded.first_diff]]
        place = {"setting_eval": setting, "vector": vector, "multiplier": multiplier, "input": plan.evaluated[i].id}
        assert unit.read("propensity", **place) == pytest.approx(float(expected), abs=1e-4)
        assert unit.read("logsumexp", **place) == pytest.approx(float(torch.logsumexp(logits, 0)), abs=1e-4)


def test_multiplier_zero_is_the_unsteered_model_for_every_vector(built):
    for unit in CacheReader(built[0]):
        grid, planned = unit.read("propensity", multiplier=0.0), unit.read("planned").astype(bool)
        for row, here in zip(grid, planned):
            assert (row[here] == row[0]).all()


def test_training_and_test_questions_are_apart(built):
    for unit in CacheReader(built[0]):
        assert not set(unit.read("input_question")) & set(unit.read("pair_question"))


def test_a_missing_unit_is_computed_again_to_the_same_bits_and_nothing_else_is(built, model, tmp_path):
    root = shutil.copytree(built[0], tmp_path / "cache")
    (root / "units" / "plans-ahead.json").unlink()
    before = {name: (root / "units" / f"{name}.h5").stat().st_mtime_ns for name in DATASETS}
    report = run_build(tiny_spec(model), root)
    assert report.built == ("plans-ahead",)
    after = {name: (root / "units" / f"{name}.h5").stat().st_mtime_ns for name in DATASETS}
    assert [name for name in DATASETS if before[name] != after[name]] == ["plans-ahead"]
    assert hashes(root) == hashes(built[0])


def test_another_spec_is_refused_before_anything_is_computed(built, model):
    before = hashes(built[0])
    with pytest.raises(CacheError, match=r"\(multipliers: \[.*\] there, .* 1\.0\] here\): specs are not mixed"):
        run_build(tiny_spec(model, multipliers=[-1.0, 0.0, 1.0]), built[0])
    assert hashes(built[0]) == before


def test_a_refusal_names_what_differs_and_not_what_follows_from_it(model):
    spec = tiny_spec(model)
    facts = {"datasets": {"likes-rain": "a" * 64}, "layers": [[1]], "descriptions": {"likes-rain": {}}}
    manifest = {"spec": spec.model_dump(mode="json", exclude={"run"}), "facts": facts}
    assert what_differs(manifest, tiny_spec(model, name="other"), facts) == ""  # a name is no part of the identity
    other = tiny_spec(model, settings=["base"], layers=[2], seed=1)
    fewer = {"datasets": {"likes-rain": "b" * 64}, "layers": [[2]], "descriptions": {}}
    assert what_differs(manifest, other, fewer) == (
        ' (settings: ["base", "sys_pos", "user_neg"] there, ["base"] here; seed: 0 there, 1 here; '
        "layers: [1] there, [2] here; datasets.likes-rain: other content)"
    )
    for damaged in ({}, [], None):
        assert "; facts: " in what_differs(manifest | {"facts": damaged}, tiny_spec(model, seed=1), {"layers": [[1]]})
    del manifest["spec"]["scope"]
    manifest["spec"]["steered"] = "all"  # as another version may have called it
    assert what_differs(manifest, other, fewer) == ""


@pytest.mark.parametrize("content", ["[1]", "not json"])
def test_a_damaged_manifest_is_a_named_error_of_a_build(tmp_path, content):
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(CacheError, match=r"manifest\.json"):
        session.read_runtime(tmp_path)
    (tmp_path / "manifest.json").write_text('{"runtime": null}')  # of a cache that no builder made
    assert session.read_runtime(tmp_path) == {}


def test_units_of_another_spec_are_not_taken_for_finished_ones_where_the_manifest_is_gone(built, model, tmp_path):
    root = shutil.copytree(built[0], tmp_path / "cache")
    (root / "manifest.json").unlink()
    with pytest.raises(CacheError, match=r"units/likes-rain\.h5 belongs to spec .*: specs are not mixed"):
        run_build(tiny_spec(model, multipliers=[-1.0, 0.0, 1.0]), root)
    assert not (root / "manifest.json").exists()


def test_identity_sees_what_changes_numbers_and_nothing_else(model, tmp_path):
    base = Session(tiny_spec(model)).spec_hash
    moved = shutil.copytree(model, tmp_path / "elsewhere")
    assert Session(tiny_spec(moved, name="other", run={"budget": 999})).spec_hash == base
    other = write_model(tmp_path / "other", seed=1)
    assert Session(tiny_spec(other)).spec_hash != base
    assert Session(tiny_spec(model, seed=1)).spec_hash != base
    said = tmp_path / "said.json"
    table = {name: {"positive": "You agree.", "negative": "You do not agree."} for name in DATASETS}
    said.write_text(json.dumps(table))
    assert Session(tiny_spec(model, prompt={"descriptions": str(said)})).spec_hash != base


def edited(model, path, file, **changes):
    """A copy of the model in which one of its JSON files says something else."""
    copy = shutil.copytree(model, path)
    (copy / file).write_text(json.dumps(json.loads((copy / file).read_text()) | changes))
    return copy


@pytest.mark.parametrize(
    ("file", "changes", "same"),
    [
        ("config.json", {"rms_norm_eps": 1e-3}, False),
        ("config.json", {"rope_parameters": {"rope_type": "default", "rope_theta": 123.0}}, False),
        ("tokenizer_config.json", {"bos_token": "<user>"}, False),
        ("config.json", {"transformers_version": "5.17.0", "_name_or_path": "/x", "dtype": "float16"}, True),
    ],
)
def test_identity_sees_all_of_a_local_model_that_changes_numbers(model, tmp_path, file, changes, same):
    other = edited(model, tmp_path / "other", file, **changes)
    assert (Session(tiny_spec(other)).spec_hash == Session(tiny_spec(model)).spec_hash) is same


def test_a_date_that_no_prompt_holds_is_no_part_of_the_identity(model, tmp_path):
    def one(place, date):
        said = "bundled:demo/descriptions.json"
        return Session(tiny_spec(place, prompt={"descriptions": said, "date": date})).spec_hash

    assert one(model, "2030-01-01") == Session(tiny_spec(model)).spec_hash
    dated = shutil.copytree(model, tmp_path / "dated")
    template = dated / "chat_template.jinja"
    template.write_text(template.read_text() + "{{ strftime_now('%Y') }}")
    assert one(dated, "2030-01-01") != one(dated, "2024-07-01")


def test_the_identity_of_hub_models_rests_on_their_commit(model, monkeypatch):
    hub = tiny_spec(model).model_copy(update={"model": ModelSpec(id="some/model")})
    loaded = session.load(tiny_spec(model))
    for commit, named in (("abc", set()), (None, {"config", "special_tokens"})):
        monkeypatch.setattr(session, "load", lambda _, commit=commit: dataclasses.replace(loaded, revision=commit))
        facts = Session(hub).facts["model"]
        assert set(facts) == {"revision", "weights", "tokenizer", "dtype", "attention"} | named


def test_a_manifest_names_the_families_of_public_datasets_alone(model):
    made = Session(tiny_spec(model))
    made.units = (dataclasses.replace(made.units[0], name="openness"), *made.units[1:])
    manifest = made.manifest({})
    assert (manifest["units"][0], manifest["categories"]) == ("openness", {"openness": made.units[0].category})
    made.close()


def test_identity_sees_how_weights_are_quantised_and_is_what_it_was_without(model, monkeypatch):
    plain, seen = session.load, []

    def quantised(spec):
        return dataclasses.replace(plain(spec), quantisation=seen[-1])

    monkeypatch.setattr(session, "load", quantised)
    for kind in (None, {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, {"load_in_4bit": True}):
        seen.append(kind)
        one = Session(tiny_spec(model))
        assert ("quantisation" in one.facts["model"]) == (kind is not None)
        seen[-1] = one.spec_hash
    assert len(set(seen)) == 3


def test_activations_that_overflow_float16_are_kept_as_float32_and_said_so(model, tmp_path):
    from transformers import AutoModelForCausalLM

    loud = shutil.copytree(model, tmp_path / "loud")
    network = AutoModelForCausalLM.from_pretrained(loud)
    with torch.no_grad():
        network.model.embed_tokens.weight.mul_(1e6)
    network.save_pretrained(loud)
    run_build(tiny_spec(loud, datasets=["bundled:demo/likes-rain"], controls={}), tmp_path / "cache")
    unit = CacheReader(tmp_path / "cache")["likes-rain"]
    assert unit.read("activation").dtype == np.float32
    assert any("overflows float16" in note for note in json.loads(unit.attrs["notes"]))


def test_a_sweep_steers_each_layer_by_its_own_vector_on_validation_inputs(model, tmp_path):
    spec = sweep_spec(tiny_spec(model, limit=40, split_percent=[40, 30, 30]), "all")
    run_build(spec, tmp_path / "sweep")
    cache = CacheReader(tmp_path / "sweep")
    assert cache.kind == "sweep"
    unit = cache["likes-rain"]
    assert unit.coords["vector"].tolist() == ["base@0", "base@1", "base@2"]
    assert unit.read("vector_layer").ravel().tolist() == [0, 1, 2]
    assert set(unit.read("input_split")) == {"val"}
    assert "activation" not in unit, "the training activations of every layer would be most of the cache"
    assert unit.read("crossfit_projection").shape[0] == 1
    one = tmp_path / "one"
    content_ = spec.model_dump(mode="json") | {"sweep": [], "layers": [1], "split_percent": [40, 0, 60]}
    run_build(parse_spec(content_), one)
    np.testing.assert_array_equal(
        CacheReader(one)["likes-rain"].read("direction", vector="base"), unit.read("direction", vector="base@1")
    )


def test_a_sweep_says_what_it_leaves_out_and_trusts_whom_the_spec_trusts(model, monkeypatch):
    from transformers import AutoConfig

    said, asked, plain = [], [], AutoConfig.from_pretrained
    monkeypatch.setattr(AutoConfig, "from_pretrained", lambda place, **o: asked.append(o) or plain(place))
    values = content(model, shifts=["base->sys_pos"], controls={"random": 1, "shifts": ["base->sys_pos"]})
    trusting = parse_spec(values | {"model": {"id": str(model), "trust_remote_code": True, "revision": "ab"}})
    sweep_spec(trusting, "all", said.append)
    assert asked[0] == {"trust_remote_code": True, "revision": "ab"}
    assert len(said) == 1
    assert "in the base setting, without controls: settings, shifts, controls of the spec are left out" in said[0]
    assert sweep_spec(tiny_spec(model, settings=["base"], controls={}), "0,1", pytest.fail).sweep == (0, 1)
    unsaid = {key: value for key, value in content(model, controls={}).items() if key != "settings"}
    assert sweep_spec(parse_spec(unsaid), "0,1", pytest.fail).settings == ("base",), "nobody asked for five"
    files = {"settings": ["base"], "controls": {}, "vectors": {"files": {"mine": "v.safetensors"}}}
    assert sweep_spec(parse_spec(content(model, **files)), "1", said.append).vectors.files == {}
    assert said[1].endswith("without controls: vectors.files of the spec is left out")


@pytest.mark.parametrize("score", ["logit_diff", "logprob_sum", "logit_sum"])
def test_a_dry_run_counts_the_tokens_that_a_build_computes(model, score):
    spec = tiny_spec(model, datasets=["bundled:demo/likes-rain"], score=score, run={"budget": 100000, "threads": 1})
    estimate = dry_run(spec, probe=False)
    session = Session(spec)
    session.prove()
    session.builder._trained = None
    earlier = session.builder.engine.tokens
    data = session.builder.build(session.units[0], session.spec_hash)
    counted = (session.builder.engine.tokens - earlier)[1]
    assert estimate.tokens == pytest.approx(counted, abs=1)  # a steered token counts in parts, and parts are rounded
    assert estimate.vectors == len(data.arrays["vector"])
    written = sum(array.nbytes for array in data.arrays.values() if array.dtype != object)
    assert estimate.bytes == pytest.approx(written, rel=0.35)


@pytest.mark.parametrize("score", ["logit_diff", "logprob_sum"])
def test_a_dry_run_of_a_model_on_the_plain_path_counts_whole_sequences(tmp_path, score):
    asked = {"datasets": ["bundled:demo/likes-rain"], "controls": {}, "run": {"threads": 1}, "score": score}
    spec = tiny_spec(write_model(tmp_path / "m", "mamba"), **asked)
    estimate, unprobed = dry_run(spec), dry_run(spec, probe=False)
    session = Session(spec)
    session.prove()
    session.builder._trained = None
    earlier = session.engine.tokens
    session.builder.build(session.units[0], session.spec_hash)
    counted = (session.engine.tokens - earlier)[1]
    assert estimate.path == "plain"
    assert estimate.tokens == pytest.approx(counted, rel=0.02)
    assert estimate.tokens > 3 * unprobed.tokens
    assert f"{estimate.tokens_per_second:,.0f} tokens/s on cpu, plain path" in estimate.render().caption
    assert "those of the trie path" in unprobed.render().caption


@pytest.mark.parametrize("architecture", ["bloom", "mamba"])
def test_a_model_that_tries_do_not_fit_is_built_on_the_plain_path_and_says_so(tmp_path, architecture):
    asked = {"datasets": ["bundled:demo/likes-rain"], "controls": {}, "run": {"budget": 4096, "threads": 1}}
    spec = tiny_spec(write_model(tmp_path / "m", architecture), **asked)
    notices = []
    report = run_build(spec, tmp_path / "cache", notice=notices.append)
    assert "plain path" in report.parity
    assert any("plain path" in text for text in notices)
    unit = CacheReader(tmp_path / "cache")["likes-rain"]
    assert unit.sidecar["run"]["parity"]["path"] == "plain"
    assert 0 < unit.sidecar["run"]["padding"] < 0.02
    assert all(check.ok for check in verify(tmp_path / "cache"))


def test_prompts_past_learned_positions_are_refused_and_past_rotary_ones_noted(model, tmp_path):
    short = write_model(tmp_path / "gpt2", "gpt2", n_positions=40)
    with pytest.raises(ModelError, match=r"likes-rain, .*: a prompt has \d+ tokens, .* was made for 40; choose"):
        run_build(tiny_spec(short), tmp_path / "c")
    rotary = write_model(tmp_path / "llama", max_position_embeddings=40)
    run_build(tiny_spec(rotary, datasets=["bundled:demo/likes-rain"], controls={}), tmp_path / "d")
    notes = json.loads(CacheReader(tmp_path / "d")["likes-rain"].attrs["notes"])
    assert any("was made for 40: results past that length may be poor" in note for note in notes)


WRONG = {
    "layer": ({"layers": [7]}, SpecError, r"layers: layer 7 is not in .*; it has 0-2"),
    "dataset": ({"datasets": ["likes-rian"]}, Exception, r"'likes-rian' is not known"),
    "model": ({"model": {"id": "./nowhere"}}, ModelError, r"'\./nowhere': no such directory"),
    "descriptions": ({"prompt": {}}, SpecError, r"prompt\.descriptions: dataset 'likes-rain' has none"),
    "record": ({"custom_datasets": {"mine": "missing.jsonl"}, "datasets": ["mine"]}, Exception, r"missing\.jsonl"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_with_a_spec_is_said_before_anything_is_written(model, tmp_path, case):
    change, error, message = WRONG[case]
    with pytest.raises(error, match=message):
        run_build(parse_spec(content(model) | change), tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
