"""Before anything is written: every input is encoded once, what cannot be built is named, the longest is proved on."""

from __future__ import annotations

import functools
import hashlib
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_build import DATASETS, WORDS, content, tiny_spec, write_model
from transformers import AutoModelForCausalLM, AutoTokenizer, MptConfig

from cache_builder import session as sessions
from cache_builder.build import Session, read_runtime, run_build
from cache_builder.dryrun import dry_run
from cache_builder.engine import Engine
from cache_builder.spec import parse_spec
from cache_builder.vectors import extractors
from steerstats.cache import CacheReader
from steerstats.errors import InputError, ModelError


def records(n: int = 12, **changes) -> list[dict]:
    made = [{"prompt": f"Do I admire {word}?", "positive": "Yes", "negative": "No"} for word in WORDS[:n]]
    for k, change in changes.items():
        made[int(k.removeprefix("r"))] |= change
    return made


def own(model, folder, made, name="mine", **overrides):
    """A spec of the demo's first dataset and one of our own records, base setting."""
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in made))
    changes = {
        "datasets": ["bundled:demo/likes-rain", name],
        "custom_datasets": {name: str(path)},
        "settings": ["base"],
        "prompt": {},
        "controls": {},
        "limit": 12,
    }
    return parse_spec(content(model) | changes | overrides)


