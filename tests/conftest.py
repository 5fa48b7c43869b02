"""Caches with a known truth, drawn once a session, which tests read and never write into; and Ctrl-C that is heard."""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import HealthCheck, settings

from steerstats.cache import pack
from steerstats.simulate import SimulationTruth, simulate_cache
from steerstats.study import open_cache

# The first text drawn in a fresh clone waits for a table of all characters; on a busy machine that took 4 s and failed.
settings.register_profile("steerstats", suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steerstats")
# What commands print is compared: as off a terminal and 80 columns wide, whatever the shell of the tests asks for.
os.environ["COLUMNS"] = "80"
for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "STEERSTATS_NO_PROGRESS", "STEERSTATS_DEBUG"):
    os.environ.pop(name, None)

TRUTH = SimulationTruth(
    datasets=10,
    n_inputs=40,
    n_val=4,
    n_pairs=60,
    mean_steerability=[0.1 * k for k in range(1, 11)],
    input_sd=0.6,
    a_slope=0.8,
    yes_slope=-0.3,
    a_intercept=1.0,
    prompt_loss={"user_neg": 0.3, "user_pos": 0.1},
    prompt_loss_sd=0.05,
    prompt_intercept={"user_neg": -2.0, "user_pos": 2.0},
    transfer_cost=0.15,
    transfer_cost_sd=0.05,
    vector_sd=0.05,
    vector_input_sd=0.1,
    n_resampled=12,
    n_random=6,
    n_shuffled=6,
    debiased=True,
    dprime_log_sd=0.3,
    dprime_correlation=0.9,
    projection_correlation=0.5,
)


@pytest.fixture
def listening():
    """Whoever runs the tests in the background of a shell has SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def simulated(tmp_path_factory):
    """A cache with every kind of vector, and its truth."""
    return simulate_cache(tmp_path_factory.mktemp("simulated") / "a", TRUTH, seed=5, model="a")


@pytest.fixture(scope="session")
def simulated_other(tmp_path_factory):
    """Another model on the same datasets but two, without sys_neg and without controls."""
    settings = ("base", "sys_pos", "user_pos", "user_neg")
    truth = SimulationTruth(datasets=[f"sim-{k:02d}" for k in range(2, 11)], n_inputs=30, n_pairs=20, settings=settings)
    return simulate_cache(tmp_path_factory.mktemp("simulated") / "b", truth, seed=5, model="b")


@pytest.fixture(scope="session")
def packed(simulated, tmp_path_factory):
    """The first cache as one file, without its activations."""
    return pack(simulated.path, tmp_path_factory.mktemp("packed") / "a.h5", leave_out=("activation",))


@pytest.fixture(scope="session")
def study(simulated):
    """The first cache, opened."""
    return open_cache(simulated.path)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny random chat model on disk."""
    from tiny_build import write_model  # there is no torch where the analysis half is tested

    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def run(capsys):
    """Run the command line in this process: exit code, standard output, standard error."""
    from steerstats.cli import main

    def command(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stopped:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return int(stopped.value.code or 0), captured.out, captured.err

    return command
