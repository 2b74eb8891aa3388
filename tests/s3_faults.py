"""A proxy in front of the S3 server that answers some requests with the faults of real stores."""

from __future__ import annotations

import http.client
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from urllib.parse import urlsplit

Rule = Callable[[str, str], str]
"""Method and path to the fault of a request, or to nothing. ``no trailers``: trailing checksums are refused;
``requester pays``: requests without that header are."""

_REFUSALS = {
    "busy": (503, "SlowDown", "Please reduce your request rate."),
    "broken": (500, "InternalError", "We encountered an internal error."),
    "forbidden": (403, "AccessDenied", "Access Denied"),
    "expired": (400, "ExpiredToken", "The provided token has expired."),
    "unknown": (501, "NotImplemented", "A header you provided implies functionality that is not implemented."),
    "skewed": (403, "RequestTimeTooSkewed", "The difference between the request time and the server's is too large."),
}
_HANG_S = 5.0


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, upstream: str, rule: Rule) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream, self.rule = urlsplit(upstream).netloc, rule

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up on us is part of the test."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""

    def _handle(self) -> None:
        body = self._body()
        fault = self.server.rule(self.command, self.path)
        if fault == "no trailers":
            fault = "unknown" if "x-amz-trailer" in self.headers else ""
        if fault == "requester pays":
            fault = "" if self.headers.get("x-amz-request-payer") == "requester" else "forbidden"
        if fault == "reset":
            # with no time to linger, closing sends RST
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif fault == "hang":
            time.sleep(_HANG_S)
        elif fault in _REFUSALS:
            self._refuse(*_REFUSALS[fault])
            return
        else:
            self._forward(body, cut=fault == "cut")
            if fault != "cut":
                return
        self.close_connection = True
        self.connection.close()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _handle

    def _body(self) -> bytes:
        if self.headers.get("Expect"):
            self.send_response_only(100)
            self.end_headers()
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        read = b""
        while True:
            line = self.rfile.readline()
            size = int(line, 16)
            read += line + self.rfile.read(size + 2 if size else 0)
            if not size:
                while (line := self.rfile.readline()).strip():
                    read += line
                return read + b"\r\n"

    def _forward(self, body: bytes, *, cut: bool) -> None:
        upstream = http.client.HTTPConnection(self.server.upstream, timeout=30)
        upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in ("expect", "connection"):
                upstream.putheader(name, value)
        upstream.endheaders(body or None)
        answer = upstream.getresponse()
        data = answer.read()
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else None
        self.send_header("Content-Length", length or str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if cut else data)
        upstream.close()

    def _refuse(self, status: int, code: str, message: str) -> None:
        text = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'.encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":  # which has no body, so no reason
            self.wfile.write(text)


@contextmanager
def faulty(endpoint: str, rule: Rule, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """The address of a proxy before ``endpoint``; requests go through or fail as ``rule`` says."""
    server = _Server(endpoint, rule)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    with served(server) as address:
        yield address.replace("http:", "https:") if tls else address


@contextmanager
def served(server: HTTPServer) -> Iterator[str]:
    """The address of a server that answers in a thread until the block ends."""
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
