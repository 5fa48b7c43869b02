"""`make bench`: run every benchmark in a process of its own and put the table into the README.

python -m benchmarks            all of them
python -m benchmarks mixed      one
python -m benchmarks --table    only the table, from the results that are there
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
NAMES = ("mixed", "bootstrap", "analysis", "engine")


def main(arguments: list[str]) -> int:
    """Run the named benchmarks (all without a name), then write the table."""
    chosen = [name for name in arguments if not name.startswith("-")] or list(NAMES)
    unknown = sorted(set(chosen) - set(NAMES))
    if unknown:
        print(f"no benchmark is called {unknown[0]}; there are {', '.join(NAMES)}", file=sys.stderr)
        return 2
    failed = []
    if "--table" not in arguments:
        load = os.getloadavg()[0]
        if load > 0.5:
            print(f"note: the machine is already loaded ({load:.1f}); ratios are from interleaved runs, times are not")
        for name in chosen:
            print(f"\n== {name}", flush=True)
            done = subprocess.run([sys.executable, "-m", f"benchmarks.bench_{name}"], cwd=HERE.parent, check=False)
            failed += [name] if done.returncode else []
    write_table()
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def write_table() -> None:
    """Replace what stands between the README's bench marks by the rows of the results that are there."""
    rows = [row for name in NAMES for row in rows_of(name)]
    table = "\n".join(["| what | measured | target |", "|---|---|---|", *rows]) if rows else "Run `make bench`."
    text = README.read_text(encoding="utf-8")
    replaced = re.sub(r"(<!-- bench -->\n).*?(<!-- /bench -->)", lambda m: f"{m[1]}{table}\n{m[2]}", text, flags=re.S)
    README.write_text(replaced, encoding="utf-8")


def rows_of(name: str) -> list[str]:
    """Rows of the README's table: each benchmark's JSON may carry them as `readme`, a list of three cells each."""
    path = HERE / "results" / f"{name}.json"
    if not path.is_file():
        return []
    found = json.loads(path.read_text(encoding="utf-8")).get("readme", [])
    return [f"| {' | '.join(str(cell) for cell in row)} |" for row in found]


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
