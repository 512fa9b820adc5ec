"""Soft attention over a picture's feature grid, or over the positions of a text.

The paper pools the encoder's grid to 14 x 14 cells and attends over those. A linear projection commutes with average
pooling, so here the projection runs on the encoder's own grid and its result is pooled. Pooling a smaller grid up
repeats cells (5 x 5 to 14 x 14 gives 81 different ones among 196), so only the different ones, called regions, are
computed, each weighted by how often it occurs in the 14 x 14 grid. The result is the paper's, to rounding.

A text's encoder gives a grid of one row, a column for each word or token; each is a region of its own.

Dimensions: batch; hypotheses (partial paths a picture); cells (of the encoder's grid); regions.
Source: "Show, Attend and Tell" (Xu et al. 2015), sections 3.1 and 4.2; Atlas.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


def pooling_matrix(size: int, pooled_size: int) -> Tensor:
    """Return adaptive average pooling along one side as a matrix, (pooled_size, size)."""
    matrix = torch.zeros(pooled_size, size)
    for row in range(pooled_size):
        start, end = row * size // pooled_size, -(-(row + 1) * size // pooled_size)
        matrix[row, start:end] = 1 / (end - start)
    return matrix


@dataclass
class Grid:
    """A batch of pictures or texts as attention reads it."""

    features: Tensor
    """(batch, cells, encoder_dim)"""
    keys: Tensor
    """(batch, regions, attention_dim)"""
    mean: Tensor
    """(batch, encoder_dim), over the pooled grid."""
    log_count: Tensor
    """(batch or 1, 1, regions), the logarithm of how often each region counts."""


class Regions(nn.Module):
    """The different cells of the pooled grid, and how they are computed from the encoder's cells."""

    pool: Tensor
    count: Tensor
    mean_weight: Tensor
    region: Tensor

    def __init__(self, grid_size: int, pooled_size: int) -> None:
        """Lay out the pooling of a square grid."""
        super().__init__()
        self.pooled_size = pooled_size
        side = pooling_matrix(grid_size, pooled_size)
        full = torch.kron(side, side)  # (pooled cells, cells)
        regions, region, count = full.unique(dim=0, return_inverse=True, return_counts=True)
        self.register_buffer("pool", regions, persistent=False)  # (regions, cells)
        self.register_buffer("count", count, persistent=False)  # (regions,) how often each occurs
        self.register_buffer("mean_weight", full.mean(0), persistent=False)  # (cells,)
        self.register_buffer("region", region, persistent=False)  # (pooled cells,)

    def cells(self, features: Tensor) -> Tensor:
        """Lay out the encoder's output, (batch, dim, rows, columns), as (batch, cells, dim)."""
        return features.flatten(2).transpose(1, 2).contiguous()

    def counts(self, cells: Tensor) -> Tensor:  # noqa: ARG002
        """Return how often each region counts, (1, regions)."""
        return self.count[None]

    def pooled(self, cells: Tensor) -> Tensor:
        """Pool (batch, cells, dim) to (batch, regions, dim)."""
        return torch.matmul(self.pool.to(cells.dtype), cells)

    def mean(self, cells: Tensor) -> Tensor:
        """Average (batch, cells, dim) over the pooled grid."""
        return torch.einsum("bce,c->be", cells, self.mean_weight.to(cells.dtype))

    def over_cells(self, weights: Tensor) -> Tensor:
        """Spread weights over regions, (batch, hypotheses, regions), to (batch, hypotheses, cells)."""
        return torch.matmul(weights, self.pool.to(weights.dtype))

    def maps(self, weights: Tensor) -> Tensor:
        """Spread weights over regions to the pooled grid: (..., pooled_size, pooled_size)."""
        each = weights / self.count
        spread = each[..., self.region]  # (..., pooled cells)
        return spread.reshape(*spread.shape[:-1], self.pooled_size, self.pooled_size)


class Positions(nn.Module):
    """The positions of a text as regions; those whose features are 0 are past its end, and do not count.

    Its methods are those of `Regions`. A text without any position counts its first one.
    """

    def cells(self, features: Tensor) -> Tensor:
        """Lay out the encoder's output, (batch, dim, 1, length), as (batch, cells, dim), without what no text has."""
        cells = features.flatten(2).transpose(1, 2)
        used = int(self.counts(cells).any(0).nonzero().max()) + 1
        return cells[:, :used].contiguous()

    def counts(self, cells: Tensor) -> Tensor:
        """Return 1 for each position that a text has, and 0 for others, (batch, regions)."""
        present = cells.any(2)
        present[:, 0] |= ~present.any(1)
        return present.to(cells.dtype)

    def pooled(self, cells: Tensor) -> Tensor:
        """Return (batch, regions, dim), the cells themselves."""
        return cells

    def mean(self, cells: Tensor) -> Tensor:
        """Average (batch, cells, dim) over the positions that a text has."""
        return cells.sum(1) / self.counts(cells).sum(1, keepdim=True)

    def over_cells(self, weights: Tensor) -> Tensor:
        """Return weights over cells, the weights themselves."""
        return weights

    def maps(self, weights: Tensor) -> Tensor:
        """Return weights as maps of one row: (..., 1, regions)."""
        return weights[..., None, :]


class Attention(nn.Module):
    """Additive attention. The gate of the paper is in the decoder."""

    def __init__(self, *, encoder_dim: int, decoder_dim: int, attention_dim: int, regions: Regions | Positions) -> None:
        """Build the layers."""
        super().__init__()
        self.encoder_att = nn.Linear(encoder_dim, attention_dim)
        self.decoder_att = nn.Linear(decoder_dim, attention_dim)
        self.full_att = nn.Linear(attention_dim, 1)
        self.regions = regions

    def grid(self, features: Tensor) -> Grid:
        """Prepare the encoder's output, (batch, encoder_dim, rows, columns), for many steps."""
        cells = self.regions.cells(features)  # (batch, cells, encoder_dim)
        log_count = self.regions.counts(cells).log()[:, None]
        return Grid(cells, self.regions.pooled(self.encoder_att(cells)), self.regions.mean(cells), log_count)

    def forward(self, grid: Grid, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the context of each hypothesis.

        Args:
            grid: The pictures.
            hidden: (batch, hypotheses, decoder_dim), the decoder's states.

        Returns:
            The context, (batch, hypotheses, encoder_dim), and the weights, (batch, hypotheses,
            regions), which sum to 1.
        """
        query = self.decoder_att(hidden)  # (batch, hypotheses, attention_dim)
        joined = (grid.keys[:, None] + query[:, :, None]).relu_()  # (batch, hypotheses, regions, attention_dim)
        energy = self.full_att(joined).squeeze(-1).float() + grid.log_count
        weights = energy.softmax(-1)  # (batch, hypotheses, regions)
        over_cells = self.regions.over_cells(weights.to(grid.features.dtype))  # (batch, hypotheses, cells)
        return torch.matmul(over_cells, grid.features), weights
