"""Ways to tell whether a picture is the one that an earlier run read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from atlas_ray.io.objects import HashedObject, ObjectReader

HELD_PICTURES = 256
"""Pictures whose bytes are in memory at a time."""

Identity = tuple[str | None, str | None]
"""What a picture is compared by, None if it cannot be had; and its etag now, None if that was not asked for."""


@dataclass(frozen=True)
class Trust:
    """What pictures are compared by."""

    column: str
    """The column of the earlier run's tables that holds it; null if a picture cannot be compared."""
    ask: Callable[[ObjectReader, Sequence[str]], list[Identity]]
    """Finds it out for pictures as they are now."""


def _names(_: ObjectReader, uris: Sequence[str]) -> list[Identity]:
    return [(uri, None) for uri in uris]


def _etags(reader: ObjectReader, uris: Sequence[str]) -> list[Identity]:
    return [(found, found) if isinstance(found, str) else (None, None) for found in reader.etags(uris)]


def _hashes(reader: ObjectReader, uris: Sequence[str]) -> list[Identity]:
    found: list[Identity] = []
    for start in range(0, len(uris), HELD_PICTURES):
        for outcome in reader.get_many(uris[start : start + HELD_PICTURES]):
            if isinstance(outcome, HashedObject):
                found.append((outcome.sha256, outcome.etag))
            else:
                found.append((None, None))
    return found


TRUST = {
    "etag": Trust("etag", _etags),
    "content": Trust("sha256", _hashes),
    "uri": Trust("image_uri", _names),
}
"""By the values of `--trust`."""
