"""How many files of pictures a page holds at a time."""

from collections.abc import Callable
from typing import Self

from atlas_ray.io.objects import ObjectReader


class HeldFiles:
    """Counts the files that were read, and how many of them were there at a time."""

    def __init__(self) -> None:
        self.read = self.now = self.most = 0

    def counted(self, read: Callable[[ObjectReader, str], bytes]) -> Callable[[ObjectReader, str], bytes]:
        counts = self

        class File(bytes):
            def __new__(cls, content: bytes) -> Self:
                counts.read += 1
                counts.now += 1
                counts.most = max(counts.most, counts.now)
                return super().__new__(cls, content)

            def __del__(self) -> None:
                counts.now -= 1

        return lambda reader, uri: File(read(reader, uri))
