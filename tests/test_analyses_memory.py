"""Answers are remembered by which study was asked, and about which other: two caches of one model are two."""

from __future__ import annotations

import analyses
from steerstats.simulate import SimulationTruth, simulate_cache


def test_a_third_cache_of_the_same_model_gets_an_answer_of_its_own(tmp_path, monkeypatch):
    # Two revisions of one model, say: caches of one and the same model are not asked.
    monkeypatch.setattr("analyses.cross_model.same_model", lambda *_: False)
    paths = []
    for k in range(3):
        truth = SimulationTruth(
            datasets=9, n_inputs=20, n_pairs=4, mean_steerability=[0.1 * (k * j % 9) for j in range(9)]
        )
        paths.append(tmp_path / f"c{k}")
        simulate_cache(paths[-1], truth, seed=k, model="one-model")
    second, third = (
        [claim.estimate for claim in analyses.run("cross_model", [paths[0], other], tmp_path / f"o{k}").claims]
        for k, other in enumerate(paths[1:])
    )
    assert second != third
    again = [claim.estimate for claim in analyses.run("cross_model", [paths[0], paths[1]], tmp_path / "again").claims]
    assert again == second
