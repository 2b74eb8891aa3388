"""deploy/drain.sh against a metadata server, as AWS and Google have them."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from ray.scripts.scripts import drain_node

from tests.conftest import ROOT


class Metadata(BaseHTTPRequestHandler):
    """The server of one node; the notices come when the test says so."""

    cloud = ""
    reclaimed = False
    asked = 0

    def do_PUT(self) -> None:
        known = (self.path, self.cloud) == ("/latest/api/token", "aws")
        self._answer("token" if known and self.headers["X-aws-ec2-metadata-token-ttl-seconds"] else None)

    def do_GET(self) -> None:
        type(self).asked += 1
        if self.path == "/latest/meta-data/spot/instance-action" and self.cloud == "aws":
            allowed = self.headers["X-aws-ec2-metadata-token"] == "token" and self.reclaimed
            self._answer('{"action": "terminate"}' if allowed else None)
        elif self.path == "/computeMetadata/v1/instance/preempted" and self.cloud == "google":
            allowed = self.headers["Metadata-Flavor"] == "Google"
            self._answer(("TRUE" if self.reclaimed else "FALSE") if allowed else None)
        else:
            self._answer(None)

    def _answer(self, text: str | None) -> None:
        self.send_response(404 if text is None else 200)
        self.end_headers()
        self.wfile.write((text or "").encode())

    def log_message(self, *_: object) -> None:
        """Nothing on the screen."""


@pytest.fixture
def metadata() -> Iterator[tuple[type[Metadata], str]]:
    class Own(Metadata):
        pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Own) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Own, f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def _start(folder: Path, address: str) -> subprocess.Popen[str]:
    ray = folder / "ray"
    ray.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {folder}/drained\n')
    ray.chmod(0o755)
    environment = os.environ | {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "METADATA": address,
        "POLL_S": "0.05",
        "TMPDIR": str(folder),
    }
    return subprocess.Popen([ROOT / "deploy" / "drain.sh"], env=environment, text=True, stdout=subprocess.PIPE)


@pytest.mark.parametrize(("cloud", "notice_s"), [("aws", 120), ("google", 30)])
def test_node_is_drained_at_the_notice_and_not_before(
    metadata: tuple[type[Metadata], str], tmp_path: Path, cloud: str, notice_s: int
) -> None:
    server, address = metadata
    server.cloud = cloud
    with _start(tmp_path, address) as watcher:
        asked_until = time.monotonic() + 20
        while server.asked < 3 and time.monotonic() < asked_until:
            time.sleep(0.02)
        assert watcher.poll() is None
        assert not (tmp_path / "drained").exists()
        server.reclaimed = True
        assert watcher.wait(timeout=20) == 0
    name, *arguments = (tmp_path / "drained").read_text().splitlines()
    assert name == drain_node.name
    given = drain_node.make_context(name, list(arguments)).params  # refuses what this version of Ray does not know
    assert given["reason"] == "DRAIN_NODE_REASON_PREEMPTION"
    assert notice_s / 2 < given["deadline_remaining_seconds"] < notice_s


def test_second_watcher_of_a_node_ends_at_once(metadata: tuple[type[Metadata], str], tmp_path: Path) -> None:
    with _start(tmp_path, metadata[1]) as first:
        while metadata[0].asked < 1:
            time.sleep(0.02)
        with _start(tmp_path, metadata[1]) as second:
            assert second.wait(timeout=10) == 0
        assert first.poll() is None
        first.terminate()
