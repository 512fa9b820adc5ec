"""Where a request's pictures may come from: object storage under the configured folders, and public addresses."""

import asyncio
import logging
import os
import urllib.parse
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from atlas_ray.errors import FetchError, ItemError
from atlas_ray.io import storage
from atlas_ray.io.addresses import is_web
from atlas_ray.io.downloads import Download, Downloader
from atlas_ray.io.objects import ObjectReader, Reserve
from atlas_ray.serving.room import Share
from atlas_ray.serving.settings import MIB, ServeConfig

MAX_URI = 2048
READERS = 16
"""Objects of the store that are read at a time; what nobody waits for any more is read to its end."""
DOWNLOADS = 64
DOWNLOADS_A_HOST = 8
"""Of all; a slow host leaves room for the others."""
INSIDE = {
    "forbidden_address": "is no address of the public internet",
    "forbidden": "may not be read",
    "server_error": "could not be read: the store fails",
    "unreachable": "could not be read: the store does not answer",
    "dns": "names no host",
}
"""Codes whose own messages tell of addresses, endpoints and credentials, and what is said in their place."""
logger = logging.getLogger(__name__)


class Sources:
    """Reads what `image_uri` names, where it may."""

    def __init__(self, config: ServeConfig) -> None:
        """Start the readers; nothing is asked for yet."""
        self._prefixes = [_Prefix(text) for text in config.prefixes()]
        self._timeout_s = config.fetch_timeout_s
        self._pool = ThreadPoolExecutor(READERS, "sources")
        max_bytes = int(config.max_picture_mib * MIB)
        # Somebody waits for the answer: who wants another attempt asks again.
        self._objects = ObjectReader(
            threads=1, timeout_s=config.fetch_timeout_s, attempts=1, store_retries=1, max_bytes=max_bytes
        )
        self._downloads: Downloader | None = None
        if config.http_images:
            self._downloads = Downloader(
                rule=config.address_rule(),
                concurrency=DOWNLOADS,
                per_host_concurrency=DOWNLOADS_A_HOST,
                # Less than a request waits: a host is to be known as silent before nobody asks any more.
                timeout_s=0.8 * config.fetch_timeout_s,
                attempts=1,
                max_bytes=max_bytes,
            )

    async def read(self, uris: Sequence[str], share: Share) -> list[bytes | ItemError]:
        """Read pictures at the same time; each one's bytes or why it could not be had in time.

        Args:
            uris: What a request names.
            share: What the request takes of the memory; what is not kept is given back.

        Raises:
            Problem: where there is no room for all.
        """
        tasks = {uri: asyncio.ensure_future(self._kept(uri, share)) for uri in dict.fromkeys(uris)}
        try:
            done, _ = await asyncio.wait(tasks.values(), timeout=self._timeout_s, return_when=asyncio.FIRST_EXCEPTION)
            if refused := [error for task in done if (error := task.exception())]:
                raise refused[0]
            return [tasks[uri].result() if tasks[uri].done() else self._late(uri) for uri in uris]
        finally:
            for task in tasks.values():
                task.cancel()

    async def _kept(self, uri: str, share: Share) -> bytes | ItemError:
        taken = 0

        def reserve(count: int) -> None:
            nonlocal taken
            share.take(count)
            taken += count

        found = await self._read(uri, reserve)
        if isinstance(found, ItemError):
            share.give_back(taken)
        return found

    async def _read(self, uri: str, reserve: Reserve) -> bytes | ItemError:
        try:
            if not is_web(uri):
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(self._pool, self._read_object, uri, reserve)
            if self._downloads is None:
                raise FetchError("forbidden_uri", f"{uri[:200]!r}: this endpoint takes no http(s) addresses")
            found = await self._downloads.fetch(uri, reserve)
            return found.content if isinstance(found, Download) else _told(uri, found)
        except FetchError as error:
            return _told(uri, error)

    def _late(self, uri: str) -> FetchError:
        return FetchError("timeout", f"{uri[:200]!r} did not come within {self._timeout_s:g} s")

    def _read_object(self, uri: str, reserve: Reserve) -> bytes:
        return self._objects.read(self._allowed(uri), reserve)

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


def _told(uri: str, error: ItemError) -> ItemError:
    """Return what a caller is told: a stranger learns nothing of the network and the store behind."""
    if error.code not in INSIDE:
        return error
    logger.warning("%s", error)
    return FetchError(error.code, f"{uri[:200]!r} {INSIDE[error.code]}")


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
