"""What each kind of network learns from: a loss a picture, and the path it would answer.

Dimensions: batch; steps (tokens of a path and its <end>); leaves; children (the most of any node).
"""

from typing import Any

import torch
from torch import Tensor, nn

from atlas_ray.decoding import EXACT_NODE_BUDGET, TrieTensors, beam_search, classes_search, exact_search
from atlas_ray.models import Classifier, ClassifierConfig, EncoderDecoder, EncoderDecoderConfig, PathModel
from atlas_ray.models.encoder_decoder import DecoderStep
from atlas_ray.taxonomy import Taxonomy, Vocabulary, compile_trie
from atlas_ray.taxonomy.vocabulary import END, PAD
from atlas_ray.training.config import ClassifierTraining, EncoderDecoderTraining, TrainConfig

NEARER = 4.0
"""Of a classifier's smoothing along the tree: how much more a leaf gets for each level it shares."""


class Objective(nn.Module):
    """A network with its loss; as one module, so that DDP may wrap it.

    `forward(pictures, labels)` returns each picture's loss, (batch,). Pictures are (batch, 3, size,
    size) RGB 0 to 255, labels (batch,) positions of leaves.
    """

    network: PathModel

    def __init__(self, config: TrainConfig, taxonomy: Taxonomy, device: torch.device) -> None:
        super().__init__()
        self.smoothing = config.label_smoothing
        self.along_tree = config.smoothing == "tree"
        self.tree = TrieTensors(compile_trie(taxonomy, Vocabulary.of(taxonomy)), device)
        self.network = build_network(config, taxonomy)

    def parts(self) -> tuple[nn.Module, nn.Module]:
        """Return the encoder and the rest, which learn at rates of their own."""
        raise NotImplementedError

    def evaluate(self, pictures: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return each picture's plain loss and the leaf that the network would answer, (batch,)."""
        raise NotImplementedError


def build_network(config: TrainConfig, taxonomy: Taxonomy) -> PathModel:
    """Build the network that settings ask for, with random weights."""
    if isinstance(config, ClassifierTraining):
        return Classifier(
            ClassifierConfig(
                classes=len(taxonomy.leaves),
                backbone=config.backbone,
                image_size_px=config.image_size_px,
                hidden_dim=config.hidden_dim,
                dropout=config.dropout,
            )
        )
    assert isinstance(config, EncoderDecoderTraining)
    return EncoderDecoder(
        EncoderDecoderConfig(
            vocabulary_size=len(Vocabulary.of(taxonomy)),
            backbone=config.backbone,
            image_size_px=config.image_size_px,
            decoder=config.decoder,
            embedding_dim=config.hidden_dim,
            attention_dim=config.hidden_dim,
            decoder_dim=config.hidden_dim,
            layers=config.layers,
            heads=config.heads,
            dropout=config.dropout,
            normalization=config.normalization,
        )
    )


def build_objective(config: TrainConfig, taxonomy: Taxonomy, device: torch.device) -> Objective:
    """Build the network that settings ask for with its loss, on a device."""
    kind: type[Objective] = ClassifierObjective if isinstance(config, ClassifierTraining) else EncoderDecoderObjective
    objective = kind(config, taxonomy, device)
    objective.network.to(memory_format=torch.channels_last)
    objective.to(device)
    return objective


class ClassifierObjective(Objective):
    """Categorical cross-entropy over the leaves."""

    network: Classifier

    def parts(self) -> tuple[nn.Module, nn.Module]:
        """Return the encoder and the head."""
        return self.network.encoder, self.network.head

    def forward(self, pictures: Tensor, labels: Tensor) -> Tensor:
        """Return each picture's loss, (batch,)."""
        log_p = self.network(pictures).log_softmax(-1, dtype=torch.float32)  # (batch, leaves)
        loss: Tensor = -log_p.gather(1, labels[:, None])[:, 0]
        if not self.smoothing:
            return loss
        if self.along_tree:
            paths = self.tree.ancestors  # (leaves, depth)
            shared = ((paths[labels][:, None] == paths) & (paths >= 0)).sum(2)  # (batch, leaves)
            near: Tensor = (NEARER**shared).scatter(1, labels[:, None], 0.0)
            other = -(log_p * near).sum(1) / near.sum(1).clamp(min=1e-9)
        else:
            other = -log_p.mean(1)
        smoothed: Tensor = (1 - self.smoothing) * loss + self.smoothing * other
        return smoothed

    def evaluate(self, pictures: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return each picture's plain loss and the leaf that the network would answer, (batch,)."""
        logits = self.network(pictures)
        loss = -logits.log_softmax(-1, dtype=torch.float32).gather(1, labels[:, None])[:, 0]
        classes = torch.arange(logits.shape[1], device=logits.device)
        return loss, classes_search(logits, classes, self.tree, top_k=1).leaf[:, 0]


class EncoderDecoderObjective(Objective):
    """Cross-entropy of each token under teacher forcing, and the attention's regularization."""

    network: EncoderDecoder

    def __init__(self, config: TrainConfig, taxonomy: Taxonomy, device: torch.device) -> None:
        super().__init__(config, taxonomy, device)
        assert isinstance(config, EncoderDecoderTraining)
        self.regularization = config.attention_regularization
        self.within_taxonomy = config.normalization == "taxonomy"
        tree = self.tree
        tokens = torch.from_numpy(tree.trie.leaf_tokens)
        ended = torch.cat([tokens, torch.full_like(tokens[:, :1], PAD)], 1)
        ended[torch.arange(len(ended)), tree.leaf_length.cpu()] = END
        self.targets = ended.to(device)  # (leaves, steps) each path's tokens, then <end>
        root = torch.zeros_like(tree.ancestors[:, :1])
        self.prefixes = torch.cat([root, tree.ancestors], 1)  # (leaves, steps) the node before each token; -1
        first = torch.from_numpy(tree.trie.first_child).to(device)
        position = tree.ancestors - first[self.prefixes[:, :-1].clamp(min=0)]
        self.child = torch.cat([position, torch.zeros_like(root)], 1)  # (leaves, steps) which child each token is

    def parts(self) -> tuple[nn.Module, nn.Module]:
        """Return the encoder and the decoder."""
        return self.network.encoder, self.network.decoder

    def forward(self, pictures: Tensor, labels: Tensor) -> Tensor:
        """Return each picture's loss, (batch,)."""
        grid = self.network.encode(pictures)
        logits, weights = self.network.spell(grid, self.targets[labels])
        loss = self._spelled(logits, labels, self.smoothing)
        count = self.network.decoder.regions.count  # (regions,)
        looked = (weights.float() * (self.targets[labels] != PAD)[:, :, None]).sum(1) / count  # (batch, regions)
        uneven = ((1 - looked) ** 2 * count).sum(1) / count.sum()
        regularized: Tensor = loss + self.regularization * uneven
        return regularized

    def evaluate(self, pictures: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return each picture's plain loss and the leaf that a constrained search finds, (batch,)."""
        grid = self.network.encode(pictures)
        loss = self._spelled(self.network.spell(grid, self.targets[labels])[0], labels, 0.0)
        search: Any = exact_search if self.tree.trie.inner_count <= EXACT_NODE_BUDGET else beam_search
        return loss, search(DecoderStep(self.network, grid), self.tree, top_k=1).leaf[:, 0]

    def _spelled(self, logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
        """Return the mean cross-entropy of each path's tokens, (batch,)."""
        tokens = self.targets[labels]  # (batch, steps)
        there = tokens != PAD
        children = nearby = None
        if self.within_taxonomy or (smoothing and self.along_tree):
            prefix = self.prefixes[labels]
            nodes = self.tree.children[prefix.clamp(min=0)]  # (batch, steps, children)
            nearby = (nodes >= 0) & (prefix >= 0)[:, :, None]
            children = self.tree.token[nodes.clamp(min=0)]
        if self.within_taxonomy:
            assert children is not None
            assert nearby is not None
            # A node without children is a leaf: <end> is all that may follow, and costs nothing.
            there = there & nearby.any(2)
            allowed = logits.float().gather(2, children).masked_fill(~nearby, -1e9)
            log_p = allowed.log_softmax(-1)  # (batch, steps, children)
            chosen = log_p.gather(2, self.child[labels][:, :, None].clamp(min=0))[:, :, 0]
            others = log_p
        else:
            log_p = logits.log_softmax(-1, dtype=torch.float32)  # (batch, steps, vocabulary)
            chosen = log_p.gather(2, tokens[:, :, None])[:, :, 0]
            others = log_p if children is None else log_p.gather(2, children)
        loss = -chosen
        if smoothing:
            kept = torch.ones_like(others, dtype=torch.bool) if nearby is None else nearby
            mean = -others.masked_fill(~kept, 0.0).sum(2) / kept.sum(2).clamp(min=1)
            loss = torch.where(kept.any(2), (1 - smoothing) * loss + smoothing * mean, loss)
        return (loss * there).sum(1) / there.sum(1).clamp(min=1)
