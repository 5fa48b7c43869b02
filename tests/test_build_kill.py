"""Builds survive SIGKILL, share a directory, and run on Ray: the arrays are always the same bits."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import tomllib
from pathlib import Path

import pytest
from tiny_build import DATASETS, content, tiny_spec

from steerstats.cache import CacheReader, verify

HERE = Path(__file__).parent


def hashes(root) -> dict[str, str]:
    cache = CacheReader(root)
    assert not cache.missing
    assert all(check.ok for check in verify(root))
    return {unit.name: unit.sidecar["content_sha256"] for unit in cache}


def test_killed_at_twelve_moments_and_resumed_each_time_the_arrays_are_bit_equal(model, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    arguments = [json.dumps(content(model, limit=30)), str(killed), "12", str(whole)]
    done = subprocess.run(
        [sys.executable, str(HERE / "kill_driver.py"), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["uninterrupted"] == report["last"] == 0, done.stderr
    assert report["killed"] == 12
    assert hashes(killed) == hashes(whole)
    assert sorted(os.listdir(tmp_path)) == ["killed", "whole"]
    assert sorted(os.listdir(killed)) == ["manifest.json", "units"]
    assert [name for name in os.listdir(killed / "units") if name.startswith(".")] == []


def test_three_builders_share_one_directory(model, tmp_path):
    script = (
        "import json, sys; from cache_builder.build import run_build; from cache_builder.spec import parse_spec; "
        "print(json.dumps(run_build(parse_spec(json.loads(sys.argv[1])), sys.argv[2]).built))"
    )
    spec = content(model, limit=30)
    command = [sys.executable, "-c", script, json.dumps(spec), str(tmp_path / "shared")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    built = [name for process in running for name in json.loads(process.communicate(timeout=600)[0].splitlines()[-1])]
    assert all(process.returncode == 0 for process in running)
    assert sorted(built) == sorted(DATASETS), "each unit is built once, by whoever claims it"
    from cache_builder.build import run_build

    run_build(tiny_spec(model, limit=30), tmp_path / "alone")
    assert hashes(tmp_path / "shared") == hashes(tmp_path / "alone")


def test_interrupting_the_command_keeps_finished_units_and_says_how_to_go_on(model, tmp_path):
    spec, units = tmp_path / "spec.toml", tmp_path / "cache" / "units"
    spec.write_text(_toml(content(model, limit=40)))
    assert tomllib.loads(spec.read_text())["name"] == "tiny"
    # Another builder holds a unit, so that this one cannot be done before it is interrupted, however slow we are.
    elsewhere = units / f".{DATASETS[2]}.lease"
    elsewhere.parent.mkdir(parents=True)
    elsewhere.write_text(json.dumps({"token": "theirs", "machine": "elsewhere", "pid": 1}))
    command = [sys.executable, "-m", "steerstats", "build", str(spec), "-o", str(tmp_path / "cache")]
    # Whoever runs the tests in the background of a shell has SIGINT ignored, and children inherit that.
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    until = time.monotonic() + 500
    while not list(units.glob("*.json")) and process.poll() is None and time.monotonic() < until:
        elsewhere.touch()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    # Python ends with the signal itself, which shells call 130, where the interrupt has passed code made of text.
    assert process.returncode in (130, -signal.SIGINT), errors
    assert "the same command goes on from there" in " ".join(errors.split())
    assert "Traceback" not in errors
    assert CacheReader(tmp_path / "cache").units
    assert [name for name in os.listdir(units) if name.startswith(".")] == [elsewhere.name]


@pytest.mark.slow
def test_ray_finishes_a_build_although_a_worker_is_killed_in_the_middle(model, tmp_path):
    ray = pytest.importorskip("ray", reason="the ray extra is not installed")
    from cache_builder.build import run_build
    from cache_builder.workers.distributed import run_on_ray

    spec = tiny_spec(model, limit=120)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    victims, notices, done = [], [], threading.Event()

    def kill_once():
        """Kill the first process that is seen to hold a unit's lease."""
        while not done.wait(0.005):
            for lease in (tmp_path / "ray" / "units").glob(".*.lease"):
                with contextlib.suppress(OSError, ValueError):
                    pid = json.loads(lease.read_text())["pid"]
                    os.kill(pid, signal.SIGKILL)
                    victims.append(pid)
                    return

    killer = threading.Thread(target=kill_once)
    killer.start()
    try:
        report = run_on_ray(spec, tmp_path / "ray", workers=2, notice=notices.append)
    finally:
        done.set()
        killer.join()
        ray.shutdown()
    assert victims
    assert any("worker died" in text for text in notices)
    assert sorted(report.built + report.found) == sorted(DATASETS)
    run_build(spec, tmp_path / "local")
    assert hashes(tmp_path / "ray") == hashes(tmp_path / "local")


def _toml(values: dict, prefix: str = "") -> str:
    plain = [f"{key} = {json.dumps(value)}" for key, value in values.items() if not isinstance(value, dict)]
    tables = [
        f"[{prefix}{key}]\n{_toml(value, f'{prefix}{key}.')}"
        for key, value in values.items()
        if isinstance(value, dict)
    ]
    return "\n".join(plain + tables)
