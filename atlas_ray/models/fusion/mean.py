"""The mean of the probabilities that the models give (Wirojwatanakul and Wangperawong 2019)."""

from torch import Tensor

from atlas_ray.models.fusion.policy import FusionNetwork


class Mean(FusionNetwork):
    """The policy `mean`."""

    def fuse(self, scores: Tensor, present: Tensor, features: Tensor | None) -> Tensor:  # noqa: ARG002
        """Take the mean of the probabilities; for paths their sum, which has the same softmax."""
        missing = ~present[:, :, None]
        if self.config.target == "path":
            return scores.masked_fill(missing, float("-inf")).logsumexp(1)
        probabilities = self.probabilities(scores).masked_fill(missing, 0.0)  # (batch, M, N)
        return self.logits(probabilities.sum(1) / present.sum(1, keepdim=True))
