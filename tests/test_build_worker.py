"""A worker of Ray by itself: what it writes beside its engine, where its paths begin, and when it proves nothing."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from tiny_build import WORDS, content, tiny_spec

from cache_builder import session
from cache_builder.build import run_build
from cache_builder.prompts.inputs import Inputs
from cache_builder.spec import parse_spec
from cache_builder.vectors.interop import save_vector
from cache_builder.workers import worker as one_worker
from cache_builder.workers.leases import claim
from cache_builder.workers.worker import Worker
from steerstats.cache import CacheReader
from steerstats.errors import CacheError


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
    assert said[0] == (first, "built", ""), "the one before is written first"
    assert [*said, *worker.build(third), *worker.finish()] == [(name, "built", "") for name in (first, second, third)]
    assert worker.build(first) == [(first, "found", "")], "finished before"
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
    assert said == [(first, "vain", "the disk is full"), (second, "failed", "KeyError")]
    assert os.listdir(tmp_path / "cache" / "units") == []
    assert [*worker.build(first), *worker.finish()] == [(first, "built", "")]


def test_a_worker_leaves_a_unit_to_who_is_at_it_and_goes_on(model, tmp_path, monkeypatch):
    worker = Worker(content(model), str(tmp_path / "cache"))
    first, second, _ = worker.ready()["units"]
    with claim(tmp_path / "cache", first):
        assert worker.build(first) == [(first, "held", "")]
        assert [*worker.build(second), *worker.finish()] == [(second, "built", "")]
    assert [*worker.build(first), *worker.finish()] == [(first, "built", "")]
    looks = iter([None])
    monkeypatch.setattr(one_worker, "finished_sidecar", lambda *_: next(looks, True))
    assert worker.build(first) == [(first, "found", "")], "finished between the look and the claim"


def relative(model, tmp_path, monkeypatch):
    """A spec with a relative path of every kind, in the folder in which they begin."""
    home = tmp_path / "home"
    home.mkdir()
    lines = [{"prompt": f"Do I admire {word}?", "positive": "Yes", "negative": "No"} for word in WORDS[:10]]
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
    assert [*worker.build("mine"), *worker.finish()] == [("mine", "built", "")]
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
    assert worker.session.builder.scratch == tmp_path / "cache" / "units", "on the disk of the cache"
