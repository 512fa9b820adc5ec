"""Augmentation of a whole batch on the training device: one affine sampling a picture."""

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample


def augment(pictures: Tensor) -> Tensor:
    """Mirror, crop, stretch and shift each picture at random.

    `torchvision.transforms.v2` draws one transform for a whole batch. Here each picture gets another one, without a
    loop over pictures.

    Args:
        pictures: (batch, 3, size, size), any dtype.

    Returns:
        The same shape in float32: mirrored half of the time, cropped anywhere to 75% to 105% of the picture, with an
        aspect ratio within 12%.
    """
    batch, device = len(pictures), pictures.device
    scale = torch.empty(batch, device=device).uniform_(0.75, 1.05)
    aspect = torch.empty(batch, device=device).uniform_(-0.12, 0.12).exp()
    width, height = scale * aspect, scale / aspect
    mirror = torch.where(torch.rand(batch, device=device) < 0.5, -1.0, 1.0)
    matrix = torch.zeros(batch, 2, 3, device=device)
    matrix[:, 0, 0], matrix[:, 1, 1] = width * mirror, height
    matrix[:, 0, 2] = torch.empty_like(width).uniform_(-1, 1) * (1 - width).abs()
    matrix[:, 1, 2] = torch.empty_like(height).uniform_(-1, 1) * (1 - height).abs()
    grid = affine_grid(matrix, list(pictures.shape), align_corners=False)
    return grid_sample(pictures.float(), grid, padding_mode="border", align_corners=False)
