"""Drive headless chromium over its debugging pipe (no package, no port): load a page, look, measure, photograph."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
PATIENCE_S = 300  # a machine may be slow, so that only something broken takes this long
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-default-apps", "--disable-extensions",
    "--disable-dev-shm-usage", "--hide-scrollbars", "--mute-audio", "--remote-debugging-pipe",
)  # fmt: skip


def find_chromium() -> str | None:
    """Path of the browser, None where there is none."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Page:
    """One tab. Every request of the page that is open is kept in `requests`, every console line in `console`."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.console: list[str] = []
        self._count, self._buffer, self._session = 0, b"", None
        self._profile = tempfile.TemporaryDirectory(prefix="steerstats-chromium-", ignore_cleanup_errors=True)

    def __enter__(self) -> Page:
        out_read, self._write = os.pipe()
        self._read, in_write = os.pipe()

        def wire() -> None:  # chromium listens on descriptor 3 and answers on 4
            high = [os.dup(out_read), os.dup(in_write)]
            while min(high) < 5:
                high = [os.dup(fd) for fd in high]
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        self._process = subprocess.Popen(
            [find_chromium() or "chromium", *QUIET, f"--user-data-dir={self._profile.name}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            close_fds=False,
            preexec_fn=wire,
        )
        os.close(out_read)
        os.close(in_write)
        targets = self.send("Target.getTargets")["targetInfos"]
        target = next(info["targetId"] for info in targets if info["type"] == "page")
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.send(f"{domain}.enable")
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self._session = None
            self.send("Browser.close", patience=5)
            self._process.wait(timeout=20)
        except (TimeoutError, OSError, RuntimeError, subprocess.TimeoutExpired):
            self._process.kill()
        self._process.wait(timeout=PATIENCE_S)
        os.close(self._write)
        os.close(self._read)
        self._profile.cleanup()

    def send(self, method: str, patience: float = PATIENCE_S, **params: Any) -> dict[str, Any]:
        """One command of the DevTools protocol, and its result."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive(patience)
            if answer.get("id") == message["id"]:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def open(self, path: Path, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Load a local file at a given width and colour scheme, and wait until it is quiet."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self.requests.clear()
        self.console.clear()
        self.send("Page.navigate", url=path.resolve().as_uri())
        until = time.monotonic() + PATIENCE_S
        while self.evaluate("document.readyState") != "complete":
            if time.monotonic() > until:
                raise TimeoutError(f"{path} did not finish loading")
            time.sleep(0.05)
        self.evaluate("new Promise(done => setTimeout(done, 150))")

    def evaluate(self, expression: str) -> Any:
        """Value of a JavaScript expression, run by the debugger (outside the page's content policy)."""
        result = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def photograph(self, path: Path, whole: bool = True) -> Path:
        """PNG of the page, or of the window only."""
        answer = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(answer["data"]))
        return path

    def print_pdf(self, path: Path) -> Path:
        """The page as the print style sheet lays it out, A4."""
        answer = self.send("Page.printToPDF", paperWidth=8.27, paperHeight=11.69, printBackground=True)
        path.write_bytes(base64.b64decode(answer["data"]))
        return path

    def _receive(self, patience: float) -> dict[str, Any]:
        deadline = time.monotonic() + patience
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError(f"chromium said nothing for {patience} s")
            part = os.read(self._read, 1 << 20)
            if not part:
                raise RuntimeError("chromium closed the debugging pipe")
            self._buffer += part
        raw, _, self._buffer = self._buffer.partition(b"\0")
        event = json.loads(raw)
        if event.get("method") == "Network.requestWillBeSent":
            self.requests.append(event["params"]["request"]["url"])
        elif event.get("method") == "Runtime.consoleAPICalled":
            self.console.append(json.dumps(event["params"]["args"]))
        elif event.get("method") == "Log.entryAdded":
            self.console.append(event["params"]["entry"]["text"])
        return event
