"""The searches where each prefix's probabilities are meant to sum to 1 over what the taxonomy allows."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from atlas_ray.decoding.beam import beam_search
from atlas_ray.decoding.exact import exact_search
from atlas_ray.decoding.tree import TrieTensors
from tests.decoding.test_search import ABC, HAND, TRANSITIONS, MarkovStep, RandomStep, taxonomies, tree_of


class WithinTaxonomy(RandomStep):
    normalized_by_taxonomy = True


class MarkovWithinTaxonomy(MarkovStep):
    normalized_by_taxonomy = True


def brute_force(step: RandomStep, tree: TrieTensors) -> Tensor:
    """p(leaf), spelled one by one; each step renormalized over the names that may follow: (batch, leaves)."""
    paths = [tuple(tokens[tokens > 0].tolist()) for tokens in tree.trie.leaf_tokens]
    columns = []
    for path in paths:
        state, last = step.start(), torch.ones(step.batch, 1, dtype=torch.int64)
        total = torch.ones(step.batch)
        for position, token in enumerate(path):
            log_p, state = step(last, state)
            allowed = {other[position] for other in paths if other[:position] == path[:position]}
            p = log_p[:, 0].exp()
            total = total * p[:, token] / p[:, sorted(allowed)].sum(1)
            last = torch.full((step.batch, 1), token)
        columns.append(total)
    return torch.stack(columns, 1)


def test_the_hand_written_table() -> None:
    tree = tree_of(HAND, ABC)
    # <start>: A .5, B .3, C .1 of .9; A: B .4, C .3 of .7; B: A .3, C .1 of .4
    wanted = torch.tensor([5 / 9 * 4 / 7, 5 / 9 * 3 / 7, 3 / 9 * 3 / 4, 3 / 9 * 1 / 4, 1 / 9])
    step = MarkovWithinTaxonomy(TRANSITIONS, 2)
    for found in (exact_search(step, tree, top_k=5), beam_search(step, tree, width=9, top_k=5)):
        assert found.leaf.tolist() == [[0, 2, 1, 4, 3]] * 2
        torch.testing.assert_close(found.probability, wanted[found.leaf])
        torch.testing.assert_close(found.level_probability[0], torch.tensor([5 / 9, 5 / 9 * 4 / 7]))
        torch.testing.assert_close(found.outside, torch.zeros(2), atol=1e-6, rtol=0)
    # it is another posterior than the one normalized over all paths at once
    plain = exact_search(MarkovStep(TRANSITIONS, 1), tree, top_k=5)
    assert plain.leaf.tolist() == [[0, 1, 4, 2, 3]]


@pytest.mark.long
@settings(max_examples=60)
@given(taxonomies, st.integers(0, 10_000))
def test_exact_is_the_brute_force(paths: set[tuple[str, ...]], seed: int) -> None:
    tree = tree_of(sorted(paths))
    leaves = len(tree.trie.leaves)
    step = WithinTaxonomy(seed, tree.trie.vocabulary_size, [1, 2, 3])
    wanted = brute_force(step, tree)
    torch.testing.assert_close(wanted.sum(1), torch.ones(3))
    found = exact_search(step, tree, top_k=leaves)
    torch.testing.assert_close(found.probability, wanted.gather(1, found.leaf), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.outside, torch.zeros(3), atol=1e-5, rtol=0)
    assert all(sorted(row) == list(range(leaves)) for row in found.leaf.tolist())
    for row, best in enumerate(found.leaf[:, 0].tolist()):
        path = tree.trie.leaves[best]
        for level in range(len(path)):
            shared = [n for n, leaf in enumerate(tree.trie.leaves) if leaf[: level + 1] == path[: level + 1]]
            assert found.level_probability[row, level] == pytest.approx(float(wanted[row, shared].sum()), abs=1e-5)


@pytest.mark.long
@settings(max_examples=60)
@given(taxonomies, st.integers(0, 10_000))
def test_a_wide_beam_is_exact(paths: set[tuple[str, ...]], seed: int) -> None:
    tree = tree_of(sorted(paths))
    leaves = len(tree.trie.leaves)
    step = WithinTaxonomy(seed, tree.trie.vocabulary_size, [1, 2, 3])
    exact = exact_search(step, tree, top_k=leaves)
    wide = beam_search(step, tree, width=len(tree.token), top_k=leaves)
    torch.testing.assert_close(wide.probability, exact.probability, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(wide.level_probability, exact.level_probability, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(wide.outside, torch.zeros(3), atol=1e-5, rtol=0)
    distinct = exact.probability.diff(dim=1).abs().min() > 1e-6 if leaves > 1 else True
    assert not distinct or wide.leaf.equal(exact.leaf)


@pytest.mark.long
@settings(max_examples=40)
@given(taxonomies, st.integers(0, 10_000))
def test_a_narrow_beam_knows_each_path_it_finds(paths: set[tuple[str, ...]], seed: int) -> None:
    tree = tree_of(sorted(paths))
    step = WithinTaxonomy(seed, tree.trie.vocabulary_size, [1, 2, 3])
    wanted = brute_force(step, tree)
    found = beam_search(step, tree, width=2, top_k=2)
    there = found.leaf >= 0
    assert there[:, 0].all()
    # what the beam dropped counts as inside, so what it kept has its true probability
    torch.testing.assert_close(
        found.probability[there], wanted.gather(1, found.leaf.clamp(min=0))[there], atol=1e-5, rtol=1e-4
    )
    torch.testing.assert_close(found.outside, torch.zeros(3), atol=1e-5, rtol=0)


def test_a_name_without_a_sibling_costs_nothing() -> None:
    tree = tree_of([("A", "B", "C")])
    step = WithinTaxonomy(5, tree.trie.vocabulary_size, [1, 2])
    for found in (exact_search(step, tree), beam_search(step, tree)):
        torch.testing.assert_close(found.probability[:, 0], torch.ones(2))
        torch.testing.assert_close(found.level_probability, torch.ones(2, 3))