def test_completions_that_do_not_part_are_named_by_dataset_setting_and_line_before_anything_is_written(model, tmp_path):
    spec = own(model, tmp_path, records(r7={"positive": "Yes", "negative": "Yes all"}))
    with pytest.raises(InputError, match=r"^mine, base, mine\.jsonl, line 8: completions ' Yes' and ' Yes all'"):
        run_build(spec, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
    for probe in (True, False):
        with pytest.raises(InputError, match=r"^mine, base, mine\.jsonl, line 8: completions ' Yes' and ' Yes all'"):
            dry_run(spec, probe=probe)


def test_prompts_that_are_too_long_are_named_with_their_line(tmp_path):
    short = write_model(tmp_path / "gpt2", "gpt2", n_positions=60)
    spec = own(short, tmp_path, records(r3={"prompt": "bells " * 80}))
    with pytest.raises(ModelError, match=r"^mine, base, mine\.jsonl, line 4: a prompt has \d+ tokens, .* made for 60"):
        run_build(spec, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_scope_that_cannot_act_is_named_with_its_line(model, tmp_path):
    spec = own(model, tmp_path, records(), scope="first_answer", datasets=["mine"])
    with pytest.raises(ModelError, match=r"^mine, base, mine\.jsonl, line \d+: scope 'first_answer' cannot act"):
        run_build(spec, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("score", ["logprob_sum", "logit_sum"])
def test_whole_completions_may_begin_one_another_and_are_scored_as_the_model_says(model, tmp_path, score):
    spec = own(model, tmp_path, records(**{f"r{k}": {"negative": "Yes all"} for k in range(6)}), score=score)
    dry_run(spec)
    run_build(spec, tmp_path / "cache")
    cache = CacheReader(tmp_path / "cache")
    assert "answer_logit" in cache["likes-rain"]
    unit = cache["mine"]
    assert "answer_logit" not in unit
    assert "logsumexp" not in unit
    assert "do not part in one token" in unit.attrs["notes"]
    session = Session(spec)
    plan, network = session.units[1], session.loaded.model
    for pair in plan.evaluated:
        encoded, sums = session.builder.encode(plan, [pair], "base")[0], []
        for ids in encoded.options:
            with torch.inference_mode():
                logits = network(torch.tensor([ids])).logits[0].double()
            values = logits if score == "logit_sum" else torch.log_softmax(logits, dim=-1)
            places = range(encoded.answer_start, len(ids))
            sums.append(sum(float(values[at - 1, ids[at]]) for at in places))
        unsteered = {"setting_eval": "base", "vector": "base", "multiplier": 0.0, "input": pair.id}
        assert unit.read("propensity", **unsteered) == pytest.approx(sums[0] - sums[1], abs=1e-4)
        whole = unit.read({"logit_sum": "completion_logit"}.get(score, "completion_logprob"), **unsteered)
        np.testing.assert_allclose(whole, sums, atol=1e-4)


def test_a_dataset_of_which_no_completions_part_in_one_token_is_proved_and_built_alone(model, tmp_path):
    every = {f"r{k}": {"negative": "Yes all"} for k in range(12)}
    spec = own(model, tmp_path, records(**every), score="logprob_sum", datasets=["mine"])
    dry_run(spec)
    run_build(spec, tmp_path / "cache")
    unit = CacheReader(tmp_path / "cache")["mine"]
    # the probability of a completion is never below that of a longer one that it begins
    assert (unit.read("propensity") >= 0).all()


@pytest.mark.parametrize(("whose", "part"), [("few", "evaluated"), ("all", "training")])
def test_the_proof_has_the_longest_prompt_of_all_units_and_settings(model, tmp_path, monkeypatch, whose, part):
    spec = own(model, tmp_path, records(r5={"prompt": f"Do I admire {whose} others, often? " * 6}))
    seen, plain = [], Engine.prove

    def proving(self, examples, steering=None, n=4, **options):
        seen.append((max(len(ids) for one in examples for ids in one.options), steering is not None, options))
        return plain(self, examples, steering, n, **options)

    monkeypatch.setattr(Engine, "prove", proving)
    session = Session(spec)
    session.prove()
    longest = max(
        len(ids)
        for unit in session.units
        for pairs in (unit.training, unit.evaluated)
        for one in session.builder.encode(unit, pairs, "base")
        for ids in one.options
    )
    found = session.check()
    assert (found.tokens, found.unit, found.part) == (longest, "mine", part)
    assert seen[-1] == (longest, True, {"completions": False})
    assert session.engine.parity.longest == longest
    whole = Session(own(model, tmp_path, records(), score="logit_sum"))
    whole.prove()
    assert seen[-1][2] == {"completions": True}


def test_a_model_that_goes_by_places_in_a_row_is_found_by_the_prompts_that_are_contrasted(tmp_path):
    """In rows of one input each, steered from their beginning, MPT's ALiBi is right: there is no branch."""
    model = write_model(tmp_path / "model")
    size = len(AutoTokenizer.from_pretrained(model))
    torch.manual_seed(0)
    config = MptConfig(vocab_size=size, d_model=32, n_layers=3, n_heads=4, max_seq_len=128, init_config="normal")
    network = AutoModelForCausalLM.from_config(config)
    for parameter in network.parameters():
        parameter.data.normal_(0.0, 0.15)
    network.save_pretrained(model)
    vectors = {"read": "last_prompt", "settings": ["base"], "rescale": "none"}
    changes = {
        "datasets": ["bundled:demo/likes-rain"],
        "settings": ["base"],
        "controls": {},
        "scope": "all",
        "vectors": vectors,
    }
    spec = parse_spec(content(model) | changes | {"run": {"budget": 16, "threads": 1}})
    said = run_build(spec, tmp_path / "cache").parity
    assert said.startswith("plain path, slower: an earlier proof failed, its activations differ by ")
    assert "the trie path held in the last proof (" in said


def test_a_resumed_build_takes_the_survey_from_the_manifest(model, tmp_path, monkeypatch):
    spec = tiny_spec(model, controls={})
    run_build(spec, tmp_path / "cache", only=lambda name: name == "likes-rain")
    assert read_runtime(tmp_path / "cache")["survey"]["tokens"] > 10
    monkeypatch.setattr("cache_builder.prompts.inputs.Inputs.survey", lambda *_: pytest.fail("surveyed again"))
    assert len(run_build(spec, tmp_path / "cache").built) == 2


def registered(monkeypatch, function, version="1.0"):
    owner = SimpleNamespace(name="others", version=version)
    load = function if isinstance(function, BaseException) else None

    def loading():
        if load is not None:
            raise load
        return function

    point = SimpleNamespace(name="mine", value="others:mine", load=loading, dist=owner)
    monkeypatch.setattr(extractors, "entry_points", lambda group: [point])


def test_an_unknown_method_is_found_before_the_model_is_loaded(model, tmp_path, monkeypatch):
    monkeypatch.setattr(sessions, "load", lambda spec: pytest.fail("the model was loaded"))
    spec = tiny_spec(model, vectors={"method": "nothing"})
    with pytest.raises(InputError, match="extraction method 'nothing' is not one of mean_difference, pca, logistic"):
        run_build(spec, tmp_path / "cache")
    with pytest.raises(InputError, match="extraction method 'nothing' is not one of"):
        dry_run(spec)


def test_a_changed_extractor_is_another_cache(model, monkeypatch, tmp_path):
    def mine(positive, negative):
        return (positive - negative).mean(axis=0)

    spec = tiny_spec(model, vectors={"method": "mine"}, datasets=["bundled:demo/likes-rain"], controls={})
    registered(monkeypatch, mine)
    first = Session(spec)
    assert first.facts["extractor"]["distribution"] == "others"
    assert Session(spec).spec_hash == first.spec_hash
    registered(monkeypatch, mine, version="1.1")
    assert Session(spec).spec_hash != first.spec_hash
    registered(monkeypatch, module(tmp_path, "a", "return (positive - negative).mean(axis=0)"))
    one = Session(spec).spec_hash
    registered(monkeypatch, module(tmp_path, "b", "return 2 * (positive - negative).mean(axis=0)"))
    assert Session(spec).spec_hash != one
    assert "extractor" not in Session(tiny_spec(model)).facts


def module(folder, name, body):
    """A function in a file of its own."""
    import importlib.util

    path = folder / f"{name}.py"
    path.write_text(f"def mine(positive, negative):\n    {body}\n")
    spec = importlib.util.spec_from_file_location(name, path)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found.mine


def test_the_source_of_an_extractor_is_the_file_that_defines_it_however_it_is_wrapped(monkeypatch, tmp_path):
    def source(function):
        registered(monkeypatch, function)
        return extractors.extractor_facts("mine")["source"]

    plain = module(tmp_path, "a", "return positive[0]\nclass Mine:\n    def __call__(self, *_):\n        pass")
    monkeypatch.setitem(sys.modules, "a", SimpleNamespace(__file__=plain.__code__.co_filename))
    made = plain.__globals__["Mine"]
    wraps = functools.wraps(plain)(lambda *given: plain(*given))
    both = functools.wraps(functools.partial(plain))(lambda *given: plain(*given))
    assert {source(one) for one in (plain, made, made(), wraps, functools.partial(wraps), both)} == {
        hashlib.sha256((tmp_path / "a.py").read_bytes()).hexdigest()
    }
    typed = [eval(f"lambda positive, negative: {k} * positive[0]") for k in (2, 2, 3)]  # no file: the bytecode
    assert source(typed[0]) == source(typed[1]) != source(typed[2])


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            ImportError("no module named\nothers"),
            r"^extraction method 'mine' \(of others 1\.0\) cannot be loaded: Import",
        ),
        (lambda p, n: p[99999], r"^extraction method 'mine' \(of others 1\.0\) failed: IndexError: "),
        (
            lambda p, n: (p - n).mean(axis=0, keepdims=True),
            r"^extraction method 'mine' .* returned shape \(1, 32\); it has to be \(32,\)",
        ),
        (7, r"^extraction method 'mine' .* is not a function \(int\)"),
    ],
)
def test_what_goes_wrong_in_an_extractor_is_one_line_that_names_it(model, tmp_path, monkeypatch, function, message):
    registered(monkeypatch, function)
    with pytest.raises(InputError, match=message) as caught:
        run_build(tiny_spec(model, vectors={"method": "mine"}, controls={}), tmp_path / "cache")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "cache").exists()


