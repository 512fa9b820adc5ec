"""Files and folders by URI, local or in an object store: the only module that turns a URI into a filesystem and a path.

What a scheme means is said by `atlas_ray.io.stores`.
"""

import contextlib
import functools
import io
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import obstore
import pyarrow as pa
from obstore.exceptions import BaseError
from obstore.store import LocalStore
from pyarrow import fs

from atlas_ray.errors import FULL_DISK, OutageError, StorageError, disk_full, system_number
from atlas_ray.formats.values import printable
from atlas_ray.io import stores
from atlas_ray.io.ahead import ahead
from atlas_ray.io.stores import ODD_SEGMENT as ODD_SEGMENT
from atlas_ray.io.stores import is_object

if TYPE_CHECKING:
    from obstore import WritableFile

PARTIAL = ".partial"
"""The ending of the name of a file that is being written."""


@dataclass(frozen=True)
class Location:
    """A URI, opened: a filesystem and the path on it."""

    uri: str
    filesystem: fs.FileSystem
    path: str


def locate(uri: str) -> Location:
    """Turn a local path, a `file://` URI or an object's URI into a `Location`.

    Raises:
        StorageError: for an empty URI, an unknown scheme, and an object's URI without a bucket or whose key is no path.
    """
    if not uri:
        raise StorageError(f"an empty path was given; expected {stores.EXPECTED}")
    if (readable := printable(uri)) != uri:
        raise StorageError(f"{readable!r} is no path that can be opened: it is not UTF-8, or holds a NUL; rename it")
    if is_object(uri):
        scheme, bucket, path = stores.split_folder(uri)
        return Location(uri, stores.store_of(scheme).filesystem(), f"{bucket}/{path}".rstrip("/"))
    scheme, separator, rest = uri.partition("://")
    if separator and scheme != "file":
        raise StorageError(f"{uri!r}: scheme {scheme!r} is not supported; expected {stores.EXPECTED}")
    path = os.path.abspath(os.path.expanduser(rest if separator else uri))
    return Location(path, fs.LocalFileSystem(), path)


def absolute(uri: str) -> str:
    """Return the URI with a local path made absolute, so that any worker process can open it."""
    if is_object(uri):
        scheme, bucket, path = stores.split_folder(uri)
        return f"{scheme}://{bucket}/{path}".rstrip("/")
    return locate(uri).uri.rstrip("/")


def join(uri: str, *parts: str) -> str:
    """Return the URI of something below another one; its name is taken as it is, for a key may begin with `/`."""
    return "/".join([uri.rstrip("/"), *parts])


def exists(uri: str) -> bool:
    """Tell whether a file or a folder exists."""
    place = locate(uri)
    with named(uri):
        return bool(place.filesystem.get_file_info(place.path).type != fs.FileType.NotFound)


def is_folder(uri: str) -> bool:
    """Tell whether the URI is a folder (in an object store: a prefix that holds objects)."""
    place = locate(uri)
    with named(uri):
        return bool(place.filesystem.get_file_info(place.path).type == fs.FileType.Directory)


def is_special(uri: str) -> bool:
    """Tell whether a local path is a pipe or a device, which has neither a size nor a beginning to go back to."""
    if is_object(uri):
        return False
    path = locate(uri).path
    return os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path))


def size(uri: str) -> int:
    """Return the number of bytes of a file."""
    place = locate(uri)
    with named(uri):
        return int(place.filesystem.get_file_info(place.path).size or 0)


def copy_file(source: str, target: str) -> None:
    """Copy a file within its store, which does it by itself."""
    one, other = locate(source), locate(target)
    with named(source):
        one.filesystem.copy_file(one.path, other.path)


def read_bytes(uri: str) -> bytes:
    """Read a whole file."""
    with open_input(uri) as stream:
        return bytes(stream.read())


def open_input(uri: str) -> pa.NativeFile:
    """Open a file for reading, as a stream of bytes without decompression."""
    place = locate(uri)
    with named(uri):
        return place.filesystem.open_input_stream(place.path, compression=None)


SMALL_BYTES = 1 << 20
"""A table up to this size is read whole, in one request and not in one for each of its parts."""


