"""The stage that reads the bytes of pictures."""

import hashlib
import time
from typing import Any

import pyarrow as pa

from atlas_ray.errors import ItemError
from atlas_ray.io.objects import ObjectReader
from atlas_ray.runtime.joined import NO_PICTURE
from atlas_ray.runtime.outcomes import with_errors


class Fetch:
    """Reads the bytes of each picture."""

    def __init__(self, board: Any, *, threads: int, timeout_s: float, outage_s: float, read: bool) -> None:
        self._board = board
        self._read = read
        # Few tries, for what is a matter of seconds: where it lasts longer the reader waits for the store itself.
        self._reader = ObjectReader(
            threads=threads,
            timeout_s=timeout_s,
            attempts=3,
            store_retries=4,
            outage_s=outage_s,
            say=board.say.remote,
        )

    def __call__(self, table: pa.Table) -> pa.Table:
        """Add `bytes`, null where they could not be had or there is no picture, and the error columns."""
        started = time.time()
        uris = table["image_uri"].to_pylist()
        there = [row for row, uri in enumerate(uris) if self._read and uri != NO_PICTURE]
        contents: list[bytes | ItemError | None] = [None] * len(uris)
        for row, content in zip(there, self._reader.read_many([uris[row] for row in there]), strict=True):
            contents[row] = content
        self._board.span.remote("fetch", started, time.time())
        found = [content if isinstance(content, bytes) else None for content in contents]
        errors = {i: content for i, content in enumerate(contents) if isinstance(content, ItemError)}
        sha256 = [hashlib.sha256(content).hexdigest() if content is not None else None for content in found]
        out = table.append_column("sha256", pa.array(sha256, pa.string()))
        out = out.append_column("bytes", pa.array(found, pa.large_binary()))
        return with_errors(out, "fetch", errors)
