"""The device and the number format of a network, and batches that fit the device's memory."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from atlas_ray.errors import ConfigError
from atlas_ray.modalities.products import Products

Found = TypeVar("Found")


def choose_device(wanted: str) -> torch.device:
    """Return the device of a name; of `auto` the GPU if there is one.

    Raises:
        ConfigError: for an invalid name, or a device that the machine does not have.
    """
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise ConfigError(f"device {wanted!r}; expected auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device {wanted!r}: PyTorch sees {torch.cuda.device_count()} CUDA devices here")
    return device


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Return the number format of a name; of `auto` bfloat16 if the device has instructions for it."""
    if precision == "auto":
        if device.type == "cuda":
            native = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            flags = torch.cpu.get_capabilities()
            native = bool(flags.get("avx512_bf16") or flags.get("amx_bf16") or flags.get("bf16"))
        return torch.bfloat16 if native else torch.float32
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def name_of_dtype(dtype: torch.dtype) -> str:
    """Return the name of a number format: float32 or bfloat16."""
    return str(dtype).removeprefix("torch.")


class FittingBatches:
    """A runner of a network over batches. If one does not fit the device's memory, it uses halves from then on.

    The size is halved only once: if halves do not fit either, it was chosen much too large, and an error is more
    useful than trying ever smaller sizes.
    """

    def __init__(self, size: int) -> None:
        """Start with batches of this size."""
        self._asked_for = size
        self.size = size

    def run(self, batch: Products | Tensor, ask: Callable[[Any], Found]) -> list[Found]:
        """Return the results of `ask` for a batch, in parts if it does not fit.

        Raises:
            ConfigError: if halves do not fit either.
        """
        try:
            return [ask(part) for part in batch.split(self.size)]
        except torch.OutOfMemoryError as error:  # what it holds of the batch goes before the next try
            reason = str(error).splitlines()[0]
        half = min(self.size, len(batch)) // 2
        if self.size < self._asked_for or half == 0:
            raise ConfigError(
                f"the device has no memory for a batch of {min(self.size, len(batch))}, and --batch-size is "
                f"{self._asked_for}: {reason}; give a smaller --batch-size"
            )
        self.size = half
        torch.cuda.empty_cache()
        return self.run(batch, ask)
