"""The largest probability that any of the models gives (Wirojwatanakul and Wangperawong 2019)."""

from torch import Tensor

from atlas_ray.models.fusion.policy import FusionNetwork


class Max(FusionNetwork):
    """The policy `max`."""

    def fuse(self, said: Tensor, there: Tensor, features: Tensor | None) -> Tensor:  # noqa: ARG002
        """Take the largest."""
        return said.masked_fill(~there[:, :, None], float("-inf")).amax(1)
