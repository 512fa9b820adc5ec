"""Networks made ready to answer: encode a batch of products, then search what was encoded.

Dimensions: batch; M modalities; N leaves of the taxonomy that a network was trained on, or labels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import normalize

from atlas_ray.artifacts import Artifact
from atlas_ray.decoding import (
    SEARCHES,
    Posterior,
    Proposals,
    Scope,
    classes_search,
    exact_log_mass,
    unconstrained_search,
)
from atlas_ray.modalities.products import PICTURE, Products
from atlas_ray.modalities.texts import WordIndex
from atlas_ray.models.backbones.backbone import fuse_batch_norm
from atlas_ray.models.classifier import Classifier
from atlas_ray.models.encoder_decoder import DecoderStep, EncoderDecoder
from atlas_ray.models.fusion.policy import FusionNetwork
from atlas_ray.models.path_model import PictureModel
from atlas_ray.models.text import TextNetwork
from atlas_ray.taxonomy.vocabulary import PAD


class Inference(Protocol):
    """A network that answers about products."""

    reads: tuple[str, ...]
    """What it looks at of a product: picture, title, description."""
    image_size_px: int
    """Side of the pictures that it takes; 0 where it looks at none."""
    attends: bool
    """Whether it can say where in the picture it looked."""

    def encode(self, products: Products) -> Tensor:
        """Run the network over a batch, up to what a search begins with: (batch, ...)."""
        ...

    def search(self, encoded: Tensor, scope: Scope, *, width: int, top_k: int) -> Posterior:
        """Find the best paths of what was encoded."""
        ...

    def vectors(self, products: Products) -> Tensor:
        """Return what products are compared by, (batch, width) float32.

        The vectors of the modalities stand side by side in the order of `reads`, each of length 1, or 0
        where a product does not have the modality. That of a picture is the feature grid's mean.
        """
        ...

    def maps(self, products: Products, encoded: Tensor, tokens: Tensor) -> Tensor:
        """Return where the network looked at each token, (batch, depth, rows, columns)."""
        ...


def build_inference(
    artifact: Artifact, device: torch.device, dtype: torch.dtype, *, compiled: bool = False
) -> Inference:
    """Prepare an artifact's network, which is taken over."""
    model = artifact.model.eval().requires_grad_(False)
    if isinstance(model, FusionNetwork):
        return FusedInference(artifact, model, device, dtype, compiled=compiled)
    if isinstance(model, TextNetwork):
        assert artifact.words is not None
        return TextInference(model, artifact.words, device, dtype, artifact.temperature)
    return PictureInference(model, device, dtype, artifact.temperature, compiled=compiled)


def pooled(encoded: Tensor) -> Tensor:
    """Return features (batch, features) in float32: of a grid, the mean over its places."""
    return encoded.float() if encoded.ndim == 2 else encoded.float().mean((2, 3))


