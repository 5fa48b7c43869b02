"""What is measured before a build: all masks give the same numbers, and the fastest that holds is kept, resumed too."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from tiny_build import DATASETS, content, tiny_spec, write_model
from tiny_models import random_examples, random_steering, tiny_model

from cache_builder import session
from cache_builder.build import run_build
from cache_builder.engine import Engine, forward, tuning
from cache_builder.spec import parse_spec
from steerstats.cache.sidecar import SEAL, manifest_hash
from steerstats.errors import InputError

HEADS = {"hidden_size": 128, "head_dim": 32, "num_attention_heads": 4}  # FlexAttention wants heads of at least 16


@pytest.fixture
def flex_in_python(monkeypatch):
    """FlexAttention as its definition says, uncompiled: kernels for the CPU do not take our mask."""
    from torch.nn.attention.flex_attention import flex_attention
    from transformers.integrations.flex_attention import WrappedFlexAttention

    monkeypatch.setattr(WrappedFlexAttention(False), "_compiled_flex_attention", flex_attention)


@pytest.fixture
def case():
    rng = np.random.default_rng(3)
    return random_examples(rng, 12), random_steering(rng, directions=rng.normal(size=(2, 1, 128)))


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("name", ["llama", "qwen2", "mistral", "gemma3", "phi3", "olmo2"])
@pytest.mark.parametrize("budget", [64, 400])
def test_flex_attention_gives_what_other_masks_give(name, budget, case, flex_in_python, monkeypatch):
    examples, steering = case
    engine = Engine(tiny_model(name, **HEADS), path="trie", budget=budget)
    expected = engine.run(examples, steering, completions=True, read_layers=(1, 2))
    engine.use_mask("flex")
    assert engine.forward.config._attn_implementation == "flex_attention"
    stages, planned = [], forward.plan_stages
    with monkeypatch.context() as patch:
        patch.setattr(forward, "plan_stages", lambda *a, **k: stages.extend(found := planned(*a, **k)) or found)
        found = engine.run(examples, steering, completions=True, read_layers=(1, 2))
    assert stages
    assert all(len(stage) % 128 == 0 and (stage.node < 0).sum() < 128 for stage in stages), (
        "few lengths, little padding"
    )
    assert np.abs(found.logits - expected.logits).max() < 1e-4
    assert np.abs(found.completion_logprob - expected.completion_logprob).max() < 1e-4
    assert np.abs(found.activations - expected.activations).max() < 1e-4
    engine.use_mask("blocked")
    assert engine.forward.config._attn_implementation == "sdpa"
    again = engine.run(examples, steering, completions=True, read_layers=(1, 2))
    assert np.array_equal(again.logits, expected.logits)


@pytest.mark.parametrize(("name", "most"), [("llama", 2), ("mistral", 2), ("gemma3", 4)])
def test_flex_attention_is_not_compiled_again_for_every_length_of_row(name, most, case, monkeypatch):
    """Past eight versions of a function torch stops compiling, and the attention would be computed in full."""
    import torch
    from torch._dynamo.testing import CompileCounter
    from torch.nn.attention.flex_attention import flex_attention
    from transformers.integrations.flex_attention import WrappedFlexAttention

    torch._dynamo.reset()
    counter = CompileCounter()
    compiled = torch.compile(flex_attention, backend=counter)
    monkeypatch.setattr(WrappedFlexAttention(False), "_compiled_flex_attention", compiled)
    examples, steering = random_examples(np.random.default_rng(4), 48), case[1]
    engine = Engine(tiny_model(name, **HEADS), path="trie", budget=400)
    expected = engine.run(examples, steering)
    engine.use_mask("flex")
    lengths, run = set(), engine.forward._run_trie

    def noted(layout, *rest):
        lengths.add(-(-layout.token.size // 128))
        return run(layout, *rest)

    monkeypatch.setattr(engine.forward, "_run_trie", noted)
    for budget in (60, 150, 300, 500, 700, 1000):
        engine.budget = budget
        found = engine.run(examples, steering)
        assert np.abs(found.logits - expected.logits).max() < 1e-4
    assert len(lengths) > most
    assert 1 <= counter.frame_count <= most


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("fastest", tuning.MASKS)
def test_the_fastest_mask_is_kept(fastest, case, flex_in_python, monkeypatch):
    engine = Engine(tiny_model("llama", **HEADS), budget=128)
    engine.prove(*case)
    monkeypatch.setattr(tuning, "PADDING", 10.0)  # rows this short are mostly padding for FlexAttention
    monkeypatch.setattr(tuning, "_speed", lambda engine, *_: 2.0 if engine.mask == fastest else 1.0)
    assert engine.choose_mask(*case, tuning.MASKS) == {mask: 1.0 + (mask == fastest) for mask in tuning.MASKS}
    assert engine.mask == engine.parity.mask == fastest
    assert engine.forward.config._attn_implementation == ("flex_attention" if fastest == "flex" else "sdpa")
    assert engine.parity.passed


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_a_mask_that_pads_is_out_of_the_question(case, flex_in_python, monkeypatch):
    engine = Engine(tiny_model("llama", **HEADS), budget=300)
    engine.prove(*case)
    monkeypatch.setattr(tuning, "_speed", lambda engine, *_: 2.0 if engine.mask == "flex" else 1.0)
    found = engine.choose_mask(*case, tuning.MASKS)
    assert re.fullmatch(r"pads rows of 300 tokens by \d+\.\d%", found["flex"])
    assert engine.mask == "blocked"


def test_a_mask_that_is_hardly_faster_is_not_taken(case, monkeypatch):
    engine = Engine(tiny_model("llama", **HEADS), budget=128)
    engine.prove(*case)
    monkeypatch.setattr(tuning, "_speed", lambda engine, *_: 1.04 if engine.mask == "dense" else 1.0)
    engine.choose_mask(*case, ("blocked", "dense"))
    assert engine.mask == "blocked"


def test_a_mask_that_is_wrong_fails_or_does_not_fit_is_out_of_the_question(case, monkeypatch):
    import torch

    examples, steering = case
    engine = Engine(tiny_model("llama", **HEADS), budget=128)
    engine.prove(examples, steering)
    parity, plain, own = engine.parity, Engine.run, engine.forward._dense_mask
    monkeypatch.setattr(tuning, "_speed", lambda engine, *_: 9.0 if engine.mask != "blocked" else 1.0)

    def leaky(end, depth, window):
        return torch.ones_like(own(end, depth, window))

    monkeypatch.setattr(engine.forward, "_dense_mask", leaky)
    found = engine.choose_mask(examples, steering, ("blocked", "dense"))
    assert found == {"blocked": 1.0, "dense": "fails the proof: its logits differ"}
    monkeypatch.setattr(engine.forward, "_dense_mask", own)

    def too_large(self, *arguments, **options):
        if self.mask == "dense":
            self.budget, self.ceiling = 64, 64
        return plain(self, *arguments, **options)

    monkeypatch.setattr(Engine, "run", too_large)
    found = engine.choose_mask(examples, steering, ("dense", "blocked"))
    assert found == {"blocked": 1.0, "dense": "does not fit in memory with 128 tokens a row"}
    assert (engine.budget, engine.ceiling) == (128, None)

    def broken(self, *arguments, **options):
        if self.mask == "dense":
            raise RuntimeError("no kernel\nfor this")
        return plain(self, *arguments, **options)

    monkeypatch.setattr(Engine, "run", broken)
    found = engine.choose_mask(examples, steering, ("dense", "blocked"))
    assert found == {"blocked": 1.0, "dense": "RuntimeError: no kernel"}
    assert engine.mask == "blocked"
    assert engine.parity is parity


def test_off_cuda_nothing_is_to_choose_and_a_strange_mask_is_named(case):
    engine = Engine(tiny_model("llama", **HEADS), budget=128)
    engine.prove(*case)
    assert engine.choose_mask(*case) == {}
    with pytest.raises(InputError, match="'sparse' is not one of blocked, dense, flex"):
        engine.use_mask("sparse")
    with pytest.raises(InputError, match="loaded with 'eager'"):
        Engine(tiny_model("gemma2")).use_mask("blocked")


def test_a_build_of_few_inputs_measures_nothing(tmp_path, monkeypatch):
    """It took as long as the build itself."""
    spec = tiny_spec(write_model(tmp_path / "model"), limit=20, run={"threads": 1})
    made, asked = session.Session(spec), []
    made.prove()
    monkeypatch.setattr(Engine, "tune", lambda *_, **__: asked.append("budget") or {64: 2.0})
    monkeypatch.setattr(Engine, "choose_mask", lambda *_, **__: asked.append("mask") or {})
    inputs = 3 * sum(len(unit.evaluated) for unit in made.units)
    for fewest, found in ((inputs + 1, []), (inputs, ["budget", "mask"])):
        monkeypatch.setattr(session, "FEWEST_TUNED", {"cpu": fewest})
        assert made.tune() == {"budgets": {"64": 2.0} if found else {}, "masks": {}}
        assert asked == found
    made.close()


def test_a_budget_and_an_attention_that_a_spec_names_are_not_measured(tmp_path, monkeypatch):
    model, asked = write_model(tmp_path / "model"), []
    monkeypatch.setattr(session, "FEWEST_TUNED", {"cpu": 1})
    monkeypatch.setattr(Engine, "tune", lambda *_, **__: asked.append("budget") or {})
    monkeypatch.setattr(Engine, "choose_mask", lambda self, sample, steering, masks, **__: asked.append(masks) or {})
    for budget, attention, found in ((64, "sdpa", [()]), (None, "auto", ["budget", None])):
        changes = {"run": {"threads": 1, "budget": budget}, "model": {"id": str(model), "attention": attention}}
        made = session.Session(parse_spec(content(model) | changes))
        made.prove()
        made.tune()
        made.close()
        assert asked == found
        asked.clear()


def test_a_resumed_build_keeps_the_mask_of_its_first_run(tmp_path, monkeypatch):
    monkeypatch.setattr(session, "FEWEST_TUNED", {"cpu": 0})
    model = write_model(tmp_path / "model")
    spec = tiny_spec(model, limit=20)
    plain, masks = Engine.choose_mask, []
    monkeypatch.setattr(tuning, "_speed", lambda engine, *_: 2.0 if engine.mask == "dense" else 1.0)
    monkeypatch.setattr(
        Engine,
        "choose_mask",
        lambda self, examples, steering, masks, **rest: plain(
            self, examples, steering, ("blocked", "dense") if masks is None else masks, **rest
        ),
    )
    run_build(spec, tmp_path / "cache")
    runtime = json.loads((tmp_path / "cache" / "manifest.json").read_text())["runtime"]
    assert runtime["mask"] == "dense"
    assert runtime["measured"]["masks"] == {"blocked": 1.0, "dense": 2.0}
    named = {
        **content(model, limit=20),
        "model": {"id": str(model), "attention": "sdpa"},
        "datasets": spec.datasets[:1],
    }
    run_build(parse_spec(named), tmp_path / "named")
    kept = json.loads((tmp_path / "named" / "manifest.json").read_text())["runtime"]
    assert (kept["mask"], kept["measured"]["masks"]) == ("blocked", {}), "a named attention is not measured"
    sidecar = tmp_path / "cache" / "units" / f"{DATASETS[0]}.json"
    before = json.loads(sidecar.read_text())
    assert before["run"]["parity"]["mask"] == "dense"
    sidecar.unlink()
    monkeypatch.setattr(Engine, "choose_mask", lambda *_, **__: masks.append("measured again"))
    run_build(spec, tmp_path / "cache")
    after = json.loads(sidecar.read_text())
    assert not masks
    assert after["run"]["parity"]["mask"] == "dense"
    assert after["content_sha256"] == before["content_sha256"]


def test_a_cache_that_was_begun_with_flex_attention_goes_on_without_it_where_there_is_no_cuda(tmp_path):
    spec = tiny_spec(write_model(tmp_path / "model"), limit=20, datasets=["bundled:demo/likes-rain"])
    run_build(spec, tmp_path / "cache")
    sidecar, manifest = tmp_path / "cache" / "units" / "likes-rain.json", tmp_path / "cache" / "manifest.json"
    before = json.loads(sidecar.read_text())
    begun = json.loads(manifest.read_text())
    begun["runtime"]["mask"] = "flex"
    manifest.write_text(json.dumps(begun | {SEAL: manifest_hash(begun)}))
    sidecar.unlink()
    run_build(spec, tmp_path / "cache")
    after = json.loads(sidecar.read_text())
    assert after["run"]["parity"]["mask"] == before["run"]["parity"]["mask"] == "blocked"
    assert after["content_sha256"] == before["content_sha256"]


def test_the_budget_is_judged_by_all_inputs_and_not_by_the_sample_alone(monkeypatch):
    """A sample that fits into a row of either length does not show that the shorter rows repeat what is shared."""
    rng = np.random.default_rng(5)
    examples, steering = (
        random_examples(rng, 60, shared=60),
        random_steering(rng, directions=rng.normal(size=(2, 1, 128))),
    )
    engine = Engine(tiny_model("llama", max_position_embeddings=256, **HEADS), path="trie")
    monkeypatch.setattr(tuning, "_speed", lambda *_: 1.0)
    speed = engine.tune(examples, steering, budgets=(200, 2000), n=2)
    assert engine.budget == 2000
    assert 1.0 < speed[2000] / speed[200] < 2.0


@pytest.mark.parametrize(
    ("ceiling", "budgets", "best"), [(48, (), 48), (48, (512, 256), 48), (48, (256, 32), 32), (9, (), 16)]
)
def test_budgets_above_what_memory_allowed_before_are_left_out_whatever_their_order(ceiling, budgets, best, case):
    engine = Engine(tiny_model("llama", **HEADS), path="trie", budget=max(ceiling, 16))
    engine.ceiling = ceiling
    assert list(engine.tune(*case, budgets)) == [best]
    assert (engine.budget, engine.ceiling) == (best, ceiling)


@pytest.mark.parametrize("size", [2, 12, 23, 24, 48, 49, 54, 300])
def test_timed_samples_are_alike_and_have_row_lengths_that_the_warm_up_did_not_have(size):
    """A kernel that prepares itself for every new length looked three times faster than it was in a build."""
    engine = Engine(tiny_model("llama"))
    samples = tuning._samples(engine, range(size), None)
    assert len(samples) == 1 + tuning.ROUNDS
    assert len({len(some) for some in samples}) == 1
    assert 1 <= len(samples[0]) <= 48
    assert len({some.start for some in samples}) == (1 + tuning.ROUNDS if size >= 24 else 1)
    for some in samples:
        assert 0 <= some.start < some.stop <= size


@pytest.mark.parametrize(("asked", "budget", "ceiling"), [(None, 96, 200), (128, 96, 200), (64, 64, None)])
def test_a_session_takes_over_path_and_budget_of_a_cache_and_no_mask_that_is_for_cuda(
    tmp_path, monkeypatch, asked, budget, ceiling
):
    """A budget that memory has made smaller since, too; a spec that asks for another one gets that."""
    monkeypatch.setattr(session, "read_runtime", lambda _: {"budget": 128, "mask": "flex", "path": "plain"})
    runs = iter([{"budget": 128, "ceiling": 300}, {"budget": 96, "ceiling": 200}, None])
    monkeypatch.setattr(session, "finished_sidecar", lambda *_: (run := next(runs)) and {"run": run})
    made = session.Session(tiny_spec(write_model(tmp_path / "model"), run={"threads": 1, "budget": asked}))
    mask = made.engine.mask
    made.settle(tmp_path)
    assert (made.engine.path, made.engine.mask) == ("plain", mask)
    assert (made.engine.budget, made.engine.ceiling) == (budget, ceiling)
    made.close()
