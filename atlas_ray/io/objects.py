"""A reader of many objects by URI, each with its own outcome."""

import contextlib
import errno
import hashlib
import os
import random
import re
import stat
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Self, TypeVar

import obstore
from obstore.exceptions import BaseError

from atlas_ray.errors import RETRYABLE_CODES, FetchError, OutageError, StorageError
from atlas_ray.io import stores
from atlas_ray.io.etags import etag_of_file, etag_of_object
from atlas_ray.io.stores import Bucket, Client, RequestError, is_object

ODD_KEY = re.compile(rf"{stores.ODD_SEGMENT.pattern}|[\x00-\x1f\x7f\\\\]")
"""Keys that the quick client normalizes as paths, or refuses."""
STATUS = re.compile(r"non-2xx status code: (\d{3})(?:.*?<Code>(\w+)</Code>)?")
STATUS_CODES = {
    400: "unsupported_uri",
    408: "timeout",
    409: "server_error",
    414: "unsupported_uri",
    429: "rate_limited",
}
"""Error codes by HTTP status; any other 4xx is `forbidden`, a 5xx `server_error`."""
NAMED_CODES = {
    "BandwidthLimitExceeded": "rate_limited", "EC2ThrottledException": "rate_limited",
    "LimitExceededException": "rate_limited", "PriorRequestNotComplete": "rate_limited",
    "ProvisionedThroughputExceededException": "rate_limited", "RequestLimitExceeded": "rate_limited",
    "RequestThrottled": "rate_limited", "RequestThrottledException": "rate_limited", "SlowDown": "server_error",
    "ThrottledException": "rate_limited", "Throttling": "rate_limited", "ThrottlingException": "rate_limited",
    "TooManyRequests": "rate_limited", "TooManyRequestsException": "rate_limited",
    "InternalError": "server_error", "ServiceUnavailable": "server_error", "RequestTimeout": "timeout",
}  # fmt: skip
"""Error codes by the name of an S3 error that does not depend on the object; some of these come with 400 or 403."""
CREDENTIAL_ERRORS = frozenset({
    "AuthorizationHeaderMalformed", "ExpiredToken", "ExpiredTokenException", "InvalidAccessKeyId",
    "InvalidClientTokenId", "InvalidToken", "RequestExpired", "RequestTimeTooSkewed", "SignatureDoesNotMatch",
    "TokenRefreshRequired",
})  # fmt: skip
"""Names of the S3 errors of credentials that are wrong or have expired."""
RETRYABLE_ERRNOS = frozenset({
    errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.EIO,
    errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED,
    errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH, errno.ESHUTDOWN,
})  # fmt: skip
"""Error numbers of failures that may not occur again: too many open files, no memory, or a disk out of reach."""
PROBE = ".atlas-ray/probe"
"""A key that no catalogue names; it is requested to learn whether a store answers at all."""
PROBE_S = 5.0
"""The time limit of an answer to `PROBE` when a command starts."""
FIRST_PAUSE_S, MAX_PAUSE_S = 1.0, 15.0
ETAGS_PER_TASK = 16
"""Etags that one thread asks for at a time: a file's costs less than to wake a thread."""

Outcome = TypeVar("Outcome")
Reserve = Callable[[int], None]
"""Reserves memory: it is called with a number of bytes before they are read, and raises to refuse them."""


def no_limit(_: int) -> None:
    """Reserve any number of bytes without a limit."""


def no_words(_: str) -> None:
    """Say nothing."""


class Object(NamedTuple):
    """An object that was read."""

    content: bytes
    etag: str | None
    """Its etag when it was read (`atlas_ray.io.etags`)."""


class HashedObject(NamedTuple):
    """An object that was read, and its hash."""

    content: bytes
    etag: str | None
    sha256: str


