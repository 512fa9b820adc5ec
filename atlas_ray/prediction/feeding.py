"""The way in which each type of device is fed with batches. Importing this imports no torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Feeding:
    """How a type of device takes batches."""

    batch_size: int
    """Pictures that a model takes at once, unless its user says otherwise."""
    zoom_batch_size: int
    """The same of a zoom filter, whose network is small."""
    decodes_ahead: bool
    """Whether a batch is decoded while the model runs on the one before. On a CPU the model keeps every core busy, and
    a thread that decodes meanwhile makes all of them wait at the next barrier."""
    few_sizes: bool
    """Whether batches are padded to a few sizes. On a GPU the search for the fastest kernels begins anew with each."""

    def warm_sizes(self, batch_size: int) -> list[int]:
        """Return what a model is warmed up with: its batch and its halves down to 1, if others are padded to them."""
        if not self.few_sizes:
            return [batch_size, 1]
        return [batch_size >> power for power in range(batch_size.bit_length())]


FEEDING = {
    "cpu": Feeding(batch_size=32, zoom_batch_size=64, decodes_ahead=False, few_sizes=False),
    "cuda": Feeding(batch_size=256, zoom_batch_size=256, decodes_ahead=True, few_sizes=True),
}
"""By the type of the device; another type is fed as a CPU."""


def feeding_of(device_type: str) -> Feeding:
    """Return how a type of device is fed."""
    return FEEDING.get(device_type, FEEDING["cpu"])
