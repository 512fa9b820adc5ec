"""Networks of timm as backbones: `timm/NAME`. Nothing is downloaded; weights come from a file or a folder.

What an entry of `BACKBONES` states is read off the network itself, which is built without memory for its weights.
"""

import importlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from atlas_ray.errors import ConfigError
from atlas_ray.models.backbones import IMAGENET_MEAN, IMAGENET_STD, TIMM, BackboneSpec

NETWORK = "network"
"""The only layer of such a backbone, which holds all of timm's."""
REPEATED = ("stages", "blocks", "layers", "features")
"""Parts of timm's networks that are lists of blocks."""
SIZES = (448, 449, 224, 257, 150)
"""Sides of the pictures that a network is tried with; the first is a multiple of every usual stride."""


class TimmLayer(nn.Module):
    """A network of timm without its head; tokens become a grid."""

    def __init__(self, network: nn.Module, multiple: int) -> None:
        super().__init__()
        self.add_module(NETWORK, network)
        self.multiple = multiple

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 3, height, width), of which pixels past a whole patch are cut off -> (batch, features, rows, ...)."""
        height, width = (int(side) // self.multiple * self.multiple for side in x.shape[2:])
        network: Any = self.get_submodule(NETWORK)
        found: Tensor = network.forward_features(x[:, :, :height, :width])
        return _grid(found, network, height, width)


def _grid(found: Tensor, network: Any, height: int, width: int) -> Tensor:
    """Bring features into (batch, features, rows, columns)."""
    if found.dim() == 3:  # (batch, tokens, features)
        patches = found[:, getattr(network, "num_prefix_tokens", 0) :]
        count = int(patches.shape[1])  # a tensor while an engine traces the network
        rows = round((count * height / width) ** 0.5)
        grid: Tensor = patches.transpose(1, 2).unflatten(2, (rows, count // rows))
        return grid
    if str(getattr(network, "output_fmt", "NCHW")).endswith("NHWC"):
        found = found.permute(0, 3, 1, 2)
    return found


def _build(name: str) -> nn.Module:
    """Build a network of timm without its head, with random weights.

    Raises:
        ConfigError: for a name that timm does not know, or a network without features.
    """
    timm: Any = importlib.import_module("timm")  # slow to import
    known = name.removeprefix(TIMM)
    network: Any = None
    # Which pictures' sizes a network takes is said in one of these ways, or needs not be said.
    for sizes in ({"dynamic_img_size": True}, {"strict_img_size": False}, {}):
        try:
            network = timm.create_model(known, pretrained=False, num_classes=0, **sizes)
            break
        except TypeError:
            continue
        except (RuntimeError, ValueError) as error:
            close = ", ".join(timm.list_models(f"*{known.partition('.')[0][:8]}*")[:5])
            raise ConfigError(
                f"backbone {name!r}: {str(error).splitlines()[0]}; timm has {close or 'others'}"
            ) from None
    if not hasattr(network, "forward_features"):
        raise ConfigError(f"backbone {name!r} has no grid of features")
    return network  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Examined:
    """What was read off a network."""

    spec: BackboneSpec
    multiple: int
    """Sides of pictures are cut to a multiple of this many pixels."""
    unused: tuple[str, ...]
    """Names of the parts that its features do not need."""


@lru_cache
def examine(name: str) -> Examined:
    """Read an entry of `BACKBONES` off a network, `timm/NAME`, by trying it without memory.

    Raises:
        ConfigError: for a network that timm does not have, or that makes no grid of pictures of any size.
    """
    with torch.device("meta"):
        network: Any = _build(name).eval()
        patch = getattr(getattr(network, "patch_embed", None), "patch_size", None) or (1,)
        reason = ""
        for multiple in dict.fromkeys((1, int(patch[0]), 32)):
            layer = TimmLayer(network, multiple)
            try:
                grids = [layer(torch.zeros(1, 3, size, size)) for size in SIZES]
            except (RuntimeError, AssertionError, ValueError) as error:
                reason = str(error).splitlines()[0]
                continue
            rows = [grid.shape[2] for grid in grids]
            stride = SIZES[0] // rows[0]
            if (partial := rows == [-(-size // stride) for size in SIZES]) or rows == [
                size // stride for size in SIZES
            ]:
                break
            reason = f"those of {SIZES} px give {rows} rows"
        else:
            raise ConfigError(f"backbone {name!r} does not take pictures of any size: {reason}")
        grids[0].sum().backward()
    unused = tuple(
        child
        for child, part in network.named_children()
        if any(True for _ in part.parameters()) and all(weight.grad is None for weight in part.parameters())
    )
    blocks = []
    for child, part in network.named_children():
        inner = [f"{child}.{number}" for number, _ in part.named_children()] if child in REPEATED else [child]
        blocks += [(f"{NETWORK}.{NETWORK}.{path}",) for path in inner if child not in unused]
    classifier = network.pretrained_cfg.get("classifier") or ()
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    spec = BackboneSpec(
        layers="atlas_ray.models.backbones.from_timm:layers",
        features=grids[0].shape[1],
        stride=stride,
        partial_cells=partial,
        blocks=tuple(blocks),
        own_prefix=f"{NETWORK}.{NETWORK}.",
        other_weights=tuple(f"{part}." for part in dict.fromkeys((*unused, *heads))),
        image_size_px=(network.pretrained_cfg.get("input_size") or (3, 224, 224))[-1],
        mean=tuple(network.pretrained_cfg.get("mean") or IMAGENET_MEAN),
        std=tuple(network.pretrained_cfg.get("std") or IMAGENET_STD),
    )
    return Examined(spec, multiple, unused)


def spec(name: str) -> BackboneSpec:
    """Return the entry of a network, `timm/NAME`; raises as `examine`."""
    return examine(name).spec


def layers(name: str) -> dict[str, nn.Module]:
    """Build a network, `timm/NAME`, without the parts that only its own classifier needs."""
    network, found = _build(name), examine(name)
    for part in found.unused:
        setattr(network, part, nn.Identity())
    return {NETWORK: TimmLayer(network, found.multiple)}
