"""Ctrl-C is heard whatever a library makes of it, and never falls between two halves."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from threading import Thread

import pytest

from steerstats.interrupts import deferred, interruptible

pytestmark = pytest.mark.usefixtures("listening")


def press() -> None:
    signal.raise_signal(signal.SIGINT)


def pressed_and_swallowed() -> None:
    with contextlib.suppress(KeyboardInterrupt):
        press()


def test_an_interrupt_of_which_numpy_makes_another_error_is_one():
    # Where the signal comes while NumPy sorts, Python raises in the next Python function: this one, called from C.
    # NumPy keeps the function that it finds first, whence the process of its own.
    script = """
import signal
import numpy as np
from steerstats.interrupts import interruptible

signal.signal(signal.SIGINT, signal.default_int_handler)
plain = np._core._internal._promote_fields

def interrupted(*types):
    signal.raise_signal(signal.SIGINT)
    return plain(*types)

np._core._internal._promote_fields = interrupted
rows = np.array([[0, 1], [0, 2]])
try:
    np.unique(rows, axis=0)
except TypeError as error:
    print(error)
try:
    with interruptible():
        np.unique(rows, axis=0)
except KeyboardInterrupt as error:
    print(type(error.__cause__).__name__)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    first, second = done.stdout.splitlines()
    assert first.startswith("Cannot compare structured arrays"), done.stderr
    assert second == "TypeError"


def test_errors_without_an_interrupt_pass_as_they_are():
    with pytest.raises(ZeroDivisionError), interruptible():
        raise ZeroDivisionError


def test_an_interrupt_that_was_swallowed_is_raised_at_the_next_look_and_in_no_other_thread():
    with interruptible() as ears:
        pressed_and_swallowed()
        elsewhere = Thread(target=ears.check)
        elsewhere.start()  # pytest makes a failure of an exception that a thread does not catch
        elsewhere.join()
        with pytest.raises(KeyboardInterrupt):
            ears.check()


def test_an_interrupt_that_python_can_only_print_is_not_printed(capsys):
    class Dropped:
        def __del__(self):
            press()

    hook = sys.unraisablehook
    with interruptible() as ears:
        Dropped()
        assert ears.heard
    assert capsys.readouterr().err == ""
    assert sys.unraisablehook is hook
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_who_ignores_interrupts_goes_on_ignoring_them():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with interruptible() as ears, deferred():
        press()
    ears.check()


def test_a_deferred_interrupt_comes_at_the_end_although_the_block_failed():
    done = []

    def half(fails: bool) -> None:
        with deferred():
            press()
            done.append(1 / (1 - fails))

    for fails in (False, True):
        with pytest.raises(KeyboardInterrupt):
            half(fails)
    assert done == [1]


def test_what_is_deferred_is_heard_around_it():
    with contextlib.suppress(KeyboardInterrupt), interruptible() as ears, deferred():
        press()
        assert not ears.heard
    assert ears.heard


def test_processes_begun_in_a_deferred_block_never_hear_an_interrupt():
    with contextlib.suppress(KeyboardInterrupt), deferred():
        worker = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        press()
    os.kill(worker.pid, signal.SIGINT)
    worker.communicate(b"\n", timeout=300)
    assert worker.returncode == 0
