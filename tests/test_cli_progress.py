"""Signs of life off a terminal: plain lines now and then, and none where none are wanted."""

from __future__ import annotations

import time

import pytest

from steerstats.cli import console


@pytest.fixture
def lines(capsys, monkeypatch):
    """What a log holds of a job that counts units, until it holds anything or the time is over."""
    monkeypatch.setattr(console, "FIRST_S", 0.05)

    def told(*steps: dict, within: float = 10.0) -> list[str]:
        text = ""
        with console.progress_bar() as progress:
            task = progress.add_task("units", total=None, of="units")
            for step in steps:
                progress.update(task, **step)
            end = time.monotonic() + within
            while not text and time.monotonic() < end:
                time.sleep(0.02)
                text += capsys.readouterr().err
        return text.splitlines()

    return told


def test_a_log_says_how_far_it_is_without_control_codes(lines):
    (line, *_) = lines({"completed": 12.4, "total": 44, "description": "likes-rain: steering"})
    assert line.startswith("12 of 44 units: likes-rain: steering (0 s)")


def test_before_units_are_counted_it_says_what_is_done(lines):
    assert lines({"description": "loading [bold]gpt2"})[0] == "loading [bold]gpt2 (0 s)"


def test_nothing_is_said_where_none_is_wanted(lines, monkeypatch):
    monkeypatch.setenv("STEERSTATS_NO_PROGRESS", "1")
    assert lines({"completed": 12, "total": 44}, within=0.3) == []
