"""One command gets everything again: the same bytes twice, and a check that notices any change."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from reporting import hostile_cache, plain_cache, reproduction, scratch

import reports
from analyses._cache import label_caches
from analyses._words import percent
from reports.collect import plan, run_jobs
from reports.record import claims_record
from reports.render import render_report
from reports.reproduce import reproduce
from reports.terminal import claims_table
from reports.verify import _find_caches, check_numbers, largest_difference, verify_reproduction
from reports.words import missed
from steerstats.cli import main
from steerstats.errors import InputError

EXAMPLE = Path(reports.__file__).parent / "examples" / "demo"


def digests(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def delivered(tmp_path):
    """A copy that a test may spoil, beside its cache."""
    (tmp_path / hostile_cache().name).symlink_to(hostile_cache())
    return shutil.copytree(reproduction(), tmp_path / "delivered")


def failures(folder, **more):
    return [(check.where, check.what, check.detail) for check in verify_reproduction(folder, **more) if not check.ok]


def test_a_second_run_in_two_processes_writes_the_same_bytes():
    again = scratch() / "again"
    reproduce([hostile_cache()], again, jobs=2)
    first, second = digests(reproduction()), digests(again)
    assert {name for name in first if first[name] != second.get(name)} == {"run.json"}
    assert first.keys() == second.keys()
    assert {"report.html", "claims.json", "manifest.json"} <= first.keys()


def test_the_manifest_names_inputs_outputs_versions_and_seed():
    manifest = json.loads((reproduction() / "manifest.json").read_text("utf-8"))
    actual = digests(reproduction())
    assert manifest["outputs"] == {k: v for k, v in actual.items() if k not in ("manifest.json", "run.json")}
    (entry,) = manifest["caches"].values()
    assert entry["name"] == hostile_cache().name
    assert len(entry["units"]) == 3
    assert {"numpy", "matplotlib", "steerstats", "python"} <= manifest["versions"].keys()
    assert manifest["seed"] == 0
    text = (reproduction() / "manifest.json").read_text("utf-8") + (reproduction() / "claims.json").read_text("utf-8")
    assert str(hostile_cache().parent) not in text, "where the cache lay belongs in run.json"


def test_wall_times_are_in_run_json_alone():
    text = (reproduction() / "run.json").read_text("utf-8")
    run = json.loads(text)
    assert str(hostile_cache().parent) not in text
    assert run["wall_seconds"] > 0
    assert len(run["scripts"]) == len(json.loads((reproduction() / "claims.json").read_text("utf-8"))["findings"])


def test_a_delivered_directory_verifies_and_every_change_is_noticed(delivered):
    assert failures(delivered) == []
    figure = next(delivered.rglob("gap_parts.svg"))
    figure.write_text(figure.read_text("utf-8").replace("M ", "M  ", 1), encoding="utf-8")
    (delivered / "results" / "stranger.txt").write_text("hello")
    claims = json.loads((delivered / "claims.json").read_text("utf-8"))
    claim = next(c for f in claims["findings"] for c in f["claims"] if c["key"] == "explained.mean")
    claim["estimate"] *= 1 + 1e-7
    (delivered / "claims.json").write_text(json.dumps(claims))
    found = failures(delivered)
    assert ("delivered", "no other files", "not in the manifest: results/stranger.txt") in found
    assert any(what == "files" and "gap_parts.svg has another content" in detail for _, what, detail in found)
    numbers = [where for where, what, _ in found if what == "numbers"]
    assert [where.split(": ")[1] for where in numbers] == ["variance_explained"]


def test_another_cache_is_not_taken_for_the_one_it_was(delivered):
    ((where, what, detail),) = failures(delivered, caches=[plain_cache()])
    assert what == "cache"
    assert "is another build" in detail
    assert where == "hostile"


def test_a_missing_cache_is_said_and_not_passed_over(delivered):
    (delivered.parent / "hostile").unlink()
    ((_, what, detail),) = failures(delivered)
    assert what == "cache"
    assert detail == "not found; put hostile beside delivered"


def test_where_it_was_made_the_cache_is_found_by_its_relative_place():
    (entry,) = json.loads((reproduction() / "run.json").read_text("utf-8"))["caches"].values()
    assert entry.keys() == {"relative"}
    assert (reproduction() / entry["relative"]).resolve() == hostile_cache().resolve()
    assert not (reproduction().parent / hostile_cache().name).exists(), "else it would be found without"
    manifest = json.loads((reproduction() / "manifest.json").read_text("utf-8"))
    assert [*_find_caches(reproduction(), manifest, None).values()] == [reproduction() / entry["relative"]]


def test_a_manifest_cannot_point_outside_its_directory(delivered):
    manifest = json.loads((delivered / "manifest.json").read_text("utf-8"))
    manifest["outputs"] = {"../secret": "0" * 64}
    (delivered / "manifest.json").write_text(json.dumps(manifest))
    first = next(verify_reproduction(delivered))
    assert not first.ok
    assert first.detail == "../secret leaves the directory"


def test_a_directory_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="not empty"):
        reproduce([hostile_cache()], tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
    with pytest.raises(InputError, match=r"no manifest\.json"):
        next(verify_reproduction(tmp_path))


@pytest.mark.parametrize(
    ("before", "now", "worst"),
    [
        ({"a": 1.0}, {"a": 1.0 + 5e-10}, 5e-10),
        ({"a": [1.0, 2.0]}, {"a": [1.0, 2.2]}, 0.2 / 2.2),
        ({"a": 1.0}, {"a": None}, float("inf")),
        ({"a": 1.0}, {"b": 1.0}, float("inf")),
        ([1.0], [1.0, 2.0], float("inf")),
        ({"a": 0.0}, {"a": 1e-15}, 0.0),
        ({"a": float("nan")}, {"a": 1.0}, float("inf")),
        ({"a": float("inf"), "b": 1.0}, {"a": 1.0, "b": 1.0}, float("inf")),
        ({"a": 1}, {"a": True}, float("inf")),
    ],
)
def test_numbers_are_compared_relative_and_shapes_exactly(before, now, worst):
    assert largest_difference(before, now)[0] == pytest.approx(worst, rel=1e-6)


@pytest.mark.parametrize("jobs", [None, 0, 3])
def test_pages_and_reproductions_take_the_same_number_of_processes(tmp_path, monkeypatch, jobs):
    taken = []

    def run_jobs(*_, workers, **__):
        taken.append(workers)
        raise InputError("enough")

    for home in ("render", "reproduce"):
        monkeypatch.setattr(f"reports.{home}.run_jobs", run_jobs)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    for write in (render_report, reproduce):
        with pytest.raises(InputError, match="enough"):
            write([plain_cache()], tmp_path / "out", jobs=jobs)
    # A worker holds a cache's slopes in memory, on a large machine as well.
    option = [] if jobs is None else ["--jobs", str(jobs)]
    with pytest.raises(SystemExit):
        main(["reproduce", str(plain_cache()), "-o", str(tmp_path / "out"), *option])
    assert taken == [jobs or 4] * 3


def test_caches_get_distinct_names_and_only_comparisons_get_two(tmp_path):
    labels = label_caches([tmp_path / "a" / "cache", tmp_path / "b" / "cache", tmp_path / "c d.x"])
    assert list(labels) == ["cache", "cache-2", "c-d.x"]
    assert list(label_caches([tmp_path / x / "cache" for x in "abc"])) == ["cache", "cache-2", "cache-3"]
    jobs = plan(labels)
    pairs = {(job.script, job.label) for job in jobs if len(job.caches) == 2}
    assert pairs == {
        (script, f"{one}-and-{other}")
        for script in ("cross_model", "split_leakage")
        for one, other in (("cache", "cache-2"), ("cache", "c-d.x"), ("cache-2", "c-d.x"))
    }
    (whole,) = (job for job in jobs if len(job.caches) == 3)
    assert (whole.script, whole.label, whole.names) == ("comparison", "all-caches", ("cache", "cache-2", "c-d.x"))
    assert sum(job.script == "power" for job in jobs) == 3


def test_the_table_of_claims_shows_every_claim():
    from rich.console import Console

    record = json.loads((reproduction() / "claims.json").read_text("utf-8"))
    console = Console(record=True, width=240, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(claims_table(record))
    text = console.export_text()
    for finding in record["findings"]:
        for claim in finding["claims"]:
            # That a mean is over datasets is said once, by the last column.
            said = claim["statement"].partition(", mean over datasets")[0].partition(", random-effects mean")[0]
            assert said.rstrip(":")[:40] in text
        if finding["missing"]:
            assert (finding["title"][:40] in text) == missed(finding["missing"])
    assert "not comparable" in text


def test_the_committed_example_is_what_its_cache_gives(tmp_path, monkeypatch):
    monkeypatch.setattr("analyses._claim.save", lambda *_: None)
    claims = json.loads((EXAMPLE / "claims.json").read_text("utf-8"))
    labels = label_caches([EXAMPLE / "cache.h5"])
    done = run_jobs(plan(labels), tmp_path, seed=claims["seed"])
    again = json.loads(json.dumps(claims_record(labels, done, claims["seed"])))
    wrong = [(check.where, check.detail) for check in check_numbers(claims, again) if not check.ok]
    assert wrong == []
    text = (EXAMPLE / "report.html").read_text("utf-8")
    share = next(c for f in claims["findings"] for c in f["claims"] if c["key"] == "per_input.anti_share")
    assert f'<p class="number">{percent(share["estimate"])}</p>' in text


def test_workers_end_with_the_process_that_started_them_however_it_ends():
    script = """
