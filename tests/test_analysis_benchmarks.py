"""Benchmarks of the analysis run, and say what counts as met and what an absent peer leaves open. Nothing is timed."""

from __future__ import annotations

from benchmarks.bench_analysis import analyse, write_caches
from benchmarks.bench_mixed import judge, verdict


def test_every_question_of_the_whole_analysis_has_an_answer(tmp_path):
    seconds = analyse(write_caches(tmp_path, 1, datasets=2, inputs=30))
    assert len(seconds) == 7


def test_targets_are_judged_for_both_ways_in_and_an_absent_peer_is_not_a_pass():
    found = judge({"fit_mixed": 0.1, "closed_form": 0.02, "statsmodels": 90.0})
    assert {(e["ours"], e["peer"]): e["met"] for e in found} == {
        ("fit_mixed", "statsmodels"): False,
        ("fit_mixed", "lme4"): None,
        ("closed_form", "statsmodels"): True,
        ("closed_form", "lme4"): None,
    }
    lines = [verdict(entry) for entry in found]
    assert lines[0] == "fit_mixed: 1,000x statsmodels: NOT MET, 900x"
    assert lines[1] == "fit_mixed: 100x lme4: not measured, lme4 did not run"
    assert lines[2] == "closed_form: 1,000x statsmodels: met, 4,500x"
