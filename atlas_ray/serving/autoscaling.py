"""The autoscaling policy of the deployments."""

from typing import Any

from ray.serve.config import AutoscalingContext

PRODUCTS = "products"
"""Name of the statistic that a replica reports to Serve: the products that it holds."""


class ScaleByProducts:
    """Scale so that each replica holds about `products` products.

    For a model that is one batch; a larger value would leave a second batch waiting. Serve's own policy
    counts calls, which hold very different numbers of products. Bounds, delays and the start from zero
    replicas are Serve's.
    """

    def __init__(self, products: int) -> None:
        self._products = products

    def __call__(self, context: AutoscalingContext) -> tuple[float, dict[str, Any]]:
        """Return the number of replicas to run."""
        held = (context.aggregated_metrics or {}).get(PRODUCTS, {})
        return sum(held.values()) / self._products, {}
