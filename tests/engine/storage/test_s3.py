"""S3 as stores other than AWS speak it, against a real server."""

from __future__ import annotations

import os
import pickle
import shutil
import ssl
import subprocess
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from engine.errors import StorageError
from engine.storage import filesystem
from engine.storage.retries import retry
from engine.storage.s3 import client
from tests.engine.storage.conftest import Configure
from tests.s3_faults import faulty
from tests.s3_server import ROLE, S3Server

LARGE = bytes(12_000_000)
"""Takes several parts."""


@pytest.fixture
def bucket(s3: S3Server) -> str:
    return s3.make_bucket(f"s3-{uuid.uuid4().hex[:12]}")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a certificate authority of our own (``ca.pem``) and a server's certificate of its."""
    folder = tmp_path_factory.mktemp("authority")
    if shutil.which("openssl") is None:
        pytest.skip("the program 'openssl' is not installed")
    new = "openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1")
    for command in (
        f"{new} -x509 -subj /CN=ours -addext basicConstraints=critical,CA:TRUE -keyout ca.key -out ca.pem",
        f"{new} -subj /CN=localhost -keyout server.key -out server.csr",
        "openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile names -out server.pem",
    ):
        subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    return folder


@pytest.mark.s3
def test_private_certificate_authority_is_trusted_if_named_and_named_if_missing(
    s3: S3Server, bucket: str, authority: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(authority / "server.pem", authority / "server.key")
    with faulty(s3.endpoint, lambda method, path: "", tls) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        with pytest.raises(StorageError, match=r"certificate cannot be verified; set AWS_CA_BUNDLE to the file"):
            filesystem.write_bytes(f"{bucket}/object", b"x", patience_s=60)
        monkeypatch.setenv("AWS_CA_BUNDLE", str(authority / "nowhere.pem"))
        with pytest.raises(StorageError, match=r"the CA bundle \(AWS_CA_BUNDLE, .*\) cannot be read"):
            filesystem.write_bytes(f"{bucket}/object", b"x", patience_s=60)
        monkeypatch.setenv("AWS_CA_BUNDLE", str(authority / "ca.pem"))
        for data in (b"x", LARGE):
            filesystem.write_bytes(f"{bucket}/object", data)
            assert filesystem.read_bytes(f"{bucket}/object") == data


@pytest.mark.s3
def test_virtual_addressing_puts_the_bucket_in_the_host(
    s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths: list[str] = []

    def rule(method: str, path: str) -> str:
        paths.append(path)
        return ""

    with faulty(s3.endpoint, rule) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address.replace("127.0.0.1", "localhost"))
        monkeypatch.setenv("AWS_S3_ADDRESSING_STYLE", "virtual")
        filesystem.write_bytes(f"{bucket}/a b+%.jpg", b"x")
        filesystem.write_bytes(f"{bucket}/large", LARGE)
        assert filesystem.read_bytes(f"{bucket}/a b+%.jpg") == b"x"
        assert filesystem.list_names(bucket) == ["a b+%.jpg", "large"]
        filesystem.delete_file(f"{bucket}/large")
        assert not filesystem.exists(f"{bucket}/large")
    assert {urlsplit(path).path for path in paths} == {"/", "/a%20b%2B%25.jpg", "/large"}


@pytest.mark.s3
def test_store_without_trailing_checksums_is_sent_none(
    s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with faulty(s3.endpoint, lambda method, path: "no trailers") as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        for data in (b"x", LARGE):
            filesystem.write_bytes(f"{bucket}/object", data)
            assert filesystem.read_bytes(f"{bucket}/object") == data
        assert "AWS_REQUEST_CHECKSUM_CALCULATION" not in os.environ
    with faulty(s3.endpoint, lambda method, path: "no trailers") as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_supported")
        with pytest.raises(StorageError, match="HTTP status 501"):
            filesystem.write_bytes(f"{bucket}/object", b"x")


@pytest.mark.s3
def test_credentials_of_a_role_are_renewed_in_a_filesystem_that_is_held(
    s3: S3Server, bucket: str, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[str] = []

    def rule(method: str, path: str) -> str:
        if urlsplit(path).path == "/":
            taken.append(method)
        return ""

    with faulty(s3.endpoint, rule) as address:
        # credentials that expire within 15 minutes are renewed before each use
        configure(
            f"[profile worker]\nrole_arn = {ROLE}\nsource_profile = us\nduration_seconds = 900\n"
            f"endpoint_url = {address}\nregion = us-east-1\n[profile us]\n"
            f"aws_access_key_id = {s3.access_key}\naws_secret_access_key = {s3.secret_key}\n"
        )
        monkeypatch.setenv("AWS_PROFILE", "worker")
        opened, path = filesystem.open_filesystem(f"{bucket}/object")
        filesystem.write_bytes(f"{bucket}/object", b"some bytes")
        before = len(taken)
        assert opened.open_input_file(path).read() == b"some bytes"
        assert 0 < before < len(taken)
        assert s3.secret_key.encode() not in pickle.dumps(opened)
        assert len(pickle.dumps(opened)) < 200  # so no other keys either
        assert pickle.loads(pickle.dumps(opened)).open_input_file(path).read() == b"some bytes"


@pytest.mark.s3
def test_more_than_1000_odd_keys_are_all_listed(bucket: str) -> None:
    names = sorted(f"{number} {letter}.jpg" for number in range(210) for letter in ("+", "%", "%20", "a&b", "é#?"))
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda name: filesystem.write_bytes(f"{bucket}/folder/{name}", name.encode()), names))
    assert len(names) > 1000
    assert filesystem.list_names(f"{bucket}/folder") == names
    assert all(filesystem.read_bytes(f"{bucket}/folder/{name}") == name.encode() for name in names[::100])


def test_region_that_aws_is_asked_for_is_asked_for_again(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    configure("")
    answers: list[str | OSError] = [OSError("When resolving region: curlCode: 28, Timeout was reached"), "eu-north-1"]

    def resolve(bucket: str) -> str:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    monkeypatch.setattr("pyarrow.fs.resolve_s3_region", resolve)
    location = f"region-{uuid.uuid4().hex}/key"
    assert retry(lambda: client(location).region, f"s3://{location}") == "eu-north-1"
    assert client(location).region == "eu-north-1"
    assert answers == []
