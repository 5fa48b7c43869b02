"""The pool of Ray workers, with a stand-in for Ray: who takes part, who does not, and what is said."""

from __future__ import annotations

import itertools
import json
import os
import socket
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_build import content, tiny_spec, write_model

from cache_builder import distributed, session
from cache_builder.build import run_build
from cache_builder.distributed import Worker, run_on_ray
from cache_builder.inputs import Inputs
from cache_builder.interop import save_vector
from cache_builder.spec import parse_spec
from steerstats.cache import CacheReader
from steerstats.errors import CacheError, InputError


class Dead(Exception):
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
        ended, self.writing = [(name, "", False) for name in self.writing], []
        return ended


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
    return {"problem": "", "units": list(units), "parity": "trie path", "notes": []}


BAD = {"problem": "model 'x' cannot be loaded: CUDA out of memory"}
WORDS = ["accidents", "agendas", "airports", "alarms", "amplifiers", "animals", "anvils", "apps", "armies", "ballads"]
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
    assert calls.count("kill") == 1


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


def test_what_a_dead_worker_computed_and_had_not_written_is_built_again(monkeypatch, tmp_path):
    asked, notices = [], []
    ray = fake_ray([good("a", "b", "c"), good("a", "b", "c")], [], asked)
    plain = ray.get

    def get(reference):
        if reference.kind == "build" and len(asked) == 2:  # "a" is being written, "b" computed
            raise Dead
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
    assert [one if one == "kill" else "actor" for one in calls[1:]] == ["actor", "kill", "actor"]


@pytest.mark.parametrize(("final", "tries"), [(True, 1), (False, distributed.MAX_TRIES)])
def test_a_unit_that_cannot_be_written_ends_the_build_with_its_error(monkeypatch, tmp_path, final, tries):
    asked, notices = [], []
    monkeypatch.setattr(Actor, "_ended", lambda self: [("a", "the disk is full", final)] if self.writing else [])
    monkeypatch.setattr(distributed, "require", lambda *_: fake_ray([good("a")], [], asked))
    with pytest.raises(CacheError, match="unit a failed: the disk is full"):
        run_on_ray(SPEC, tmp_path / "cache", workers=1, notice=notices.append)
    assert len(asked) == tries
    assert notices == ["unit a failed and is tried again: the disk is full"] * (tries - 1)


