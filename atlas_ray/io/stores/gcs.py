"""Google Cloud Storage: `gs://bucket/key`.

Credentials are the application default ones of Google's libraries; if there are none, requests are not signed.
`STORAGE_EMULATOR_HOST` names an emulator, which has to take uploads by Google's XML API.
"""

import contextlib
import functools
import io
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import google.auth
import google.cloud.storage
import obstore
import pyarrow as pa
from google.api_core.exceptions import GoogleAPICallError, RetryError
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
from google.cloud.storage.retry import DEFAULT_RETRY
from obstore.auth.google import GoogleCredentialProvider
from obstore.store import GCSStore
from pyarrow import fs

from atlas_ray.errors import StorageError
from atlas_ray.io.stores import RequestError, bucket_options, endpoint_parts

if TYPE_CHECKING:
    from obstore.store import GCSConfig, GCSCredential

SCOPES = ("https://www.googleapis.com/auth/devstorage.read_write",)
BUFFER = 4 * 1024 * 1024
"""Bytes that are read at a time of a file that is read from its beginning to its end."""
RETRY_S = 120
"""How long a filesystem repeats a request that fails for a passing reason, in seconds."""


class Gcs:
    """The store of `gs://`; see `atlas_ray.io.stores.Store`."""

    def filesystem(self) -> fs.FileSystem:
        """Open the store for tables and documents."""
        return _filesystem(_endpoint(), _credentials() is None)

    def bucket(self, name: str, *, timeout_s: float, retries: int) -> GCSStore:
        """Open a bucket for many objects."""
        endpoint, credentials = _endpoint(), _credentials()
        config: GCSConfig = {"skip_signature": credentials is None}
        if endpoint:
            config["base_url"] = endpoint
        provider = GoogleCredentialProvider(credentials) if credentials else _nobody
        return GCSStore(
            name, config=config, credential_provider=provider, **bucket_options(endpoint, timeout_s, retries)
        )

    def client(self, *, timeout_s: float, retries: int) -> "GcsClient":
        """Open the store for keys that are no paths."""
        return GcsClient(timeout_s, retries)

    def options(self) -> dict[str, str]:
        """Return where the store is, as the storage options of a LanceDB table."""
        endpoint = _endpoint()
        return {"google_base_url": endpoint, "google_skip_signature": "true", "allow_http": "true"} if endpoint else {}


STORE = Gcs()


class GcsClient:
    """A client that takes keys as they are; see `atlas_ray.io.stores.Client`."""

    def __init__(self, timeout_s: float, retries: int) -> None:
        """Find the credentials; nothing is asked yet."""
        self._client: Any = google.cloud.storage.Client(
            project="none",
            credentials=_credentials() or AnonymousCredentials(),  # type: ignore[no-untyped-call]
        )
        self._patience: dict[str, Any] = {
            "timeout": timeout_s,
            "retry": DEFAULT_RETRY.with_timeout(timeout_s * 4) if retries else None,
        }

    def keys(self, bucket: str, prefix: str) -> Iterator[tuple[str, int]]:
        """Yield the key and the size of each object below a prefix."""
        with _explained():
            fields = "items(name,size),nextPageToken"
            for blob in self._client.list_blobs(bucket, prefix=prefix, fields=fields, **self._patience):
                yield blob.name, int(blob.size)

    def read(self, bucket: str, key: str, admit: Callable[[int], None]) -> bytes:
        """Read an object, if its size is admitted."""
        with _explained():
            blob = self._client.bucket(bucket).blob(key)
            blob.reload(**self._patience)
            admit(int(blob.size))
            return bytes(blob.download_as_bytes(raw_download=True, **self._patience))


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Raise the errors of the library as `RequestError`."""
    try:
        yield
    except GoogleAPICallError as error:
        raise RequestError(str(error), int(error.code or 0)) from error
    except (GoogleAuthError, RetryError) as error:
        raise RequestError(
            f"{type(error).__name__}: {error}", 401 if isinstance(error, GoogleAuthError) else 0
        ) from error


def _nobody() -> "GCSCredential":
    """Return a token for who takes requests that are not signed; without it, obstore looks for one when it writes."""
    return {"token": "none", "expires_at": None}


def _credentials() -> Any:
    """Return the application default credentials; None if there are none.

    Raises:
        StorageError: if the file that `GOOGLE_APPLICATION_CREDENTIALS` names cannot be read as credentials.
    """
    named = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS", "")
    if _endpoint() and not named:
        return None
    try:
        return _found(named)
    except DefaultCredentialsError as error:
        if named:
            reason = str(error).splitlines()[0]
            raise StorageError(
                f"GOOGLE_APPLICATION_CREDENTIALS is {named!r}, which is no credentials: {reason}"
            ) from None
        return None


@functools.cache
def _found(_named: str) -> Any:
    return google.auth.default(scopes=SCOPES)[0]


class _Files(fs.GcsFileSystem):  # type: ignore[misc]
    """Google's filesystem, of which Arrow may take a small file to be closed as soon as it is opened."""

    def open_input_file(self, path: str) -> pa.NativeFile:
        """Open a file for reading at any place."""
        return pa.PythonFile(_Object(path), mode="r")

    def open_input_stream(self, path: str, **_: Any) -> pa.NativeFile:
        """Open a file for reading from its beginning, as it is."""
        return pa.PythonFile(io.BufferedReader(_Object(path), BUFFER), mode="r")

    def __reduce__(self) -> tuple[Any, ...]:
        """Keep the class."""
        return _opened, super().__reduce__()[1]


def _opened(options: dict[str, Any]) -> _Files:
    """Open the filesystem with the options that Arrow keeps of it, and with the one that it does not."""
    return _Files(**options | {"retry_time_limit": timedelta(seconds=RETRY_S)})


class _Object(io.RawIOBase):
    """An object as a file that is read; each read is a request."""

    def __init__(self, path: str) -> None:
        bucket, _, self._key = path.partition("/")
        self._bucket = STORE.bucket(bucket, timeout_s=60.0, retries=10)
        self._size = obstore.head(self._bucket, self._key)["size"]
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        end = self._size if size is None or size < 0 else min(self._at + size, self._size)
        if end <= self._at:
            return b""
        data = bytes(obstore.get_range(self._bucket, self._key, start=self._at, end=end))
        self._at = end
        return data

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


@functools.cache
def _filesystem(endpoint: str, anonymous: bool) -> _Files:
    options: dict[str, Any] = {"anonymous": anonymous}
    if endpoint:
        options["scheme"], options["endpoint_override"] = endpoint_parts("STORAGE_EMULATOR_HOST", endpoint)
    return _opened(options)


def _endpoint() -> str:
    """Return the URL of an emulator, or "" for Google itself."""
    endpoint = os.environ.get("STORAGE_EMULATOR_HOST", "")
    if endpoint:
        endpoint_parts("STORAGE_EMULATOR_HOST", endpoint)
    return endpoint