class PictureInference:
    """A classifier, or an encoder-decoder."""

    reads: tuple[str, ...] = (PICTURE,)

    def __init__(
        self, model: PictureModel, device: torch.device, dtype: torch.dtype, temperature: float, *, compiled: bool
    ) -> None:
        self.model = model
        self._temperature = temperature
        self.image_size_px = model.config.image_size_px
        self.attends = isinstance(model, EncoderDecoder)
        self.features = model.encoder.features
        self._device = device
        fuse_batch_norm(model.encoder)
        model.to(device, dtype).to(memory_format=torch.channels_last)
        self._encoder = torch.compile(model.encoder) if compiled else model.encoder

    def encode(self, products: Products) -> Tensor:
        """Return the feature grids, (batch, features, rows, columns)."""
        features: Tensor = self._encoder(products.pixels.to(self._device, non_blocking=True))
        return features

    def search(self, encoded: Tensor, scope: Scope, *, width: int, top_k: int) -> Posterior:
        """Find the best paths."""
        model, temperature = self.model, self._temperature
        if isinstance(model, Classifier):
            assert scope.classes is not None
            logits = model.classify(encoded)
            return classes_search(logits, scope.classes, scope.tree, top_k=top_k, temperature=temperature)
        step = DecoderStep(model, model.decoder.grid(encoded))
        return SEARCHES[scope.search].find(step, scope.tree, width=width, top_k=top_k, temperature=temperature)

    def log_posterior(self, encoded: Tensor, scope: Scope) -> Tensor:
        """Return log p(leaf) for every leaf of a scope, (batch, N), normalized over them."""
        model = self.model
        if isinstance(model, Classifier):
            assert scope.classes is not None
            log_mass = self.logits(encoded)[:, scope.classes]
        else:
            log_mass = exact_log_mass(DecoderStep(model, model.decoder.grid(encoded)), scope.tree)
        return (log_mass / self._temperature).log_softmax(-1)

    def logits(self, encoded: Tensor) -> Tensor:
        """Return what a classifier gives each class or label, (batch, N)."""
        assert isinstance(self.model, Classifier)
        return self.model.classify(encoded).float()

    def propose(self, encoded: Tensor, *, width: int) -> Proposals:
        """Find the best sequences of names, whether or not the taxonomy has them."""
        assert isinstance(self.model, EncoderDecoder)
        return unconstrained_search(DecoderStep(self.model, self.model.decoder.grid(encoded)), width=width)

    def vectors(self, products: Products) -> Tensor:
        """Return what pictures are compared by, (batch, features)."""
        return normalize(pooled(self.encode(products)))

    def maps(self, products: Products, encoded: Tensor, tokens: Tensor) -> Tensor:  # noqa: ARG002
        """Return where the decoder looked."""
        assert isinstance(self.model, EncoderDecoder)
        return self.model.attention_maps(self.model.decoder.grid(encoded), tokens)


class TextInference:
    """A model of titles, or of descriptions."""

    image_size_px = 0
    attends = False

    def __init__(
        self, model: TextNetwork, words: WordIndex, device: torch.device, dtype: torch.dtype, temperature: float
    ) -> None:
        self.model = model.to(device, dtype)
        self._temperature = temperature
        self.reads: tuple[str, ...] = (model.config.field,)
        self.features = model.config.hidden_dim
        self._words, self._device = words, device

    def encode(self, products: Products) -> Tensor:
        """Return the features of the texts, (batch, hidden_dim)."""
        texts = products.text(self.reads[0])
        return self.model.features(torch.from_numpy(self._words.encode(texts)).to(self._device))

    def search(self, encoded: Tensor, scope: Scope, *, width: int, top_k: int) -> Posterior:  # noqa: ARG002
        """Find the best paths."""
        assert scope.classes is not None
        logits = self.model.head.output(encoded)
        return classes_search(logits, scope.classes, scope.tree, top_k=top_k, temperature=self._temperature)

    def log_posterior(self, encoded: Tensor, scope: Scope) -> Tensor:
        """Return log p(leaf) for every leaf of a scope, (batch, N), normalized over them."""
        assert scope.classes is not None
        return (self.logits(encoded)[:, scope.classes] / self._temperature).log_softmax(-1)

    def logits(self, encoded: Tensor) -> Tensor:
        """Return what it gives each leaf or label, (batch, N)."""
        logits: Tensor = self.model.head.output(encoded)
        return logits.float()

    def vectors(self, products: Products) -> Tensor:
        """Return what texts are compared by, (batch, hidden_dim)."""
        return normalize(pooled(self.encode(products)))

    def maps(self, products: Products, encoded: Tensor, tokens: Tensor) -> Tensor:
        """A text has none."""
        raise NotImplementedError


Single = PictureInference | TextInference
"""What looks at one modality."""


@dataclass(frozen=True)
class Opinion:
    """What a model of one modality says of a batch of products; 0 of those that lack it."""

    said: Tensor
    """(batch, N) float32: log-probabilities of the leaves, or log-odds of the labels."""
    features: Tensor
    """(batch, features) float32."""


def opinion_of(
    member: Single, products: Products, there: Tensor, say: Callable[[Tensor], Tensor], outputs: int
) -> Opinion:
    """Ask a model of one modality about the products that have it.

    Args:
        member: The model.
        products: The batch.
        there: (batch,) bool, on the model's device: which of them have it.
        say: What is encoded to what it says.
        outputs: N.
    """
    said = torch.zeros(len(products), outputs, device=there.device)
    features = torch.zeros(len(products), member.features, device=there.device)
    rows, encoded = encoded_of(member, products, there)
    if encoded is not None:
        said[rows] = say(encoded)
        features[rows] = pooled(encoded)
    return Opinion(said, features)


