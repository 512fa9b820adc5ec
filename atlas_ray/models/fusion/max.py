"""The largest probability that any of the models gives (Wirojwatanakul and Wangperawong 2019)."""

from torch import Tensor

from atlas_ray.models.fusion.policy import FusionNetwork


class Max(FusionNetwork):
    """The policy `max`."""

    def fuse(self, scores: Tensor, present: Tensor, features: Tensor | None) -> Tensor:  # noqa: ARG002
        """Take the largest score."""
        return scores.masked_fill(~present[:, :, None], float("-inf")).amax(1)
