"""The account is the one of every AWS tool, and mistakes in it are sentences."""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import pytest

from engine.storage.account import AccountError, current_account
from tests.engine.storage.conftest import Configure

PROFILE = """
[default]
region = eu-north-1
endpoint_url = http://default:1
[profile lab]
region = eu-south-1
endpoint_url = https://lab:2/
ca_bundle = /etc/lab.pem
request_checksum_calculation = when_supported
s3 =
    addressing_style = virtual
[profile both]
services = ours
endpoint_url = http://all:3
[services ours]
s3 =
    endpoint_url = http://ours:4/below
[profile aws]
ignore_configured_endpoint_urls = true
"""


@pytest.mark.parametrize(
    ("variables", "endpoint", "region", "virtual", "checksums"),
    [
        ({}, "http://default:1", "eu-north-1", False, "when_required"),
        ({"AWS_PROFILE": "lab"}, "https://lab:2", "eu-south-1", True, "when_supported"),
        ({"AWS_PROFILE": "lab", "AWS_S3_ADDRESSING_STYLE": "path"}, "https://lab:2", "eu-south-1", False, None),
        ({"AWS_PROFILE": "both"}, "http://ours:4/below", "us-east-1", False, "when_required"),
        ({"AWS_PROFILE": "both", "AWS_ENDPOINT_URL": "HTTP://v:5"}, "http://v:5", "us-east-1", False, None),
        ({"AWS_ENDPOINT_URL": "http://v:5", "AWS_ENDPOINT_URL_S3": "http://s3:6"}, "http://s3:6", None, False, None),
        ({"AWS_PROFILE": "aws", "AWS_ENDPOINT_URL": "http://v:5", "AWS_REGION": "eu-west-3"}, "", "eu-west-3", 0, ""),
        ({"AWS_PROFILE": "aws", "AWS_DEFAULT_REGION": "eu-west-2"}, "", "eu-west-2", False, None),
    ],
)
def test_store_is_that_of_variables_and_profiles_as_boto3_finds_it(
    variables: dict[str, str],
    endpoint: str,
    region: str | None,
    virtual: bool,
    checksums: str | None,
    configure: Configure,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    configure(PROFILE)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    account = current_account()
    assert (account.endpoint, account.virtual_addressing) == (endpoint, virtual)
    assert region in (account.region, None)
    assert checksums in (account.checksums, None)
    assert account.ca_bundle == ("/etc/lab.pem" if variables.get("AWS_PROFILE") == "lab" else "")
    theirs = boto3.session.Session().client("s3", region_name=account.region).meta.endpoint_url
    assert theirs.rstrip("/").lower() == endpoint or ".amazonaws.com" in theirs


@pytest.mark.parametrize(
    ("text", "variables", "said"),
    [
        ("", {"AWS_PROFILE": "nobody"}, r"The config profile \(nobody\) could not be found"),
        (
            "[default]\nendpoint_url = host:9000\n",
            {},
            "endpoint_url of the profile must start with http:// or https://",
        ),
        ("", {"AWS_ENDPOINT_URL": "me:secret@host:9000"}, "AWS_ENDPOINT_URL must .* https://, got 'host:9000'"),
        ("[default\n", {}, "Unable to parse config file: .*"),
        ("", {"AWS_ACCESS_KEY_ID": "only"}, "Partial credentials found in env, missing: AWS_SECRET_ACCESS_KEY"),
        ("[default]\ncredential_process = false\n", {}, "Error when retrieving credentials from custom-process"),
        (
            "[default]\nsso_start_url=https://us.awsapps.com/start\nsso_region=eu-west-1\nsso_account_id=1\nsso_role_name=x",
            {"AWS_REGION": "eu-west-1"},
            "Error loading SSO Token: Token for https://us.awsapps.com/start does not exist",
        ),
    ],
)
def test_mistake_in_the_configuration_is_one_sentence_without_a_secret(
    text: str, variables: dict[str, str], said: str, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(text)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(AccountError, match=f"^{said}") as caught:
        current_account().credentials()
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_provider_of_credentials_may_be_away_for_a_while(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    configure("[default]\nrole_arn = arn:aws:iam::1:role/x\nsource_profile = keys\n[profile keys]\n")
    Path(os.environ["AWS_SHARED_CREDENTIALS_FILE"]).write_text(
        "[keys]\naws_access_key_id = a\naws_secret_access_key = b\n"
    )
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "http://me:secret@127.0.0.1:1")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(ConnectionError, match="no AWS credentials: Could not connect to the endpoint URL") as caught:
        current_account().credentials()
    assert "secret" not in str(caught.value)


def test_credentials_that_expire_are_renewed_by_the_same_account(configure: Configure, tmp_path: Path) -> None:
    given = tmp_path / "given.json"
    configure(f"[default]\ncredential_process = {sys.executable} -c \"print(open('{given}').read())\"\n")

    def give(key: str, minutes: float) -> None:
        expiry = datetime.now(UTC) + timedelta(minutes=minutes)
        keys = {"AccessKeyId": key, "SecretAccessKey": "b", "SessionToken": "c", "Expiration": expiry.isoformat()}
        given.write_text(json.dumps({"Version": 1, **keys}))

    give("first", 1)
    account = current_account()
    first = account.credentials()
    give("second", 60)
    second = account.credentials()
    give("third", 60)
    third = account.credentials()
    assert first is not None
    assert second is not None
    assert (first.access_key, second.access_key) == ("first", "second")
    assert third == second


def test_credentials_of_a_file_that_is_rewritten_are_the_new_ones(configure: Configure) -> None:
    configure("")
    assert current_account().credentials() is None
    assert current_account().is_anonymous
    file = Path(os.environ["AWS_SHARED_CREDENTIALS_FILE"])
    for number, key in enumerate(("first", "second"), start=1):
        file.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = b\n")
        os.utime(file, (number, number))  # a clock may be coarse
        found = current_account().credentials()
        assert found is not None
        assert found.access_key == key
    assert not current_account().is_anonymous
