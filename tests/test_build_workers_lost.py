"""Workers of Ray that die, fail or are out of reach: what they had is built by others, or the build ends in words."""

from __future__ import annotations

import pytest
from test_build_workers import BAD, SPEC, Actor, Dead, RayError, fake_ray, good, troubled

from cache_builder.workers import distributed
from cache_builder.workers.distributed import run_on_ray
from steerstats.errors import CacheError, InputError


def failed_call(ray, text: str) -> Exception:
    """What Ray raises where a worker's call raised an error that is none of ours."""
    error = ray.exceptions.RayTaskError(text)
    error.cause = None
    return error


def test_without_a_worker_left_the_build_ends_with_the_reason(monkeypatch, tmp_path):
    ray = fake_ray([good("a", "b"), BAD], [])

    def trouble(reference):
        if reference.kind == "build":
            raise Dead

    troubled(monkeypatch, ray, trouble)
    with pytest.raises(CacheError, match="no Ray worker is left: model 'x' cannot be loaded"):
        run_on_ray(SPEC, tmp_path / "cache", workers=1)


@pytest.mark.parametrize("death", [Dead, type("OutOfMemoryError", (RayError,), {})])
def test_what_a_dead_worker_computed_and_had_not_written_is_built_again(monkeypatch, tmp_path, death):
    asked, notices = [], []
    ray = fake_ray([good("a", "b", "c"), good("a", "b", "c")], [], asked)

    def trouble(reference):
        if reference.kind == "build" and len(asked) == 2:  # "a" is being written, "b" computed
            raise death

    troubled(monkeypatch, ray, trouble)
    report = run_on_ray(SPEC, tmp_path / "cache", workers=1, notice=notices.append)
    assert [name for _, name, _ in asked] == ["a", "b", "c", "a", "b"]
    assert sorted(report.built) == ["a", "b", "c"]
    assert notices == ["a Ray worker died while building a and b; what it had not finished is queued again"]


def test_what_a_dead_worker_had_written_is_not_built_again(monkeypatch, tmp_path):
    asked = []
    ray = fake_ray([good("a", "b"), good("a", "b")], [], asked)

    def trouble(reference):
        if reference.kind == "build" and len(asked) == 2:
            monkeypatch.setattr(distributed, "finished_sidecar", lambda root, name: name == "a")
            raise Dead

    troubled(monkeypatch, ray, trouble)
    report = run_on_ray(SPEC, tmp_path / "cache", workers=1)
    assert [name for _, name, _ in asked] == ["a", "b", "b"]
    assert sorted(report.built) == ["a", "b"]


@pytest.mark.parametrize("call", ["ready", "build"])
def test_a_worker_that_was_only_out_of_reach_is_killed_before_another_takes_its_place(monkeypatch, tmp_path, call):
    calls, lost = [], []
    ray = fake_ray([good("a")] * 2, calls)

    def trouble(reference):
        if reference.kind == call and not lost:
            lost.append(reference)
            raise type("ActorUnavailableError", (Dead,), {})

    def kill(actor):
        calls.append("kill")
        raise RuntimeError("no such actor any more")

    ray.kill = kill
    troubled(monkeypatch, ray, trouble)
    assert run_on_ray(SPEC, tmp_path / "cache", workers=1).built == ("a",)
    assert [one if one == "kill" else "actor" for one in calls[1:]] == ["actor", "kill", "actor", "kill"]


@pytest.mark.parametrize(("how", "tries"), [("vain", 1), ("failed", distributed.MAX_TRIES)])
def test_a_unit_that_cannot_be_written_ends_the_build_with_its_error(monkeypatch, tmp_path, how, tries):
    asked, notices, text = [], [], "traceback, " * 40 + "the disk is full"
    monkeypatch.setattr(Actor, "_ended", lambda self: [("a", how, text)] if self.writing else [])
    monkeypatch.setattr(distributed, "require", lambda *_: fake_ray([good("a")], [], asked))
    with pytest.raises(CacheError, match=r"^unit a failed: .*the disk is full$"):
        run_on_ray(SPEC, tmp_path / "cache", workers=1, notice=notices.append)
    assert len(asked) == tries
    assert notices == [f"unit a failed and is tried again: {text[-200:]}"] * (tries - 1)


def test_what_is_wrong_with_the_data_ends_the_build_at_once_in_its_own_words(monkeypatch, tmp_path):
    ray, notices = fake_ray([good("a")], []), []
    error = failed_call(ray, "the traceback of a worker")
    error.cause = InputError("likes.jsonl: line 3 has no prompt")

    def trouble(reference):
        if reference.kind == "build":
            raise error

    troubled(monkeypatch, ray, trouble)
    with pytest.raises(CacheError, match=r"^unit a failed: likes\.jsonl: line 3 has no prompt$"):
        run_on_ray(SPEC, tmp_path / "cache", workers=1, notice=notices.append)
    assert notices == []


@pytest.mark.parametrize(("count", "options"), [(1, {"workers": 1}), (2, {"workers": 2}), (1, {"gpus_per_worker": 16})])
def test_a_cluster_on_which_every_worker_dies_ends_the_build(monkeypatch, tmp_path, count, options):
    ray = fake_ray([good("a", "b")] * 20, [])

    def trouble(reference):
        if reference.kind == "build":
            raise Dead

    troubled(monkeypatch, ray, trouble)
    lost = distributed.MAX_TRIES * count + 1
    with pytest.raises(CacheError, match=rf"^{lost} Ray workers were lost; the last one died while building [ab]"):
        run_on_ray(SPEC, tmp_path / "cache", **options)


def test_a_worker_that_fails_at_every_unit_is_replaced_and_does_not_use_up_their_tries(monkeypatch, tmp_path):
    """After an error of CUDA's nothing else works in that process."""
    asked, notices = [], []
    ray = fake_ray([good("a", "b", "c", "d")] * 2, [], asked)
    sick = []

    def trouble(reference):
        sick.extend(asked[:1])
        if reference.kind == "build" and asked[-1][0] is sick[0][0] and len(asked) > 1:
            raise failed_call(ray, "CUDA error: device-side assert triggered")

    troubled(monkeypatch, ray, trouble)
    report = run_on_ray(SPEC, tmp_path / "cache", workers=1, notice=notices.append)
    assert sorted(report.built) == ["a", "b", "c", "d"]
    assert [name for _, name, _ in asked] == ["a", "b", "c", "d", "b", "a"]
    assert notices == [
        "unit b failed and is tried again: CUDA error: device-side assert triggered",
        "a Ray worker is replaced while building a; what it had not finished is queued again",
    ]


@pytest.mark.parametrize("dead", [False, True])
def test_a_failed_call_that_is_about_no_unit_names_none(monkeypatch, tmp_path, dead):
    ray, seen, notices = fake_ray([good("a", "b", "c")] * 3, []), [], []

    def trouble(reference):
        seen.append(reference.kind)
        if seen.count("ready") == 2 and reference.kind == "ready":
            raise Dead if dead else failed_call(ray, "no notes\nto tell")

    troubled(monkeypatch, ray, trouble)
    report = run_on_ray(SPEC, tmp_path / "cache", workers=2, notice=notices.append)
    assert sorted(report.built) == ["a", "b", "c"]
    assert notices == ["a Ray worker died" if dead else "a call of a Ray worker failed: no notes to tell"]
