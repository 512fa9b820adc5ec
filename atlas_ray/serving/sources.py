"""Where a request's pictures may come from: object storage under the configured folders, and public addresses."""

import asyncio
import os
import urllib.parse
from collections.abc import Sequence

from atlas_ray import storage
from atlas_ray.downloads import Download, Downloader
from atlas_ray.errors import FetchError, ItemError
from atlas_ray.objects import ObjectReader
from atlas_ray.serving.config import MIB, ServeConfig

MAX_URI = 2048
READERS = 32


class Sources:
    """Reads what `image_uri` names, where it may."""

    def __init__(self, config: ServeConfig) -> None:
        """Start the readers; nothing is asked for yet."""
        self._prefixes = [_Prefix(text) for text in config.prefixes()]
        max_bytes = int(config.max_picture_mib * MIB)
        self._objects = ObjectReader(threads=READERS, timeout_s=config.fetch_timeout_s, attempts=2, max_bytes=max_bytes)
        self._downloads: Downloader | None = None
        if config.http_images:
            self._downloads = Downloader(
                rule=config.address_rule(),
                concurrency=READERS,
                timeout_s=config.fetch_timeout_s,
                attempts=1,
                max_bytes=max_bytes,
            )

    async def read(self, uris: Sequence[str]) -> list[bytes | ItemError]:
        """Read pictures at the same time; each one's bytes or why it could not be had."""
        return list(await asyncio.gather(*(asyncio.to_thread(self._read, uri) for uri in uris)))

    def _read(self, uri: str) -> bytes | ItemError:
        try:
            if uri.partition("://")[0].lower() in ("http", "https"):
                return self._download(uri)
            return self._objects.read_many([self._allowed(uri)])[0]
        except FetchError as error:
            return error

    def _download(self, uri: str) -> bytes | ItemError:
        if self._downloads is None:
            raise FetchError("forbidden_uri", f"{uri[:200]!r}: this endpoint takes no http(s) addresses")
        (found,) = self._downloads.fetch_many([uri])
        return found.content if isinstance(found, Download) else found

    def _allowed(self, uri: str) -> str:
        """Return a URI that lies under one of the folders.

        Raises:
            FetchError: forbidden_uri. The message does not say whether there is such an object.
        """
        if 0 < len(uri) <= MAX_URI and uri.isprintable():
            for prefix in self._prefixes:
                if found := prefix.match(uri):
                    return found
        raise FetchError("forbidden_uri", f"{uri[:200]!r} is not below a folder that this endpoint reads")


class _Prefix:
    """A folder that may be read from."""

    def __init__(self, uri: str) -> None:
        self._is_s3 = storage.is_s3(uri)
        self._folder = uri.rstrip("/") + "/" if self._is_s3 else os.path.realpath(uri.removeprefix("file://"))

    def match(self, uri: str) -> str | None:
        """Return what a URI names where that lies in this folder."""
        parts = urllib.parse.unquote(uri).replace("\\", "/").split("/")
        if ".." in parts or "." in parts or "\0" in uri:
            return None
        if self._is_s3:
            return uri if uri.startswith(self._folder) and len(uri) > len(self._folder) else None
        path = uri.removeprefix("file://")
        if not os.path.isabs(path):
            return None
        # A link inside the folder may lead out of it.
        real = os.path.realpath(path)
        return real if real.startswith(self._folder + os.sep) else None
