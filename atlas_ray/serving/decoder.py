"""A gateway's threads that decode pictures, and the line before them."""

import asyncio
import itertools
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from atlas_ray.errors import PictureError
from atlas_ray.images import decode
from atlas_ray.picture_limits import PictureLimits
from atlas_ray.serving.problems import busy
from atlas_ray.serving.question import Pixels

Result = TypeVar("Result")
THREADS = 2
WHAT = "the decoding of pictures"


class Decoder:
    """Decodes pictures of many requests, in the order in which they come."""

    def __init__(self, limits: PictureLimits, *, threads: int = 0, patience_s: float) -> None:
        """Start the threads.

        Args:
            limits: What a picture may be.
            threads: How many; 0: two.
            patience_s: How long the first in line may have waited while more are taken.
        """
        self._limits = limits
        self._patience_s = patience_s
        # Each of these threads would start OpenMP threads of its own to resize.
        self._pool = ThreadPoolExecutor(threads or THREADS, "decode", initializer=torch.set_num_threads, initargs=(1,))
        self._line: dict[int, float] = {}
        """When each picture came whose decoding has not begun."""
        self._numbers = itertools.count()

    def __len__(self) -> int:
        """Count the pictures that wait."""
        return len(self._line)

    def check_room(self) -> None:
        """Refuse a request while the first in line has waited too long.

        Raises:
            Problem: 429.
        """
        since = min(self._line.values(), default=None)  # in one step: the threads take numbers out
        if since is not None and time.monotonic() - since > self._patience_s:
            raise busy(WHAT)

    async def decode(self, content: bytes, size_px: int, turn_by: float) -> Pixels | PictureError:
        """Return a picture's pixels as a model takes them, or why it has none.

        Args:
            content: The file.
            size_px: Its size for the model.
            turn_by: By the monotonic clock, when it has to have begun.

        Raises:
            Problem: 429, where it has not.
        """
        number = next(self._numbers)
        self._line[number] = time.monotonic()
        try:
            return await self.run(self._decode, number, content, size_px, turn_by)
        finally:
            self._line.pop(number, None)  # nobody waits for it any more

    async def run(self, work: Callable[..., Result], *arguments: object) -> Result:
        """Do other work of a picture's in these threads."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)

    def _decode(self, number: int, content: bytes, size_px: int, turn_by: float) -> Pixels | PictureError:
        self._line.pop(number, None)
        if time.monotonic() > turn_by:
            raise busy(WHAT)
        try:
            return decode(content, size_px, self._limits).pixels.contiguous().numpy()
        except PictureError as error:
            return error