def test_words_that_the_tokenizer_does_not_know_are_said_before_the_build(model, tmp_path):
    made = records()
    for k, record in enumerate(made):
        record["prompt"] = f"Do I admire quincunx{k} ?"
    said = []
    run_build(own(model, tmp_path, made), tmp_path / "c", notice=said.append)
    (found,) = [text for text in said if "does not know" in text]
    kept = json.loads((tmp_path / "c" / "manifest.json").read_text())["runtime"]["survey"]["unknown"]
    assert list(kept) == ["mine"], "the demo's own words are known"
    assert f"the tokenizer does not know {kept['mine']:.0%} of the tokens of mine's inputs: to the model" in found
    again = []
    run_build(own(model, tmp_path, made), tmp_path / "c", notice=again.append)
    assert found in again


def test_a_token_that_is_unknown_and_the_end_of_text_at_once_tells_nothing(model, tmp_path, monkeypatch):
    from transformers import AutoTokenizer

    plain = AutoTokenizer.from_pretrained

    def ended(*arguments, **options):
        tokenizer = plain(*arguments, **options)
        tokenizer.eos_token = tokenizer.unk_token
        return tokenizer

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", ended)
    said, made = [], records()
    for record in made:
        record["prompt"] = record["prompt"].replace("admire", "quincunx")
    run_build(own(model, tmp_path, made), tmp_path / "c", notice=said.append)
    assert not any("does not know" in text for text in said)


def test_descriptions_that_read_alike_are_refused_where_they_are_contrasted(model, tmp_path):
    (tmp_path / "d.json").write_text(json.dumps({name: {"positive": "Yes.", "negative": "Yes."} for name in DATASETS}))
    vectors = {"read": "last_prompt", "settings": ["base", "user_neg"]}
    spec = tiny_spec(model, prompt={"descriptions": str(tmp_path / "d.json")}, vectors=vectors, controls={})
    with pytest.raises(InputError, match=r"likes-rain, settings sys_pos and sys_neg: prompts .* are the same"):
        run_build(spec, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
