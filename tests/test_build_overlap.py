"""Work beside the engine changes when something is done and never what; memory that runs out never splits a unit."""

from __future__ import annotations

import itertools
import json
import os
import threading
import time

import numpy as np
import pytest
import torch
from tiny_build import DATASETS, tiny_spec

from cache_builder import build, session
from cache_builder.ahead import Ahead, Writer
from cache_builder.build import run_build
from cache_builder.engine import Engine, runner
from cache_builder.engine.forward import Forward
from cache_builder.prompts.inputs import Inputs
from steerstats.cache import CacheReader, create_cache, verify
from steerstats.errors import CacheError


@pytest.fixture(scope="module")
def serial(model, tmp_path_factory):
    root = tmp_path_factory.mktemp("serial") / "cache"
    run_build(tiny_spec(model), root, overlap=False)
    return root


def hashes(root) -> dict[str, str]:
    assert all(check.ok for check in verify(root))
    return {unit.name: unit.sidecar["content_sha256"] for unit in CacheReader(root)}


def test_the_next_inputs_are_encoded_and_the_last_unit_written_while_the_engine_runs(
    model, serial, tmp_path, monkeypatch
):
    spans, main = {"encode": [], "write": []}, threading.get_ident()
    ran, write, submit = threading.Event(), session.write_unit, Writer.submit

    def spied(kind, plain):
        def call(*arguments, **options):
            begin = time.perf_counter()
            try:
                return plain(*arguments, **options)
            finally:
                spans[kind].append((begin, time.perf_counter(), threading.get_ident()))

        return call

    def running(self, *arguments, of=Forward.run):
        output = of(self, *arguments)
        ran.set()
        return output

    def submitting(self, task):
        ran.clear()  # here, since a writer that is slow to begin would miss what the engine does meanwhile
        submit(self, task)

    def writing(*arguments, **options):
        # Nothing is left for the engine to do beside the last unit.
        assert len(spans["write"]) == 2 or ran.wait(120), "the engine does not run while a unit is being written"
        return write(*arguments, **options)

    monkeypatch.setattr(Inputs, "examples", spied("encode", Inputs.examples))
    monkeypatch.setattr(Writer, "submit", submitting)
    monkeypatch.setattr(session, "write_unit", spied("write", writing))
    monkeypatch.setattr(Forward, "run", running)
    run_build(tiny_spec(model), tmp_path / "cache")
    assert hashes(tmp_path / "cache") == hashes(serial)
    for kind, expected in (("encode", 3 * 6 - 1), ("write", 3)):  # all but the first inputs of a build, and every unit
        behind = [span for span in spans[kind] if span[2] != main]
        assert len(behind) == expected
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(behind)), "one at a time"


def test_a_writer_that_fails_stops_the_build_with_its_error_and_leaves_no_lease(model, tmp_path, monkeypatch):
    plain = session.write_unit

    def failing(root, name, *rest, **options):
        if name == "likes-rain":
            raise CacheError("the disk is full")
        return plain(root, name, *rest, **options)

    monkeypatch.setattr(session, "write_unit", failing)
    with pytest.raises(CacheError, match="the disk is full"):
        run_build(tiny_spec(model), tmp_path / "cache")
    assert not [name for name in os.listdir(tmp_path / "cache" / "units") if "likes-rain" in name]
    assert not [name for name in os.listdir(tmp_path / "cache" / "units") if name.endswith(".lease")]


