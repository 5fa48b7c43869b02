"""Make the committed example again: `make example`, or `python -m reports.examples [--report-only]`.

Builds the demo's cache, packs it without activations, and runs every script on the packed file: the report, the
claims and their tables come from what is committed beside them. With chromium at hand the README's picture too.
`--report-only` keeps the cache that is there: a change of words or figures need not touch a large file.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from reports.reproduce import reproduce
from steerstats.cache import pack

HERE = Path(__file__).parent / "demo"
KEPT = ("report.html", "claims.json", "manifest.json")
BROWSER_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


def main(report_only: bool = False) -> None:
    """Rebuild everything under `reports/examples/demo`, or all but the cache."""
    HERE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if not report_only:
            command = [sys.executable, "-m", "steerstats", "build", "demo", "-o", str(folder / "cache")]
            subprocess.run(command, check=True)
            pack(folder / "cache", HERE / "cache.h5", leave_out=("activation",), overwrite=True)
        reproduce([HERE / "cache.h5"], folder / "out", jobs=2)
        for kept in KEPT:
            shutil.copy(folder / "out" / kept, HERE / kept)
    picture(HERE / "report.html", HERE / "report.png")


def picture(page: Path, target: Path) -> None:
    """The first screen of the report; left as it is where there is no chromium."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        print(f"no chromium: {target.name} is left as it is", file=sys.stderr)
        return
    with tempfile.TemporaryDirectory() as profile:
        flags = [*BROWSER_FLAGS, f"--user-data-dir={profile}", "--window-size=1280,1250", f"--screenshot={target}"]
        subprocess.run([browser, *flags, page.resolve().as_uri()], check=True, capture_output=True)


if __name__ == "__main__":
    main("--report-only" in sys.argv)