def encoded_of(member: Single, products: Products, there: Tensor) -> tuple[Tensor, Tensor | None]:
    """Run a model over the products that have what it looks at; return which, and what it made of them, if any do."""
    rows = there.nonzero()[:, 0]
    if not len(rows):
        return rows, None
    return rows, member.encode(products if len(rows) == len(products) else products.take(rows.tolist()))


class FusedInference:
    """The models of several modalities, and the policy over them."""

    def __init__(
        self, artifact: Artifact, policy: FusionNetwork, device: torch.device, dtype: torch.dtype, *, compiled: bool
    ) -> None:
        self._policy = policy.to(device)
        self._temperature = artifact.temperature
        self._device = device
        self.reads = policy.config.names
        self._members: dict[str, Single] = {}
        for name in self.reads:
            member = build_inference(artifact.members[name], device, dtype, compiled=compiled)
            assert isinstance(member, Single)
            self._members[name] = member
        self._scopes = {
            name: Scope.of(
                artifact.taxonomy,
                artifact.members[name].vocabulary,
                device,
                search="exact",
                trained_on=None if self._spells(name) else artifact.taxonomy,
            )
            for name in self.reads
            if artifact.labels is None
        }
        picture = self._members.get(PICTURE)
        self.image_size_px = picture.image_size_px if picture else 0
        self.attends = bool(picture and picture.attends)
        if picture:  # it may number the names in another order than the fused model does
            number = {token: place for place, token in enumerate(artifact.members[PICTURE].vocabulary.tokens)}
            there = [number.get(token, PAD) for token in artifact.vocabulary.tokens]
            self._picture_token = torch.tensor(there, device=device)

    def _spells(self, name: str) -> bool:
        return isinstance(self._members[name].model, EncoderDecoder)

    def opinions(self, products: Products) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return what each modality says, for `FusionNetwork`: said, there and features."""
        there = products.there(self.reads).to(self._device)
        outputs = self._policy.config.outputs
        found = [
            opinion_of(member, products, there[:, position], self._say(name), outputs)
            for position, (name, member) in enumerate(self._members.items())
        ]
        return joined(self._policy, found, there)

    def _say(self, name: str) -> Callable[[Tensor], Tensor]:
        member, scope = self._members[name], self._scopes.get(name)
        return member.logits if scope is None else lambda encoded: member.log_posterior(encoded, scope)

    def vectors(self, products: Products) -> Tensor:
        """Return what products are compared by, (batch, sum of the members' features)."""
        there = products.there(self.reads).to(self._device)
        parts = []
        for position, member in enumerate(self._members.values()):
            parts.append(torch.zeros(len(products), member.features, device=self._device))
            rows, encoded = encoded_of(member, products, there[:, position])
            if encoded is not None:
                parts[-1][rows] = normalize(pooled(encoded))
        return torch.cat(parts, 1)

    def encode(self, products: Products) -> Tensor:
        """Return the fused logits, (batch, N)."""
        fused: Tensor = self._policy(*self.opinions(products))
        return fused

    def search(self, encoded: Tensor, scope: Scope, *, width: int, top_k: int) -> Posterior:  # noqa: ARG002
        """Find the best paths."""
        assert scope.classes is not None
        return classes_search(encoded, scope.classes, scope.tree, top_k=top_k, temperature=self._temperature)

    def maps(self, products: Products, encoded: Tensor, tokens: Tensor) -> Tensor:  # noqa: ARG002
        """Return where the picture's decoder looked."""
        picture = self._members[PICTURE]
        return picture.maps(products, picture.encode(products), self._picture_token[tokens])


def joined(policy: FusionNetwork, opinions: Sequence[Opinion], there: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Join what each modality says into what a policy takes: said, there and features."""
    said = torch.stack([opinion.said for opinion in opinions], 1)
    return said, there, torch.cat([opinion.features for opinion in opinions], 1) if policy.config.widths else None
