"""The threads of a gateway that decode pictures, and the queue before them."""

import asyncio
import itertools
import time
from collections.abc import Sequence

from atlas_ray.errors import PictureError
from atlas_ray.modalities.limits import PictureLimits
from atlas_ray.modalities.pictures import decode, decoding_pool
from atlas_ray.serving.problems import busy
from atlas_ray.serving.question import Pixels

DEFAULT_THREADS = 2
NAME = "the decoding of pictures"
"""Subject of the message that refuses a request."""


class Decoder:
    """Decodes the pictures of requests, first in, first out."""

    def __init__(self, limits: PictureLimits, *, threads: int = 0, patience_s: float) -> None:
        """Start the threads.

        Args:
            limits: Limits of a picture's bytes and sides.
            threads: Number of threads; 0: two.
            patience_s: How long the oldest request may have waited before new ones are refused.
        """
        self._limits = limits
        self._patience_s = patience_s
        self._pool = decoding_pool(threads or DEFAULT_THREADS)
        self._unstarted: dict[int, float] = {}
        """When each request came of which no picture has been started."""
        self._numbers = itertools.count()
        self.waiting = 0
        """Pictures that wait or are being decoded."""

    def check_room(self) -> None:
        """Refuse a request while the oldest one has waited too long.

        Raises:
            Problem: 429, if so.
        """
        oldest_at = min(self._unstarted.values(), default=None)  # in one step: the threads remove entries
        if oldest_at is not None and time.monotonic() - oldest_at > self._patience_s:
            raise busy(NAME)

    async def decode(self, contents: Sequence[bytes], size_px: int, start_by: float) -> list[Pixels | PictureError]:
        """Decode the pictures of a request; return the pixels of each as the model takes them, or the error.

        Args:
            contents: The files.
            size_px: The model's picture size.
            start_by: When the first picture has to be started, by the monotonic clock.

        Raises:
            Problem: 429 if it is not.
        """
        number = next(self._numbers)
        if contents:
            self._unstarted[number] = time.monotonic()
        jobs = [_Job(number, content, size_px, start_by) for content in contents]
        self.waiting += len(jobs)
        loop = asyncio.get_running_loop()
        # A task for each, so that requests take turns and pictures of an ended request are not started.
        tasks = [loop.run_in_executor(self._pool, self._run, job) for job in jobs]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            self._unstarted.pop(number, None)
            self.waiting -= len(jobs)
            for job, task in zip(jobs, tasks, strict=True):
                task.cancel()
                job.content = None  # a cancelled job stays in the pool until its turn

    def _run(self, job: "_Job") -> Pixels | PictureError:
        content = job.content
        if self._unstarted.pop(job.request, None) is not None and time.monotonic() > job.start_by:
            raise busy(NAME)
        if content is None:
            return PictureError("empty", "the request has ended")
        try:
            return decode(content, job.size_px, self._limits).pixels.contiguous().numpy()
        except PictureError as error:
            return error


class _Job:
    """A picture to decode."""

    def __init__(self, request: int, content: bytes, size_px: int, start_by: float) -> None:
        self.request = request
        self.content: bytes | None = content
        self.size_px = size_px
        self.start_by = start_by
