"""Retry calls to a store after transient errors, and convert other errors to readable ones.

A store that has responded before is retried for minutes, because a long run must survive restarts and network
failures. A store that has never responded is most likely misspelled, so the error is reported after seconds.
"""

from __future__ import annotations

import errno
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

import pyarrow as pa

from engine.errors import DeniedError, MissingError, NoFileError, StorageError, first_line
from engine.storage.account import AccountError, current_account

Result = TypeVar("Result")

PATIENCE_S = 180.0
"""How long to retry a store that has responded before."""
FIRST_PATIENCE_S = 4.0
"""How long to retry a store that has never responded, besides the client's own attempts."""

_AWS_ERROR = re.compile(r"AWS Error (\w+)")
_TRANSIENT = re.compile(
    r"SLOW_?DOWN|SERVICE_?UNAVAILABLE|NETWORK_CONNECTION|REQUEST_TIMEOUT|INTERNAL_FAILURE|INTERNAL_?ERROR|THROTTL"
    r"|HTTP status (429|500|502|503|504)|curlCode|timed? ?out|[Cc]onnection reset|RequestTimeTooSkewed"
)
_REFUSED_ACCOUNT = re.compile(
    r"INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|INVALID_CLIENT_TOKEN_ID|UNRECOGNIZED_CLIENT|INVALID_SIGNATURE"
    r"|MISSING_AUTHENTICATION_TOKEN|REQUEST_EXPIRED|EXPIRED_?TOKEN|ExpiredToken|InvalidToken|TokenRefreshRequired"
)
_DENIED = re.compile(rf"ACCESS_DENIED|HTTP status 40[13]|{_REFUSED_ACCOUNT.pattern}")
_CERTIFICATE = re.compile(r"curlCode: (60|77)\b")
_CURL = re.compile(r"curlCode: \d+, ([^;]+)")
_REGION = re.compile(r"bucket is located in '([\w-]+)'")
_MISSING = re.compile(r"NO_SUCH_BUCKET|NO_SUCH_KEY|RESOURCE_NOT_FOUND|HTTP status 404|[Pp]ath does not exist")
_TRANSIENT_ERRNO = {
    errno.EAGAIN,
    errno.EBUSY,
    errno.ECONNABORTED,
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.EINTR,
    errno.ESTALE,
    errno.ETIMEDOUT,
}
_RAY_COPY = "/runtime_resources/working_dir_files/"
_PERMANENT = (AccountError, FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 8.0


_EVERY_STORE = ""
_answered: set[str] = set()


def expect_stores() -> None:
    """Use :data:`PATIENCE_S` from the first call, because the parent process has already reached the stores."""
    _answered.add(_EVERY_STORE)


def _is_s3(location: str) -> bool:
    return location.lower().startswith(("s3://", "s3a://"))


def _store(location: str) -> str:
    if not _is_s3(location):
        return "/".join(location.split("/")[:3])
    with suppress(AccountError):
        return f"{current_account().endpoint}/{'/'.join(location.split('/')[:3])}"
    return location


def is_transient(error: OSError) -> bool:
    """Whether the same call may succeed when retried."""
    if isinstance(error, _PERMANENT) or _CERTIFICATE.search(str(error)):
        return False
    if isinstance(error, (ConnectionError, TimeoutError)) or error.errno in _TRANSIENT_ERRNO:
        return True
    text = str(error)
    return not _DENIED.search(text) and _TRANSIENT.search(text) is not None


def is_refused_account(error: OSError) -> bool:
    """Whether the store rejected the credentials (e.g. a wrong key or an expired token) rather than the request.

    Args:
        error: An error from :func:`retry`.
    """
    return _REFUSED_ACCOUNT.search(str(error.__cause__)) is not None


def in_ray_copy(location: str) -> bool:
    """Whether a local path lies in Ray's copy of a submitted job's working directory, which Ray later deletes."""
    return "://" not in location and _RAY_COPY in os.path.abspath(location)


def plain(error: OSError, location: str) -> StorageError:
    """Convert an error to a StorageError with a readable reason, without addresses that change from run to run."""
    if isinstance(error, StorageError):
        return error
    text = str(error)
    if location.lower().startswith(("http://", "https://")):
        location = location.partition("?")[0]  # a query may hold a signature
    if isinstance(error, AccountError):
        return StorageError(f"'{location}' cannot be accessed: {text}")
    if isinstance(error, IsADirectoryError):
        return NoFileError(f"'{location}' is a folder or a device, not a file")
    if isinstance(error, (FileNotFoundError, NotADirectoryError)) or _MISSING.search(text):
        if in_ray_copy(location):
            return MissingError(
                f"'{location}' does not exist in Ray's copy of the working directory; give an absolute path or a URI"
            )
        bucket = " (the bucket does not exist)" if "NO_SUCH_BUCKET" in text else ""
        return MissingError(f"'{location}' does not exist{bucket}")
    if isinstance(error, PermissionError) or _DENIED.search(text):
        if "://" not in location:
            return DeniedError(f"'{location}' may not be accessed ({os.strerror(errno.EACCES)})")
        if _is_s3(location) and current_account().is_anonymous:
            return DeniedError(f"'{location}' may not be accessed: no AWS credentials were found")
        expired = ": they have expired" if re.search("EXPIRED|ExpiredToken", text) else ""
        return DeniedError(f"'{location}' may not be accessed with these credentials{expired}")
    return StorageError(f"'{location}' failed: {_reason(error, text)}")


def _reason(error: OSError, text: str) -> str:
    code = _AWS_ERROR.search(text)
    certificate, region, curl = _CERTIFICATE.search(text), _REGION.search(text), _CURL.search(text)
    if certificate is not None and certificate.group(1) == "60":
        return "the store's certificate cannot be verified; set AWS_CA_BUNDLE to the file of its certificate authority"
    if certificate is not None:
        return "the CA bundle (AWS_CA_BUNDLE, or ca_bundle in the profile) cannot be read"
    if region is not None:
        return f"the bucket is in the region {region.group(1)}; set AWS_REGION"
    if code is None:
        return os.strerror(error.errno) if error.errno else first_line(error)
    if code.group(1) == "UNKNOWN":
        return next(iter(re.findall(r"HTTP status \d+", text)), "UNKNOWN")
    return f"{code.group(1)} ({curl.group(1)})" if curl else code.group(1)


@contextmanager
def readable(location: str, kind: str) -> Iterator[None]:
    """Convert errors of a parser in the block to StorageError.

    Args:
        location: The file.
        kind: What the file should be, for the message.

    Raises:
        StorageError: The file is damaged, is not text, or cannot be read.
    """
    try:
        yield
    except UnicodeError as error:
        raise StorageError(f"'{location}' is not UTF-8 text; save it as UTF-8") from error
    except pa.ArrowException as error:
        raise StorageError(f"'{location}' is not a readable {kind}: {first_line(error)}") from error
    except StorageError:
        raise
    except OSError as error:
        raise plain(error, location) from error


def retry(call: Callable[[], Result], location: str, *, patience_s: float | None = None) -> Result:
    """Call a function, retrying transient errors with exponential backoff.

    Args:
        call: Reads or writes; must be safe to run twice.
        location: What it reads or writes, for the message.
        patience_s: Start no new attempt after this time; by default :data:`PATIENCE_S`, or :data:`FIRST_PATIENCE_S`
            until the store has responded to this process.

    Raises:
        StorageError: (or MissingError, DeniedError, NoFileError) A permanent error, or a transient one that outlasted
            the patience; the message names ``location``.
    """
    store, start, pause_s = _store(location), time.monotonic(), _FIRST_PAUSE_S
    while True:
        try:
            result = call()
        except OSError as error:
            if patience_s is None:
                patience_s = PATIENCE_S if _answered & {_EVERY_STORE, store} else FIRST_PATIENCE_S
            drawn_s = pause_s * random.uniform(0.5, 1.5)
            if not is_transient(error) or time.monotonic() - start + drawn_s > patience_s:
                readable_error = plain(error, location)
                raise readable_error from None if readable_error is error else error
        else:
            _answered.add(store)
            return result
        time.sleep(drawn_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
