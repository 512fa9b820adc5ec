"""Sources of a request's pictures: objects under the configured folders, and public addresses."""

import asyncio
import logging
import os
import urllib.parse
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from atlas_ray.errors import FetchError, ItemError
from atlas_ray.io.addresses import is_web
from atlas_ray.io.downloads import Download, Downloader
from atlas_ray.io.objects import ObjectReader, Reserve
from atlas_ray.io.stores import is_object
from atlas_ray.serving.memory import RequestBudget
from atlas_ray.serving.settings import MIB, ServeConfig

MAX_URI = 2048
"""The longest URI that is accepted, in characters."""
READERS = 16
"""Threads that read objects; each finishes its read even if nobody waits for it any more."""
MAX_DOWNLOADS = 64
"""Downloads that run at a time."""
MAX_DOWNLOADS_PER_HOST = 8
"""Downloads from one host that run at a time, fewer than of all hosts, so that a slow one leaves room."""
PUBLIC_MESSAGES = {
    "forbidden_address": "is no address of the public internet",
    "forbidden": "may not be read",
    "server_error": "could not be read: the store fails",
    "unreachable": "could not be read: the store does not answer",
    "dns": "names no host",
}
"""Messages for callers, by error code, if the error's own message names addresses, endpoints or credentials."""
logger = logging.getLogger(__name__)


class Sources:
    """Reads the pictures that `image_uri` names, from places that the settings allow."""

    def __init__(self, config: ServeConfig) -> None:
        """Start the readers; nothing is read yet."""
        self._prefixes = [_Prefix(text) for text in config.prefixes()]
        self._timeout_s = config.fetch_timeout_s
        self._pool = ThreadPoolExecutor(READERS, "sources")
        max_bytes = int(config.max_picture_mib * MIB)
        # One attempt only: the caller waits, and can send the request again.
        self._objects = ObjectReader(
            threads=1, timeout_s=config.fetch_timeout_s, attempts=1, store_retries=1, max_bytes=max_bytes
        )
        self._downloads: Downloader | None = None
        if config.http_images:
            self._downloads = Downloader(
                rule=config.address_rule(),
                concurrency=MAX_DOWNLOADS,
                per_host_concurrency=MAX_DOWNLOADS_PER_HOST,
                # Shorter than a request waits, so that a silent host is known as one before the request ends.
                timeout_s=0.8 * config.fetch_timeout_s,
                attempts=1,
                max_bytes=max_bytes,
            )

    async def read(self, uris: Sequence[str], budget: RequestBudget) -> list[bytes | ItemError]:
        """Read pictures concurrently; return the bytes of each, or the error.

        Args:
            uris: The URIs of a request.
            budget: The memory of the request; a picture that fails gives its part back.

        Raises:
            Problem: if the pictures do not fit in the budget.
        """
        tasks = {uri: asyncio.ensure_future(self._budgeted(uri, budget)) for uri in dict.fromkeys(uris)}
        try:
            done, _ = await asyncio.wait(tasks.values(), timeout=self._timeout_s, return_when=asyncio.FIRST_EXCEPTION)
            if refused := [error for task in done if (error := task.exception())]:
                raise refused[0]
            return [tasks[uri].result() if tasks[uri].done() else self._late(uri) for uri in uris]
        finally:
            for task in tasks.values():
                task.cancel()

    async def _budgeted(self, uri: str, budget: RequestBudget) -> bytes | ItemError:
        reserved = 0

        def reserve(count: int) -> None:
            nonlocal reserved
            budget.reserve(count)
            reserved += count

        content = await self._read(uri, reserve)
        if isinstance(content, ItemError):
            budget.release(reserved)
        return content

    async def _read(self, uri: str, reserve: Reserve) -> bytes | ItemError:
        try:
            if not is_web(uri):
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(self._pool, self._read_object, uri, reserve)
            if self._downloads is None:
                raise FetchError("forbidden_uri", f"{uri[:200]!r}: this endpoint takes no http(s) addresses")
            download = await self._downloads.fetch(uri, reserve)
            return download.content if isinstance(download, Download) else _public_error(uri, download)
        except FetchError as error:
            return _public_error(uri, error)

    def _late(self, uri: str) -> FetchError:
        return FetchError("timeout", f"{uri[:200]!r} did not come within {self._timeout_s:g} s")

    def _read_object(self, uri: str, reserve: Reserve) -> bytes:
        return self._objects.read(self._allowed(uri), reserve)

    def _allowed(self, uri: str) -> str:
        """Return the location that a URI names under one of the folders.

        Raises:
            FetchError: forbidden_uri. The message does not reveal whether such an object exists.
        """
        if 0 < len(uri) <= MAX_URI and uri.isprintable():
            for prefix in self._prefixes:
                if location := prefix.match(uri):
                    return location
        raise FetchError("forbidden_uri", f"{uri[:200]!r} is not below a folder that this endpoint reads")


def _public_error(uri: str, error: ItemError) -> ItemError:
    """Return the error for the caller, which reveals nothing of the network and the store behind."""
    if error.code not in PUBLIC_MESSAGES:
        return error
    logger.warning("%s", error)
    return FetchError(error.code, f"{uri[:200]!r} {PUBLIC_MESSAGES[error.code]}")


class _Prefix:
    """A folder that may be read from."""

    def __init__(self, uri: str) -> None:
        self._in_store = is_object(uri)
        self._folder = uri.rstrip("/") + "/" if self._in_store else os.path.realpath(uri.removeprefix("file://"))

    def match(self, uri: str) -> str | None:
        """Return the location that a URI names, if it lies in this folder."""
        parts = urllib.parse.unquote(uri).replace("\\", "/").split("/")
        if ".." in parts or "." in parts or "\0" in uri:
            return None
        if self._in_store:
            return uri if uri.startswith(self._folder) and len(uri) > len(self._folder) else None
        path = uri.removeprefix("file://")
        if not os.path.isabs(path):
            return None
        # A link inside the folder may lead out of it.
        real = os.path.realpath(path)
        return real if real.startswith(self._folder + os.sep) else None
