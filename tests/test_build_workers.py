"""The pool of Ray workers, with a stand-in for Ray: who takes part, who does not, and what is said."""

from __future__ import annotations

import itertools
import os
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from cache_builder import distributed
from cache_builder.distributed import run_on_ray
from cache_builder.spec import parse_spec
from cache_builder.worker import Worker
from steerstats.errors import CacheError, InputError


class RayError(Exception):
    """What Ray says of all that goes wrong."""


class Dead(RayError):
    """An actor that is no more."""


class Reference:
    """What a call gives back at once: its kind and its value."""

    def __init__(self, kind: str, value) -> None:
        self.kind, self.value = kind, value


class Actor:
    """One stand-in worker: `ready` answers what it is given; a unit is written by the time the next call is made."""

    def __init__(self, facts: dict, asked: list) -> None:
        self.asked, self.writing = asked, []
        self.ready = SimpleNamespace(remote=lambda: Reference("ready", facts))
        self.build = SimpleNamespace(remote=self._build)
        self.finish = SimpleNamespace(remote=lambda: Reference("finish", self._ended()))

    def _build(self, name: str, following: str) -> Reference:
        self.asked.append((self, name, following))
        ended = self._ended()
        self.writing = [name]
        return Reference("build", ended)

    def _ended(self) -> list[tuple]:
        ended, self.writing = [(name, "built", "") for name in self.writing], []
        return ended


def failed_call(ray, text: str) -> Exception:
    """What Ray raises where a worker's call raised an error that is none of ours."""
    error = ray.exceptions.RayTaskError(text)
    error.cause = None
    return error


def fake_ray(answers: list[dict], calls: list, asked: list | None = None):
    """A Ray whose n-th actor is ready with the n-th answer; every call is done at once."""
    made, asked = iter(answers), [] if asked is None else asked

    def remote(**options):
        calls.append(options)

        def actor(spec, root, folder):
            assert folder == os.getcwd()
            calls.append(spec)
            return Actor(next(made), asked)

        return lambda cls: SimpleNamespace(remote=actor)

    def get(reference):
        return reference.value

    failed = type("Failed", (RayError,), {})
    exceptions = SimpleNamespace(RayError=RayError, RayActorError=Dead, RayTaskError=failed)
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
    return {"problem": "", "units": list(units), "parity": "trie path", "notes": []}


BAD = {"problem": "model 'x' cannot be loaded: CUDA out of memory"}
SPEC = parse_spec({"model": {"id": "x"}, "datasets": ["bundled:demo/likes-rain"], "layers": [1]})


def run(monkeypatch, tmp_path, answers, **options):
    calls, notices = [], []
    monkeypatch.setattr(distributed, "require", lambda *_: fake_ray(answers, calls))
    report = run_on_ray(SPEC, tmp_path / "cache", notice=notices.append, **options)
    return report, calls, notices


def test_a_later_worker_that_cannot_take_part_is_said_and_gets_no_work(monkeypatch, tmp_path):
    report, calls, notices = run(monkeypatch, tmp_path, [good("a", "b", "c"), BAD], workers=2)
    assert sorted(report.built) == ["a", "b", "c"]
    assert notices == ["a Ray worker cannot take part: model 'x' cannot be loaded: CUDA out of memory"]
    assert calls.count("kill") == 2, "at once, and the one that worked at the end"


@pytest.mark.parametrize("call", ["ready", "build"])
def test_an_interrupted_driver_leaves_no_worker_on_a_cluster_that_goes_on(monkeypatch, tmp_path, call):
    calls = []
    ray = fake_ray([good("a", "b", "c")] * 2, calls)
    plain = ray.get

    def get(reference):
        if reference.kind == call:
            raise KeyboardInterrupt
        return plain(reference)

    ray.get = get
    monkeypatch.setattr(distributed, "require", lambda *_: ray)
    with pytest.raises(KeyboardInterrupt):
        run_on_ray(SPEC, tmp_path / "cache", workers=2)
    assert calls.count("kill") == sum(isinstance(one, dict) and "model" in one for one in calls) > 0


def test_gpus_of_a_worker_decide_how_many_there_are(monkeypatch, tmp_path):
    names = [f"u{k}" for k in range(6)]
    report, calls, _ = run(monkeypatch, tmp_path, [good(*names)] * 4, gpus_per_worker=2)
    assert calls[0] == {"num_gpus": 2, "num_cpus": 1}
    assert sorted(report.built) == names


@pytest.mark.parametrize(("share", "asked", "given"), [(2, None, "auto"), (2, "balanced", "balanced"), (1, None, None)])
def test_a_model_is_spread_over_the_gpus_of_its_worker(monkeypatch, tmp_path, share, asked, given):
    spec = parse_spec({**SPEC.model_dump(mode="json"), "run": {"device_map": asked}})
    calls = []
    monkeypatch.setattr(distributed, "require", lambda *_: fake_ray([good("a")], calls))
    run_on_ray(spec, tmp_path / "cache", workers=1, gpus_per_worker=share)
    assert calls[1]["run"]["device_map"] == given
    assert parse_spec(calls[1]).hash() == spec.hash(), "where it runs is not what it is"


