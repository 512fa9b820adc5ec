"""Memory budgets: of all requests that a gateway holds, and of one of them."""

import threading

from atlas_ray.serving.problems import Problem, busy


class MemoryBudget:
    """The bytes that a gateway may hold for all requests together."""

    def __init__(self, *, max_bytes: int, max_request_bytes: int) -> None:
        self.max_request_bytes = max_request_bytes
        self._free = max_bytes
        self._lock = threading.Lock()

    def reserve(self, count: int) -> bool:
        """Reserve bytes; return whether that many were free."""
        with self._lock:
            if count > self._free:
                return False
            self._free -= count
            return True

    def release(self, count: int) -> None:
        """Free reserved bytes again."""
        with self._lock:
            self._free += count


class RequestBudget:
    """The bytes of the memory budget that one request has reserved; any thread may call it."""

    def __init__(self, memory: MemoryBudget) -> None:
        self._memory = memory
        self._reserved = 0
        self._closed = False
        self._lock = threading.Lock()

    def reserve(self, count: int) -> None:
        """Reserve bytes before they are held.

        Raises:
            Problem: 413 if the request exceeds its own limit, 429 if all requests together exceed theirs.
        """
        with self._lock:
            limit = self._memory.max_request_bytes
            if self._reserved + count > limit:
                raise Problem(
                    413, "too_large", f"the request is larger than {limit} bytes, with the objects that it names"
                )
            # A read that outlives its request would reserve bytes that nobody releases.
            if self._closed or not self._memory.reserve(count):
                raise busy("this endpoint's memory")
            self._reserved += count

    def release(self, count: int) -> None:
        """Free reserved bytes that are not held after all."""
        with self._lock:
            if not self._closed:
                self._reserved -= count
                self._memory.release(count)

    def close(self) -> None:
        """Free all that the request reserved; it can reserve no more."""
        with self._lock:
            self._closed = True
            self._memory.release(self._reserved)
            self._reserved = 0
