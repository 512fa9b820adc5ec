"""The autoscaling policy of the deployments."""

import threading
import time
from typing import Any

from ray.serve.config import AutoscalingContext

PRODUCTS, BUSY = "products", "busy"
"""Names of the statistics that a replica reports to Serve: the products that it holds, and of a model the share of the
time that it was busy."""
BUSY_ENOUGH, SATURATED = 0.8, 0.95
"""The share of the time that models should be busy, and from which more is only told by what waits."""


class ScaleByProducts:
    """Scale so that each replica holds about `products` products, and that none is added while those there are idle.

    For a model that is one batch; a larger value would leave a second batch waiting. A fast model may hold several
    batches that are on their way and still wait for pictures: as long as it does, its busy share tells how many are
    needed. Serve's own policy counts calls, which hold very different numbers of products. Bounds, delays and the start
    from zero replicas are Serve's.
    """

    def __init__(self, products: int) -> None:
        self._products = products

    def __call__(self, context: AutoscalingContext) -> tuple[float, dict[str, Any]]:
        """Return the number of replicas to run."""
        found = context.aggregated_metrics or {}
        held, busy = found.get(PRODUCTS, {}), found.get(BUSY, {})
        wanted = sum(held.values()) / self._products
        if busy and sum(busy.values()) < SATURATED * len(busy):
            wanted = min(wanted, sum(busy.values()) / BUSY_ENOUGH)
        return wanted, {}


class BusyTime:
    """Measures how much of the time something ran; one thread runs it, another one asks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._busy_s = 0.0
        self._since = time.monotonic()
        self._began: float | None = None

    def __enter__(self) -> None:
        with self._lock:
            self._began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._add(time.monotonic())
            self._began = None

    def share(self) -> float:
        """Return the busy share of the time since the last call, 0 to 1."""
        now = time.monotonic()
        with self._lock:
            self._add(now)
            found = self._busy_s / max(now - self._since, 1e-6)
            self._busy_s, self._since = 0.0, now
        return min(found, 1.0)

    def _add(self, now: float) -> None:
        if self._began is not None:
            self._busy_s += now - self._began
            self._began = now