def read_table(uri: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a Parquet file that this program wrote; of another one, `atlas_ray.formats.tables` is the door."""
    import pyarrow.parquet as pq  # what only reads names and bytes does not wait for it

    place = locate(uri)
    with named(uri), place.filesystem.open_input_file(place.path) as stream:
        whole = stream.size() <= SMALL_BYTES
        return pq.read_table(pa.BufferReader(stream.read_buffer()) if whole else stream, columns=columns)


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
        scheme, bucket, key = stores.split_folder(uri)
        where = tuple(stores.store_of(scheme).options().items())
        with obstore.open_writer(_upload_bucket(scheme, bucket, where), key) as upload:  # no object if the block raises
            yield pa.PythonFile(_Upload(upload), mode="w")


@functools.cache
def _upload_bucket(scheme: str, bucket: str, _where: tuple[tuple[str, str], ...], /) -> stores.Bucket:
    """Open a bucket once for all that is written to it; to look for credentials takes longer than a small file."""
    return stores.open_bucket(f"{scheme}://{bucket}")


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
    """Make a local folder and its parents; in an object store there is nothing to make."""
    place = locate(uri)
    if isinstance(place.filesystem, fs.LocalFileSystem):
        with named(uri):
            os.makedirs(place.path, exist_ok=True)


def files(uri: str, *, suffix: str = "") -> list[str]:
    """Return the URIs of the files directly in a folder, sorted by name; [] if the folder is missing."""
    return list(file_sizes(uri, suffix=suffix))


def file_sizes(uri: str, *, suffix: str = "") -> dict[str, int]:
    """Return the bytes of the files directly in a folder by their URIs, sorted by name; {} if the folder is missing."""
    return {file: size for file, size in _listed(uri, fs.FileType.File).items() if file.endswith(suffix)}


def folders(uri: str) -> list[str]:
    """Return the URIs of the folders directly in a folder, sorted by name; [] if it is missing."""
    return list(_listed(uri, fs.FileType.Directory))


def _listed(uri: str, kind: fs.FileType) -> dict[str, int]:
    place = locate(uri)
    with named(uri):
        infos = place.filesystem.get_file_info(fs.FileSelector(place.path, allow_not_found=True))
    sizes = {info.base_name: info.size or 0 for info in infos if info.type == kind}
    return {join(place.uri, name): sizes[name] for name in sorted(sizes)}


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

    In an object store the relative path is what the key has after the folder and its `/`, with whatever is in it.
    Links are followed, but for those to a folder that they lie in; one that leads nowhere has the size `DANGLING`.
    """
    with named(uri):
        if is_object(uri):
            _, bucket, folder = stores.split_folder(uri)
            prefix = folder and folder + "/"
            for key, size in stores.open_client(uri).keys(bucket, prefix):
                if size or not key.endswith("/"):  # else what a console makes for a folder
                    yield key[len(prefix) :], size
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


class ObjectFolder:
    """A folder, local or in an object store, that many files are written to at the same time, from one event loop."""

    def __init__(self, uri: str) -> None:
        """Open the folder; a local one is made."""
        self.uri = uri
        with named(uri):
            if is_object(uri):
                path = stores.split_folder(uri)[2]
                self._prefix = path and path + "/"
                self._bucket = stores.open_bucket(uri)
            else:
                self._prefix = ""
                self._bucket = LocalStore(locate(uri).path, mkdir=True)

    async def put(self, name: str, data: bytes) -> str:
        """Write a whole file, which appears complete or not at all, and return its URI.

        Raises:
            StorageError: if it cannot be written.
        """
        uri = join(self.uri, name)
        with named(uri):
            await obstore.put_async(self._bucket, self._prefix + name, data, use_multipart=False)
        return uri


def delete_file(uri: str) -> None:
    """Delete a file if it exists."""
    place = locate(uri)
    with named(uri), contextlib.suppress(FileNotFoundError):
        place.filesystem.delete_file(place.path)


def delete_files(uris: Iterable[str]) -> None:
    """Delete files that exist, many at a time."""
    for _ in ahead(delete_file, uris):
        pass


def delete_folder(uri: str) -> None:
    """Delete a folder and all below it if it exists."""
    place = locate(uri)
    if exists(uri):  # Arrow tells a folder that is missing in another way for each store
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
        if isinstance(error, (OSError, BaseError)):
            if (number := system_number(error)) in FULL_DISK:
                raise disk_full(number, self.uri) from error
            text = (str(error).splitlines() or [type(error).__name__])[0]
            raise StorageError(f"{self.uri}: {text}") from error


@contextlib.contextmanager
def in_the_middle(uri: str) -> Iterator[None]:
    """Treat a store that fails in the middle of a run, after earlier writes, as an outage and not as a mistake.

    Raises:
        OutageError: instead of a `StorageError`, if the output is in an object store.
    """
    try:
        yield
    except StorageError as error:
        if is_object(uri):
            raise OutageError(f"{error}; the same command goes on from here") from error
        raise
