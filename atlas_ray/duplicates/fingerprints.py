"""Fingerprints of pictures: bits that stay when a picture is recompressed, resized, brightened or cropped a little."""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from atlas_ray.duplicates.sizes import BITS, COLOUR_CELLS, COLOUR_STEPS, GRID_PX, SHAPE_BITS, Fingerprints

# batch: pictures; size: side of the given pixels; grid: GRID_PX

FLAT_DEVIATION = 2.0
"""Standard deviation, in grey levels of 255, below which a picture is one colour and some noise."""


def fingerprint(pixels: Tensor) -> Fingerprints:
    """Return the perceptual hash of each picture of a batch.

    Two thirds of the bits are its shape: the signs of the lowest frequencies of the grey picture's cosine
    transform (pHash: Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions",
    2010). The constant frequency is left out, so brightness is no part of it. A third is its colour,
    because shops show one shirt in ten colours in the same pose: red minus grey and blue minus grey of
    each of 4x4 cells, each compared with four thresholds.

    Args:
        pixels: (batch, 3, size, size) uint8, RGB; `GRID_PX` is the size that costs least.

    Returns:
        (batch, WORDS) uint64; all zero if the picture is of one colour, which has no fingerprint.
    """
    colours = pixels.float()
    if colours.shape[-1] != GRID_PX:
        colours = interpolate(colours, (GRID_PX, GRID_PX), mode="bilinear", antialias=True)
    grey = torch.tensordot(colours, torch.tensor([0.299, 0.587, 0.114]), dims=([1], [0]))  # (batch, grid, grid)
    basis = _cosines()
    spectrum = basis @ grey @ basis.T  # (batch, grid, grid)
    shape = spectrum.flatten(1)[:, _lowest()] > 0  # (batch, SHAPE_BITS)
    cells = adaptive_avg_pool2d(colours[:, ::2] - grey[:, None], COLOUR_CELLS)  # (batch, 2, cells, cells)
    colour = (cells[..., None] > torch.tensor(COLOUR_STEPS)).flatten(1)  # (batch, BITS - SHAPE_BITS)
    bits = torch.cat([shape, colour], dim=1)
    # Any run of bits gets frequencies low and high, and colours: those alone are much alike among pictures.
    bits = bits[:, torch.arange(BITS) * 37 % BITS]
    variance = (grey - grey.mean(dim=(1, 2), keepdim=True)).square().mean(dim=(1, 2))  # (batch,)
    bits &= (variance >= FLAT_DEVIATION**2)[:, None]
    return np.packbits(bits.numpy(), axis=1).view(np.uint64)


def _cosines() -> Tensor:
    """Return the orthonormal basis of the cosine transform, DCT-II: (frequency, position)."""
    frequency = torch.arange(GRID_PX)[:, None]
    position = torch.arange(GRID_PX)[None]
    basis: Tensor = torch.cos(torch.pi * frequency * (2 * position + 1) / (2 * GRID_PX)) * (2 / GRID_PX) ** 0.5
    basis[0] /= 2**0.5
    return basis


def _lowest() -> Tensor:
    """Return the places of the lowest frequencies but the constant one, (SHAPE_BITS,)."""
    frequency = torch.arange(GRID_PX)
    radius = frequency[:, None] ** 2 + frequency**2  # (grid, grid)
    order: Tensor = radius.flatten().argsort(stable=True)
    return order[1 : SHAPE_BITS + 1]
