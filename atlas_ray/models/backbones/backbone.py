"""The network of a backbone, which turns pictures into a grid of features."""

import pkgutil
from collections.abc import Callable, Collection
from typing import Self

import torch
from torch import Tensor, nn

from atlas_ray.errors import ConfigError
from atlas_ray.models.backbones import BACKBONES

STATISTICS = ("mean", "std")
"""What pictures are normalized by, from a backbone's entry."""


class Backbone(nn.Module):
    """An encoder of `BACKBONES`, without its pooling and its classifier."""

    mean: Tensor
    std: Tensor

    def __init__(self, name: str) -> None:
        """Build the network with random weights.

        Raises:
            ConfigError: for a name that is not in `BACKBONES`, or an entry that does not fit its layers.
        """
        super().__init__()
        if name not in BACKBONES:
            raise ConfigError(f"backbone {name!r} is unknown; expected one of {', '.join(BACKBONES)}")
        self.name, self.spec = name, BACKBONES[name]
        self.features = self.spec.features
        layers: dict[str, nn.Module] = pkgutil.resolve_name(self.spec.layers)(name)
        blocks = [layer for block in self.spec.blocks for layer in block]
        if list(layers) != list(dict.fromkeys(layer.partition(".")[0] for layer in blocks)):
            raise ConfigError(
                f"backbone {name!r}: BACKBONES names the layers {', '.join(blocks)}; "
                f"{self.spec.layers} builds {', '.join(layers)}: expected the same, in the order of their use"
            )
        for layer, module in layers.items():
            self.add_module(layer, module)
        for statistic in STATISTICS:
            self.register_buffer(statistic, self._statistic(statistic), persistent=False)

    def _statistic(self, name: str) -> Tensor:
        return torch.tensor(getattr(self.spec, name), dtype=torch.float32).view(1, 3, 1, 1) * 255

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move or cast the network, but not what pictures are normalized by: that stays in float32.

        In bfloat16 a mean of 123.675 would be 123.5, and a pixel off by up to 0.02 of a standard deviation.
        """
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for statistic in STATISTICS:
            setattr(self, statistic, self._statistic(statistic).to(getattr(self, statistic).device))
        return self

    def forward(self, pictures: Tensor) -> Tensor:
        """Encode pictures.

        Args:
            pictures: (batch, 3, height, width) RGB, 0 to 255, any dtype.

        Returns:
            (batch, features, rows, columns), one cell for `stride` x `stride` pixels.
        """
        x = (pictures - self.mean).div_(self.std).to(next(self.parameters()).dtype)
        x = x.contiguous(memory_format=torch.channels_last)
        for layer in self.children():
            x = layer(x)
        return x

    def layers_before(self, block: int) -> list[nn.Module]:
        """Return the layers before a block: 0 none, 1 the stem, 2 also the first block, and so on.

        Weights that belong to no block, as the places of a ViT's patches, go with the stem.
        """
        blocks = tuple(f"{layer}." for layers in self.spec.blocks for layer in layers)
        outside = [weight for name, weight in self.named_parameters() if not name.startswith(blocks)]
        stem = [nn.ParameterList(outside)] if block and outside else []
        return [*stem, *(self.get_submodule(layer) for layers in self.spec.blocks[:block] for layer in layers)]

    def layers_before_last(self, count: int) -> list[nn.Module]:
        """Return the layers before the last `count`; each convolution and each normalization of a ResNet is one."""
        names = [layer.split(".") for layers in self.spec.blocks for layer in layers]
        holders = {".".join(name[:depth]) for name in names for depth in range(1, len(name))}
        weighted = _weighted(self, "", holders)
        return weighted[: max(0, len(weighted) - count)]


def _weighted(module: nn.Module, path: str, holders: Collection[str]) -> list[nn.Module]:
    """Return the outermost modules inside a module that hold weights themselves.

    Args:
        module: The module.
        path: Its name, with a dot after it unless it is "".
        holders: Names of modules that hold blocks: of such a one its own weights come first, then its parts.
    """
    modules: list[nn.Module] = []
    for name, child in module.named_children():
        own = list(child.parameters(recurse=False))
        if own and path + name not in holders:
            modules.append(child)
        else:
            modules += [*([nn.ParameterList(own)] if own else []), *_weighted(child, f"{path}{name}.", holders)]
    return modules


def fuse_batch_norm(backbone: Backbone) -> Backbone:
    """Fold each batch normalization into the convolution before it; the network can then only be used for inference."""
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    backbone.eval()
    for module in list(backbone.modules()):
        children = dict(module.named_children())
        for conv, norm in backbone.spec.batch_norms:
            first, second = children.get(conv), children.get(norm)
            if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                setattr(module, conv, fuse_conv_bn_eval(first, second))
                setattr(module, norm, nn.Identity())
    return backbone
