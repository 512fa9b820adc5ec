"""The objectives of all kinds of networks: the loss of each example, and the network's answer for it.

Dimensions: batch; steps (tokens of a path and its <end>); leaves; labels; children (the most of any node).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from atlas_ray.decoding.classes import classes_search
from atlas_ray.decoding.searches import SEARCHES, choose_search
from atlas_ray.decoding.tree import TrieTensors
from atlas_ray.metrics.labels import MicroF1, compare
from atlas_ray.modalities.tokens import TextIndex
from atlas_ray.models.encoder_decoder import DecoderStep, EncoderDecoder
from atlas_ray.models.path_model import PathModel
from atlas_ray.settings import Settings
from atlas_ray.taxonomy import LabelSpace, Taxonomy, Vocabulary, compile_trie
from atlas_ray.taxonomy.vocabulary import END, PAD
from atlas_ray.training.networks import build_network
from atlas_ray.training.packing import unpack_outputs
from atlas_ray.training.settings import TrainConfig

LEVEL_FACTOR = 4.0
"""The factor by which a leaf's share of smoothing along the tree grows with each level that it has in common."""


class Objective(nn.Module, ABC):
    """A network with its loss, as one module that DDP can wrap.

    `forward(inputs, labels)` returns each example's loss, (batch,). Inputs are those of the network: pictures
    (batch, 3, size, size) RGB 0 to 255, or words (batch, length). Labels are (batch,) positions of
    `Taxonomy.label_positions`, or for a model of labels (batch, labels) bool: those that each example has.
    """

    network: PathModel
    labels_above = True
    """Whether an example to learn from may be labelled above the leaf. A training without any sets False."""
    figure = "val_accuracy"
    """The figure that the best epoch is chosen by, one of `FIGURES`."""

    def __init__(self, config: TrainConfig, taxonomy: Taxonomy, network: PathModel, device: torch.device) -> None:
        super().__init__()
        self.settings: Any = config
        self.smoothing = config.label_smoothing
        self.along_tree = config.smoothing == "tree"
        self.tree = TrieTensors(compile_trie(taxonomy, Vocabulary.of(taxonomy)), device)
        self.network = network

    @abstractmethod
    def parts(self) -> tuple[nn.Module, nn.Module]:
        """Return the encoder and the rest, which have separate learning rates."""

    @abstractmethod
    def evaluate(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return each example's loss without smoothing, and the network's answer: a leaf, (batch,), or labels."""

    @property
    def counts(self) -> int:
        """The number of columns of `count`."""
        return 1 + 2 * self.tree.ancestors.shape[1]

    def count(self, answers: Tensor, labels: Tensor) -> Tensor:
        """Return (batch, counts) bool: whether the path is right, whether each level is, and which levels it has."""
        paths = self.tree.label_paths
        has_level = paths[labels] >= 0  # (batch, depth); nodes are equal only if all nodes above them are
        right = (paths[answers] == paths[labels]) & has_level
        return torch.cat([self.tree.is_below(answers, labels)[:, None], right, has_level], 1)

    def figures(self, sums: Sequence[float], examples: float) -> dict[str, float]:
        """Turn the sums of `count` over all examples into figures."""
        exact, *levels = sums
        depth = len(levels) // 2
        figures = {"val_accuracy": exact / max(examples, 1.0)}
        for level, (right, have) in enumerate(zip(levels[:depth], levels[depth:], strict=True), 1):
            figures[f"val_accuracy_level_{level}"] = right / max(have, 1.0)
        return figures


def build_objective(
    config: TrainConfig,
    taxonomy: Taxonomy,
    device: torch.device,
    words: TextIndex | None = None,
    shape: Settings | None = None,
    space: LabelSpace | None = None,
) -> Objective:
    """Build the network of these settings, as `build_network`, with its loss, on a device."""
    network = build_network(config, taxonomy, words, shape, space)
    network.to(memory_format=torch.channels_last)
    objectives = OBJECTIVES if space is None else LABEL_OBJECTIVES
    return objectives[config.model](config, taxonomy, network, device).to(device)


class ClassesObjective(Objective):
    """Categorical cross-entropy over the leaves.

    The probability of a label above the leaf is the sum over the leaves below it.
    """

    network: Any  # it gives a logit for each leaf or label

    def parts(self) -> tuple[nn.Module, nn.Module]:
        """Return the encoder, which for texts is the embedding, and the head."""
        return self.network.encoder, self.network.head

    def logits(self, inputs: Tensor) -> Tensor:
        """Run the network, (batch, leaves) or (batch, labels)."""
        logits: Tensor = self.network(inputs)
        return logits

    def forward(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Return each example's loss, (batch,)."""
        log_p = self.logits(inputs).log_softmax(-1, dtype=torch.float32)  # (batch, leaves)
        loss = self._of_labels(log_p, labels) if self.labels_above else -log_p.gather(1, labels[:, None])[:, 0]
        if not self.smoothing:
            return loss
        if self.along_tree:
            paths = self.tree.ancestors  # (leaves, depth)
            shared = ((self.tree.label_paths[labels][:, None] == paths) & (paths >= 0)).sum(2)  # (batch, leaves)
            own = shared == self.tree.label_length[labels][:, None]  # the leaf, or those below the label
            near: Tensor = (LEVEL_FACTOR**shared).masked_fill(own, 0.0)
            other = -(log_p * near).sum(1) / near.sum(1).clamp(min=1e-9)
        else:
            other = -log_p.mean(1)
        smoothed: Tensor = (1 - self.smoothing) * loss + self.smoothing * other
        return smoothed

    def evaluate(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return each example's loss without smoothing, and the leaf that the network answers, (batch,)."""
        logits = self.logits(inputs)
        loss = self._of_labels(logits.log_softmax(-1, dtype=torch.float32), labels)
        classes = torch.arange(logits.shape[1], device=logits.device)
        return loss, classes_search(logits, classes, self.tree, top_k=1).leaf[:, 0]

    def _of_labels(self, log_p: Tensor, labels: Tensor) -> Tensor:
        """Return -log of the summed probability of the leaves at or below each label, (batch,).

        Args:
            log_p: (batch, leaves) log-probabilities.
            labels: (batch,)
        """
        leaves = torch.arange(log_p.shape[1], device=log_p.device)
        below = self.tree.is_below(leaves, labels[:, None])  # (batch, leaves)
        return -log_p.masked_fill(~below, -math.inf).logsumexp(1)


class LabelsObjective(ClassesObjective):
    """The mean binary cross-entropy of the labels (late fusion)."""

    figure = "val_micro_f1"
    counts = 3

    def forward(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Return each example's loss, (batch,)."""
        return self._loss(self.logits(inputs), labels, self.smoothing)

    def evaluate(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return each example's loss without smoothing, (batch,), and the labels that are named, (batch, labels)."""
        logits = self.logits(inputs)
        return self._loss(logits, labels, 0.0), logits > 0

    def _loss(self, logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
        target = labels.float() * (1 - smoothing) + smoothing / 2  # (batch, labels)
        return binary_cross_entropy_with_logits(logits.float(), target, reduction="none").mean(1)

    def count(self, answers: Tensor, labels: Tensor) -> Tensor:
        """Return how many labels of each answer are right, wrong and missed: (batch, 3)."""
        return torch.stack(compare(answers, labels)).sum(2).T

    def figures(self, sums: Sequence[float], examples: float) -> dict[str, float]:  # noqa: ARG002
        """Turn the sums of `count` over all examples into figures."""
        micro = MicroF1.of(*sums)
        return {"val_micro_f1": micro.f1, "val_micro_precision": micro.precision, "val_micro_recall": micro.recall}


class HeadObjective(ClassesObjective):
    """Categorical cross-entropy of a head, which has no encoder; its inputs are vectors, (batch, width) float32."""

    def parts(self) -> tuple[nn.Module, nn.Module]:
        """Return an empty encoder, and the head."""
        return nn.Identity(), self.network

    def logits(self, inputs: Tensor) -> Tensor:
        """Run the head, (batch, leaves); while it learns, modalities are left out at random."""
        widths = self.network.config.widths
        if self.training and len(widths) > 1:
            present = torch.stack([part.any(1) for part in inputs.split(widths, 1)], 1)
            kept = kept_modalities(present, self.settings.modality_dropout, least=1)
            inputs = inputs * kept.repeat_interleave(torch.tensor(widths, device=inputs.device), 1)
        return super().logits(inputs)


def kept_modalities(present: Tensor, dropout: float, *, least: int) -> Tensor:
    """Leave out modalities at random, unless fewer than `least` would stay: (batch, M) bool of the same."""
    kept = present & (torch.rand(present.shape, device=present.device) >= dropout)
    return torch.where((kept.sum(1) >= least)[:, None], kept, present)


class PolicyObjective(ClassesObjective):
    """Categorical cross-entropy of a fusion policy, which has no encoder.

    Its inputs are (batch, `packed_width`) float32, the rows of `pack_outputs`. During training, modalities are left
    out at random, so that the policy learns to answer without them.
    """

    def parts(self) -> tuple[nn.Module, nn.Module]:
        """Return an empty encoder, and the policy."""
        return nn.Identity(), self.network

    def logits(self, inputs: Tensor) -> Tensor:
        """Run the policy, (batch, leaves) or (batch, labels)."""
        scores, features, present = unpack_outputs(inputs, self.network.config)
        if self.training:
            present, features = self._drop_modalities(present, features)
        logits: Tensor = self.network(scores, present, features)
        return logits

    def _drop_modalities(self, present: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        # A policy has no part in answers from one modality.
        present = kept_modalities(present, self.settings.modality_dropout, least=2)
        if widths := self.network.config.widths:
            features = features * present.repeat_interleave(torch.tensor(widths, device=present.device), 1)
        return present, features


class PolicyLabelsObjective(PolicyObjective, LabelsObjective):
    """The mean binary cross-entropy of a fusion policy's labels."""


class EncoderDecoderObjective(Objective):
    """The cross-entropy of each token under teacher forcing, and the attention's regularization.

    Of a label above the leaf the tokens that it has are spelled, and no <end>: the probability of a prefix is the sum
    over the paths that go on from it.
    """

    network: EncoderDecoder

    def __init__(self, config: TrainConfig, taxonomy: Taxonomy, network: PathModel, device: torch.device) -> None:
        super().__init__(config, taxonomy, network, device)
        self.regularization = self.settings.attention_regularization
        self.within_taxonomy = self.settings.normalization == "taxonomy"
        tree = self.tree
        paths = tree.label_paths
        tokens = tree.token[paths.clamp(min=0)].masked_fill(paths < 0, PAD)
        ended = torch.cat([tokens, torch.full_like(tokens[:, :1], PAD)], 1)
        leaves = torch.arange(len(tree.leaf_length), device=ended.device)
        ended[leaves, tree.leaf_length] = END
        self.targets = ended  # (labels, steps) the tokens of each path, then <end> if it is a leaf's
        root = torch.zeros_like(paths[:, :1])
        self.prefixes = torch.cat([root, paths], 1)  # (labels, steps) the node before each token; -1
        first = torch.from_numpy(tree.trie.first_child).to(device)
        position = paths - first[self.prefixes[:, :-1].clamp(min=0)]
        self.child = torch.cat([position, torch.zeros_like(root)], 1)  # (labels, steps) which child each token is

    def parts(self) -> tuple[nn.Module, nn.Module]:
        """Return the encoder and the decoder."""
        return self.network.encoder, self.network.decoder

    def forward(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Return each picture's loss, (batch,)."""
        grid = self.network.encode(inputs)
        logits, weights = self.network.spell(grid, self.targets[labels])
        loss = self._spelled(logits, labels, self.smoothing)
        count = self.network.decoder.regions.counts(grid.features)  # (batch or 1, regions)
        looked = (weights.float() * (self.targets[labels] != PAD)[:, :, None]).sum(1) / count.clamp(min=1)
        uneven = ((1 - looked) ** 2 * count).sum(1) / count.sum(1)
        regularized: Tensor = loss + self.regularization * uneven
        return regularized

    def evaluate(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return each picture's loss without smoothing, and the leaf that a constrained search finds, (batch,)."""
        grid = self.network.encode(inputs)
        loss = self._spelled(self.network.spell(grid, self.targets[labels])[0], labels, 0.0)
        search = SEARCHES[choose_search("auto", self.tree)]
        return loss, search.find(DecoderStep(self.network, grid), self.tree, top_k=1).leaf[:, 0]

    def _spelled(self, logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
        """Return the mean cross-entropy of each path's tokens, (batch,)."""
        tokens = self.targets[labels]  # (batch, steps)
        counted = tokens != PAD
        children = nearby = None
        if self.within_taxonomy or (smoothing and self.along_tree):
            prefix = self.prefixes[labels]
            nodes = self.tree.children[prefix.clamp(min=0)]  # (batch, steps, children)
            nearby = (nodes >= 0) & (prefix >= 0)[:, :, None]
            children = self.tree.token[nodes.clamp(min=0)]
        if self.within_taxonomy:
            assert children is not None
            assert nearby is not None
            # After a leaf only <end> may follow, which has no loss; after a label above it nothing is spelled.
            counted = counted & nearby.any(2)
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
        return (loss * counted).sum(1) / counted.sum(1).clamp(min=1)


OBJECTIVES: dict[str, Callable[..., Objective]] = {
    "classifier": ClassesObjective,
    "encoder-decoder": EncoderDecoderObjective,
    "text": ClassesObjective,
    "text-encoder-decoder": EncoderDecoderObjective,
    "fusion": PolicyObjective,
    "head": HeadObjective,
}
"""The objectives of models of category paths, by the kinds of `atlas_ray.training.settings.TRAININGS`."""
LABEL_OBJECTIVES: dict[str, Callable[..., Objective]] = {
    "image-labels": LabelsObjective,
    "text": LabelsObjective,
    "fusion": PolicyLabelsObjective,
}
"""The objectives of models of labels, by the same kinds."""
