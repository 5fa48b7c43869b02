"""The pool of Ray workers, with a stand-in for Ray: who takes part, who does not, and what is said."""

from __future__ import annotations

import itertools
import os
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from cache_builder.spec import parse_spec
from cache_builder.workers import distributed
from cache_builder.workers.distributed import run_on_ray
from cache_builder.workers.worker import Worker
from steerstats.errors import InputError


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


def fake_ray(answers: list[dict], calls: list, asked: list | None = None):
    """A Ray whose n-th actor is ready with the n-th answer; every call is done at the second look."""
    made, asked, seen = iter(answers), [] if asked is None else asked, []

    def remote(**options):
        calls.append(options)

        def actor(spec, root, folder):
            assert folder == os.getcwd()
            assert Path(root).is_absolute(), "a node that cannot enter that folder may see the cache"
            calls.append(spec)
            return Actor(next(made), asked)

        return lambda cls: SimpleNamespace(remote=actor)

    def get(reference):
        return reference.value

    def wait(references, num_returns, timeout):
        assert timeout, "Ctrl-C is heard between two looks"
        if references[0] not in seen:
            seen.append(references[0])
            return [], references
        return references[:1], references[1:]

    failed = type("Failed", (RayError,), {})
    exceptions = SimpleNamespace(RayError=RayError, RayActorError=Dead, RayTaskError=failed)
    return SimpleNamespace(
        is_initialized=lambda: True,
        cluster_resources=lambda: {"GPU": 8.0},
        remote=remote,
        get=get,
        wait=wait,
        kill=lambda actor: calls.append("kill"),
        exceptions=exceptions,
    )


def good(*units: str) -> dict:
    return {"problem": "", "units": list(units), "parity": "trie path", "notes": []}


BAD = {"problem": "model 'x' cannot be loaded: CUDA out of memory"}
SPEC = parse_spec({"model": {"id": "x"}, "datasets": ["bundled:demo/likes-rain"], "layers": [1]})


def troubled(monkeypatch, ray, trouble):
    """Whatever is got from Ray goes through `trouble` first, which may raise."""
    plain = ray.get

    def get(reference):
        trouble(reference)
        return plain(reference)

    ray.get = get
    monkeypatch.setattr(distributed, "require", lambda *_: ray)


def run(monkeypatch, tmp_path, answers, **options):
    calls, notices = [], []
    monkeypatch.setattr(distributed, "require", lambda *_: fake_ray(answers, calls))
    report = run_on_ray(SPEC, tmp_path / "cache", notice=notices.append, **options)
    return report, calls, notices


def test_a_later_worker_that_cannot_take_part_is_said_and_gets_no_work(monkeypatch, tmp_path):
    calls, asked, notices = [], [], []
    monkeypatch.setattr(distributed, "require", lambda *_: fake_ray([good("a", "b", "c"), BAD], calls, asked))
    report = run_on_ray(SPEC, tmp_path / "cache", workers=2, notice=notices.append)
    assert sorted(report.built) == ["a", "b", "c"]
    assert len({actor for actor, _, _ in asked}) == 1
    assert notices == ["a Ray worker cannot take part: model 'x' cannot be loaded: CUDA out of memory"]
    assert calls.count("kill") == 2, "at once, and the one that worked at the end"


@pytest.mark.parametrize("call", ["ready", "build"])
def test_an_interrupted_driver_leaves_no_worker_on_a_cluster_that_goes_on(monkeypatch, tmp_path, call):
    calls = []
    ray = fake_ray([good("a", "b", "c")] * 2, calls)

    def trouble(reference):
        if reference.kind == call:
            raise KeyboardInterrupt

    troubled(monkeypatch, ray, trouble)
    with pytest.raises(KeyboardInterrupt):
        run_on_ray(SPEC, tmp_path / "cache", workers=2)
    assert calls.count("kill") == sum(isinstance(one, dict) and "model" in one for one in calls) > 0


