"""Files and folders by URI, local or in S3: the only module that turns a URI into a filesystem and a path."""

import contextlib
import functools
import io
import os
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
import obstore
import pyarrow as pa
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from obstore.auth.boto3 import Boto3CredentialProvider
from obstore.exceptions import BaseError
from obstore.store import LocalStore, S3Store
from pyarrow import fs

from atlas_ray.errors import FULL_DISK, OutageError, StorageError, disk_full, system_number
from atlas_ray.formats.values import printable

if TYPE_CHECKING:
    from obstore import WritableFile
    from obstore.store import S3Config

BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
ODD_SEGMENT = re.compile(r"(^|/)\.{0,2}(/|$)")
"""A pattern for a part of a key that a path would lose: an empty one, `.` or `..`."""
PARTIAL = ".partial"
"""The ending of the name of a file that is being written."""


@dataclass(frozen=True)
class Location:
    """A URI, opened: a filesystem and the path on it."""

    uri: str
    filesystem: fs.FileSystem
    path: str


@functools.cache
def _s3(endpoint: str, region: str) -> fs.S3FileSystem:
    options: dict[str, object] = {
        "connect_timeout": 10.0,
        "request_timeout": 60.0,
        "retry_strategy": fs.AwsStandardS3RetryStrategy(max_attempts=10),
    }
    if endpoint:
        parts = urlsplit(endpoint)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise StorageError(f"AWS_ENDPOINT_URL is {endpoint!r}; expected http://HOST:PORT or https://HOST")
        options["endpoint_override"] = parts.netloc + parts.path.rstrip("/")
        options["scheme"] = parts.scheme
    if region:
        options["region"] = region
    return fs.S3FileSystem(**options)


def is_s3(uri: str) -> bool:
    """Tell whether a URI names an object in S3."""
    return uri.startswith("s3://")


def split_s3(uri: str) -> tuple[str, str]:
    """Return the bucket and the key of an `s3://` URI; a key is opaque, and may hold `//`, `../`, `?` or `%2F`.

    Raises:
        StorageError: for a URI without a bucket.
    """
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not BUCKET.fullmatch(bucket):
        raise StorageError(f"{uri!r} names no bucket; expected s3://bucket/key")
    return bucket, key


def _s3_path(uri: str) -> str:
    """Return the bucket and the key of a file or folder of ours as one path.

    Raises:
        StorageError: for a key that the path would change, so that another object would be read or written.
    """
    bucket, key = split_s3(uri)
    path = key.removesuffix("/")
    if key and ODD_SEGMENT.search(path):
        raise StorageError(f"{uri!r} has a folder or file name that is empty, '.' or '..'; name it without")
    return f"{bucket}/{path}".rstrip("/")


def s3_endpoint() -> str:
    """Return the endpoint of an S3-compatible service, or "" for AWS itself."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""


def s3_region() -> str:
    """Return the region from the environment; behind an endpoint of its own any name will do."""
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or ""
    return region or ("us-east-1" if s3_endpoint() else "")


def locate(uri: str) -> Location:
    """Turn a local path, a `file://` or an `s3://bucket/key` URI into a `Location`.

    An S3-compatible endpoint comes from `AWS_ENDPOINT_URL`, credentials from the usual AWS chain.

    Raises:
        StorageError: for an empty URI, another scheme, and an S3 URI without a bucket or whose key is no path.
    """
    if not uri:
        raise StorageError("an empty path was given; expected a local path or s3://bucket/key")
    if (readable := printable(uri)) != uri:
        raise StorageError(f"{readable!r} is no path that can be opened: it is not UTF-8, or holds a NUL; rename it")
    if is_s3(uri):
        path = _s3_path(uri)
        return Location(uri, _s3(s3_endpoint(), s3_region()), path)
    scheme, separator, rest = uri.partition("://")
    if separator and scheme != "file":
        raise StorageError(f"{uri!r}: scheme {scheme!r} is not supported; use a local path or s3://")
    path = os.path.abspath(os.path.expanduser(rest if separator else uri))
    return Location(path, fs.LocalFileSystem(), path)


def absolute(uri: str) -> str:
    """Return the URI with a local path made absolute, so that any worker process can open it."""
    return f"s3://{_s3_path(uri)}" if is_s3(uri) else locate(uri).uri.rstrip("/")


def join(uri: str, *parts: str) -> str:
    """Return the URI of something below another one; its name is taken as it is, for a key may begin with `/`."""
    return "/".join([uri.rstrip("/"), *parts])


def exists(uri: str) -> bool:
    """Tell whether a file or a folder exists."""
    place = locate(uri)
    with named(uri):
        return bool(place.filesystem.get_file_info(place.path).type != fs.FileType.NotFound)


def is_folder(uri: str) -> bool:
    """Tell whether the URI is a folder (in S3: a prefix that holds objects)."""
    place = locate(uri)
    with named(uri):
        return bool(place.filesystem.get_file_info(place.path).type == fs.FileType.Directory)


def is_special(uri: str) -> bool:
    """Tell whether a local path is a pipe or a device, which has neither a size nor a beginning to go back to."""
    if is_s3(uri):
        return False
    path = locate(uri).path
    return os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path))


def read_bytes(uri: str) -> bytes:
    """Read a whole file."""
    with open_input(uri) as stream:
        return bytes(stream.read())


def open_input(uri: str) -> pa.NativeFile:
    """Open a file for reading, as a stream of bytes without decompression."""
    place = locate(uri)
    with named(uri):
        return place.filesystem.open_input_stream(place.path, compression=None)


def read_table(uri: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a Parquet file that this program wrote; of another one, `atlas_ray.formats.tables` is the door."""
    import pyarrow.parquet as pq  # what only reads names and bytes does not wait for it

    place = locate(uri)
    with named(uri), place.filesystem.open_input_file(place.path) as stream:
        return pq.read_table(stream, columns=columns)


