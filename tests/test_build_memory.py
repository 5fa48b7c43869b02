"""Host memory grows with the numbers that a cache holds, not with the activations that pass through."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from tiny_build import tiny_spec, write_model

from cache_builder import blocks
from cache_builder.blocks import ActivationStore, example_blocks
from cache_builder.build import run_build
from cache_builder.engine import Example
from cache_builder.prompts import example_store
from cache_builder.prompts.example_store import ExampleStore
from cache_builder.vectors import fit_vectors
from steerstats.cache import CacheReader, schema
from steerstats.errors import CacheError

HERE = Path(__file__).parent
LAYERS, HIDDEN = 8, 256
FEW, MANY = 240, 1440
ACTIVATIONS = 2 * LAYERS * HIDDEN * 4
"""Bytes of a pair's training activations, of which the builder once held between two and four copies."""

MEASURE = """
import json, resource, sys
sys.path.insert(0, sys.argv[1])
from cache_builder import blocks
from cache_builder.build import run_build
from cache_builder.spec import parse_spec
blocks.RUN_BYTES = blocks.PART_BYTES = 1 << 20
run_build(parse_spec(json.loads(sys.argv[2])), sys.argv[3])
print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))
"""


def output(program: str, *arguments: str) -> str:
    """The last line that a program printed, in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1", "MALLOC_TRIM_THRESHOLD_": "65536"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


@pytest.mark.slow
def test_more_pairs_cost_less_memory_than_their_activations(tmp_path):
    model = write_model(
        tmp_path / "model", hidden_size=HIDDEN, num_hidden_layers=LAYERS, head_dim=HIDDEN // 4, intermediate_size=64
    )
    sizes = {}
    for pairs in (FEW, MANY):
        path = tmp_path / f"{pairs}.jsonl"
        lines = [{"prompt": f"{k} is {k * k % 97}", "positive": "Yes", "negative": "No"} for k in range(pairs)]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        spec = {
            "model": {"id": str(model)},
            "custom_datasets": {"mine": str(path)},
            "settings": ["base"],
            "layers": [3],
            "activation_layers": list(range(LAYERS)),
            "multipliers": [0.0, 1.0],
            "prompt": {"system_text": ""},
            "split_percent": [95, 0, 5],
            "run": {"budget": 1024, "threads": 1},
        }
        sizes[pairs] = int(output(MEASURE, str(HERE), json.dumps(spec), str(tmp_path / f"c{pairs}")))
    growth = (sizes[MANY] - sizes[FEW]) / (MANY - FEW)
    assert growth < ACTIVATIONS, f"{growth:.0f} bytes a pair"


HELD = 1500
"""Bytes that a build may hold of an evaluated input: its line of 300 characters, what was read from it, and labels and
indices, 1,050 to 1,210 as threads happen to meet. Its tokens would add 800 or more, its grid 2,000.
"""

HOLD = """
import json, sys, tracemalloc
sys.path.insert(0, sys.argv[1])
from cache_builder import blocks
from cache_builder.prompts import example_store, inputs
from cache_builder.build import run_build
from cache_builder.engine.answer import Answer
from cache_builder.engine.forward import Forward
from cache_builder.spec import parse_spec
from steerstats.cache import schema, writer

inputs.SURVEY_PAIRS, inputs.SAMPLE_PAIRS = 16, 32
blocks.RUN_BYTES, blocks.ARRAY_BYTES, example_store.TOKEN_BYTES, schema.PART_VALUES = 1 << 15, 1 << 12, 1 << 12, 1 << 10
held, check_unit = [], writer.check_unit

def noted(plain):
    def call(*arguments, **options):
        held.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.reset_peak()
        try:
            return plain(*arguments, **options)
        finally:
            held.append(tracemalloc.get_traced_memory()[plain is check_unit])
    return call

