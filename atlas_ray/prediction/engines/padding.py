"""Batches of few sizes, for a device that prepares itself anew for each size of batch."""

from bisect import bisect_left, insort
from collections.abc import Callable

from torch import Tensor
from torch.nn.functional import pad


class Padded:
    """What runs an encoder, asked for few sizes of batches: others are padded to a size that it ran before."""

    def __init__(self, run: Callable[[Tensor], Tensor]) -> None:
        self._run = run
        self.sizes: list[int] = []
        """The sizes that were run, in increasing order."""

    def __call__(self, pictures: Tensor) -> Tensor:
        """Return the features of a batch; less than half of what is run for them is padding."""
        count = len(pictures)
        place = bisect_left(self.sizes, count)
        if place == len(self.sizes) or self.sizes[place] >= 2 * count:
            features = self._run(pictures)
            insort(self.sizes, count)  # not if there was no memory for it
            return features
        missing = self.sizes[place] - count
        return self._run(pad(pictures, (0, 0) * 3 + (0, missing)))[:count] if missing else self._run(pictures)
