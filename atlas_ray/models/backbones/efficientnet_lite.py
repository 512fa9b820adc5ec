"""EfficientNet-Lite (Tan and Le 2019, in the variant without squeeze-and-excitation): small networks for CPUs.

The order of the layers and the shapes of their weights are those of the published checkpoints, whose pictures were
padded as TensorFlow pads them.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn

STAGES = ((3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3), (5, 1, 6, 112, 3), (5, 2, 6, 192, 4),
          (3, 1, 6, 320, 1))  # fmt: skip
"""Kernel, stride, expansion, features and number of blocks of each stage of the smallest network."""
SCALES = {"efficientnet_lite0": (1.0, 1.0), "efficientnet_lite1": (1.0, 1.1), "efficientnet_lite2": (1.1, 1.2)}
"""Factors of the features and of the number of blocks; the first and the last stage keep their number of blocks."""
STEM, FEATURES = 32, 1280


class SamePadded(nn.Conv2d):
    """A convolution whose output has a cell for each `stride` pixels; the odd pixel of padding comes last."""

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, rows, columns) -> (batch, features, rows / stride, columns / stride), rounded up."""
        pads: list[int] = []
        for size, kernel, stride in zip(x.shape[:1:-1], self.kernel_size, self.stride, strict=True):
            missing = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [missing // 2, missing - missing // 2]
        return super().forward(nn.functional.pad(x, pads))


def _conv(channels: int, features: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    kind, padding = (nn.Conv2d, kernel // 2) if stride == 1 else (SamePadded, 0)
    return kind(channels, features, kernel, stride, padding, groups=groups, bias=False)


def _norm(features: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(features, eps=1e-3, momentum=0.01)


class InvertedResidual(nn.Module):
    """Expands the features, filters each by itself, and projects them, with a shortcut where the shape is the same."""

    def __init__(self, channels: int, features: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = channels * expansion
        self.shortcut = stride == 1 and channels == features
        self.expand = (
            nn.Sequential(_conv(channels, wide, 1), _norm(wide), nn.ReLU6(inplace=True))
            if expansion > 1
            else nn.Identity()
        )
        self.filter = nn.Sequential(_conv(wide, wide, kernel, stride, wide), _norm(wide), nn.ReLU6(inplace=True))
        self.project = nn.Sequential(_conv(wide, features, 1), _norm(features))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, rows, columns) -> (batch, features, rows / stride, columns / stride)."""
        y: Tensor = self.project(self.filter(self.expand(x)))
        return x + y if self.shortcut else y


def _rounded(features: float) -> int:
    """Return the nearest multiple of 8, unless that takes away more than a tenth."""
    near = max(8, int(features + 4) // 8 * 8)
    return near if near >= 0.9 * features else near + 8


def layers(name: str) -> OrderedDict[str, nn.Module]:
    """Build a network without its pooling and its classifier.

    Args:
        name: One of `SCALES`.
    """
    width, depth = SCALES[name]
    built: OrderedDict[str, nn.Module] = OrderedDict()
    built["stem"] = nn.Sequential(_conv(3, STEM, 3, 2), _norm(STEM), nn.ReLU6(inplace=True))
    channels = STEM
    for number, (kernel, stride, expansion, features, blocks) in enumerate(STAGES, 1):
        features, stage = _rounded(features * width), nn.Sequential()
        if 1 < number < len(STAGES):
            blocks = -(-int(blocks * depth * 10) // 10)
        for block in range(blocks):
            stage.append(InvertedResidual(channels, features, kernel, stride if block == 0 else 1, expansion))
            channels = features
        built[f"stage{number}"] = stage
    built["top"] = nn.Sequential(_conv(channels, FEATURES, 1), _norm(FEATURES), nn.ReLU6(inplace=True))
    for part in built.values():
        for module in part.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                with torch.no_grad():
                    module.weight.mul_(module.groups**0.5)  # of a grouped convolution one group's features count
    return built
