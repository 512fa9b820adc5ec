"""Picture encoders by name. Importing this imports no torch.

An entry is the only place that describes its encoder. How to add one: `docs/extending/backbone.md`.
"""

from dataclasses import dataclass

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


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
    """Names of the layers of the stem and of each block, in the order in which training may freeze them."""
    torchvision: str = ""
    """Name of the torchvision model whose ImageNet weights fit; "" if there is none."""
    weight_prefix: str = ""
    """Prefix that is removed from the names of weights in a state dict."""
    other_weights: tuple[str, ...] = ()
    """Prefixes of weights in a state dict that are not the encoder's, such as the classifier's; they are ignored."""
    batch_norms: tuple[tuple[str, str], ...] = ()
    """Pairs of a convolution and the batch normalization that directly follows it, by their names within a module."""
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


BACKBONES: dict[str, BackboneSpec] = {
    "resnet18": _resnet("resnet18", 512),
    "resnet34": _resnet("resnet34", 512),
    "resnet50": _resnet("resnet50", 2048),
    "resnet101": _resnet("resnet101", 2048),
}
