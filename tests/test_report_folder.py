"""Where a report is written: it replaces what an earlier one left there, all of it, and nothing of anyone else."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace

import pytest
from reporting import TRUTH, plain_cache, reproduction, write_cache

from reports.record import refuse_strangers, staged
from reports.render import render_report
from reports.reproduce import reproduce
from steerstats.errors import InputError

BARE = {"n_resampled": 0, "n_random": 0, "n_shuffled": 0, "debiased": False, "logits": False}


def test_a_report_leaves_what_is_not_its_own(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="not empty"):
        render_report([plain_cache()], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(InputError, match="is a file"):
        render_report([plain_cache()], tmp_path / "thesis.tex")
    cache = write_cache(tmp_path / "cache", replace(TRUTH, datasets=["one"], mean_steerability=1.0, **BARE))
    with pytest.raises(InputError, match="is a cache"):
        render_report([cache], cache)
    assert (cache / "manifest.json").is_file()


def test_a_report_replaces_no_page_of_anyone_else_and_no_reproduction(tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    (own / "report.html").write_text("<html>mine</html>")
    for write in (render_report, reproduce):
        with pytest.raises(InputError, match=r"own/report\.html was not written by steerstats and would be replaced"):
            write([plain_cache()], own)
    assert (own / "report.html").read_text() == "<html>mine</html>"
    done = shutil.copytree(reproduction(), tmp_path / "done")
    before = (done / "claims.json").read_bytes()
    with pytest.raises(InputError, match="holds a reproduction, which a report would replace"):
        render_report([plain_cache()], done)
    assert (done / "claims.json").read_bytes() == before
    (done / "manifest.json").unlink()
    refuse_strangers(done)  # what is left is a report, and that is replaced


@pytest.mark.parametrize(
    "name", ["notes.txt", "{label}/notes.txt", "{label}/notes.csv", "{label}/gap_parts.docx", "{label}/notes.json"]
)
@pytest.mark.parametrize("over", [False, True])
def test_notes_kept_among_the_results_are_not_lost(tmp_path, name, over):
    done = shutil.copytree(reproduction(), tmp_path / "done")
    if not over:
        (done / "manifest.json").unlink()
    refuse_strangers(done, over=over)  # all of it is ours
    label = next((done / "results").iterdir()).name
    note = done / "results" / name.format(label=label)
    note.write_text("[]")
    with pytest.raises(InputError, match=rf"{re.escape(str(note))} is not part of a report and would be lost; move it"):
        refuse_strangers(done, over=over)


def test_a_new_report_takes_the_place_of_all_of_an_old_one(tmp_path):
    old = tmp_path / "out"
    with staged(old) as stage:
        for name in ("report.html", "claims.json", "run.json"):
            (stage / name).write_text("old")
        (stage / "manifest.json").write_text('{"type": "steerstats.reproduction"}')
        (stage / "results" / "gone").mkdir(parents=True)
    (old / "notes.txt").write_text("mine")
    with staged(old, over=True) as stage:
        (stage / "report.html").write_text("new")
    assert sorted(path.name for path in old.iterdir()) == ["notes.txt", "report.html"]
    assert (old / "report.html").read_text() == "new"


def test_a_run_that_fails_leaves_the_earlier_report_and_no_halves(tmp_path):
    def broken(folder):
        with staged(folder) as stage:
            (stage / "results").mkdir()
            raise RuntimeError("power cut")

    with staged(tmp_path / "out") as stage:
        (stage / "report.html").write_text('<meta name="generator" content="steerstats 1">')
    for folder in (tmp_path / "out", tmp_path / "fresh"):
        with pytest.raises(RuntimeError, match="power cut"):
            broken(folder)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["report.html"]
    assert not (tmp_path / "fresh").exists()
