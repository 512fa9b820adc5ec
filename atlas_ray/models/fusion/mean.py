"""The mean of the probabilities that the models give (Wirojwatanakul and Wangperawong 2019)."""

from torch import Tensor

from atlas_ray.models.fusion.policy import FusionNetwork


class Mean(FusionNetwork):
    """The policy `mean`."""

    def fuse(self, said: Tensor, there: Tensor, features: Tensor | None) -> Tensor:  # noqa: ARG002
        """Take the mean; of paths not divided by their number, which changes no softmax."""
        missing = ~there[:, :, None]
        if self.config.target == "path":
            return said.masked_fill(missing, float("-inf")).logsumexp(1)
        probabilities = self.probabilities(said).masked_fill(missing, 0.0)  # (batch, M, N)
        return self.logits(probabilities.sum(1) / there.sum(1, keepdim=True))
