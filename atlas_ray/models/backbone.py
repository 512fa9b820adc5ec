"""ResNet backbones: pictures to a grid of features."""

from urllib.error import URLError

import torch
from torch import Tensor, nn

from atlas_ray.errors import ArtifactError, ConfigError
from atlas_ray.models.resnet import FEATURES, STRIDE, resnet_parts

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def grid_size(image_size_px: int) -> int:
    """Return the side of a ResNet's feature grid: 5 for pictures of 150 px."""
    return -(-image_size_px // STRIDE)


class Backbone(nn.Module):
    """A ResNet without its pooling and its classifier."""

    mean: Tensor
    std: Tensor

    def __init__(self, name: str) -> None:
        """Build the network with random weights.

        Raises:
            ConfigError: for a name that is not in `FEATURES`.
        """
        super().__init__()
        if name not in FEATURES:
            raise ConfigError(f"backbone {name!r} is unknown; expected one of {', '.join(FEATURES)}")
        self.features = FEATURES[name]
        for part, module in resnet_parts(name).items():
            self.add_module(part, module)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1) * 255, persistent=False)

    def forward(self, pictures: Tensor) -> Tensor:
        """Encode pictures.

        Args:
            pictures: (batch, 3, height, width) RGB, 0 to 255, any dtype.

        Returns:
            (batch, features, rows, columns), one cell for 32 x 32 pixels.
        """
        x = ((pictures - self.mean) / self.std).to(next(self.parameters()).dtype)
        x = x.contiguous(memory_format=torch.channels_last)
        for part in self.children():
            x = part(x)
        return x

    def parts_before(self, block: int) -> list[nn.Module]:
        """Return what comes before a block: 0 nothing, 1 the stem, 2 also the first block, 5 all."""
        parts = list(self.children())
        return parts[: 0 if block == 0 else 3 + block]

    def parts_before_last(self, layers: int) -> list[nn.Module]:
        """Return what comes before the last layers: each convolution and each normalization is one."""
        weighted: list[nn.Module] = [
            part for part in self.modules() if isinstance(part, nn.Conv2d | nn.BatchNorm2d | nn.SyncBatchNorm)
        ]
        return weighted[: max(0, len(weighted) - layers)]


def load_backbone_weights(backbone: Backbone, name: str, weights: str) -> None:
    """Fill a backbone with weights.

    Args:
        backbone: What to fill.
        name: Its name in torchvision.
        weights: `none`, `imagenet` (torchvision's, downloaded once), or a path to a ResNet state
            dict, `.safetensors` or `.pth`.

    Raises:
        ArtifactError: where they cannot be had, or belong to another network.
    """
    if weights == "none":
        return
    if weights == "imagenet":
        from torchvision.models import get_model_weights  # slow to import, see `atlas_ray.models.resnet`

        try:
            state = get_model_weights(name).DEFAULT.get_state_dict(progress=False, check_hash=True)
        except (URLError, OSError) as error:
            raise ArtifactError(
                f"the ImageNet weights of {name} could not be downloaded ({error}); copy torchvision's "
                f"file to this machine and give its path with --weights, or use --weights none"
            ) from error
    else:
        from atlas_ray.artifacts import read_state_dict

        state = read_state_dict(weights)
    state = {key: value for key, value in state.items() if not key.startswith("fc.")}
    try:
        backbone.load_state_dict(state)
    except RuntimeError as error:
        raise ArtifactError(f"{weights}: not the weights of a {name}: {str(error).splitlines()[-1]}") from None


def fuse_batch_norm(backbone: Backbone) -> Backbone:
    """Fold each batch normalization into the convolution before it, for inference alone."""
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    backbone.eval()
    for module in list(backbone.modules()):
        for conv, norm in (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"), ("0", "1")):
            children = dict(module.named_children())
            first, second = children.get(conv), children.get(norm)
            if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                setattr(module, conv, fuse_conv_bn_eval(first, second))
                setattr(module, norm, nn.Identity())
    return backbone