@pytest.mark.parametrize("address", [None, "ray://head:10001"])
@pytest.mark.parametrize("running", [True, False])
def test_a_cluster_is_started_or_joined_and_left_again_unless_one_is_running(monkeypatch, tmp_path, address, running):
    ray, said = fake_ray([good("a")], []), []
    ray.is_initialized = lambda: running
    ray.init = lambda address, **_: said.append(address)
    ray.shutdown = lambda: said.append("left")
    monkeypatch.setattr(distributed, "require", lambda *_: ray)
    run_on_ray(SPEC, tmp_path / "cache", workers=1, address=address)
    assert said == ([] if running else [address, "left"])


@pytest.mark.parametrize("from_environment", [False, True])
def test_an_address_where_nobody_listens_is_said_before_ray_tries_for_minutes(monkeypatch, tmp_path, from_environment):
    ray = fake_ray([], [])
    ray.is_initialized, ray.init = lambda: False, lambda **_: pytest.fail("Ray was asked")
    monkeypatch.setattr(distributed, "require", lambda *_: ray)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and not listening
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address if from_environment else "10.0.0.1:1")
        with pytest.raises(InputError, match=f"no Ray cluster at '{address}'"):
            run_on_ray(SPEC, tmp_path / "cache", address=None if from_environment else address)


def test_an_address_that_ray_does_not_take_is_an_error_of_one_line(monkeypatch, tmp_path):
    ray = fake_ray([], [])

    def init(**_):
        raise ValueError("Invalid address format: nonsense")

    ray.is_initialized, ray.init = lambda: False, init
    monkeypatch.setattr(distributed, "require", lambda *_: ray)
    with pytest.raises(InputError, match=r"^no Ray cluster at 'nonsense': Invalid address format"):
        run_on_ray(SPEC, tmp_path / "cache", address="nonsense")


def test_gpus_that_ray_does_not_give_are_said(monkeypatch, tmp_path):
    with pytest.raises(InputError, match=r"1\.5 is neither a whole number nor a share of one"):
        run(monkeypatch, tmp_path, [good("a")], gpus_per_worker=1.5)
    _, _, notices = run(monkeypatch, tmp_path, [good("a")], gpus_per_worker=16)
    assert notices == ["each worker asks for 16 GPUs and the cluster has 8: waiting until it has more"]


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


def test_each_worker_expects_a_unit_of_its_own_and_every_unit_is_built_once(monkeypatch, tmp_path):
    names, asked = [f"u{k}" for k in range(7)], []
    monkeypatch.setattr(distributed, "require", lambda *_: fake_ray([good(*names)] * 3, [], asked))
    report = run_on_ray(SPEC, tmp_path / "cache", workers=3)
    assert sorted(report.built) == sorted(name for _, name, _ in asked) == names
    for actor in {actor for actor, _, _ in asked}:
        mine = [(name, following) for who, name, following in asked if who is actor]
        assert all(before[1] == after[0] for before, after in itertools.pairwise(mine[:-1])), (
            "what it was told to expect"
        )
    expected = [following for _, _, following in asked[:3]]
    assert len(set(expected)) == 3, "no two prepare for the same unit"


def test_a_unit_that_another_builder_is_at_is_asked_for_again_after_the_others_and_not_counted_as_built(
    monkeypatch, tmp_path
):
    asked, notices = [], []
    plain = Actor._build

    def build(self, name, following):
        if name != "a":
            return plain(self, name, following)
        asked.append((self, name, following))
        ended, times = self._ended(), [one for _, one, _ in asked].count("a")
        return Reference("build", [*ended, ("a", "held" if times < 4 else "found", "")])

    monkeypatch.setattr(Actor, "_build", build)
    monkeypatch.setattr(distributed, "require", lambda *_: fake_ray([good("a", "b", "c")], [], asked))
    report = run_on_ray(SPEC, tmp_path / "cache", workers=1, notice=notices.append)
    assert [name for _, name, _ in asked] == ["a", "b", "c", "a", "a", "a"]
    assert (sorted(report.built), report.elsewhere) == (["b", "c"], ("a",))
    assert notices == ["unit a is claimed by another builder; it is left to it, and looked at again"]


