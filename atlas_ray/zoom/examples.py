"""The zoom filter's examples, decoded and in memory: a square of 150 px takes 67 KB."""

import hashlib
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from torch import Tensor

from atlas_ray.errors import CatalogError, FetchError, PictureError, tell
from atlas_ray.io.objects import ObjectReader
from atlas_ray.modalities.limits import DEFAULT_LIMITS, PictureLimits
from atlas_ray.modalities.pictures import decode, decoding_pool
from atlas_ray.runtime.settings import OUTAGE_S
from atlas_ray.schemas import image_ids, quarantine_row
from atlas_ray.zoom.bootstrap import bootstrap_example
from atlas_ray.zoom.sources import Candidate, Candidates

READ_AT_ONCE = 256
SPLITS = ("train", "val", "test")
SPLIT_EDGES = (0.70, 0.85)
"""Products below the first go to train, below the second to val, the others to test."""


@dataclass(frozen=True)
class Examples:
    """Labelled pictures of one split."""

    pixels: Tensor
    """(count, 3, size, size) uint8."""
    zoomed: NDArray[np.bool_]
    """(count,)"""
    product_ids: NDArray[np.str_]
    """(count,)"""

    def __len__(self) -> int:
        return len(self.zoomed)

    def take(self, chosen: NDArray[np.bool_]) -> Self:
        """Return those that are chosen, (count,)."""
        return type(self)(self.pixels[torch.from_numpy(chosen)], self.zoomed[chosen], self.product_ids[chosen])

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Return those of several splits."""
        return cls(
            torch.cat([part.pixels for part in parts]),
            np.concatenate([part.zoomed for part in parts]),
            np.concatenate([part.product_ids for part in parts]),
        )


def read_examples(
    candidates: Candidates,
    size_px: int,
    *,
    seed: int,
    threads: int = 4,
    limits: PictureLimits = DEFAULT_LIMITS,
) -> tuple[dict[str, Examples], list[dict[str, object]]]:
    """Read, decode and, if the source has no labels, cut pictures.

    Args:
        candidates: What to read.
        size_px: Side of the examples.
        seed: Of the split and of what is cut.
        threads: That decode.
        limits: What to refuse.

    Returns:
        The examples by split, and rows of the quarantine table for pictures that cannot be used.

    Raises:
        CatalogError: if the first pictures cannot be read at all, or a split would lack zoomed or normal pictures.
    """
    drawn = candidates.drawn
    ids = image_ids([one.product_id for one in drawn], [one.uri for one in drawn])
    pixels = torch.zeros((len(drawn), 3, size_px, size_px), dtype=torch.uint8)
    zoomed = np.array([one.zoomed for one in drawn], dtype=bool)
    errors: dict[int, FetchError | PictureError] = {}

    def prepare(index: int, content: bytes | FetchError) -> None:
        if isinstance(content, FetchError):
            errors[index] = content
            return
        try:
            if candidates.cut:
                rng = np.random.default_rng([seed, *ids[index : index + 1].view(np.uint32).tolist()])
                pixels[index], zoomed[index] = bootstrap_example(
                    content, zoomed=drawn[index].zoomed, size_px=size_px, rng=rng, limits=limits
                )
            else:
                pixels[index] = decode(content, size_px, limits).pixels
        except PictureError as error:
            errors[index] = error

    with ObjectReader(threads=8, outage_s=OUTAGE_S, say=tell) as reader:
        for start in _chunks(len(drawn)):
            chunk = range(start, min(start + READ_AT_ONCE, len(drawn)))
            contents = reader.read_many([drawn[index].uri for index in chunk])
            for _ in decoding_pool(threads).map(prepare, chunk, contents):
                pass
            if not start and _unread(errors) == len(chunk):  # of a wrong place the others are not there either
                raise CatalogError(_missing(candidates, errors, len(chunk)))
    if _unread(errors):
        tell(_missing(candidates, errors, len(drawn)))
    refused = [
        quarantine_row(
            "train", error.code, _text(error.message), image_id=int(ids[index]),
            product_id=_text(drawn[index].product_id), image_uri=_text(drawn[index].uri),
        )
        for index, error in sorted(errors.items())
    ]  # fmt: skip
    return _split(drawn, pixels, zoomed, [index for index in range(len(drawn)) if index not in errors], seed), refused


def _unread(errors: Mapping[int, Exception]) -> int:
    return sum(isinstance(error, FetchError) for error in errors.values())


def _missing(candidates: Candidates, errors: Mapping[int, Exception], asked: int) -> str:
    """Return in a sentence how many pictures could not be read, where they were looked for, and an example."""
    unread = {index: error for index, error in sorted(errors.items()) if isinstance(error, FetchError)}
    codes = ", ".join(f"{code} {count}" for code, count in Counter(one.code for one in unread.values()).most_common())
    first, error = next(iter(unread.items()))
    uri = candidates.drawn[first].uri
    example = error.message if uri in error.message else f"{uri}: {error.message}"
    return (
        f"{len(unread)} of {asked} pictures could not be read ({codes}); {candidates.where}; "
        f"the first: {_text(example)}"
    )


def _split(
    drawn: Sequence[Candidate], pixels: Tensor, zoomed: NDArray[np.bool_], usable: Sequence[int], seed: int
) -> dict[str, Examples]:
    places = {name: [index for index in usable if split_of(drawn[index].product_id, seed) == name] for name in SPLITS}
    for name, rows in places.items():
        count = int(zoomed[rows].sum())
        if not 0 < count < len(rows):
            raise CatalogError(
                f"the split {name!r} has {count} zoomed and {len(rows) - count} normal pictures, of {len(usable)} "
                "that could be used; each split needs both, so give more pictures"
            )
    return {
        name: Examples(pixels[rows], zoomed[rows], np.array([drawn[index].product_id for index in rows]))
        for name, rows in places.items()
    }


def split_of(product_id: str, seed: int) -> str:
    """Return the split of a product: its pictures are never in two of them."""
    digest = hashlib.blake2b(f"{seed}\x1f{product_id}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    point = int.from_bytes(digest) / 2**64
    return SPLITS[sum(point >= edge for edge in SPLIT_EDGES)]


def _chunks(count: int) -> Iterator[int]:
    """Yield where each chunk starts, with a bar on a terminal and a line in a log."""
    console = Console(stderr=True)
    if not console.is_terminal:
        print(f"reading {count} pictures", file=sys.stderr, flush=True)
    starts = range(0, count, READ_AT_ONCE)
    yield from track(starts, "reading pictures", console=console, disable=not console.is_terminal)


def _text(text: str) -> str:
    """Return what a table can hold: a file's name may be no valid Unicode."""
    return text.encode("utf-8", "replace").decode()