def test_an_interrupt_waits_for_what_is_being_written(model, tmp_path, monkeypatch):
    plain, calls = build.Session.compute, []

    def interrupted(self, unit, *rest):
        calls.append(unit.name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return plain(self, unit, *rest)

    slow = session.write_unit

    def writing(*arguments, **options):
        time.sleep(0.3)
        return slow(*arguments, **options)

    monkeypatch.setattr(build.Session, "compute", interrupted)
    monkeypatch.setattr(session, "write_unit", writing)
    with pytest.raises(KeyboardInterrupt):
        run_build(tiny_spec(model), tmp_path / "cache")
    assert CacheReader(tmp_path / "cache").units == (calls[0],)
    assert sorted(os.listdir(tmp_path / "cache" / "units")) == [f"{calls[0]}.h5", f"{calls[0]}.json"]


def test_a_lease_is_held_until_the_unit_has_its_name(model, tmp_path, monkeypatch):
    plain, held = session.write_unit, []

    def looking(root, name, *rest, **options):
        held.append((root / "units" / f".{name}.lease").exists())
        target = plain(root, name, *rest, **options)
        held.append((root / "units" / f".{name}.lease").exists())
        return target

    monkeypatch.setattr(session, "write_unit", looking)
    run_build(tiny_spec(model), tmp_path / "cache")
    assert held == [True] * 6


def test_what_is_still_being_written_is_not_taken_for_the_work_of_others(model, tmp_path, monkeypatch):
    plain, said = session.write_unit, []

    def slow(*arguments, **options):
        time.sleep(0.3)
        return plain(*arguments, **options)

    monkeypatch.setattr(session, "write_unit", slow)
    spec = tiny_spec(model, datasets=["bundled:demo/likes-rain"], limit=20)
    assert run_build(spec, tmp_path / "cache", notice=said.append).built == ("likes-rain",)
    assert not any("another process" in text for text in said)


def test_what_another_builder_finished_between_the_look_and_the_claim_is_not_computed_again(
    model, tmp_path, monkeypatch
):
    spec = tiny_spec(model, datasets=["bundled:demo/likes-rain"], limit=20)
    run_build(spec, tmp_path / "cache")
    side, plain = tmp_path / "cache" / "units" / "likes-rain.json", build.claim
    finished = side.read_bytes()
    side.unlink()

    def late(root, unit):
        side.write_bytes(finished)
        return plain(root, unit)

    monkeypatch.setattr(build, "claim", late)
    monkeypatch.setattr(build.Session, "compute", lambda *_: pytest.fail("computed again"))
    report = run_build(spec, tmp_path / "cache")
    assert (report.built, report.found, report.elsewhere) == ((), (), ("likes-rain",))
    assert sorted(os.listdir(side.parent)) == ["likes-rain.h5", "likes-rain.json"]


def test_what_was_foreseen_wrongly_is_made_when_it_is_asked_for():
    made = []
    ahead = Ahead(lambda name: made.append(name) or name.upper())
    assert ahead.take(("a",), ("b",)) == "A"
    assert ahead.take(("c",), ("d",)) == "C"
    assert ahead.take(("d",)) == "D"
    ahead.close()
    assert made.count("d") == 1


def fail() -> None:
    raise CacheError("full")


def test_the_writers_error_comes_with_the_next_call():
    writer = Writer()
    writer.submit(fail)
    with pytest.raises(CacheError, match="full"):
        writer.submit(lambda: None)
    writer.submit(fail)
    with pytest.raises(CacheError, match="full"):
        writer.__exit__(None)


def test_the_writers_error_does_not_cover_another_one():
    writer = Writer()
    writer.submit(fail)
    writer.__exit__(KeyError, KeyError(), None)


@pytest.fixture
def tight(monkeypatch):
    """Memory for rows of so many tokens, from a given number of forward passes on."""

    def limit(tokens: int, after: int = 0):
        plain, passes = Forward.run, []

        def run(self, layout, *arguments, **options):
            passes.append(layout.token.shape[1])
            if len(passes) > after and layout.is_trie and layout.token.shape[1] > tokens:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return plain(self, layout, *arguments, **options)

        monkeypatch.setattr(Forward, "run", run)
        return passes

    return limit


def test_a_unit_in_which_memory_ran_out_is_computed_again_at_one_budget_and_a_resumed_build_begins_there(
    model, tmp_path, monkeypatch, tight
):
    spec = tiny_spec(model, run={"budget": 256, "threads": 1})
    builds, plain = [], build.Session.compute

    def compute(self, unit, *rest):
        data, run = plain(self, unit, *rest)
        builds.append((unit.name, run["budget"], run["out_of_memory"]))
        return data, run

    monkeypatch.setattr(build.Session, "compute", compute)
    # The proof and the whole first unit fit; the second one does not.
    counter = tight(10**6)
    run_build(spec, tmp_path / "free", only=lambda name: name == DATASETS[0])
    first = len(counter)
    monkeypatch.undo()
    monkeypatch.setattr(build.Session, "compute", compute)
    builds.clear()
    tight(100, after=first + 2)
    run_build(spec, tmp_path / "cache", only=lambda name: name != DATASETS[2])
    (_, before, none), (_, after, again) = builds
    assert (before, none, again) == (256, 0, 1)
    assert after < 128
    sides = [json.loads((tmp_path / "cache" / "units" / f"{name}.json").read_text()) for name in DATASETS[:2]]
    assert [side["run"]["budget"] for side in sides] == [256, after]
    builds.clear()
    monkeypatch.undo()
    monkeypatch.setattr(build.Session, "compute", compute)
    run_build(spec, tmp_path / "cache")
    assert builds == [(DATASETS[2], after, 0)]
    # The unit of the smaller budget is what a build at that budget from its start makes of it.
    (tmp_path / "cache" / "units" / f"{DATASETS[1]}.json").unlink()
    run_build(spec, tmp_path / "cache")
    assert CacheReader(tmp_path / "cache")[DATASETS[1]].sidecar["content_sha256"] == sides[1]["content_sha256"]


def test_a_budget_that_was_measured_holds_for_the_first_units_training_too(model, tmp_path, monkeypatch):
    spec = tiny_spec(model, run={"threads": 1}, datasets=["bundled:demo/likes-rain"], limit=60)
    rows, plain = [], Forward.run

    def run(self, layout, *arguments, **options):
        rows.append(layout.token.shape[1])
        return plain(self, layout, *arguments, **options)

    def tune(self, *_, **__):
        self.budget = 150
        rows.clear()
        return {150: 1.0}

    monkeypatch.setattr(session, "FEWEST_TUNED", {"cpu": 0})
    monkeypatch.setattr(Forward, "run", run)
    monkeypatch.setattr(Engine, "tune", tune)
    run_build(spec, tmp_path / "cache")
    assert max(rows) < 400, "nothing of the unit was computed in the large rows of the proof"
    before = hashes(tmp_path / "cache")
    (tmp_path / "cache" / "units" / "likes-rain.json").unlink()
    run_build(spec, tmp_path / "cache")
    assert hashes(tmp_path / "cache") == before


def test_memory_that_runs_out_in_the_first_units_training_does_not_leave_it_with_two_budgets(model, tmp_path, tight):
    spec = tiny_spec(model, run={"budget": 256, "threads": 1}, datasets=["bundled:demo/likes-rain"], limit=60)
    made = build.Session(spec, scratch=tmp_path)
    made.check()
    made.engine.path = "trie"
    tight(150, after=2)
    first, _ = made.builder.train(made.units[0])
    assert made.engine.budget < 256
    again, _ = made.builder.train(made.units[0])
    assert again is not first
    assert made.builder.train(made.units[0])[0] is again
    made.engine.use_mask("dense")
    otherwise, _ = made.builder.train(made.units[0])
    made.engine.path = "plain"
    plain, _ = made.builder.train(made.units[0])
    made.engine.forward.lines = "equal"  # as a proof with steering may find after one without
    equal, _ = made.builder.train(made.units[0])
    stores = [first, again, otherwise, plain, equal]
    assert len({id(one) for one in stores}) == 5, "nor with two masks, two paths, or two ways of the plain one"
    made.close()


def test_a_unit_in_which_the_ceiling_alone_fell_is_computed_again_too(model, tmp_path, tight):
    """Rows of one example with all its codes are longer than a small budget, which half of them does not reach."""
    multipliers = np.arange(-6.0, 7.0).tolist()
    spec = tiny_spec(
        model, run={"budget": 16, "threads": 1}, datasets=["bundled:demo/likes-rain"], limit=20, multipliers=multipliers
    )
    made = build.Session(spec, scratch=tmp_path)
    made.check()
    made.engine.path = "trie"
    tight(100)
    data, run = made.compute(made.units[0])
    session.close_streams(data)
    made.close()
    assert (run["budget"], run["out_of_memory"]) == (16, 1)
    assert 16 < run["ceiling"] < 100


def test_of_several_builders_that_begin_at_once_all_prove_and_use_the_first_ones_budget(model, tmp_path, monkeypatch):
    spec = tiny_spec(model, run={"threads": 1}, datasets=["bundled:demo/likes-rain"], limit=60)
    root, budgets, plain = tmp_path / "cache", [], runner.compare_row

    def late(self):
        """While this builder measures, another one writes its manifest."""
        manifest = self.manifest({})
        manifest["runtime"]["budget"] = 3000
        create_cache(root, manifest)
        return {}

    def proving(engine, *arguments, **options):
        budgets.append(engine.budget)
        return plain(engine, *arguments, **options)

    monkeypatch.setattr(build.Session, "tune", late)
    monkeypatch.setattr(runner, "compare_row", proving)
    run_build(spec, root)
    side = json.loads((root / "units" / "likes-rain.json").read_text())
    assert side["run"]["budget"] == 3000
    assert budgets == [3000], "rows of its own budget were proved before, by `compare_paths`"
    assert side["run"]["parity"]["row_tokens"] > 1024
