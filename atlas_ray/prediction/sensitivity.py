"""The layers of an encoder that suffer most from 8 bits."""

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

STEPS = 255


@torch.inference_mode()
def sensitive_layers(encoder: nn.Module, pictures: Tensor, count: int) -> list[str]:
    """Return the names of the layers that change the features most if they alone are rounded to 8 bits.

    Args:
        encoder: The encoder, in float32 on the CPU.
        pictures: Pictures to try, (count, 3, size, size) uint8.
        count: How many names to return, the worst first.
    """
    layers = {name: module for name, module in encoder.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)}
    exact = encoder(pictures).flatten(1)
    lost = {}
    for name, layer in layers.items():
        weights = layer.weight.clone()
        hook = layer.register_forward_pre_hook(lambda _, inputs: (_rounded(inputs[0], ()), *inputs[1:]))
        layer.weight.copy_(_rounded(weights, tuple(range(1, weights.ndim))))
        lost[name] = 1 - cosine_similarity(encoder(pictures).flatten(1), exact).mean().item()
        layer.weight.copy_(weights)
        hook.remove()
    return sorted(lost, key=lambda name: -lost[name])[:count]


def _rounded(values: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Round numbers to 256 even steps between their least and greatest; of a row, or of all for no axes."""
    axes = axes or tuple(range(values.ndim))
    low, high = values.amin(axes, keepdim=True), values.amax(axes, keepdim=True)
    step = ((high - low) / STEPS).clamp_min(torch.finfo(values.dtype).tiny)
    return ((values - low) / step).round() * step + low
