"""A real S3 server for tests: SeaweedFS on loopback, with its own folder, ports and credentials."""

from __future__ import annotations

import base64
import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow.fs as pafs

ROLE = "arn:aws:iam::role/worker"
_VERSION = "2012-10-17"
_TRUST = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": ["sts:AssumeRole"]}
_EVERYTHING = {"Effect": "Allow", "Action": ["s3:*"], "Resource": ["arn:aws:s3:::*"]}
_IAM = {
    "sts": {"tokenDuration": "1h", "issuer": "test", "signingKey": base64.b64encode(secrets.token_bytes(32)).decode()},
    "policy": {"defaultEffect": "Deny"},
    "roles": [
        {
            "roleName": "worker",
            "roleArn": ROLE,
            "trustPolicy": {"Version": _VERSION, "Statement": [_TRUST]},
            "attachedPolicies": ["all"],
        }
    ],
    "policies": [{"name": "all", "document": {"Version": _VERSION, "Statement": [_EVERYTHING]}}],
}
"""A role for everybody, with keys and a token that expire, that may do everything."""

_START_S = 60.0
_STOP_S = 4.0


class S3Server:
    """A server that keeps its data in a folder, and its one account; it may be killed and started again."""

    def __init__(self, folder: Path) -> None:
        program = weed_program()
        assert program is not None, "weed is not installed"
        self.access_key, self.secret_key = "test", secrets.token_hex(16)
        account = {
            "name": "test",
            "credentials": [{"accessKey": self.access_key, "secretKey": self.secret_key}],
            "actions": ["Admin", "Read", "List", "Tagging", "Write"],
        }
        accounts, iam, data = folder / "accounts.json", folder / "iam.json", folder / "data"
        accounts.write_text(json.dumps({"identities": [account]}))
        iam.write_text(json.dumps(_IAM))
        data.mkdir()
        master, volume, filer, s3 = _free_ports(4)
        self.endpoint = f"http://127.0.0.1:{s3}"
        self._folder = folder
        self._command = [
            program,
            "-logtostderr=true",
            "mini",
            f"-dir={data}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            f"-master.port={master}",
            f"-volume.port={volume}",
            "-volume.max=10000",  # each bucket takes some of its own; else as many as would fill the disk
            f"-filer.port={filer}",
            f"-s3.port={s3}",
            f"-s3.config={accounts}",
            f"-s3.iam.config={iam}",
            "-s3.domainName=localhost",  # a bucket's name may come first in the host: bucket.localhost
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-webdav=false",
            "-admin.ui=false",
            "-master.telemetry=false",
            f"-s3.localSocket={data}/s3.sock",
            f"-filer.localSocket={data}/filer.sock",
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, on the same ports and data as before, and wait until it answers."""
        # the server would read our AWS variables as its own
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=self._folder,
                env=environment,
            )
        _wait_until_ready(self, self._process, self._folder / "log")

    def kill(self) -> None:
        """SIGKILL, as when its machine dies."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it; it may hang on SIGTERM."""
        self._end(signal.SIGTERM, signal.SIGKILL)

    def _end(self, *signals: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        for number in signals:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)  # its children too: they form a process group
            with suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_S)
                return
        process.wait(_STOP_S)

    def variables(self) -> dict[str, str]:
        """The AWS variables under which every client reaches it."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            # never those of whoever runs the tests
            "AWS_CONFIG_FILE": str(self._folder / "no-config"),
            "AWS_SHARED_CREDENTIALS_FILE": str(self._folder / "no-credentials"),
        }

    def filesystem(self) -> pafs.S3FileSystem:
        return pafs.S3FileSystem(
            access_key=self.access_key,
            secret_key=self.secret_key,
            endpoint_override=self.endpoint.removeprefix("http://"),
            scheme="http",
            region="us-east-1",
            allow_bucket_creation=True,
            allow_bucket_deletion=True,
        )

    def make_bucket(self, name: str) -> str:
        """Make a bucket (3 letters or more) and return its URI."""
        self.filesystem().create_dir(name)
        return f"s3://{name}"


def weed_program() -> str | None:
    """The server's program: beside this Python, or on the PATH."""
    beside = Path(sys.executable).parent / "weed"
    return str(beside) if beside.exists() else shutil.which("weed")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _free_ports(count: int) -> list[int]:
    """Ports p whose p + 10000, on which SeaweedFS speaks gRPC, is free too."""
    ports: list[int] = []
    while len(ports) < count:
        port = random.SystemRandom().randrange(20_000, 32_000)
        if port not in ports and _is_free(port) and _is_free(port + 10_000):
            ports.append(port)
    return ports


@contextmanager
def running_server(folder: Path) -> Iterator[S3Server]:
    """A server that keeps its data in ``folder`` and ends with the block."""
    server = S3Server(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def _wait_until_ready(server: S3Server, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + _START_S
    while True:
        try:
            filesystem = server.filesystem()
            filesystem.create_dir("ready")
            with filesystem.open_output_stream("ready/object") as file:
                file.write(b"ready")
            with filesystem.open_input_file("ready/object") as file:
                assert file.read() == b"ready"
            return
        except OSError as error:
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"weed did not start: {log.read_text(errors='replace')[-2000:]}") from error
            time.sleep(0.2)
