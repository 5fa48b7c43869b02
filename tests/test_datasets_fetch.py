"""Sources by URL, from a server of the test's own: pinned, kept, checked before every use."""

from __future__ import annotations

import dataclasses
import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cache_builder.datasets.catalogue import find_source
from cache_builder.datasets.fetch import cache_folder, fetch, read_source
from steerstats.errors import InputError

BODY = b'{"prompt": "p", "positive": "a", "negative": "b"}\n'
SHA = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def server():
    requests = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            if self.path == "/missing.jsonl":
                self.send_error(404)
                return
            body = b"tampered" if self.path == "/other.jsonl" else BODY
            self.send_response(200)
            self.send_header("Content-Length", str(len(body) + 7 * (self.path == "/short.jsonl")))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}", requests
        running.shutdown()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def test_a_source_is_fetched_once_and_kept(server, tmp_path):
    url, requests = server
    assert fetch(f"{url}/x.jsonl", SHA, tmp_path) == BODY
    assert fetch(f"{url}/x.jsonl", SHA, tmp_path) == BODY
    assert requests == ["/x.jsonl"]
    assert [p.name for p in tmp_path.iterdir() if not p.name.endswith(".lock")] == [f"{SHA[:16]}-x.jsonl"]


def test_builders_that_start_together_fetch_once(server, tmp_path):
    url, requests = server
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: fetch(f"{url}/x.jsonl", SHA, tmp_path), range(4)))
    assert found == [BODY] * 4
    assert len(requests) == 1


def test_a_damaged_copy_is_fetched_again(server, tmp_path):
    url, requests = server
    fetch(f"{url}/x.jsonl", SHA, tmp_path)
    (tmp_path / f"{SHA[:16]}-x.jsonl").write_bytes(BODY[:-3])
    assert fetch(f"{url}/x.jsonl", SHA, tmp_path) == BODY
    assert len(requests) == 2


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("other", "not the pinned"),
        ("missing", r"cannot be fetched .*data_dir or --data-dir"),
        ("short", r"ended after 50 of 57 bytes|cannot be fetched"),
    ],
)
def test_what_is_not_the_pinned_file_is_refused_and_not_kept(server, tmp_path, page, message):
    url, _ = server
    with pytest.raises(InputError, match=message):
        fetch(f"{url}/{page}.jsonl", SHA, tmp_path)
    assert [p.name for p in tmp_path.iterdir() if not p.name.endswith(".lock")] == []


def test_without_a_network_the_message_names_the_way_out(tmp_path):
    with pytest.raises(InputError, match=r"cannot be fetched .*data_dir"):
        fetch("http://127.0.0.1:9/x.jsonl", SHA, tmp_path)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot keep the fetched file"):
        fetch("http://127.0.0.1:9/x.jsonl", SHA, tmp_path / "file")


def test_a_directory_serves_either_layout_and_names_another_edition(server, tmp_path):
    source = dataclasses.replace(find_source("openness"), sha256=SHA)
    (tmp_path / "openness.jsonl").write_bytes(BODY)
    assert read_source(source, tmp_path) == (BODY, "")
    nested = tmp_path / source.file
    nested.parent.mkdir(parents=True)
    nested.write_bytes(b"newer")
    data, note = read_source(source, tmp_path)
    assert data == b"newer"
    assert "differs from the pinned edition" in note


def test_what_a_directory_lacks_is_fetched(server, tmp_path, monkeypatch):
    """A directory for TruthfulQA's CSV, which nothing fetches, need not hold the other thirty-nine."""
    url, requests = server
    monkeypatch.setenv("STEERSTATS_DATA_CACHE", str(tmp_path / "kept"))
    (tmp_path / "TruthfulQA.csv").write_bytes(b"rows")
    source = dataclasses.replace(find_source("openness"), sha256=SHA, url=f"{url}/x.jsonl")
    assert read_source(find_source("truthfulqa"), tmp_path) == (b"rows", "")
    assert read_source(source, tmp_path) == (BODY, "")
    assert requests == ["/x.jsonl"]
    with pytest.raises(InputError, match=r"'openness': .*openness\.jsonl does not exist, and .*cannot be fetched"):
        read_source(dataclasses.replace(source, sha256="0" * 64, url=f"{url}/missing.jsonl"), tmp_path)
    with pytest.raises(InputError, match=r"'truthfulqa': .*TruthfulQA\.csv does not exist, and it is read from a"):
        read_source(find_source("truthfulqa"), tmp_path / "kept")


def test_truthfulqa_is_read_from_a_file_only():
    with pytest.raises(InputError, match="'truthfulqa': it is read from a local file only"):
        read_source(find_source("truthfulqa"))


def test_the_cache_folder_can_be_chosen(monkeypatch, tmp_path):
    monkeypatch.setenv("STEERSTATS_DATA_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("STEERSTATS_DATA_CACHE")
    assert "steerstats" in str(cache_folder())