@pytest.mark.parametrize(
    ("gpus", "asked", "share", "workers"),
    [(8, 2, 2, 4), (8, 3, 3, 2), (8, 8, 8, 1), (8, 0.5, 0.5, 16), (8, 0, 0, 1), (3, None, 1, 3), (0, None, 0, 1)],
)
def test_gpus_of_a_worker_decide_how_many_there_are(monkeypatch, tmp_path, gpus, asked, share, workers):
    names, calls = [f"u{k:02}" for k in range(20)], []
    ray = fake_ray([good(*names)] * 20, calls)
    ray.cluster_resources = lambda: {"CPU": 64.0} | ({"GPU": float(gpus)} if gpus else {})
    monkeypatch.setattr(distributed, "require", lambda *_: ray)
    notices = []
    report = run_on_ray(SPEC, tmp_path / "cache", gpus_per_worker=asked, notice=notices.append)
    assert notices == []
    assert calls[0] == {"num_gpus": share, "num_cpus": 1}
    assert sum(isinstance(one, dict) and "model" in one for one in calls) == workers
    assert sorted(report.built) == names


@pytest.mark.parametrize(("share", "asked", "given"), [(2, None, "auto"), (2, "balanced", "balanced"), (1, None, None)])
def test_a_model_is_spread_over_the_gpus_of_its_worker(monkeypatch, tmp_path, share, asked, given):
    spec = parse_spec({**SPEC.model_dump(mode="json"), "run": {"device_map": asked}})
    calls = []
    monkeypatch.setattr(distributed, "require", lambda *_: fake_ray([good("a")], calls))
    monkeypatch.chdir(tmp_path)
    run_on_ray(spec, "cache", workers=1, gpus_per_worker=share)
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
            run_on_ray(SPEC, tmp_path / "new" / "cache", address=None if from_environment else address)
    assert not (tmp_path / "new").exists()


def test_an_address_that_ray_does_not_take_is_an_error_of_one_line(monkeypatch, tmp_path):
    ray = fake_ray([], [])

    def init(**_):
        raise ValueError("Invalid address format: nonsense")

    ray.is_initialized, ray.init = lambda: False, init
    monkeypatch.setattr(distributed, "require", lambda *_: ray)
    with pytest.raises(InputError, match=r"^no Ray cluster at 'nonsense': Invalid address format"):
        run_on_ray(SPEC, tmp_path / "cache", address="nonsense")
    with pytest.raises(InputError, match=r"^no Ray cluster at '127\.0\.0\.1:9{30}': "):
        run_on_ray(SPEC, tmp_path / "cache", address="127.0.0.1:" + "9" * 30)


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


def test_what_the_first_worker_finds_is_said_and_what_is_wrong_with_its_spec_ends_the_build(monkeypatch, tmp_path):
    _, _, notices = run(monkeypatch, tmp_path, [good("a") | {"notes": ["the plain path, slower"]}], workers=1)
    assert notices == ["the plain path, slower"]
    with pytest.raises(InputError, match=r"^model 'x' cannot be loaded: CUDA out of memory$"):
        run(monkeypatch, tmp_path, [BAD], workers=2)


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


def test_what_is_finished_is_asked_of_nobody_and_no_worker_starts_for_nothing(monkeypatch, tmp_path):
    asked, calls = [], []
    monkeypatch.setattr(distributed, "finished_sidecar", lambda root, name: name == "a")
    monkeypatch.setattr(distributed, "require", lambda *_: fake_ray([good("a", "b", "c")] * 5, calls, asked))
    steps = []
    report = run_on_ray(SPEC, tmp_path / "cache", workers=5, progress=lambda *step: steps.append(step))
    done = [step[0] for step in steps[1:]]
    assert (done[0], done[-1], sorted(done)) == (1, 3, done)
    assert (report.found, sorted(report.built), report.elsewhere) == (("a",), ["b", "c"], ())
    assert sorted(name for _, name, _ in asked) == ["b", "c"]
    assert sum(isinstance(one, dict) for one in calls) == 1 + 2, "the options, and the spec of each worker"


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
