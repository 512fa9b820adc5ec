"""A gateway's threads that decode pictures, and the line before them."""

import asyncio
import itertools
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

from atlas_ray.errors import PictureError
from atlas_ray.modalities.limits import PictureLimits
from atlas_ray.modalities.pictures import decode
from atlas_ray.serving.problems import busy
from atlas_ray.serving.question import Pixels

THREADS = 2
WHAT = "the decoding of pictures"


class Decoder:
    """Decodes the pictures of requests, in the order in which they come."""

    def __init__(self, limits: PictureLimits, *, threads: int = 0, patience_s: float) -> None:
        """Start the threads.

        Args:
            limits: What a picture may be.
            threads: How many; 0: two.
            patience_s: How long the first request in line may have waited while more are taken.
        """
        self._limits = limits
        self._patience_s = patience_s
        # Each of these threads would start OpenMP threads of its own to resize.
        self._pool = ThreadPoolExecutor(threads or THREADS, "decode", initializer=torch.set_num_threads, initargs=(1,))
        self._line: dict[int, float] = {}
        """When each request came of which no picture is begun."""
        self._numbers = itertools.count()
        self.waiting = 0
        """Pictures that are not decoded."""

    def check_room(self) -> None:
        """Refuse a request while the first in line has waited too long.

        Raises:
            Problem: 429.
        """
        since = min(self._line.values(), default=None)  # in one step: the threads take numbers out
        if since is not None and time.monotonic() - since > self._patience_s:
            raise busy(WHAT)

    async def decode(self, contents: Sequence[bytes], size_px: int, turn_by: float) -> list[Pixels | PictureError]:
        """Return the pixels of a request's pictures as a model takes them, or why they have none.

        Args:
            contents: The files.
            size_px: Their size for the model.
            turn_by: By the monotonic clock, when the first one has to be begun.

        Raises:
            Problem: 429, where it is not.
        """
        number = next(self._numbers)
        if contents:
            self._line[number] = time.monotonic()
        jobs = [_Job(number, content, size_px, turn_by) for content in contents]
        self.waiting += len(jobs)
        loop = asyncio.get_running_loop()
        # One for each, so that requests take turns and what nobody waits for any more is not begun.
        tasks = [loop.run_in_executor(self._pool, self._run, job) for job in jobs]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            self._line.pop(number, None)
            self.waiting -= len(jobs)
            for job, task in zip(jobs, tasks, strict=True):
                task.cancel()
                job.content = None  # one that is cancelled stays with the threads until its turn

    def _run(self, job: "_Job") -> Pixels | PictureError:
        content = job.content
        if self._line.pop(job.request, None) is not None and time.monotonic() > job.turn_by:
            raise busy(WHAT)
        if content is None:
            return PictureError("empty", "nobody waits for it")
        try:
            return decode(content, job.size_px, self._limits).pixels.contiguous().numpy()
        except PictureError as error:
            return error


class _Job:
    """A picture to decode."""

    def __init__(self, request: int, content: bytes, size_px: int, turn_by: float) -> None:
        self.request = request
        self.content: bytes | None = content
        self.size_px = size_px
        self.turn_by = turn_by
