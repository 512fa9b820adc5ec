"""Soft attention over a picture's feature grid.

The paper pools the encoder's grid to 14 x 14 cells and attends over those. A linear projection commutes with average
pooling, so here the projection runs on the encoder's own grid and its result is pooled. Pooling a smaller grid up
repeats cells (5 x 5 to 14 x 14 gives 81 different ones among 196), so only the different ones, called regions, are
computed, each weighted by how often it occurs in the 14 x 14 grid. The result is the paper's, to rounding.

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
    """A batch of pictures as attention reads it."""

    features: Tensor
    """(batch, cells, encoder_dim)"""
    keys: Tensor
    """(batch, regions, attention_dim)"""
    mean: Tensor
    """(batch, encoder_dim), over the pooled grid."""


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

    def pooled(self, cells: Tensor) -> Tensor:
        """Pool (batch, cells, dim) to (batch, regions, dim)."""
        return torch.matmul(self.pool.to(cells.dtype), cells)

    def mean(self, cells: Tensor) -> Tensor:
        """Average (batch, cells, dim) over the pooled grid."""
        return torch.einsum("bce,c->be", cells, self.mean_weight.to(cells.dtype))

    def maps(self, weights: Tensor) -> Tensor:
        """Spread weights over regions to the pooled grid: (..., pooled_size, pooled_size)."""
        each = weights / self.count
        spread = each[..., self.region]  # (..., pooled cells)
        return spread.reshape(*spread.shape[:-1], self.pooled_size, self.pooled_size)


class Attention(nn.Module):
    """Additive attention. The gate of the paper is in the decoder."""

    def __init__(
        self,
        *,
        encoder_dim: int,
        decoder_dim: int,
        attention_dim: int,
        grid_size: int,
        pooled_size: int,
    ) -> None:
        """Build the layers and the pooling of a square grid."""
        super().__init__()
        self.encoder_att = nn.Linear(encoder_dim, attention_dim)
        self.decoder_att = nn.Linear(decoder_dim, attention_dim)
        self.full_att = nn.Linear(attention_dim, 1)
        self.regions = Regions(grid_size, pooled_size)

    def grid(self, features: Tensor) -> Grid:
        """Prepare the encoder's output, (batch, encoder_dim, rows, columns), for many steps."""
        cells = features.flatten(2).transpose(1, 2).contiguous()  # (batch, cells, encoder_dim)
        return Grid(cells, self.regions.pooled(self.encoder_att(cells)), self.regions.mean(cells))

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
        energy = self.full_att(joined).squeeze(-1).float() + self.regions.count.log()
        weights = energy.softmax(-1)  # (batch, hypotheses, regions)
        dtype = grid.features.dtype
        over_cells = torch.matmul(weights.to(dtype), self.regions.pool.to(dtype))  # (batch, hypotheses, cells)
        return torch.matmul(over_cells, grid.features), weights
