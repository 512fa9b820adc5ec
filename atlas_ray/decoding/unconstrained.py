"""Beam search without a taxonomy: what the model would say of its own accord."""

from dataclasses import dataclass

import torch
from torch import Tensor

from atlas_ray.decoding.beam import NEG_INF, select
from atlas_ray.decoding.step import StepFunction
from atlas_ray.taxonomy.vocabulary import END, PAD, START


@dataclass
class Proposals:
    """Token sequences, best first."""

    tokens: Tensor
    """(batch, width, length) without <start> and <end>, padded with <pad>."""
    probability: Tensor
    """(batch, width) p(sequence then <end> | picture)."""


def unconstrained_search(step: StepFunction, *, width: int = 5, max_length: int = 12) -> Proposals:
    """Keep the `width` best sequences of each picture until they end.

    It lists paths outside the taxonomy that the model proposes (Atlas, Table 2). Sequences that
    have not ended after `max_length` tokens are dropped. Ties go to the lower index.
    """
    batch, device = step.batch, step.device
    state = step.start()
    last = torch.full((batch, 1), START, device=device)
    score = torch.zeros(batch, 1, device=device)
    tokens = torch.full((batch, 1, 0), PAD, device=device)
    ended = torch.zeros(batch, 1, dtype=torch.bool, device=device)
    for _ in range(max_length + 1):
        log_p, state = step(last, state)  # (batch, beams, vocabulary)
        vocabulary = log_p.shape[2]
        log_p[:, :, [PAD, START]] = NEG_INF
        stay = torch.full_like(log_p, NEG_INF)  # an ended sequence goes on with <end> at no cost
        stay[:, :, END] = 0.0
        log_p = torch.where(ended[:, :, None], stay, log_p)
        ranked = (score[:, :, None] + log_p).flatten(1).sort(dim=1, descending=True, stable=True)
        score, index = ranked.values[:, :width], ranked.indices[:, :width]
        source, last = index // vocabulary, index % vocabulary
        state = tuple(select(part, source) for part in state)
        shown = last.masked_fill(last == END, PAD)
        tokens = torch.cat([select(tokens, source), shown[:, :, None]], dim=2)
        ended = last == END
        if bool(ended.all()):
            break
    probability = score.exp().masked_fill(~ended, 0.0)
    order = probability.sort(dim=1, descending=True, stable=True).indices
    return Proposals(select(tokens, order), probability.gather(1, order))
