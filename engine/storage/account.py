"""Resolve the AWS endpoint, region and credentials with botocore, as AWS tools do.

botocore reads variables and profiles, assumes roles, logs in (SSO, web identity, processes, instance metadata) and
renews credentials before they expire. ``AWS_REGION``, ``AWS_S3_ADDRESSING_STYLE`` and ``AWS_REQUEST_PAYER``, which
other clients support, are read here.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from engine.errors import first_line

if TYPE_CHECKING:
    from botocore.credentials import ReadOnlyCredentials
    from botocore.session import Session

_FILES = {"AWS_CONFIG_FILE": "~/.aws/config", "AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials"}
CHECKSUMS = "AWS_REQUEST_CHECKSUM_CALCULATION"
_LOOK_AGAIN_S = 60.0
"""How long to stay anonymous, which suffices for public buckets, before looking for credentials again: the metadata
service of a busy instance may fail to return them."""


class AccountError(OSError):
    """The configuration is invalid or provides no credentials; retrying does not help."""


class Account:
    """The endpoint of a store and the credentials to access it."""

    def __init__(self) -> None:
        """Raises AccountError for a missing profile, a damaged file or an endpoint without a scheme."""
        import botocore.session  # slow (a third of a second), so only users of S3 load it

        # botocore logs tracebacks of failed renewals, which are raised here, or retried while credentials are valid
        logging.getLogger("botocore.credentials").setLevel(logging.ERROR)
        with _os_errors():
            self._session: Session = botocore.session.Session()
            profile: dict[str, Any] = self._session.get_scoped_config()
            self.endpoint = _endpoint(self._session, profile)
            """URL of the store; empty for AWS."""
            self.region: str = (
                os.environ.get("AWS_REGION")
                or self._session.get_config_variable("region")
                or ("us-east-1" if self.endpoint else "")
            )
            """Empty to look up the region of each bucket."""
            self._session.set_config_variable("region", self.region or None)  # for STS and SSO
            self.ca_bundle: str = self._session.get_config_variable("ca_bundle") or ""
            """A file of CA certificates, or empty for the default."""
            configured: dict[str, Any] = self._session.get_config_variable("s3") or {}
        style = os.environ.get("AWS_S3_ADDRESSING_STYLE") or configured.get("addressing_style")
        self.virtual_addressing = style == "virtual"
        self.checksums: str = profile.get("request_checksum_calculation") or ("when_required" if self.endpoint else "")
        """``when_required`` sends no trailing checksums, which some stores do not support; the payload is signed."""
        self.requester_pays = os.environ.get("AWS_REQUEST_PAYER") == "requester"
        """Whether to pay for access to requester-pays buckets."""
        self._lock = threading.Lock()
        self._look_again_at = 0.0
        self._credentials: Any = None

    def credentials(self) -> ReadOnlyCredentials | None:
        """Return the current credentials, renewed before they expire, or None if there are none.

        Raises:
            AccountError: The credentials cannot be obtained.
            ConnectionError: The credential provider does not respond.
        """
        with _os_errors():
            with self._lock:
                if self._credentials is None and time.monotonic() >= self._look_again_at:
                    self._credentials = self._session.get_credentials()
                    self._look_again_at = time.monotonic() + _LOOK_AGAIN_S
            return None if self._credentials is None else self._credentials.get_frozen_credentials()

    def botocore_client(self, region: str) -> Any:
        """Create a botocore client for S3."""
        from botocore.config import Config

        style = "virtual" if self.virtual_addressing else "auto"
        with _os_errors():
            return self._session.create_client(
                "s3", region, endpoint_url=self.endpoint or None, config=Config(s3={"addressing_style": style})
            )

    @property
    def is_anonymous(self) -> bool:
        """Whether no credentials were found."""
        return self._look_again_at > 0 and self._credentials is None


_accounts: dict[tuple[object, ...], Account] = {}


def current_account() -> Account:
    """Return the account of this process, resolved again if AWS variables or files have changed.

    Raises:
        AccountError: As :class:`Account`.
    """
    variables = sorted((name, os.environ[name]) for name in os.environ if name.startswith("AWS_") and name != CHECKSUMS)
    files = (os.path.expanduser(os.environ.get(name, usual)) for name, usual in _FILES.items())
    # clients and locks do not survive a fork
    key = (os.getpid(), *variables, *((file, _modified(file)) for file in files))
    found = _accounts.get(key)
    if found is None:
        if len(_accounts) > 8:
            _accounts.clear()
        found = _accounts.setdefault(key, Account())
    return found


def _modified(file: str) -> int:
    try:
        return os.stat(file).st_mtime_ns
    except OSError:
        return 0


def _endpoint(session: Session, profile: dict[str, Any]) -> str:
    """Return the store's URL, looked up in botocore's order, because botocore's function is private."""
    if session.get_config_variable("ignore_configured_endpoint_urls"):
        return ""
    services = session.full_config.get("services", {}).get(profile.get("services"), {})
    places = {
        "AWS_ENDPOINT_URL_S3": os.environ.get("AWS_ENDPOINT_URL_S3"),
        "AWS_ENDPOINT_URL": os.environ.get("AWS_ENDPOINT_URL"),
        "endpoint_url of the profile's services": services.get("s3", {}).get("endpoint_url"),
        "endpoint_url of the profile": profile.get("endpoint_url"),
    }
    place, url = next(((place, url) for place, url in places.items() if url), ("", ""))
    scheme, separator, rest = url.partition("://")
    if url and not (separator and scheme.lower() in ("http", "https")):
        host = url.rpartition("@")[2]  # never a password
        raise AccountError(f"{place} must start with http:// or https://, got '{host}'")
    return f"{scheme.lower()}://{rest.rstrip('/')}" if url else ""


def safe_message(error: Exception) -> str:
    """Return the first line of botocore's message, with passwords removed from URLs."""
    return re.sub(r"//[^/@\s]*@", "//", first_line(error))


@contextmanager
def _os_errors() -> Iterator[None]:
    """Convert botocore's errors to OSErrors."""
    from botocore import exceptions

    try:
        yield
    except (exceptions.HTTPClientError, exceptions.ConnectionError, exceptions.MetadataRetrievalError) as error:
        raise ConnectionError(f"no AWS credentials: {safe_message(error)}") from error
    except exceptions.ClientError as error:
        text = f"no AWS credentials: {safe_message(error)}"
        busy = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) >= 500 or "Throttl" in text
        raise (ConnectionError(text) if busy else AccountError(text)) from error
    except (exceptions.BotoCoreError, RuntimeError) as error:  # RuntimeError: renewed, but still expired
        raise AccountError(safe_message(error)) from error
