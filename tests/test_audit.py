"""The audit of the pins never fails for lack of a network, nor for an index that knows packages alone."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tests.conftest import ROOT
from tests.s3_faults import served


@contextmanager
def _index(answer: bytes) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if answer else 404)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    with served(HTTPServer(("127.0.0.1", 0), Handler)) as address:
        yield address


@pytest.mark.parametrize("answer", [b"", b"<html>", json.dumps({"vulnerabilities": []}).encode(), None])
def test_audit_is_left_out_where_nothing_is_known_of_a_famous_version(answer: bytes | None) -> None:
    command = [sys.executable, str(ROOT / ".ci" / "audit.py"), "--source"]
    with _index(answer or b"") as source:
        where = "http://127.0.0.1:9" if answer is None else source
        done = subprocess.run([*command, where], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0
    assert "left out" in done.stdout
