"""Claims on debiased vectors: squares without their noise, and what there is to say where nothing can be judged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from reporting import TRUTH, hostile_cache, write_cache

from analyses import (
    debiased_vectors,
)
from steerstats import open_cache


def test_debiasing_that_removes_nothing_is_seldom_said_to_remove_something(monkeypatch, tmp_path):
    """Effects of 0 before and after, the second with half the noise: the size of the first is larger by noise alone."""
    names = [f"d{k}" for k in range(14)]
    real = debiased_vectors.ask(debiased_vectors.study_of(hostile_cache()), "debiased")
    one, found = next(iter(real.loss.values())), []
    monkeypatch.setattr(debiased_vectors, "figures", None)
    monkeypatch.setattr(debiased_vectors, "by_median", lambda frame, _: frame)

    seen = {}

    def recorded(values, name, *rest, **more):
        seen[name] = mean_of(values, name, *rest, **more)
        return seen[name]

    mean_of = debiased_vectors.plain_mean
    monkeypatch.setattr(debiased_vectors, "plain_mean", recorded)
    for seed in range(100):
        rng = np.random.default_rng(seed)
        rows = [
            {"dataset": name, "vector": vector, "term": "pos_is_a", "estimate": rng.normal(0, se), "se": se,
             "ci_low": 0.0, "ci_high": 0.0}
            for name in names for vector, se in (("own", 0.05), ("debiased", 0.025))
        ]  # fmt: skip
        result = replace(real, loss=dict.fromkeys(names, one), effects=pd.DataFrame(rows))
        monkeypatch.setattr(debiased_vectors, "ask", lambda *_, result=result: result)
        with pytest.raises(AttributeError):  # it comes to the figure
            debiased_vectors.main(hostile_cache(), tmp_path)
        found.append(seen["change"].ci_low > 0)
    assert np.mean(found) < 0.04, "the size of the estimates said so in more than half of the studies"


def test_an_effect_that_debiasing_cannot_be_judged_by_is_not_passed_over(tmp_path):
    """One of forty right answers is B: no effect of the letter has an error, before or after."""
    few = {"n_random": 0, "n_shuffled": 0, "n_resampled": 0, "logits": False, "prompt_loss": {}}
    truth = replace(TRUTH, n_inputs=40, prevalence_a=0.975, a_slope=1.0, **few)
    found = debiased_vectors.main(write_cache(tmp_path / "rare", truth), tmp_path)
    assert "debiased.pos_is_a" not in {claim.key for claim in found.claims}
    assert any("pos_is_a" in text and "in one question alone" in text for text in found.warnings)


def test_without_any_effect_of_letter_or_word_the_loss_by_debiasing_stands_alone(tmp_path):
    few = {"n_random": 0, "n_shuffled": 0, "n_resampled": 0, "logits": False, "yes_defined": 0.0}
    truth = replace(TRUTH, n_inputs=40, prevalence_a=0.975, **few)
    cache = write_cache(tmp_path / "none", truth)
    found = debiased_vectors.main(cache, tmp_path)
    assert [claim.key for claim in found.claims] == ["debiased.loss"]
    assert any("no factor effects" in text for text in found.warnings)
    assert open_cache(cache).debiased().summary()


def test_an_interval_of_squares_says_that_it_is_short(tmp_path):
    found = debiased_vectors.main(hostile_cache(), tmp_path)
    claims = {claim.key: claim for claim in found.claims}
    assert "too short" in claims["debiased.pos_is_a"].interval
    assert "too short" not in claims["debiased.loss"].interval
