"""The stage of a fetch that downloads and stores pictures: rows of pictures in, one outcome for each out."""

import asyncio
import hashlib
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from atlas_ray.errors import ItemError, PictureError
from atlas_ray.io import storage
from atlas_ray.io.addresses import is_web
from atlas_ray.io.downloads import EXTENSIONS, Download, Downloader
from atlas_ray.modalities.limits import DEFAULT_LIMITS, PictureLimits
from atlas_ray.modalities.picture_files import open_picture

JOURNAL = "fetched"
"""The folder of a fetch's output that holds the journal of its outcomes."""

LARGE_BYTES = 256 * 1024
"""The size from which a picture is checked in a thread, so that a header that is slow to read does not block others."""

OUTCOMES = pa.schema(
    [
        ("image_id", pa.int64()),
        ("product_id", pa.string()),
        ("image_uri", pa.string()),
        ("stored_uri", pa.string()),
        ("sha256", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("bytes", pa.int64()),
        ("error_code", pa.string()),
        ("message", pa.string()),
        ("asked_at", pa.timestamp("us", tz="UTC")),
    ]
)
"""Outcomes: one row for each request of a picture; the first three columns are those of the source catalogue.

`bytes` is null for a picture that was in storage already; `error_code` for one that could be had.
"""


@dataclass(frozen=True)
class Stored:
    """A picture in storage, and what its header says."""

    stored_uri: str
    sha256: str
    width: int
    height: int
    bytes: int


class PictureFetcher:
    """A downloader of pictures into a folder, each under the hash of its content."""

    def __init__(self, output: str, downloader: Downloader, limits: PictureLimits = DEFAULT_LIMITS) -> None:
        self._downloader = downloader
        self._limits = limits
        self._large = ThreadPoolExecutor(2, thread_name_prefix="large-pictures")
        self._pictures = storage.ObjectFolder(storage.join(output, "pictures"))

    def fetch(self, images: pa.Table) -> pa.Table:
        """Return the `OUTCOMES` of rows of an images table; what is no http(s) URL is carried over."""
        rows = images.to_pylist()
        web = [row for row in rows if is_web(row["image_uri"])]
        downloads = dict(
            zip(
                (row["image_id"] for row in web),
                self._downloader.map([row["image_uri"] for row in web], self._store),
                strict=True,
            )
        )
        now = datetime.now(UTC)
        outcomes = [self._outcome(row, downloads.get(row["image_id"])) | {"asked_at": now} for row in rows]
        return pa.Table.from_pylist(outcomes, schema=OUTCOMES)

    def _outcome(self, row: dict[str, Any], result: Stored | ItemError | None) -> dict[str, Any]:
        key = {name: row[name] for name in ("image_id", "product_id", "image_uri")}
        if isinstance(result, ItemError):
            return key | {"error_code": result.code, "message": result.message[:500]}
        if isinstance(result, Stored):
            return key | vars(result)
        return key | {"stored_uri": row["image_uri"]} | {name: row[name] for name in ("sha256", "width", "height")}

    async def _store(self, download: Download) -> Stored:
        if len(download.content) < LARGE_BYTES:
            (width, height), digest = _examine(download, self._limits)
        else:
            loop = asyncio.get_running_loop()
            (width, height), digest = await loop.run_in_executor(self._large, _examine, download, self._limits)
        name = f"{digest[:2]}/{digest}.{EXTENSIONS[download.kind]}"
        # To write what is there already costs no more than to ask for it, and two may write it at a time.
        with storage.in_the_middle(self._pictures.uri):
            uri = await self._pictures.put(name, download.content)
        return Stored(uri, digest, width, height, len(download.content))


def _examine(download: Download, limits: PictureLimits) -> tuple[tuple[int, int], str]:
    return picture_size(download, limits), hashlib.sha256(download.content).hexdigest()


def picture_size(download: Download, limits: PictureLimits = DEFAULT_LIMITS) -> tuple[int, int]:
    """Return width and height in pixels as the header has them; nothing is decoded.

    Raises:
        PictureError: with a code of `open_picture`.
    """
    try:
        with open_picture(download.content, limits) as image:
            return image.size
    except PictureError as error:
        raise PictureError(error.code, f"{download.final_url[:200]}: {error.message[:200]}") from None


def write_outcomes(output: str, outcomes: pa.Table) -> None:
    """Add outcomes to the journal: a file that appears whole or not at all, and so commits them."""
    with storage.in_the_middle(output):
        storage.write_table(storage.join(output, JOURNAL, f"{uuid.uuid4().hex}.parquet"), outcomes)