Forward.run, Answer.scores = noted(Forward.run), noted(Answer.scores)
writer.check_unit, writer.write_group = noted(check_unit), noted(writer.write_group)
most = []
for spec, root in json.loads(sys.argv[2]):
    tracemalloc.start()
    run_build(parse_spec(spec), root)
    tracemalloc.stop()
    most.append(max(held))
    held.clear()
print(json.dumps(most))
"""


def test_what_a_build_holds_of_an_evaluated_input_is_its_text(tmp_path):
    """Measured in a process of its own: what other tests leave behind would be counted."""
    model, builds = write_model(tmp_path / "model"), []
    words = np.array(["the", "rain", "falls", "on", "hills", "and", "they", "plan", "ahead"])
    said = tmp_path / "descriptions.json"
    said.write_text(json.dumps({"mine": {"positive": "You like rain.", "negative": "You hate rain."}}))
    for name, pairs in (("first", 150), ("few", 150), ("many", 600)):  # the first one also loads what is loaded late
        path = tmp_path / f"{name}.jsonl"
        texts = (" ".join(np.random.default_rng(k).choice(words, 60)) for k in range(pairs))
        lines = [{"prompt": f"{k} is {text}", "positive": "Yes", "negative": "No"} for k, text in enumerate(texts)]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        spec = {
            "model": {"id": str(model)},
            "custom_datasets": {"mine": str(path)},
            "settings": ["base", "user_pos"],
            "layers": [1],
            "multipliers": [-1.0, 0.0, 1.0],
            "prompt": {"descriptions": str(said)},
            "split_percent": [5, 0, 95],
            "controls": {"resampled": 3, "random": 3, "shifts": "all"},
            "run": {"budget": 1024, "threads": 1},
        }
        builds.append((spec, str(tmp_path / name)))
    _, few, many = json.loads(output(HOLD, str(HERE), json.dumps(builds)))
    assert all(len(CacheReader(root)["mine"].read("vector")) == 21 for _, root in builds)
    assert (growth := (many - few) / (0.95 * 450)) < HELD, f"{growth:.0f} bytes an input"


def test_small_blocks_change_rounding_only_and_a_build_in_blocks_is_whole(tmp_path, monkeypatch):
    model = write_model(tmp_path / "model")
    spec = tiny_spec(model, datasets=["bundled:demo/likes-rain"], limit=80)
    run_build(spec, tmp_path / "one")
    monkeypatch.setattr(blocks, "RUN_BYTES", 1)
    monkeypatch.setattr(blocks, "PART_BYTES", 1)
    run_build(spec, tmp_path / "many")
    one, many = (CacheReader(tmp_path / name)["likes-rain"].load().arrays for name in ("one", "many"))
    assert set(one) == set(many)
    for name, array in one.items():
        if array.dtype.kind == "f":
            # What is kept in float16 may round to a neighbour, 2**-10 away, where float32 differs in its last digits.
            near = 1e-3 if array.dtype == np.float16 else 0.0
            np.testing.assert_allclose(
                many[name].astype(float), array.astype(float), rtol=near, atol=2e-4, err_msg=name
            )
        else:
            np.testing.assert_array_equal(many[name], array, err_msg=name)


@pytest.mark.parametrize("size", [1, 1 << 20])
def test_tokens_in_a_file_come_back_as_they_were_and_in_the_same_blocks(tmp_path, monkeypatch, size):
    monkeypatch.setattr(example_store, "TOKEN_BYTES", size)
    monkeypatch.setattr(blocks, "RUN_BYTES", 20_000)
    made = examples(np.random.default_rng(3), 100)
    made += [made[5], Example(([7, 8, 9], [7, 8], [7, 8, 4, 5]), 1, 2, ((2, 0, 4), (0, 2, 3), (1, 1, 2)))]
    with ExampleStore(tmp_path) as store:
        store.extend(made[:60])
        assert store[3].branch == made[3].branch  # what is added goes to the end, whatever was read last
        store.extend(made[60:])
        assert len(store) == len(store[:]) == 102
        assert store.n_reads == 3
        assert store.prompts.tolist() == [one.prompt for one in made]
        for one, kept in zip(made, store):
            assert (kept.prompt, kept.branch, kept.reads) == (one.prompt, one.branch, one.reads)
            assert [ids.tolist() for ids in kept.options] == [ids.tolist() for ids in one.options]
        assert store[-1].branch == 2
        assert len(store[-2:]) == 2
        for part, share in itertools.product((1, 3000, 1 << 20), (True, False)):
            monkeypatch.setattr(blocks, "PART_BYTES", part)
            wanted = example_blocks(made, 1000, share=share)
            assert len(wanted) == 6
            assert [b.tolist() for b in store.blocks(1000, share=share)] == [b.tolist() for b in wanted]
        assert os.listdir(tmp_path) == [], "the file has no name, so that a kill leaves nothing"


def test_a_disk_without_room_for_tokens_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(example_store, "TOKEN_BYTES", 1)
    with pytest.raises(CacheError, match=r"nowhere: token ids of the inputs cannot be kept there: "):
        ExampleStore(tmp_path / "nowhere").extend(examples(np.random.default_rng(0), 3))
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 14, before[1]))
    try:
        with pytest.raises(CacheError, match=r"token ids of the inputs cannot be kept there: .*too large"):
            ExampleStore(tmp_path).extend(examples(np.random.default_rng(0), 1000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_values_are_checked_in_parts_and_the_first_bad_one_is_named(monkeypatch):
    labels = {
        "setting_eval": ["a", "b"],
        "vector": ["v", "w", "x"],
        "multiplier": [0.0, 1.0],
        "input": list(range(5000)),
    }
    values = np.zeros((2, 3, 2, 5000), dtype=np.float32)
    values[1, 2] = np.nan
    arrays = {**labels, "planned": np.array([[1, 1, 1], [1, 1, 0]]), "propensity": values}
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    for size in (1 << 22, 20_000, 1):
        monkeypatch.setattr(schema, "PART_VALUES", size)
        values[1, 1, 1, 7] = 0
        tracemalloc.start()
        schema.check_values(arrays, "unit")
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert size > 20_000 or most < 60_000
        values[1, 1, 1, 7:9] = np.inf
        with pytest.raises(
            CacheError, match=r"/propensity is inf at setting_eval=b, vector=w, multiplier=1\.0, input=7;"
        ):
            schema.check_values(arrays, "unit")
        values[1, 2, 0, 3] = 4
        values[1, 1, 1, 7:9] = 0
        with pytest.raises(CacheError, match=r"a value at setting_eval=b, vector=x, multiplier=0\.0, input=3, which"):
            schema.check_values(arrays, "unit")
        values[1, 2, 0, 3] = np.nan


def test_a_grid_in_a_file_gives_the_same_unit_and_leaves_nothing(tmp_path, monkeypatch):
    model = write_model(tmp_path / "model")
    spec = tiny_spec(model, datasets=["bundled:demo/likes-rain"], limit=40)
    run_build(spec, tmp_path / "one")
    made, plain = [], np.memmap
    monkeypatch.setattr(blocks, "ARRAY_BYTES", 0)
    monkeypatch.setattr(example_store, "TOKEN_BYTES", 1)
    monkeypatch.setattr(np, "memmap", lambda *a, **k: made.append(k["shape"]) or plain(*a, **k))
    run_build(spec, tmp_path / "two")
    assert len(made) >= 5
    one, two = (json.loads((tmp_path / k / "units" / "likes-rain.json").read_text()) for k in ("one", "two"))
    assert one["content_sha256"] == two["content_sha256"]
    assert sorted(os.listdir(tmp_path / "one")) == sorted(os.listdir(tmp_path / "two"))


def test_a_disk_without_room_for_a_grid_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "ARRAY_BYTES", 0)
    assert np.isnan(blocks.nan_array((3, 2), tmp_path)).all()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(CacheError, match=r"GB of scores cannot be kept there: .*No space left"):
        blocks.nan_array((3, 2), tmp_path)
    assert os.listdir(tmp_path) == []


def examples(rng, n: int) -> list[Example]:
    made = []
    for _ in range(n):
        ids = np.concatenate([rng.integers(3, 6, 4), rng.integers(3, 90, int(rng.integers(2, 9)))])
        made.append(Example(((*ids, 1), (*ids, 2)), prompt=len(ids), branch=len(ids)))
    return made


def test_blocks_are_neighbours_that_cover_everything_once(monkeypatch):
    made = examples(np.random.default_rng(0), 100)
    assert [part.tolist() for part in example_blocks(made, 1000, share=True)] == [list(range(100))]
    monkeypatch.setattr(blocks, "RUN_BYTES", 20_000)
    shared = example_blocks(made, 1000, share=True)
    assert [len(part) for part in shared] == [20] * 5
    assert sorted(np.concatenate(shared).tolist()) == list(range(100))
    keys = [tuple(made[i].options[0][:4]) for part in shared for i in part]
    assert keys == sorted(keys)
    by_length = [made[i] for part in example_blocks(made, 1000, share=False) for i in part]
    assert [len(e.options[0]) for e in by_length] == sorted(len(e.options[0]) for e in made)
    assert min(map(len, example_blocks(made, 10**9, share=True))) >= 14, "a block is never a handful"


def test_a_store_gives_back_what_was_written_and_fits_what_an_array_fits(tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "PART_BYTES", 500)
    rng = np.random.default_rng(1)
    whole = rng.normal(size=(2, 3, 2, 40, 6)).astype(np.float32)
    whole[0, :, 1, 3, 2] = -9.0
    store = ActivationStore(whole.shape, tmp_path)
    order = rng.permutation(40)
    for setting in range(2):
        for part in np.array_split(order, 7):
            store.write(setting, part, whole[setting][:, :, part].transpose(2, 1, 0, 3))
    assert os.listdir(tmp_path) == [], "the file has no name, so that a kill leaves nothing"
    np.testing.assert_array_equal(store[1, 2][:, 5:17], whole[1, 2][:, 5:17])
    np.testing.assert_array_equal(store[1, 2][1:, 5:17], whole[1, 2][1:, 5:17])
    np.testing.assert_allclose(store.largest, np.abs(whole).max(axis=(0, 2, 3, 4)))
    options = {"resampled": 2, "folds": 3, "shuffled": 1, "debiased": True, "pos_is_a": np.arange(40) % 2}
    for method in ("mean_difference", "pca", "logistic"):
        options["shuffled"] = int(method != "pca")  # its shuffles are no null, and refused
        one = fit_vectors(store.layers([0, 2]), ("base", "sys_pos"), (4, 9), method=method, **options)
        two = fit_vectors(whole[:, [0, 2]], ("base", "sys_pos"), (4, 9), method=method, **options)
        np.testing.assert_array_equal(one.direction, two.direction)
        assert one.label == two.label
    streamed = store.streamed([2, 0], np.dtype(np.float16))
    found = np.full(streamed.shape, np.nan, dtype=np.float16)
    for index, part in streamed.parts():
        found[index] = part
    np.testing.assert_array_equal(found, whole[:, [2, 0]].astype(np.float16))
    streamed.close()
    with pytest.raises(ValueError, match="closed file"):
        store.read(0, 0, 0, 0, 1)


def test_a_disk_without_room_for_activations_is_one_line(tmp_path):
    store = ActivationStore((1, 1, 2, 3, 4), tmp_path)

    class Full:
        def seek(self, place):
            pass

        def write(self, data):
            raise OSError(28, "No space left on device")

    store._file = Full()
    with pytest.raises(CacheError, match=r"training activations could not be written: .*No space left"):
        store.write(0, np.arange(3), np.zeros((3, 2, 1, 4)))
    with pytest.raises(CacheError, match="training activations cannot be kept there"):
        ActivationStore((1, 1, 2, 3, 4), tmp_path / "nowhere")
