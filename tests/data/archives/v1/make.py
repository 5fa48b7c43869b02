"""Writes the archive cache of schema version 1: a directory and a packed file. Run once, by hand, when v1 was current.

    python tests/data/archives/v1/make.py

It refuses to overwrite: an archive is worth something only as long as nobody regenerates it with a later program.
"""

from __future__ import annotations

from pathlib import Path

from steerstats.cache import VERSION, pack
from steerstats.simulate import SimulationTruth, simulate_cache

HERE = Path(__file__).parent
TRUTH = SimulationTruth(
    datasets=["alpha", "beta"],
    n_inputs=4,
    n_val=1,
    n_pairs=6,
    hidden=8,
    settings=("base", "user_neg"),
    multipliers=(-1.0, 0.0, 1.0),
    mean_steerability=[0.5, 1.5],
    a_slope=0.5,
    yes_defined=0.8,
    prompt_loss={"user_neg": 0.25},
    transfer_cost=0.125,
    n_resampled=2,
    n_random=1,
    n_shuffled=1,
    debiased=True,
)


def main() -> None:
    """Write `directory/` and `packed.h5` beside this script."""
    if VERSION != 1:
        raise SystemExit(f"this writes archives of version 1; the schema is at {VERSION}, make a folder v{VERSION}")
    if (HERE / "directory").exists() or (HERE / "packed.h5").exists():
        raise SystemExit("the archive is there already; it is not written again")
    simulate_cache(HERE / "directory", TRUTH, seed=20241122, model="archive")
    pack(HERE / "directory", HERE / "packed.h5")


if __name__ == "__main__":
    main()