class _Outage:
    """The state of a store that may be down; times are those of the monotonic clock, 0 for never."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.since = 0.0
        self.back_at = 0.0


def await_stores(uris: Iterable[str], outage_s: float, say: Callable[[str], object]) -> None:
    """Wait until the object stores of some URIs answer; at once if they do, and for what is no object.

    Tables and folders are read by clients that are patient and silent; this tells a person within seconds whom they
    would wait for.

    Args:
        uris: Any paths; of each bucket among them one object is asked for.
        outage_s: How long a store may be away.
        say: Takes a line for a person, while a store is waited for.

    Raises:
        OutageError: if a store has been away for longer.
        StorageError: if a URI names no bucket.
    """
    for bucket in dict.fromkeys(_bucket_uri(uri) for uri in uris if is_object(uri)):
        with ObjectReader(threads=1, timeout_s=PROBE_S, store_retries=0, outage_s=outage_s, say=say) as reader:
            reader.await_store(bucket)


class ObjectReader:
    """A reader of local files and objects of a store in threads; failures get an error code, and some are retried.

    The codes of `FetchError`: not_found, forbidden, bad_credentials, timeout, server_error, rate_limited,
    unreachable, too_large, unsupported_uri, unreadable. Those of `RETRYABLE_CODES` are retried.
    """

    def __init__(
        self,
        *,
        threads: int = 32,
        timeout_s: float = 30.0,
        attempts: int = 4,
        max_bytes: int = 32 * 1024 * 1024,
        store_retries: int = 5,
        outage_s: float = 0.0,
        say: Callable[[str], object] = no_words,
    ) -> None:
        """Start the threads; the stores are opened when their bucket is first seen.

        Args:
            threads: Objects read at a time.
            timeout_s: The time limit of one request.
            attempts: How often an object is requested; the client itself also retries each request
                that the server answers with a 5xx.
            max_bytes: The size of the largest accepted object; a larger one is refused before it is read.
            store_retries: How often the client itself retries a request.
            outage_s: How long a store may be down: if an object fails with a code of `RETRYABLE_CODES` and
                the store does not answer otherwise either, it is requested until the store is back.
            say: Called with a line for a person while the reader waits for a store.
        """
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="fetch")
        self._buckets: dict[str, Bucket] = {}
        self._clients: dict[str, Client] = {}
        self._timeout_s = timeout_s
        self._attempts = attempts
        self._max_bytes = max_bytes
        self._store_retries = store_retries
        self._outage_s = outage_s
        self._say = say
        self._outages: defaultdict[str, _Outage] = defaultdict(_Outage)

    def read_many(self, uris: Sequence[str]) -> list[bytes | FetchError]:
        """Read objects at the same time; each one's bytes or what went wrong, in their order.

        Raises:
            OutageError: if a store has been away for longer than `outage_s`.
        """
        return list(self._pool.map(lambda uri: self._outcome(self.read, uri), uris))

    def get_many(self, uris: Sequence[str]) -> list[HashedObject | FetchError]:
        """Read objects as `read_many` does, each with its etag and its hash; several threads may call this."""
        return list(self._pool.map(lambda uri: self._outcome(self._get_hashed, uri), uris))

    def _get_hashed(self, uri: str) -> HashedObject:
        content, etag = self.get(uri)
        # Here, beside the requests of the other threads: hashing leaves the interpreter to them.
        return HashedObject(content, etag, hashlib.sha256(content).hexdigest())

    def etags(self, uris: Sequence[str]) -> list[str | FetchError | None]:
        """Return the etags of objects, which are not read; one request or system call each.

        Raises:
            OutageError: if a store has been away for longer than `outage_s`.
        """
        parts = (uris[start : start + ETAGS_PER_TASK] for start in range(0, len(uris), ETAGS_PER_TASK))
        found = self._pool.map(lambda part: [self._outcome(self.etag, uri) for uri in part], parts)
        return [outcome for part in found for outcome in part]

    def await_store(self, bucket: str) -> None:
        """Wait until a store answers; that credentials are wrong is an answer, too.

        Args:
            bucket: The URI of a bucket in it.

        Raises:
            OutageError: if it has been away for longer than `outage_s`.
        """
        self._wait_for_store(bucket, time.monotonic(), RETRYABLE_CODES - {"bad_credentials"})

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _outcome(self, ask: Callable[[str], Outcome], uri: str) -> Outcome | FetchError:
        began = time.monotonic()
        outcome = self._tried(ask, uri, self._attempts)
        while self._outage_s and is_object(uri) and _may_pass(outcome):
            back_at = self._wait_for_store(_bucket_uri(uri), began)
            away, began = back_at > began, time.monotonic()
            outcome = self._tried(ask, uri, self._attempts if away else 1)
            if not away:  # the store answers: it is this object that fails
                break
        return outcome

    def _tried(self, ask: Callable[[str], Outcome], uri: str, attempts: int) -> Outcome | FetchError:
        for attempt in range(1, attempts + 1):
            try:
                return ask(uri)
            except FetchError as error:
                if attempt == attempts or not _may_pass(error):
                    return error
                time.sleep(random.uniform(0.5, 1.0) * 0.2 * 2**attempt)
        raise AssertionError("unreachable: attempts is at least 1")

    def _wait_for_store(self, bucket: str, failed_since: float, away_codes: frozenset[str] = RETRYABLE_CODES) -> float:
        """Wait until a store answers, and return when its last outage ended.

        One thread asks the store, the others wait for it.

        Raises:
            OutageError: if it is away for too long.
        """
        outage = self._outages[bucket]
        with outage.lock:
            pause_s = FIRST_PAUSE_S
            while _may_pass(error := self._tried(self.read, f"{bucket}/{PROBE}", 1), away_codes):
                outage.since = outage.since or failed_since
                away_s = time.monotonic() - outage.since
                text = f"the store {bucket} has not answered for {away_s:.0f} s: {str(error)[:300]}"
                if away_s >= self._outage_s:
                    raise OutageError(f"{text}; the same command goes on from here")
                self._say(f"{text}; waiting, up to {self._outage_s:.0f} s")
                time.sleep(min(pause_s, self._outage_s - away_s))
                pause_s = min(2 * pause_s, MAX_PAUSE_S)
                # Opened anew, with the credentials that are there then.
                self._buckets.pop(bucket, None)
                self._clients.pop(bucket, None)
            if outage.since:
                outage.since, outage.back_at = 0.0, time.monotonic()
            return outage.back_at

    def read(self, uri: str, reserve: Reserve = no_limit) -> bytes:
        """Read one object.

        Args:
            uri: Where it is.
            reserve: Called with the size of the object before it is read; if it raises, nothing is read.

        Raises:
            FetchError: with its code.
        """
        return self.get(uri, reserve).content

    def get(self, uri: str, reserve: Reserve = no_limit) -> Object:
        """Read one object as `read` does, with its etag."""
        if is_object(uri):
            return self._get_object(uri, reserve)
        path = _local_path(uri)
        with _explained_file(path), open(path, "rb", opener=_without_waiting) as stream:
            status = os.fstat(stream.fileno())
            _check_regular(path, status)
            self._check_size(path, status.st_size)
            reserve(status.st_size)
            return Object(stream.read(status.st_size), etag_of_file(status))

    def etag(self, uri: str) -> str | None:
        """Return the etag of one object, which is not read; None if it has none.

        Raises:
            FetchError: with its code.
        """
        if not is_object(uri):
            path = _local_path(uri)
            with _explained_file(path):
                status = os.stat(path)
                _check_regular(path, status)
                return etag_of_file(status)
        _, key = _split_object(uri)
        if ODD_KEY.search(key):
            return None
        with _explained_object(uri):
            meta = obstore.head(self._bucket(uri), key)
            return etag_of_object(meta["e_tag"], meta["size"])

    def _get_object(self, uri: str, reserve: Reserve) -> Object:
        bucket, key = _split_object(uri)

        def admit(size: int) -> None:
            self._check_size(uri, size)
            reserve(size)

        with _explained_object(uri):
            if ODD_KEY.search(key):  # the quicker client would ask for another object, or for none
                return Object(self._client(uri).read(bucket, key, admit), None)
            answer = obstore.get(self._bucket(uri), key)
            meta = answer.meta
            admit(meta["size"])
            return Object(bytes(answer.bytes()), etag_of_object(meta["e_tag"], meta["size"]))

    def _bucket(self, uri: str) -> Bucket:
        where = _bucket_uri(uri)
        if (bucket := self._buckets.get(where)) is None:
            bucket = stores.open_bucket(uri, timeout_s=self._timeout_s, retries=self._store_retries)
            self._buckets[where] = bucket
        return bucket

    def _client(self, uri: str) -> Client:
        where = _bucket_uri(uri)
        if (client := self._clients.get(where)) is None:
            client = stores.open_client(uri, timeout_s=self._timeout_s, retries=self._store_retries)
            self._clients[where] = client
        return client

    def _check_size(self, uri: str, size: int) -> None:
        if size > self._max_bytes:
            raise FetchError("too_large", f"{uri}: {size} bytes; at most {self._max_bytes} are read")


def _bucket_uri(uri: str) -> str:
    """Return the URI of an object's bucket, which tells stores apart."""
    scheme, bucket, _ = stores.split(uri)
    return f"{scheme}://{bucket}"