@pytest.mark.parametrize("death", [Dead, type("OutOfMemoryError", (RayError,), {})])
def test_what_a_dead_worker_computed_and_had_not_written_is_built_again(monkeypatch, tmp_path, death):
    asked, notices = [], []
    ray = fake_ray([good("a", "b", "c"), good("a", "b", "c")], [], asked)
    plain = ray.get

    def get(reference):
        if reference.kind == "build" and len(asked) == 2:  # "a" is being written, "b" computed
            raise death
        return plain(reference)

    ray.get = get
    monkeypatch.setattr(distributed, "require", lambda *_: ray)
    report = run_on_ray(SPEC, tmp_path / "cache", workers=1, notice=notices.append)
    assert [name for _, name, _ in asked] == ["a", "b", "c", "a", "b"]
    assert sorted(report.built) == ["a", "b", "c"]
    assert notices == ["a Ray worker died while building a and b; what it had not finished is queued again"]


def test_what_a_dead_worker_had_written_is_not_built_again(monkeypatch, tmp_path):
    asked = []
    ray = fake_ray([good("a", "b"), good("a", "b")], [], asked)
    plain = ray.get

    def get(reference):
        if reference.kind == "build" and len(asked) == 2:
            monkeypatch.setattr(distributed, "finished_sidecar", lambda root, name: name == "a")
            raise Dead
        return plain(reference)

    ray.get = get
    monkeypatch.setattr(distributed, "require", lambda *_: ray)
    report = run_on_ray(SPEC, tmp_path / "cache", workers=1)
    assert [name for _, name, _ in asked] == ["a", "b", "b"]
    assert sorted(report.built) == ["a", "b"]


@pytest.mark.parametrize("call", ["ready", "build"])
def test_a_worker_that_was_only_out_of_reach_is_killed_before_another_takes_its_place(monkeypatch, tmp_path, call):
    calls, lost = [], []
    ray = fake_ray([good("a")] * 2, calls)
    plain = ray.get

    def get(reference):
        if reference.kind == call and not lost:
            lost.append(reference)
            raise type("ActorUnavailableError", (Dead,), {})
        return plain(reference)

    def kill(actor):
        calls.append("kill")
        raise RuntimeError("no such actor any more")

    ray.get, ray.kill = get, kill
    monkeypatch.setattr(distributed, "require", lambda *_: ray)
    assert run_on_ray(SPEC, tmp_path / "cache", workers=1).built == ("a",)
    assert [one if one == "kill" else "actor" for one in calls[1:]] == ["actor", "kill", "actor", "kill"]


@pytest.mark.parametrize(("how", "tries"), [("vain", 1), ("failed", distributed.MAX_TRIES)])
def test_a_unit_that_cannot_be_written_ends_the_build_with_its_error(monkeypatch, tmp_path, how, tries):
    asked, notices = [], []
    monkeypatch.setattr(Actor, "_ended", lambda self: [("a", how, "the disk is full")] if self.writing else [])
    monkeypatch.setattr(distributed, "require", lambda *_: fake_ray([good("a")], [], asked))
    with pytest.raises(CacheError, match="unit a failed: the disk is full"):
        run_on_ray(SPEC, tmp_path / "cache", workers=1, notice=notices.append)
    assert len(asked) == tries
    assert notices == ["unit a failed and is tried again: the disk is full"] * (tries - 1)


def test_a_worker_that_fails_at_every_unit_is_replaced_and_does_not_use_up_their_tries(monkeypatch, tmp_path):
    """After an error of CUDA's nothing else works in that process."""
    asked, notices = [], []
    ray = fake_ray([good("a", "b", "c", "d")] * 2, [], asked)
    plain, sick = ray.get, []

    def get(reference):
        sick.extend(asked[:1])
        if reference.kind == "build" and asked[-1][0] is sick[0][0] and len(asked) > 1:
            raise failed_call(ray, "CUDA error: device-side assert triggered")
        return plain(reference)

    ray.get = get
    monkeypatch.setattr(distributed, "require", lambda *_: ray)
    report = run_on_ray(SPEC, tmp_path / "cache", workers=1, notice=notices.append)
    assert sorted(report.built) == ["a", "b", "c", "d"]
    assert [name for _, name, _ in asked] == ["a", "b", "c", "d", "b", "a"]
    assert notices == [
        "unit b failed and is tried again: CUDA error: device-side assert triggered",
        "a Ray worker is replaced while building a; what it had not finished is queued again",
    ]


def test_a_failed_call_that_is_about_no_unit_names_none(monkeypatch, tmp_path):
    ray, seen, notices = fake_ray([good("a", "b", "c")] * 2, []), [], []
    plain = ray.get

    def get(reference):
        seen.append(reference.kind)
        if seen.count("ready") == 2 and reference.kind == "ready":
            raise failed_call(ray, "no notes\nto tell")
        return plain(reference)

    ray.get = get
    monkeypatch.setattr(distributed, "require", lambda *_: ray)
    report = run_on_ray(SPEC, tmp_path / "cache", workers=2, notice=notices.append)
    assert sorted(report.built) == ["a", "b", "c"]
    assert notices == ["a call of a Ray worker failed: no notes to tell"]
