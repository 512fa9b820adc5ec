"""Residual networks (He et al. 2015), in torchvision's version and with its names, so that its weights load.

The stride of a bottleneck is in its 3x3 convolution, not in the first 1x1 one. The networks are not imported from
torchvision, because that loads `torch._dynamo`, which costs 160 MiB and some seconds in each process.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

WIDTHS = (64, 128, 256, 512)


def _conv(channels: int, features: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, features, kernel, stride, padding=kernel // 2, bias=False)


def _shortcut(channels: int, features: int, stride: int) -> nn.Module:
    if stride == 1 and channels == features:
        return nn.Identity()
    return nn.Sequential(_conv(channels, features, 1, stride), nn.BatchNorm2d(features))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut."""

    expansion = 1

    def __init__(self, channels: int, width: int, stride: int) -> None:
        """Build a block that gives `width` features."""
        super().__init__()
        self.conv1 = _conv(channels, width, 3, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, rows, columns) -> (batch, width, rows / stride, columns / stride)."""
        y = torch.relu_(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return torch.relu_(y.add_(self.downsample(x)))


class Bottleneck(nn.Module):
    """A 3x3 convolution between two 1x1 ones, with a shortcut."""

    expansion = 4

    def __init__(self, channels: int, width: int, stride: int) -> None:
        """Build a block that gives 4 x `width` features."""
        super().__init__()
        self.conv1 = _conv(channels, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, 3, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = _conv(width, width * self.expansion, 1)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.downsample = _shortcut(channels, width * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, rows, columns) -> (batch, 4 x width, rows / stride, columns / stride)."""
        y = torch.relu_(self.bn1(self.conv1(x)))
        y = torch.relu_(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return torch.relu_(y.add_(self.downsample(x)))


BLOCKS: dict[str, tuple[type[BasicBlock | Bottleneck], Sequence[int]]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
}
"""The kind of block of each network, and the number of blocks in each of its layers."""


def layers(name: str) -> OrderedDict[str, nn.Module]:
    """Build a network without its pooling and its classifier.

    Args:
        name: One of `BLOCKS`.
    """
    block, depths = BLOCKS[name]
    channels = WIDTHS[0]
    built: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Conv2d(3, channels, 7, 2, padding=3, bias=False),
        bn1=nn.BatchNorm2d(channels),
        relu=nn.ReLU(inplace=True),
        maxpool=nn.MaxPool2d(3, 2, padding=1),
    )
    for number, (width, depth) in enumerate(zip(WIDTHS, depths, strict=True), 1):
        layer = nn.Sequential()
        for position in range(depth):
            layer.append(block(channels, width, 2 if number > 1 and position == 0 else 1))
            channels = width * block.expansion
        built[f"layer{number}"] = layer
    for part in built.values():
        for module in part.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return built
