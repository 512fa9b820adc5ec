"""The searches on hand-written and random tables of probabilities; no model in sight."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from atlas_ray.decoding import beam, exact
from atlas_ray.decoding.beam import beam_search
from atlas_ray.decoding.exact import exact_search
from atlas_ray.decoding.posterior import Posterior
from atlas_ray.decoding.tree import TrieTensors
from atlas_ray.decoding.unconstrained import unconstrained_search
from atlas_ray.taxonomy import Taxonomy, Vocabulary, compile_trie

# tokens: 0 <pad>, 1 <start>, 2 <end>, 3 A, 4 B, 5 C
TRANSITIONS = torch.tensor(
    [
        [1.0, 0.0, 0.0, 0.0, 0.0, 0.0],  # after <pad>: never read
        [0.0, 0.0, 0.1, 0.5, 0.3, 0.1],  # after <start>
        [0.0, 0.0, 1.0, 0.0, 0.0, 0.0],  # after <end>
        [0.0, 0.0, 0.2, 0.1, 0.4, 0.3],  # after A
        [0.0, 0.0, 0.6, 0.3, 0.0, 0.1],  # after B
        [0.0, 0.0, 0.7, 0.1, 0.2, 0.0],  # after C
    ]
)


class MarkovStep:
    """A decoder whose next token depends on the last one alone, the same for every picture."""

    normalized_by_taxonomy = False

    def __init__(self, table: Tensor, batch: int) -> None:
        self.table, self.batch, self.device = table, batch, torch.device("cpu")
        self.rows = 0

    def start(self) -> tuple[Tensor, ...]:
        return (torch.zeros(self.batch, 1, 1),)

    def __call__(self, tokens: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        assert state[0].shape[:2] == tokens.shape
        self.rows += tokens.numel()
        return self.table[tokens].log(), (state[0] + tokens[:, :, None],)


class RandomStep:
    """A decoder whose next token depends on the picture and on the whole prefix."""

    normalized_by_taxonomy = False

    def __init__(self, seed: int, vocabulary: int, pictures: list[int]) -> None:
        self.seed, self.vocabulary = seed, vocabulary
        self.pictures = torch.tensor(pictures)
        self.batch, self.device = len(pictures), torch.device("cpu")

    def start(self) -> tuple[Tensor, ...]:
        return (self.pictures[:, None] * 7919 + self.seed,)

    def __call__(self, tokens: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        prefix = (state[0] * 31 + tokens * 17 + 5) % 1_000_003
        columns = torch.arange(self.vocabulary)
        logits = torch.sin(prefix[:, :, None] * (columns + 1) * 0.37) * 3  # (batch, hypotheses, vocabulary)
        return logits.double().log_softmax(-1).float(), (prefix,)


def tree_of(paths: list[tuple[str, ...]], vocabulary: Vocabulary | None = None) -> TrieTensors:
    taxonomy = Taxonomy(paths, name="t")
    return TrieTensors(compile_trie(taxonomy, vocabulary or Vocabulary.of(taxonomy)))


HAND = [("A", "B"), ("A", "C"), ("B", "A"), ("B", "C"), ("C",)]
ABC = Vocabulary(["<pad>", "<start>", "<end>", "A", "B", "C"])
# p: A B .5*.4, A C .5*.3, B A .3*.3, B C .3*.1, C .1; together .57
MASS = [0.20, 0.15, 0.09, 0.03, 0.10]


def test_exact_on_the_hand_written_table() -> None:
    tree = tree_of(HAND, ABC)
    assert tree.trie.leaves == tuple(HAND)
    found = exact_search(MarkovStep(TRANSITIONS, 2), tree, top_k=5)
    assert found.leaf.tolist() == [[0, 1, 4, 2, 3]] * 2
    torch.testing.assert_close(found.probability[0], torch.tensor([0.20, 0.15, 0.10, 0.09, 0.03]) / 0.57)
    torch.testing.assert_close(found.outside, torch.full((2,), 0.43))
    torch.testing.assert_close(found.level_probability[0], torch.tensor([0.35, 0.20]) / 0.57)


def test_beam_on_the_hand_written_table() -> None:
    tree = tree_of(HAND, ABC)
    found = beam_search(MarkovStep(TRANSITIONS, 1), tree, width=2, top_k=2)
    # <start> keeps A (.5) and B (.3), drops C (.1); then A B (.20), A C (.15) stay, B A, B C go.
    assert found.leaf.tolist() == [[0, 1]]
    inside = 0.20 + 0.15 + 0.09 + 0.03 + 0.10  # found and dropped mass
    torch.testing.assert_close(found.probability[0], torch.tensor([0.20, 0.15]) / inside)


def test_an_ended_path_keeps_its_place() -> None:
    tree = tree_of([("A", "B"), ("A", "C"), ("C",)], ABC)
    table = TRANSITIONS.clone()
    table[1] = torch.tensor([0.0, 0.0, 0.0, 0.3, 0.1, 0.6])
    found = beam_search(MarkovStep(table, 1), tree, width=2, top_k=2)
    assert [tree.trie.leaves[leaf] for leaf in found.leaf[0].tolist()] == [("C",), ("A", "B")]
    assert found.level_probability[0, 1] == 0  # C has one level


def test_greedy_is_a_beam_of_one() -> None:
    found = beam_search(MarkovStep(TRANSITIONS, 1), tree_of(HAND, ABC), width=1, top_k=5)
    assert found.leaf.tolist() == [[0]]


def test_ties_go_to_the_lower_index() -> None:
    even = torch.full((6, 6), 1 / 6)
    tree = tree_of(HAND, ABC)
    for _ in range(3):
        assert exact_search(MarkovStep(even, 1), tree, top_k=5).leaf.tolist() == [[4, 0, 1, 2, 3]]
        assert beam_search(MarkovStep(even, 1), tree, width=9, top_k=5).leaf.tolist() == [[4, 0, 1, 2, 3]]
        # a beam of two keeps A and B, the first of three equals, and then the first of their leaves
        assert beam_search(MarkovStep(even, 1), tree, width=2, top_k=5).leaf.tolist() == [[0, 1]]


def test_exact_expands_each_inner_node_once() -> None:
    step = MarkovStep(TRANSITIONS, 3)
    exact_search(step, tree_of(HAND, ABC))
    assert step.rows == 3 * 3  # pictures x (root, A, B)


@pytest.mark.parametrize("most", [1, 3, 5, 6, 7, 100])
def test_a_level_is_expanded_in_parts_that_memory_allows(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    tree = tree_of([(one, other, third) for one in "abcde" for other in "fghi" for third in "jk"])
    step = RandomStep(3, tree.trie.vocabulary_size, [1, 2, 3])
    whole = exact_search(step, tree, top_k=40)
    asked: list[int] = []

    class Counted(RandomStep):
        def __call__(self, tokens: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
            asked.append(tokens.numel())
            return super().__call__(tokens, state)

    monkeypatch.setattr(exact, "MAX_HYPOTHESES", most)
    found = exact_search(Counted(3, tree.trie.vocabulary_size, [1, 2, 3]), tree, top_k=40)
    assert torch.equal(found.leaf, whole.leaf)
    torch.testing.assert_close(found.probability, whole.probability)
    assert sum(asked) == 3 * (1 + 5 + 20)
    assert max(asked) <= max(most, 3)  # a node at least


def test_unconstrained_proposes_what_the_taxonomy_lacks() -> None:
    found = unconstrained_search(MarkovStep(TRANSITIONS, 2), width=3, max_length=3)
    # A B <end> .5*.4*.6, B <end> .3*.6, <end> .1 (the empty path), A <end> .5*.2, A C <end> .5*.3*.7
    sequences = [[token for token in row if token] for row in found.tokens[0].tolist()]
    assert sequences == [[4], [3, 4], [3, 5]]
    torch.testing.assert_close(found.probability[0], torch.tensor([0.18, 0.12, 0.105]))


names = st.sampled_from(["a", "b", "c", "d", "e"])
taxonomies = st.sets(st.lists(names, min_size=1, max_size=4).map(tuple), min_size=1, max_size=14)


def brute_force(step: RandomStep, tree: TrieTensors) -> Tensor:
    """log p(leaf) of every leaf, spelled one by one: (batch, leaves)."""
    columns = []
    for tokens in tree.trie.leaf_tokens:
        state, last = step.start(), torch.ones(step.batch, 1, dtype=torch.int64)
        total = torch.zeros(step.batch)
        for token in tokens[tokens > 0].tolist():
            log_p, state = step(last, state)
            total = total + log_p[:, 0, token]
            last = torch.full((step.batch, 1), token)
        columns.append(total)
    return torch.stack(columns, 1)


@pytest.mark.long
@settings(max_examples=80)
@given(taxonomies, st.integers(0, 10_000))
def test_the_laws(paths: set[tuple[str, ...]], seed: int) -> None:
    tree = tree_of(sorted(paths))
    leaves = len(tree.trie.leaves)
    step = RandomStep(seed, tree.trie.vocabulary_size, [1, 2, 3])
    truth = brute_force(step, tree)
    found = exact_search(step, tree, top_k=leaves)
    # the posterior is the normalized brute force, and sums to 1
    wanted = (truth - truth.logsumexp(1, keepdim=True)).exp()
    torch.testing.assert_close(found.probability.sum(1), torch.ones(3))
    torch.testing.assert_close(found.probability, wanted.gather(1, found.leaf))
    torch.testing.assert_close(found.outside, 1 - truth.exp().sum(1), atol=1e-5, rtol=0)
    # every leaf stands once, best first
    assert all(sorted(row) == list(range(leaves)) for row in found.leaf.tolist())
    assert (found.probability.diff(dim=1) <= 0).all()
    # level probabilities: the mass of the leaves that share the prefix
    for row, best in enumerate(found.leaf[:, 0].tolist()):
        path = tree.trie.leaves[best]
        for level in range(len(path)):
            shared = [n for n, leaf in enumerate(tree.trie.leaves) if leaf[: level + 1] == path[: level + 1]]
            assert found.level_probability[row, level] == pytest.approx(float(wanted[row, shared].sum()), abs=1e-5)
    # a beam as wide as the tree ranks and weighs as exact does
    wide = beam_search(step, tree, width=max(leaves, len(tree.token)), top_k=leaves)
    torch.testing.assert_close(wide.probability, found.probability, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(wide.outside, found.outside, atol=1e-5, rtol=0)
    distinct = found.probability.diff(dim=1).abs().min() > 1e-6 if leaves > 1 else True
    assert not distinct or wide.leaf.equal(found.leaf)
    # a narrow beam gives leaves, each once, with lower bounds of their probability
    narrow = beam_search(step, tree, width=2, top_k=2)
    for row, leaf in itertools.product(range(3), range(narrow.leaf.shape[1])):
        if narrow.leaf[row, leaf] >= 0:
            assert narrow.probability[row, leaf] <= wanted[row, narrow.leaf[row, leaf]] + 1e-5
    assert (narrow.leaf[:, 0] >= 0).all()


@pytest.mark.long
@settings(max_examples=30)
@given(taxonomies, st.integers(0, 1000), st.lists(st.integers(0, 50), min_size=1, max_size=5))
def test_a_batch_is_its_pictures_one_by_one(paths: set[tuple[str, ...]], seed: int, pictures: list[int]) -> None:
    tree = tree_of(sorted(paths))
    size = tree.trie.vocabulary_size

    def search(name: str, of: list[int]) -> Posterior:
        step = RandomStep(seed, size, of)
        return exact_search(step, tree) if name == "exact" else beam_search(step, tree, width=3)

    for name in ("exact", "beam"):
        together = search(name, pictures)
        for row, picture in enumerate(pictures):
            alone = search(name, [picture])
            assert together.leaf[row].tolist()[: alone.leaf.shape[1]] == alone.leaf[0].tolist()
            torch.testing.assert_close(together.outside[row], alone.outside[0])


@settings(max_examples=30)
@given(taxonomies, st.integers(0, 1000), st.integers(1, 7))
def test_a_beam_that_does_not_shrink_finds_the_same(paths: set[tuple[str, ...]], seed: int, width: int) -> None:
    tree = tree_of(sorted(paths))
    step = RandomStep(seed, tree.trie.vocabulary_size, [0, 1, 2])
    shrinking = beam_search(step, tree, width=width, top_k=width)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(beam, "widest", lambda going: going.shape[1])  # as on a GPU
        fixed = beam_search(step, tree, width=width, top_k=width)
    kept = shrinking.leaf.shape[1]
    assert fixed.leaf[:, :kept].equal(shrinking.leaf)
    assert (fixed.leaf[:, kept:] == -1).all()
    torch.testing.assert_close(fixed.probability[:, :kept], shrinking.probability)
    torch.testing.assert_close(fixed.outside, shrinking.outside)
    torch.testing.assert_close(fixed.level_probability, shrinking.level_probability)


def test_a_large_tree_with_one_deep_leaf() -> None:
    paths = [(f"n{n}",) for n in range(50)] + [("deep", *(f"d{n}" for n in range(7)))]
    tree = tree_of(paths)
    found = beam_search(RandomStep(3, tree.trie.vocabulary_size, [1, 2]), tree, width=5)
    assert (found.leaf >= 0).all()
    assert all(math.isfinite(value) for value in found.probability.flatten().tolist())
