"""The two-way probability of the frames is the engine's own, with two options and with more."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from tiny_build import WORDS, content

from cache_builder.build import run_build
from cache_builder.spec import parse_spec
from cache_builder.unit.grid import Grid
from steerstats.cache import CacheReader
from steerstats.frames import propensity_frame

torch.set_num_threads(1)
LETTERS = ("(A)", "(B)", "(I)", "(Do)")


def spec_of(model, folder, n_wrong, score):
    rows = []
    for k, word in enumerate(WORDS[:10]):
        wrong = [letter for letter in LETTERS if letter != LETTERS[k % 4]][:n_wrong]
        prompt = f"Which {word} do I admire?\n(A) all\n(B) others\n(I) old\n(Do) new"
        rows.append({"prompt": prompt, "positive": LETTERS[k % 4], "negative": wrong})
    path = folder / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    changes = {"datasets": ["mine"], "custom_datasets": {"mine": str(path)}, "settings": ["base"], "prompt": {}}
    return parse_spec(content(model) | changes | {"controls": {}, "limit": 10, "order": "tan2024", "score": score})


@pytest.fixture
def engine_says(monkeypatch):
    """What the engine's scores of the base vector give, by name: (multiplier, input), filled as a build runs."""
    seen, keep = {"probability": {}, "whole": {}}, Grid._keep

    def spy(self, row, chosen, block, scores, codes):
        keep(self, row, chosen, block, scores, codes)
        for at, code in zip(block, scores.propensity("probability")[:, codes[0]]):
            seen["probability"][int(at)] = code
        if scores.completion_logprob is not None:
            p = np.exp(scores.completion_logprob[:, codes[0]].astype(float))
            for at, code in zip(block, p[..., 0] / p.sum(axis=-1)):
                seen["whole"][int(at)] = code

    monkeypatch.setattr(Grid, "_keep", spy)
    return seen


@pytest.mark.parametrize("n_wrong", [1, 3])
@pytest.mark.parametrize("score", ["logit_diff", "logprob_sum"])
def test_probability_is_the_engines_own(model, tmp_path, engine_says, n_wrong, score):
    run_build(spec_of(model, tmp_path, n_wrong, score), tmp_path / "cache")
    unit = CacheReader(tmp_path / "cache")["mine"]
    frame = propensity_frame(unit, vector="base")
    says = engine_says["probability" if score == "logit_diff" else "whole"]
    expected = np.stack([says[k] for k in range(len(unit.coords["input"]))], axis=1)
    found = frame.pivot(index="multiplier", columns="input", values="probability")[list(unit.coords["input"])]
    np.testing.assert_allclose(found, expected, atol=2e-6)
    assert np.ptp(expected) > 1e-4, "the vector moves something"


def test_sums_of_raw_logits_are_no_log_odds_and_have_no_probability(model, tmp_path):
    run_build(spec_of(model, tmp_path, 1, "logit_sum"), tmp_path / "cache")
    frame = propensity_frame(CacheReader(tmp_path / "cache")["mine"])
    assert "answer_mass" in frame
    assert "probability" not in frame
