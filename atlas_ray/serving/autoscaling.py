"""How many replicas a deployment needs."""

from typing import Any

from ray.serve.config import AutoscalingContext

PRODUCTS = "products"
"""What a replica tells Serve of itself: the products that it holds."""


class ScaleByProducts:
    """As many replicas as make each hold so many products: of a model a batch, more would be another that waits.

    Serve's own policy counts calls, of which each has as many products as there were waiting, and
    every gateway makes its own. Bounds, delays and starting from zero are Serve's.
    """

    def __init__(self, products: int) -> None:
        self._products = products

    def __call__(self, context: AutoscalingContext) -> tuple[float, dict[str, Any]]:
        """Return how many replicas there should be."""
        held = (context.aggregated_metrics or {}).get(PRODUCTS, {})
        return sum(held.values()) / self._products, {}