def write_bytes(uri: str, data: bytes) -> None:
    """Write a whole file; it appears complete or not at all."""
    with writing(uri) as stream:
        stream.write(data)


def write_lines(uri: str, lines: Iterable[str]) -> None:
    """Write a text file piece by piece, each with its own line end; it appears complete or not at all."""
    with writing(uri) as stream:
        for line in lines:
            stream.write(line.encode())


def write_table(uri: str, table: pa.Table, **options: Any) -> None:
    """Write a Parquet file; it appears complete or not at all.

    Args:
        uri: The file to write.
        table: The rows.
        options: Options of `pyarrow.parquet.write_table`.
    """
    import pyarrow.parquet as pq  # what only reads names and bytes does not wait for it

    with writing(uri) as stream:
        pq.write_table(table, stream, **options)


@contextlib.contextmanager
def writing(uri: str) -> Iterator[pa.NativeFile]:
    """Open a file for writing, which appears complete when the block ends, or not at all if the block raises.

    Raises:
        DiskFullError: if the disk is full.
        StorageError: if it cannot be written for another reason.
    """
    place = locate(uri)
    with named(uri):
        if isinstance(place.filesystem, fs.LocalFileSystem):
            os.makedirs(os.path.dirname(place.path), exist_ok=True)
            partial = _partial(place.path)
            try:
                with pa.OSFile(partial, "wb") as stream:
                    yield stream
                os.replace(partial, place.path)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(partial)
                raise
            return
        bucket, _, key = place.path.partition("/")
        store = _upload_store(bucket, s3_endpoint(), s3_region())
        with obstore.open_writer(store, key) as upload:  # which makes no object if the block raises
            yield pa.PythonFile(_Upload(upload), mode="w")


@functools.cache
def _upload_store(bucket: str, _endpoint: str, _region: str, /) -> S3Store:
    """Open a bucket once for all that is written to it; to look for credentials takes longer than a small file."""
    return s3_store(bucket)


class _Upload(io.RawIOBase):
    """An upload as a file of Python; that a writer closes it does not end it."""

    def __init__(self, upload: "WritableFile") -> None:
        self._upload = upload
        self._written = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        view = memoryview(data).cast("B")  # Arrow's buffers say that their bytes are signed
        self._upload.write(view)
        self._written += len(view)
        return len(view)

    def tell(self) -> int:
        return self._written


def _partial(path: str) -> str:
    """Return a name beside a file that no other process or thread takes, and no reader of the folder sees."""
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}.{os.getpid()}.{threading.get_ident()}{PARTIAL}")


def make_folder(uri: str) -> None:
    """Make a local folder and its parents; in S3 there is nothing to make."""
    place = locate(uri)
    if isinstance(place.filesystem, fs.LocalFileSystem):
        with named(uri):
            os.makedirs(place.path, exist_ok=True)


def files(uri: str, *, suffix: str = "") -> list[str]:
    """Return the URIs of the files directly in a folder, sorted by name; [] if the folder is missing."""
    place = locate(uri)
    with named(uri):
        infos = place.filesystem.get_file_info(fs.FileSelector(place.path, allow_not_found=True))
    names = sorted(
        info.base_name for info in infos if info.type == fs.FileType.File and info.base_name.endswith(suffix)
    )
    return [join(place.uri, name) for name in names]


HIDDEN_FOLDERS = ("__MACOSX", "@eaDir")
"""Folders that systems add for thumbnails and the like; those whose name begins with a dot are hidden, too."""


def is_hidden(name: str) -> bool:
    """Tell whether a relative path is of a hidden file, or of one in a hidden folder; `.` and `..` hide nothing."""
    return any((part.startswith(".") and part not in (".", "..")) or part in HIDDEN_FOLDERS for part in name.split("/"))


DANGLING = -1
"""The size that `walk` gives for a link whose target does not exist."""


def _leads_back(root: str, folder: str, name: str) -> bool:
    """Tell whether a folder is a link to one that it lies in."""
    path = os.path.join(folder, name)
    if not os.path.islink(path):
        return False
    target = os.path.realpath(path)
    while folder != root and os.path.realpath(folder) != target:
        folder = os.path.dirname(folder)
    return os.path.realpath(folder) == target


def _fail(error: OSError) -> None:
    raise error  # a folder that cannot be read would be passed over