def _may_pass(outcome: object, codes: frozenset[str] = RETRYABLE_CODES) -> bool:
    return isinstance(outcome, FetchError) and outcome.code in codes


def _local_path(uri: str) -> str:
    scheme, separator, rest = uri.partition("://")
    if separator and scheme != "file":
        raise FetchError("unsupported_uri", f"{uri[:200]}: scheme {scheme[:20]!r}; expected {stores.EXPECTED}")
    return rest if separator else uri


def _split_object(uri: str) -> tuple[str, str]:
    """Return the bucket and the key of an object."""
    try:
        _, bucket, key = stores.split(uri)
        uri.encode()
    except (StorageError, UnicodeEncodeError) as error:
        raise FetchError("unsupported_uri", f"{uri[:200]!r}: {error}") from None
    if not key:
        raise FetchError("unsupported_uri", f"{uri[:200]!r}: expected {stores.EXPECTED}")
    return bucket, key


def _check_regular(path: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise FetchError("unreadable", f"{path}: not a regular file")


@contextlib.contextmanager
def _explained_file(path: str) -> Iterator[None]:
    """Turn the errors of a local file into a `FetchError`."""
    try:
        yield
    except FileNotFoundError:
        raise FetchError("not_found", f"{path}: no such file") from None
    except PermissionError:
        raise FetchError("forbidden", f"{path}: permission denied") from None
    except (OSError, ValueError) as error:
        passing = isinstance(error, OSError) and error.errno in RETRYABLE_ERRNOS
        raise FetchError("unreachable" if passing else "unreadable", f"{path}: {error}") from None


@contextlib.contextmanager
def _explained_object(uri: str) -> Iterator[None]:
    """Turn the errors of a store into a `FetchError`."""
    try:
        yield
    except (BaseError, OSError, ValueError) as error:
        raise _explained(uri, error) from None


def _explained(uri: str, error: Exception) -> FetchError:
    """Return the error that explains the failure of a request."""
    text = " ".join(str(error).split()).partition(" Debug source:")[0]
    if isinstance(error, RequestError):
        status, name = error.status, error.name
    else:
        match = STATUS.search(text)
        status, name = (int(match[1]), match[2] or "") if match else (0, "")
    if name in CREDENTIAL_ERRORS or status == 401 or (not status and "credential" in text.lower()):
        return FetchError("bad_credentials", f"{uri}: the store refuses the credentials: {name or text[:300]}")
    if name in NAMED_CODES:
        return FetchError(NAMED_CODES[name], f"{uri}: the store answers {name}")
    if status == 404 or isinstance(error, FileNotFoundError):
        return FetchError("not_found", f"{uri}: no such object")
    if status == 403:
        return FetchError("forbidden", f"{uri}: {name or 'access denied'}; check what the credentials may read")
    if status >= 400:
        code = STATUS_CODES.get(status, "forbidden" if status < 500 else "server_error")
    else:
        code = "timeout" if re.search("timed? ?out", text, re.IGNORECASE) else "unreachable"
    return FetchError(code, f"{uri}: {text[:300]}")


def _without_waiting(path: str, flags: int) -> int:
    """Open a file without waiting; opening a pipe would wait for a writer."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
