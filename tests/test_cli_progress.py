"""Signs of life off a terminal: plain lines now and then, and none where none are wanted."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from steerstats.cli import console


@pytest.fixture
def lines(capsys, monkeypatch):
    """What a log holds of a job that counts units, by a clock that goes on once its steps are taken.

    By that of the machine, a slow one would look before the last step, or say that seconds had passed.
    """
    taken, told, passed, made = threading.Event(), threading.Event(), [], []

    class Pauses(threading.Event):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

        def wait(self, seconds: float) -> bool:
            assert taken.wait(120)
            if len(passed) < 2:
                passed.append(seconds)
                return False
            told.set()
            return super().wait(120)

    monkeypatch.setattr(console, "Event", Pauses)
    monkeypatch.setattr(console, "time", SimpleNamespace(monotonic=lambda: 100.0 + sum(passed)))

    def log(*steps: dict) -> list[str]:
        with console.progress_bar() as progress:
            task = progress.add_task("units", total=None, of="units")
            for step in steps:
                progress.update(task, **step)
            taken.set()
            assert not made or told.wait(120)
        return capsys.readouterr().err.splitlines()

    return log


def test_a_log_says_how_far_it_is_without_control_codes(lines):
    said = lines({"completed": 12.4, "total": 44, "description": "likes-rain: steering"})
    assert said == [f"12 of 44 units: likes-rain: steering ({seconds} s)" for seconds in (5, 15)]


def test_before_units_are_counted_it_says_what_is_done(lines):
    assert lines({"description": "loading [bold]gpt2"}) == [f"loading [bold]gpt2 ({seconds} s)" for seconds in (5, 15)]


def test_nothing_is_said_where_none_is_wanted(lines, monkeypatch):
    monkeypatch.setenv("STEERSTATS_NO_PROGRESS", "1")
    assert lines({"completed": 12, "total": 44}) == []
