"""`make bench`: run every benchmark in a process of its own and put the tables into the pages that show them.

python -m benchmarks            all of them
python -m benchmarks mixed      one
python -m benchmarks --table    only the tables, from the results that are there
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.load import BUSY, busy_cores
from benchmarks.table import NAMES, write_tables

HERE = Path(__file__).parent


def main(arguments: list[str]) -> int:
    """Run the named benchmarks (all without a name), then write the tables."""
    chosen = [name for name in arguments if not name.startswith("-")] or list(NAMES)
    unknown = sorted(set(chosen) - set(NAMES))
    if unknown:
        print(f"no benchmark is called {unknown[0]}; there are {', '.join(NAMES)}", file=sys.stderr)
        return 2
    failed = []
    if "--table" not in arguments:
        load = busy_cores()
        if load > BUSY:
            print(f"note: {load:.1f} cores are busy with other work; ratios are from interleaved runs, times are not")
        for name in chosen:
            print(f"\n== {name}", flush=True)
            done = subprocess.run([sys.executable, "-m", f"benchmarks.bench_{name}"], cwd=HERE.parent, check=False)
            failed += [name] if done.returncode else []
    write_tables()
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