import os, signal, sys, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from reports.collect import end_with_parent

if __name__ == "__main__":
    pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=end_with_parent)
    print(pool.submit(os.getpid).result(), flush=True)
    time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        worker = int(process.stdout.readline())
        os.kill(worker, 0)
        process.kill()
    until = time.monotonic() + 300
    while _lives(worker):
        assert time.monotonic() < until, "the worker outlives its parent"
        time.sleep(0.05)


def test_ctrl_c_while_workers_start_is_one_line_and_leaves_nothing(tmp_path):
    command = [sys.executable, "-m", "steerstats", "reproduce", str(EXAMPLE / "cache.h5"), "--jobs", "2", "-o"]
    # Whoever runs the tests in the background of a shell has SIGINT ignored, and children inherit that.
    with subprocess.Popen(
        [*command, str(tmp_path / "out")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"STEERSTATS_NO_PROGRESS": "1"},  # else slow workers leave a line in the log
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        until = time.monotonic() + 300
        while len(_group(process.pid)) < 4 and process.poll() is None and time.monotonic() < until:
            time.sleep(0.01)  # itself, two workers, and Python's tracker of resources
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: workers get it too, amid their imports
        _, errors = process.communicate(timeout=300)
    # Python ends with the signal itself, which shells call 130, where the interrupt has passed code made of text.
    assert process.returncode in (130, -signal.SIGINT), errors
    assert " ".join(errors.split()) == f"note: interrupted: nothing new is in {tmp_path / 'out'}"
    assert not (tmp_path / "out").exists()


def _group(leader: int) -> list[str]:
    """Processes of a group; what ends while we look is not one."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if stat.read_text().rpartition(")")[2].split()[2] == str(leader):
                found.append(stat.parent.name)
    return found


def _lives(pid: int) -> bool:
    """Whether a process runs; one that has ended and is not yet reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # the latter where it ends between opening and reading
        return False
