"""The proof is held on rows as a build fills them: what goes by a token's place in its row shows in no shorter one."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import transformers
from tiny_build import DATASETS, tiny_spec, write_model
from tiny_models import random_examples, random_steering, tiny_model

from cache_builder.build import run_build
from cache_builder.engine import Engine, parity, tuning

TINY = {"vocab_size": 97, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def gpt_neo(window: int, longest: int):
    """Its local layers go by the place in the row, and its causal mask is a buffer."""
    kinds = {"attention_types": [[["global", "local"], 2]], "num_layers": 4, "num_heads": 4, "intermediate_size": 48}
    shape = {"window_size": window, "max_position_embeddings": longest, "hidden_size": 32}
    return filled(transformers.GPTNeoForCausalLM(transformers.GPTNeoConfig(**TINY, **kinds, **shape)))


def filled(model):
    """With weights large enough to matter."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.copy_(0.15 * torch.randn(weight.shape, generator=generator))
    return model.float().eval()


@pytest.fixture
def case():
    rng = np.random.default_rng(0)
    return random_examples(rng, 120), random_steering(rng)


@pytest.mark.parametrize(
    ("window", "longest", "reason"),
    [(256, 2048, "its logits differ"), (2048, 600, "it raises RuntimeError: The size of tensor")],
)
def test_attention_by_place_in_a_row_is_found_in_a_full_row(window, longest, reason, case):
    engine = Engine(gpt_neo(window, longest), budget=1024)
    found = engine.prove(*case)
    assert (engine.path, found.passed) == ("plain", False)
    assert found.reason.startswith(f"in a row of {found.row_tokens} tokens {reason}")
    assert 900 < found.row_tokens <= 1024
    short = Engine(gpt_neo(window, longest), budget=128)
    assert short.prove(*case).passed
    assert short.run(*case).logits == pytest.approx(engine.run(*case).logits, abs=1e-4)


def test_a_row_of_which_more_is_wanted_than_it_has_tokens_runs_without_joining():
    """GPT-BigCode gives its stream the length of the input ids again, so that no more may be wanted than these are."""
    rng = np.random.default_rng(0)
    shape = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 128}
    model = filled(transformers.GPTBigCodeForCausalLM(transformers.GPTBigCodeConfig(**TINY, **shape)))
    case = random_examples(rng, 4), random_steering(rng, multipliers=np.linspace(-1, 1, 100))
    engine = Engine(model)
    found = engine.prove(case[0], random_steering(rng))
    assert (found.passed, engine.path, engine.join) == (True, "trie", True), "of few codes less is wanted"
    scores, plain = engine.run(*case), Engine(model, path="plain").run(*case)
    assert scores.logits == pytest.approx(plain.logits, abs=1e-4)
    assert engine.prove(*case).joined


def test_a_row_of_the_best_budget_is_proved_and_of_no_other(case, monkeypatch):
    engine = Engine(gpt_neo(400, 2048), budget=256)
    assert engine.prove(*case).passed
    monkeypatch.setattr(tuning, "_speed", lambda engine, *_: float(engine.budget * (1 + (engine.path == "plain"))))
    found = engine.tune(*case, budgets=(128, 256))
    assert (list(found), engine.path, engine.budget) == ([128, 256], "trie", 256)
    proofs, own = [], parity.compare_row
    for name in ("cache_builder.engine.parity.compare_row", "cache_builder.engine.runner.compare_row"):
        monkeypatch.setattr(name, lambda *a, **k: proofs.append(1) or own(*a, **k))
    engine.prove_row(*case)
    assert not proofs, "these rows were proved"
    found = engine.tune(*case, budgets=(256, 1024))
    assert proofs
    assert (engine.path, engine.parity.passed) == ("plain", False)
    assert found[256] == pytest.approx(512, rel=0.05), "the budgets are those of the path that is taken"


def test_a_budget_whose_rows_the_model_does_not_take_is_not_kept(case):
    engine = Engine(gpt_neo(600, 600), budget=256)
    assert engine.prove(*case).passed
    found = engine.tune(*case, budgets=(256, 2048))
    assert found[2048] == 0.0
    assert (engine.path, engine.budget) == ("trie", 256)


def test_memory_that_ends_in_the_proof_shortens_rows_and_refuses_no_path(case, monkeypatch):
    engine = Engine(tiny_model("llama"), budget=1024)
    real = engine.forward.run

    def little(layout, *rest):
        if layout.token.size > 600:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(layout, *rest)

    monkeypatch.setattr(engine.forward, "run", little)
    assert engine.prove(*case).passed
    assert (engine.path, engine.budget < 600) == ("trie", True)


def test_the_plain_path_after_a_failed_proof_is_not_said_to_have_been_asked_for(case, monkeypatch):
    """A build proves the engine without steering first, and then with its vectors."""
    engine = Engine(tiny_model("llama"))
    with monkeypatch.context() as patch:
        patch.setattr(parity, "_refusal", lambda *_: "its logits differ")
        assert not engine.prove(case[0]).passed
    for _ in range(2):
        assert engine.prove(*case).passed
        assert (engine.path, engine.parity.path) == ("plain", "plain")
        assert engine.parity.reason == "an earlier proof failed, its logits differ"
    asked = Engine(tiny_model("llama"), path="plain")
    assert [asked.prove(*case).reason for _ in range(2)] == ["it was asked for"] * 2


def test_a_build_that_began_on_the_plain_path_goes_on_with_it(tmp_path, monkeypatch):
    """A shorter row might pass: units of one cache would be computed in two ways."""
    spec = tiny_spec(write_model(tmp_path / "model"), limit=20)
    refused = parity._refusal
    monkeypatch.setattr(parity, "_refusal", lambda *_: "its logits differ")
    assert "plain path" in run_build(spec, tmp_path / "cache").parity
    monkeypatch.setattr(parity, "_refusal", refused)
    sidecar = tmp_path / "cache" / "units" / f"{DATASETS[0]}.json"
    before = json.loads(sidecar.read_text())
    sidecar.unlink()
    said = []
    assert "plain path, slower: it was asked for" in run_build(spec, tmp_path / "cache", notice=said.append).parity
    assert any("plain path" in text for text in said)
    after = json.loads(sidecar.read_text())
    assert after["run"]["parity"]["path"] == "plain"
    assert after["content_sha256"] == before["content_sha256"]
