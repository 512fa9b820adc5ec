"""What a search asks of a model."""

from typing import Protocol

import torch
from torch import Tensor

State = tuple[Tensor, ...]
"""A model's memory of prefixes: tensors of (batch, hypotheses, ...)."""


class StepFunction(Protocol):
    """A decoder over a batch of pictures.

    A search calls `start` once, then calls the function with the tokens that it appends to its
    hypotheses and the state of each hypothesis, selected along the second dimension as it likes.
    """

    batch: int
    """How many pictures."""
    device: torch.device
    normalized_by_taxonomy: bool
    """Whether the next token's probabilities are meant to sum to 1 over those that the taxonomy
    allows there; the searches then renormalize them so, and nothing is outside."""

    def start(self) -> State:
        """Return the state of the empty prefix, tensors of (batch, 1, ...)."""
        ...

    def __call__(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Append a token to each hypothesis.

        Args:
            tokens: (batch, hypotheses) int64; <start> for the empty prefix.
            state: The state of each hypothesis before its token.

        Returns:
            log p(next token), (batch, hypotheses, vocabulary) float32, and the new state.
        """
        ...
