"""The pool of Ray workers, with a stand-in for Ray: who takes part, who does not, and what is said."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from cache_builder import distributed
from cache_builder.distributed import Worker, run_on_ray
from steerstats.errors import CacheError


class Dead(Exception):
    """An actor that is no more."""


class Reference:
    """What a call gives back at once: its kind and its value."""

    def __init__(self, kind: str, value) -> None:
        self.kind, self.value = kind, value


class Actor:
    """One stand-in worker: `ready` answers what it is given, `build` its unit's name."""

    def __init__(self, facts: dict) -> None:
        self.ready = SimpleNamespace(remote=lambda: Reference("ready", facts))
        self.build = SimpleNamespace(remote=lambda name: Reference("build", name))


def fake_ray(answers: list[dict], calls: list):
    """A Ray whose n-th actor is ready with the n-th answer; every call is done at once."""
    made = iter(answers)

    def remote(**options):
        calls.append(options)
        return lambda cls: SimpleNamespace(remote=lambda *arguments: Actor(next(made)))

    def get(reference):
        return reference.value

    exceptions = SimpleNamespace(RayActorError=Dead, RayTaskError=type("Failed", (Exception,), {}))
    return SimpleNamespace(
        is_initialized=lambda: True,
        cluster_resources=lambda: {"GPU": 8.0},
        remote=remote,
        get=get,
        wait=lambda references, num_returns, timeout: (references[:1], references[1:]),
        kill=lambda actor: calls.append("kill"),
        exceptions=exceptions,
    )


def good(*units: str) -> dict:
    return {"problem": "", "units": list(units), "parity": "trie path", "passed": True, "notes": []}


BAD = {"problem": "model 'x' cannot be loaded: CUDA out of memory"}
SPEC = SimpleNamespace(model_dump=lambda mode: {})


def run(monkeypatch, tmp_path, answers, **options):
    calls, notices = [], []
    monkeypatch.setattr(distributed, "require", lambda *_: fake_ray(answers, calls))
    report = run_on_ray(SPEC, tmp_path / "cache", notice=notices.append, **options)
    return report, calls, notices


def test_a_later_worker_that_cannot_take_part_is_said_and_gets_no_work(monkeypatch, tmp_path):
    report, calls, notices = run(monkeypatch, tmp_path, [good("a", "b", "c"), BAD], workers=2)
    assert sorted(report.built) == ["a", "b", "c"]
    assert notices == ["a Ray worker cannot take part: model 'x' cannot be loaded: CUDA out of memory"]
    assert calls.count("kill") == 1


def test_gpus_of_a_worker_decide_how_many_there_are(monkeypatch, tmp_path):
    names = [f"u{k}" for k in range(6)]
    report, calls, _ = run(monkeypatch, tmp_path, [good(*names)] * 4, gpus_per_worker=2)
    assert calls[0] == {"num_gpus": 2, "num_cpus": 1}
    assert sorted(report.built) == names


def test_a_worker_reports_what_is_wrong_with_a_spec_instead_of_dying(tmp_path):
    worker = Worker(
        {"model": {"id": "./nowhere"}, "datasets": ["bundled:demo/likes-rain"], "layers": [0]}, str(tmp_path)
    )
    assert "no such directory" in worker.ready()["problem"] or "prompt.descriptions" in worker.ready()["problem"]
    assert not Path(tmp_path / "manifest.json").exists()


def test_without_a_worker_left_the_build_ends_with_the_reason(monkeypatch, tmp_path):
    ray = fake_ray([good("a", "b"), BAD], [])
    plain = ray.get

    def get(reference):
        if reference.kind == "build":
            raise Dead
        return plain(reference)

    ray.get = get
    monkeypatch.setattr(distributed, "require", lambda *_: ray)
    with pytest.raises(CacheError, match="no Ray worker is left: model 'x' cannot be loaded"):
        run_on_ray(SPEC, tmp_path / "cache", workers=1)
