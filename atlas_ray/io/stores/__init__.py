"""The object stores by the scheme of their URIs: the only place that says what `s3://`, `gs://` and `az://` mean."""

import importlib
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, Protocol, TypeAlias
from urllib.parse import urlsplit

from obstore.store import ObjectStore
from pyarrow import fs

from atlas_ray.errors import StorageError

MODULES = {
    "s3": "atlas_ray.io.stores.s3",
    "gs": "atlas_ray.io.stores.gcs",
    "az": "atlas_ray.io.stores.azure",
}
"""The module of each scheme; it is imported when a URI of that scheme is first opened."""
_PLACES = ["a local path", *(f"{scheme}://bucket/key" for scheme in MODULES)]
EXPECTED = f"{', '.join(_PLACES[:-1])} or {_PLACES[-1]}"
"""What a message says of the paths that are taken."""
Bucket: TypeAlias = ObjectStore
"""A bucket as obstore opens it, for keys that are paths."""
BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
ODD_SEGMENT = re.compile(r"(^|/)\.{0,2}(/|$)")
"""A pattern for a part of a key that a path would lose: an empty one, `.` or `..`."""
CONNECT_S = 10.0
"""The longest time limit of a connection, in seconds."""


class RequestError(OSError):
    """A request that a store refused or did not answer.

    Attributes:
        status: The HTTP status; 0 if there was no answer.
        name: The store's own name of the error.
    """

    def __init__(self, message: str, status: int = 0, name: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.name = name


class Client(Protocol):
    """A client that takes keys as they are, for what a filesystem and a `Bucket` cannot do; they take paths.

    Its methods raise `RequestError`.
    """

    def keys(self, bucket: str, prefix: str) -> Iterator[tuple[str, int]]:
        """Yield the key and the size in bytes of each object whose key begins with a prefix."""
        ...

    def read(self, bucket: str, key: str, admit: Callable[[int], None]) -> bytes:
        """Read an object; `admit` is called with its size before, and raises to refuse it."""
        ...


class Store(Protocol):
    """A kind of object store; where it is and who may use it comes from the environment."""

    def filesystem(self) -> fs.FileSystem:
        """Open the store for tables and documents; paths are `bucket/key`."""
        ...

    def bucket(self, name: str, *, timeout_s: float, retries: int) -> Bucket:
        """Open a bucket for many objects: one request each, retried with backoff."""
        ...

    def client(self, *, timeout_s: float, retries: int) -> Client:
        """Open the store for keys that are no paths."""
        ...

    def options(self) -> dict[str, str]:
        """Return where the store is, as the storage options of a LanceDB table."""
        ...


def is_object(uri: str) -> bool:
    """Tell whether a URI names an object, a folder or a bucket in an object store."""
    scheme, separator, _ = uri.partition("://")
    return bool(separator) and scheme in MODULES


def split(uri: str) -> tuple[str, str, str]:
    """Return the scheme, the bucket and the key of an object's URI.

    A key is opaque, and may hold `//`, `../`, `?` or `%2F`.

    Raises:
        StorageError: for a URI without a bucket.
    """
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if not BUCKET.fullmatch(bucket):
        raise StorageError(f"{uri!r} names no bucket; expected {scheme}://bucket/key")
    return scheme, bucket, key


def split_folder(uri: str) -> tuple[str, str, str]:
    """Return the scheme, the bucket and the path of a file or folder of ours.

    Raises:
        StorageError: for a URI without a bucket, and for a key that a path would change, so that another object would
            be read or written.
    """
    scheme, bucket, key = split(uri)
    path = key.removesuffix("/")
    if key and ODD_SEGMENT.search(path):
        raise StorageError(f"{uri!r} has a folder or file name that is empty, '.' or '..'; name it without")
    return scheme, bucket, path


def store_of(scheme: str) -> Store:
    """Return the store of a scheme of `MODULES`."""
    store: Store = importlib.import_module(MODULES[scheme]).STORE
    return store


def open_bucket(uri: str, *, timeout_s: float = 30.0, retries: int = 8) -> Bucket:
    """Open the bucket of a URI for many objects."""
    scheme, bucket, _ = split(uri)
    return store_of(scheme).bucket(bucket, timeout_s=timeout_s, retries=retries)


def open_client(uri: str, *, timeout_s: float = 30.0, retries: int = 8) -> Client:
    """Open the store of a URI for keys that are no paths."""
    return store_of(split(uri)[0]).client(timeout_s=timeout_s, retries=retries)


def bucket_options(endpoint: str, timeout_s: float, retries: int) -> dict[str, Any]:
    """Return the options of a `Bucket` that do not depend on its kind."""
    return {
        "client_options": {
            "allow_http": endpoint.startswith("http://"),
            "timeout": timedelta(seconds=timeout_s),
            "connect_timeout": timedelta(seconds=min(CONNECT_S, timeout_s)),
        },
        "retry_config": {
            "max_retries": retries,
            "backoff": {
                "init_backoff": timedelta(milliseconds=100),
                "max_backoff": timedelta(seconds=5),
                "base": 2,
            },
            "retry_timeout": timedelta(seconds=timeout_s * 4),
        },
    }


def endpoint_parts(variable: str, endpoint: str) -> tuple[str, str]:
    """Return the scheme of an endpoint, and its host with port and path.

    Args:
        variable: The environment variable that names it.
        endpoint: Its URL.

    Raises:
        StorageError: if it is no http(s) URL.
    """
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise StorageError(f"{variable} is {endpoint!r}; expected http://HOST:PORT or https://HOST")
    return parts.scheme, parts.netloc + parts.path.rstrip("/")