def walk(uri: str) -> Iterator[tuple[str, int]]:
    """Yield (path relative to the URI, bytes) of every file below it, streaming.

    In S3 the relative path is what the key has after the folder and its `/`, with whatever is in it.
    Links are followed, but for those to a folder that they lie in; one that leads nowhere has the size `DANGLING`.
    """
    with named(uri):
        if is_s3(uri):
            bucket, _, folder = _s3_path(uri).partition("/")
            prefix = folder and folder + "/"
            for page in s3_client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
                for item in page.get("Contents", ()):
                    if item["Size"] or not item["Key"].endswith("/"):  # else what a console makes for a folder
                        yield item["Key"][len(prefix) :], int(item["Size"])
        else:
            root = locate(uri).path
            for folder, below, names in os.walk(root, onerror=_fail, followlinks=True):
                below[:] = sorted(name for name in below if not _leads_back(root, folder, name))
                for name in sorted(names):
                    path = os.path.join(folder, name)
                    if os.path.isfile(path):
                        yield os.path.relpath(path, root), os.path.getsize(path)
                    elif os.path.islink(path):
                        yield os.path.relpath(path, root), DANGLING


def s3_store(bucket: str, *, timeout_s: float = 30.0, retries: int = 8) -> S3Store:
    """Open a bucket for many objects: one request each, retried with backoff.

    Credentials come from the usual AWS chain; if it finds none, requests are not signed.
    """
    session = boto3.Session()
    signed = session.get_credentials() is not None
    config: S3Config = {"virtual_hosted_style_request": False, "skip_signature": not signed}
    if endpoint := s3_endpoint():
        config["endpoint"] = endpoint
    if region := s3_region():
        config["region"] = region
    return S3Store(
        bucket,
        config=config,
        client_options={
            "allow_http": endpoint.startswith("http://"),
            "timeout": timedelta(seconds=timeout_s),
            "connect_timeout": timedelta(seconds=min(10.0, timeout_s)),
        },
        retry_config={
            "max_retries": retries,
            "backoff": {
                "init_backoff": timedelta(milliseconds=100),
                "max_backoff": timedelta(seconds=5),
                "base": 2,
            },
            "retry_timeout": timedelta(seconds=timeout_s * 4),
        },
        credential_provider=Boto3CredentialProvider(session) if signed else None,
    )


def s3_client(*, timeout_s: float = 30.0, retries: int = 8) -> Any:
    """Open the service for what `s3_store` cannot do: listing and reading keys that are no paths."""
    session = boto3.Session()
    config = Config(
        connect_timeout=min(10.0, timeout_s),
        read_timeout=timeout_s,
        max_pool_connections=64,
        retries={"mode": "standard", "total_max_attempts": retries + 1},
        s3={"addressing_style": "path"},
        **({} if session.get_credentials() else {"signature_version": UNSIGNED}),
    )
    return session.client("s3", endpoint_url=s3_endpoint() or None, region_name=s3_region() or None, config=config)


class ObjectFolder:
    """A folder, local or in S3, that many files are written to at the same time, from one event loop."""

    def __init__(self, uri: str) -> None:
        """Open the folder; a local one is made."""
        self.uri = uri
        with named(uri):
            if is_s3(uri):
                bucket, _, self._prefix = f"{_s3_path(uri)}/".partition("/")
                self._store: S3Store | LocalStore = s3_store(bucket)
            else:
                self._prefix = ""
                self._store = LocalStore(locate(uri).path, mkdir=True)

    async def put(self, name: str, data: bytes) -> str:
        """Write a whole file, which appears complete or not at all, and return its URI.

        Raises:
            StorageError: if it cannot be written.
        """
        uri = join(self.uri, name)
        with named(uri):
            await obstore.put_async(self._store, self._prefix + name, data, use_multipart=False)
        return uri


def delete_file(uri: str) -> None:
    """Delete a file if it exists."""
    place = locate(uri)
    with named(uri), contextlib.suppress(FileNotFoundError):
        place.filesystem.delete_file(place.path)


def delete_folder(uri: str) -> None:
    """Delete a folder and all below it if it exists."""
    place = locate(uri)
    with named(uri), contextlib.suppress(FileNotFoundError):
        place.filesystem.delete_dir(place.path)


class named:  # noqa: N801 - reads as a statement
    """Turn a filesystem's errors into a `StorageError` that names the URI, or a `DiskFullError`."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, FileNotFoundError):
            raise StorageError(f"{self.uri}: no such file or folder") from error
        if isinstance(error, (OSError, BaseError, BotoCoreError, ClientError)):
            if (number := system_number(error)) in FULL_DISK:
                raise disk_full(number, self.uri) from error
            text = (str(error).splitlines() or [type(error).__name__])[0]
            raise StorageError(f"{self.uri}: {text}") from error


@contextlib.contextmanager
def in_the_middle(uri: str) -> Iterator[None]:
    """Treat a store that fails in the middle of a run, after earlier writes, as an outage and not as a mistake.

    Raises:
        OutageError: instead of a `StorageError`, if the output is in S3.
    """
    try:
        yield
    except StorageError as error:
        if is_s3(uri):
            raise OutageError(f"{error}; the same command goes on from here") from error
        raise