def test_a_failed_call_that_is_about_no_unit_names_none(monkeypatch, tmp_path):
    ray, seen, notices = fake_ray([good("a", "b", "c")] * 2, []), [], []
    plain = ray.get

    def get(reference):
        seen.append(reference.kind)
        if seen.count("ready") == 2 and reference.kind == "ready":
            failed = ray.exceptions.RayTaskError("no notes\nto tell")
            failed.cause = None
            raise failed
        return plain(reference)

    ray.get = get
    monkeypatch.setattr(distributed, "require", lambda *_: ray)
    report = run_on_ray(SPEC, tmp_path / "cache", workers=2, notice=notices.append)
    assert sorted(report.built) == ["a", "b", "c"]
    assert notices == ["a call of a Ray worker failed: no notes to tell"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"))


def test_a_worker_writes_and_encodes_beside_its_engine_and_gets_the_bits_of_a_local_build(model, tmp_path, monkeypatch):
    worker = Worker(content(model), str(tmp_path / "ray"))
    may_write, plain, encoded = threading.Event(), session.write_unit, []
    units, engine = tmp_path / "ray" / "units", threading.get_ident()

    def slow(*arguments, **options):
        assert may_write.wait(120)
        return plain(*arguments, **options)

    def examples(self, plan, part, setting, of=Inputs.examples):
        encoded.append((plan.name, threading.get_ident() != engine))
        return of(self, plan, part, setting)

    monkeypatch.setattr(session, "write_unit", slow)
    monkeypatch.setattr(Inputs, "examples", examples)
    first, second, third = worker.ready()["units"]
    assert worker.build(first, second) == []
    assert os.listdir(units) == [f".{first}.lease"], "computed, claimed, and not yet written"
    may_write.set()
    said = worker.build(second, third)
    assert said[0] == (first, "", False), "the one before is written first"
    assert [*said, *worker.build(third), *worker.finish()] == [(name, "", False) for name in (first, second, third)]
    assert worker.build(first) == [(first, "", False)], "finished before"
    assert sorted(os.listdir(units)) == sorted(
        f"{name}.{end}" for name in (first, second, third) for end in ("h5", "json")
    )
    for name in (second, third):
        assert {behind for one, behind in encoded if one == name} == {True}
    monkeypatch.undo()
    run_build(tiny_spec(model), tmp_path / "local")
    hashes = [{u.name: u.sidecar["content_sha256"] for u in CacheReader(tmp_path / x)} for x in ("ray", "local")]
    assert hashes[0] == hashes[1]


def test_an_error_of_a_workers_writer_is_said_of_its_unit_and_leaves_no_lease(model, tmp_path, monkeypatch):
    worker = Worker(content(model), str(tmp_path / "cache"))
    first, second, _ = worker.ready()["units"]
    plain = session.write_unit
    problems = {first: CacheError("the disk\nis full"), second: KeyError()}

    def failing(root, name, *rest, **options):
        if name in problems:
            raise problems.pop(name)
        return plain(root, name, *rest, **options)

    monkeypatch.setattr(session, "write_unit", failing)
    said = [*worker.build(first), *worker.build(second), *worker.finish()]
    assert said == [(first, "the disk is full", True), (second, "KeyError", False)]
    assert os.listdir(tmp_path / "cache" / "units") == []
    assert [*worker.build(first), *worker.finish()] == [(first, "", False)]


def relative(model, tmp_path, monkeypatch):
    """A spec with a relative path of every kind, in the folder in which they begin."""
    home = tmp_path / "home"
    home.mkdir()
    lines = [{"prompt": f"Do I admire {word}?", "positive": "Yes", "negative": "No"} for word in WORDS]
    (home / "mine.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (home / "said.json").write_text(json.dumps({"mine": {"positive": "You admire.", "negative": "You despise."}}))
    save_vector(home / "v.safetensors", {1: np.ones(32)})
    (home / "model").symlink_to(model)
    own = {"datasets": ["mine"], "custom_datasets": {"mine": "mine.jsonl"}, "settings": ["base", "user_neg"]}
    own |= {"controls": {}, "order": "tan2024", "prompt": {"descriptions": "said.json"}}
    own |= {"vectors": {"files": {"other": "v.safetensors"}}}
    monkeypatch.chdir(home)
    return content(Path("./model"), **own) | {"model": {"id": "./model"}}, home


def test_a_worker_that_ray_started_elsewhere_finds_what_relative_paths_name(model, tmp_path, monkeypatch):
    spec, home = relative(model, tmp_path, monkeypatch)
    monkeypatch.chdir(tmp_path)  # where the raylet was started
    assert "mine.jsonl" in Worker(spec, str(tmp_path / "cache")).ready()["problem"], "they begin at home"
    worker = Worker(spec, str(tmp_path / "cache"), str(home))
    assert worker.ready()["problem"] == ""
    assert [*worker.build("mine"), *worker.finish()] == [("mine", "", False)]
    unit = CacheReader(tmp_path / "cache")["mine"]
    assert unit.attrs["spec_hash"] == session.Session(parse_spec(spec)).spec_hash
    assert "other" in unit.coords["vector"].tolist()


@pytest.mark.parametrize("kept", ["custom_datasets", "vectors", "prompt", "model", "run"])
def test_a_worker_without_the_folder_says_which_path_begins_there(model, tmp_path, monkeypatch, kept):
    spec, home = relative(model, tmp_path, monkeypatch)
    names = {"custom_datasets": "mine.jsonl", "vectors": "v.safetensors", "prompt": "said.json", "model": "./model"}
    spec["run"] = {**spec["run"], "data_dir": "data"}
    whole = {
        "custom_datasets": {"mine": str(home / "mine.jsonl")},
        "vectors": {"files": {"other": str(home / "v.safetensors")}},
        "prompt": {"descriptions": str(home / "said.json")},
        "model": {"id": str(model)},
        "run": {"budget": 256, "threads": 1},
    }
    spec |= {name: value for name, value in whole.items() if name != kept}
    problem = Worker(spec, str(tmp_path / "cache"), str(tmp_path / "gone")).ready()["problem"]
    assert problem.startswith(f"{tmp_path / 'gone'}: not a folder that the Ray worker on ")
    assert f"{names.get(kept, 'data')!r} begins there" in problem
    assert Worker(spec | whole, str(tmp_path / "cache"), str(tmp_path / "gone")).ready()["problem"] == ""


def test_a_worker_on_a_finished_cache_has_nothing_to_prove(model, tmp_path, monkeypatch):
    run_build(tiny_spec(model), tmp_path / "cache")
    monkeypatch.setattr(session.Session, "prove", lambda *_: pytest.fail("proved"))
    worker = Worker(content(model), str(tmp_path / "cache"))
    assert worker.ready()["problem"] == ""
