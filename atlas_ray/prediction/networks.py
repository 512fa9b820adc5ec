"""Networks ready to predict: they encode a batch of products, then search what was encoded.

An encoder alone makes vectors of products.

Dimensions: batch; M modalities; N leaves of the taxonomy that a network was trained on, or labels.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from atlas_ray.artifacts import Artifact, Network
from atlas_ray.decoding.classes import classes_search
from atlas_ray.decoding.exact import exact_log_mass
from atlas_ray.decoding.posterior import Posterior, spread
from atlas_ray.decoding.scope import Scope
from atlas_ray.decoding.searches import EXACT_NODE_BUDGET, SEARCHES
from atlas_ray.decoding.unconstrained import Proposals, unconstrained_search
from atlas_ray.modalities import PICTURE
from atlas_ray.modalities.products import Products
from atlas_ray.models.backbones.backbone import fuse_batch_norm
from atlas_ray.models.classifier import Classifier
from atlas_ray.models.encoder_decoder import DecoderStep, EncoderDecoder
from atlas_ray.models.fusion.policy import FusionNetwork
from atlas_ray.models.head import Head
from atlas_ray.models.sentence_classifier import SentenceClassifier
from atlas_ray.models.sentences import SentenceEncoder
from atlas_ray.models.text import TextNetwork
from atlas_ray.models.text_encoder_decoder import TextEncoderDecoder
from atlas_ray.prediction.engines import PLAIN, run_encoder
from atlas_ray.taxonomy.vocabulary import PAD


class Encoder(ABC):
    """A network that turns products into vectors."""

    modalities: tuple[str, ...]
    """The modalities of a product that it reads: picture, title, description."""
    image_size_px: int = 0
    """Side of the pictures that it reads; 0 if it reads none."""
    features: int
    """Width of its vectors."""

    @abstractmethod
    def encode(self, products: Products) -> Tensor:
        """Run the network over a batch: (batch, ...)."""

    def vectors(self, products: Products) -> Tensor:
        """Return the vectors that products are compared by, (batch, features) float32.

        They are the vectors of the modalities, joined in the order of `modalities`, each of length 1, or 0 if a
        product does not have the modality. That of a picture is the feature grid's mean.
        """
        return normalize(pooled(self.encode(products)))


class PictureEncoder(Encoder):
    """The encoder of a model of pictures, which an engine runs."""

    def __init__(self, network: Network, device: torch.device, dtype: torch.dtype, engine: str) -> None:
        self.modalities, self.image_size_px = network.modalities, network.image_size_px
        self.features = sum(network.feature_widths)
        self._device = device
        model = network.model
        fuse_batch_norm(model.encoder)
        model.to(device, dtype).to(memory_format=torch.channels_last)
        self._encoder = run_encoder(engine, model.encoder, self.image_size_px, network.compiled)

    def encode(self, products: Products) -> Tensor:
        """Return the feature grids, (batch, features, rows, columns)."""
        features: Tensor = self._encoder(products.pixels.to(self._device, non_blocking=True))
        return features


class TextEncoder(Encoder):
    """A sentence encoder, or the layers of a model of texts before its last; no engine runs them."""

    def __init__(self, network: Network, device: torch.device, dtype: torch.dtype, engine: str) -> None:  # noqa: ARG002
        known = network.words or network.tokens
        assert known is not None
        self.modalities, self.features = network.modalities, sum(network.feature_widths)
        self._device = device
        self._words = known
        self._model: TextNetwork | SentenceClassifier | TextEncoderDecoder | SentenceEncoder = network.model.to(
            device, dtype
        )

    def encode(self, products: Products) -> Tensor:
        """Return the features of the texts, (batch, features), or for a decoder (batch, features, 1, length)."""
        texts = products.text(self.modalities[0])
        number = {text: place for place, text in enumerate(dict.fromkeys(texts))}  # a product's pictures repeat it
        found = self._model.features(torch.from_numpy(self._words.encode(list(number))).to(self._device))
        return found if len(number) == len(texts) else found[[number[text] for text in texts]]


class JoinedEncoder(Encoder):
    """The encoders of several modalities, each asked about the products that have its modality."""

    def __init__(self, network: Network, device: torch.device, dtype: torch.dtype, engine: str) -> None:
        self.modalities, self.image_size_px = network.modalities, network.image_size_px
        self.features = sum(network.feature_widths)
        self._device = device
        self._encoders = [build_encoder(network.members[name], device, dtype, engine) for name in self.modalities]

    def encode(self, products: Products) -> Tensor:
        """Return the vectors."""
        return self.vectors(products)

    def vectors(self, products: Products) -> Tensor:
        """Return the vectors that products are compared by, (batch, sum of the encoders' features)."""
        return side_by_side(self._encoders, products, products.present(self.modalities).to(self._device))


def side_by_side(encoders: Iterable[Encoder], products: Products, present: Tensor) -> Tensor:
    """Return the vectors of encoders of one modality each, side by side, (batch, sum of their features).

    Args:
        encoders: One for each modality.
        products: The batch.
        present: (batch, M) bool, on the encoders' device: which modalities each product has.
    """
    parts = []
    for position, encoder in enumerate(encoders):
        parts.append(torch.zeros(len(products), encoder.features, device=present.device))
        rows, encoded = encoded_of(encoder, products, present[:, position])
        if encoded is not None:
            parts[-1][rows] = normalize(pooled(encoded))
    return torch.cat(parts, 1)


class Inference(Encoder):
    """A network that predicts the category paths or labels of products, from what its encoder makes of them."""

    @property
    def attends(self) -> str:
        """The modality of which it can tell where it looked, picture, title or description; "" if of none."""
        return ""

    @property
    def proposes(self) -> bool:
        """Whether it can spell paths of a picture that are not in the taxonomy."""
        return False

    @abstractmethod
    def search(self, encoded: Tensor, scope: Scope, *, width: int, top_k: int) -> Posterior:
        """Find the best paths of what was encoded."""

    def logits(self, encoded: Tensor) -> Tensor:
        """Return the logits of the leaves or labels, (batch, N) float32, unless the network spells paths."""
        raise NotImplementedError

    def maps(self, products: Products, encoded: Tensor, tokens: Tensor) -> Tensor:
        """Return where a network that `attends` looked for each token, (batch, depth, rows, columns)."""
        raise NotImplementedError

    def propose(self, encoded: Tensor, *, width: int) -> Proposals:
        """Find the best sequences of names, in the taxonomy or not, with a network that `proposes`."""
        raise NotImplementedError


class Single(Inference):
    """A network with a class for each leaf or label, of one modality; a subclass may search or read otherwise."""

    def __init__(self, artifact: Artifact, device: torch.device, dtype: torch.dtype, engine: str) -> None:
        self._encoder = build_encoder(artifact, device, dtype, engine)
        self.modalities, self.image_size_px = self._encoder.modalities, self._encoder.image_size_px
        self.features = self._encoder.features
        self.model: Any = artifact.model
        self._temperature = artifact.temperature

    def encode(self, products: Products) -> Tensor:
        """Run the encoder."""
        return self._encoder.encode(products)

    def search(self, encoded: Tensor, scope: Scope, *, width: int, top_k: int) -> Posterior:  # noqa: ARG002
        """Find the best paths."""
        assert scope.classes is not None
        logits = self.logits(encoded)
        return classes_search(logits, scope.classes, scope.tree, top_k=top_k, temperature=self._temperature)

    def log_posterior(self, encoded: Tensor, scope: Scope) -> Tensor:
        """Return log p(leaf) for each leaf of a scope, (batch, N), normalized over them."""
        assert scope.classes is not None
        return (self.logits(encoded)[:, scope.classes] / self._temperature).log_softmax(-1)


class ClassifierInference(Single):
    """A classifier of leaves or labels."""

    model: Classifier

    def logits(self, encoded: Tensor) -> Tensor:
        """Return the logits of the leaves or labels, (batch, N) float32."""
        return self.model.classify(encoded).float()


class EncoderDecoderInference(Single):
    """An encoder-decoder, which spells paths."""

    model: EncoderDecoder

    @property
    def attends(self) -> str:
        """The modality that its decoder looks at."""
        return self.modalities[0]

    @property
    def proposes(self) -> bool:
        """Whether it can spell paths of a picture that are not in the taxonomy."""
        return self.attends == PICTURE

    def _step(self, encoded: Tensor) -> DecoderStep:
        return DecoderStep(self.model, self.model.decoder.grid(encoded))

    def search(self, encoded: Tensor, scope: Scope, *, width: int, top_k: int) -> Posterior:
        """Find the best paths."""
        step, find = self._step(encoded), SEARCHES[scope.search].find
        return find(step, scope.tree, width=width, top_k=top_k, temperature=self._temperature)

    def log_posterior(self, encoded: Tensor, scope: Scope) -> Tensor:
        """Return log p(leaf) for every leaf of a scope, (batch, N), normalized over them.

        Where the scope is not searched exactly, as many decoder steps are taken as its budget allows, and leaves that
        they do not lead to share the probability that is left.
        """
        if scope.search == "exact":
            return (exact_log_mass(self._step(encoded), scope.tree) / self._temperature).log_softmax(-1)
        width = max(EXACT_NODE_BUDGET // scope.tree.trie.depth, 1)
        return spread(self.search(encoded, scope, width=width, top_k=width), len(scope.tree.trie.leaves))

    def propose(self, encoded: Tensor, *, width: int) -> Proposals:
        """Find the best sequences of names, in the taxonomy or not."""
        return unconstrained_search(self._step(encoded), width=width)

    def maps(self, products: Products, encoded: Tensor, tokens: Tensor) -> Tensor:  # noqa: ARG002
        """Return where the decoder looked for each token."""
        return self.model.attention_maps(self.model.decoder.grid(encoded), tokens)


class TextInference(Single):
    """A model of titles or of descriptions."""

    model: TextNetwork | SentenceClassifier

    def logits(self, encoded: Tensor) -> Tensor:
        """Return the logits of the leaves or labels, (batch, N) float32."""
        logits: Tensor = self.model.head.output(encoded)
        return logits.float()


def pooled(encoded: Tensor) -> Tensor:
    """Return features as (batch, features) float32; for a grid, the mean over its cells."""
    return encoded.float() if encoded.ndim == 2 else encoded.float().mean((2, 3))


@dataclass(frozen=True)
class ModalityOutput:
    """The output of a model of one modality for a batch of products; 0 for those without the modality."""

    scores: Tensor
    """(batch, N) float32: log-probabilities of the leaves, or log-odds of the labels."""
    features: Tensor
    """(batch, features) float32."""


def output_of(
    member: Single, products: Products, present: Tensor, score: Callable[[Tensor], Tensor], outputs: int
) -> ModalityOutput:
    """Run a model of one modality over the products that have it.

    Args:
        member: The model.
        products: The batch.
        present: (batch,) bool, on the model's device: which products have the modality.
        score: Turns encoded products into scores.
        outputs: N.
    """
    scores = torch.zeros(len(products), outputs, device=present.device)
    features = torch.zeros(len(products), member.features, device=present.device)
    rows, encoded = encoded_of(member, products, present)
    if encoded is not None:
        scores[rows] = score(encoded)
        features[rows] = pooled(encoded)
    return ModalityOutput(scores, features)


def encoded_of(member: Encoder, products: Products, present: Tensor) -> tuple[Tensor, Tensor | None]:
    """Encode the products that have a model's modality; return their rows, and the result unless there are none."""
    rows = present.nonzero()[:, 0]
    if not len(rows):
        return rows, None
    return rows, member.encode(products if len(rows) == len(products) else products.take(rows.tolist()))


class FusedInference(Inference):
    """The models of several modalities, and the policy over them."""

    def __init__(self, artifact: Artifact, device: torch.device, dtype: torch.dtype, engine: str = PLAIN) -> None:
        self._policy: FusionNetwork = artifact.model.to(device)
        self._temperature = artifact.temperature
        self._device = device
        self.modalities, self.image_size_px = artifact.modalities, artifact.image_size_px
        self.features = sum(artifact.feature_widths)
        fused = artifact.fused
        self._members = {name: build_single(fused[name], device, dtype, engine) for name in self.modalities}
        self._scopes = {
            name: Scope.of(
                artifact.taxonomy,
                fused[name].vocabulary,
                device,
                trained_on=None if fused[name].spells else artifact.taxonomy,
            )
            for name in self.modalities
            if artifact.labels is None
        }
        picture = self._members.get(PICTURE)
        if picture:  # it may number the names in another order than the fused model does
            number = {token: place for place, token in enumerate(fused[PICTURE].vocabulary.tokens)}
            picture_tokens = [number.get(token, PAD) for token in artifact.vocabulary.tokens]
            self._picture_token = torch.tensor(picture_tokens, device=device)

    @property
    def attends(self) -> str:
        """The picture, if its model's decoder looks at it."""
        return self._members[PICTURE].attends if PICTURE in self._members else ""

    def policy_inputs(self, products: Products) -> tuple[Tensor, Tensor, Tensor | None]:
        """Run the members; return the scores, present and features that `FusionNetwork` takes."""
        present = products.present(self.modalities).to(self._device)
        outputs = [
            output_of(member, products, present[:, position], self._score(name), self._policy.config.outputs)
            for position, (name, member) in enumerate(self._members.items())
        ]
        return join_outputs(self._policy, outputs, present)

    def _score(self, name: str) -> Callable[[Tensor], Tensor]:
        member, scope = self._members[name], self._scopes.get(name)
        return member.logits if scope is None else lambda encoded: member.log_posterior(encoded, scope)

    def vectors(self, products: Products) -> Tensor:
        """Return the vectors that products are compared by, (batch, sum of the members' features)."""
        return side_by_side(self._members.values(), products, products.present(self.modalities).to(self._device))

    def encode(self, products: Products) -> Tensor:
        """Return the fused logits, (batch, N)."""
        fused: Tensor = self._policy(*self.policy_inputs(products))
        return fused

    def logits(self, encoded: Tensor) -> Tensor:
        """Return the fused logits, (batch, N), which are what it encodes to."""
        return encoded

    def search(self, encoded: Tensor, scope: Scope, *, width: int, top_k: int) -> Posterior:  # noqa: ARG002
        """Find the best paths."""
        assert scope.classes is not None
        return classes_search(encoded, scope.classes, scope.tree, top_k=top_k, temperature=self._temperature)

    def maps(self, products: Products, encoded: Tensor, tokens: Tensor) -> Tensor:  # noqa: ARG002
        """Return where the decoder of the picture's model looked for each token."""
        picture = self._members[PICTURE]
        return picture.maps(products, picture.encode(products), self._picture_token[tokens])


class HeadInference(Single):
    """A head, over the vectors of one or several modalities. What it encodes to are the vectors."""

    model: Head

    def __init__(self, artifact: Artifact, device: torch.device, dtype: torch.dtype, engine: str = PLAIN) -> None:
        super().__init__(artifact, device, dtype, engine)
        self.model.to(device)

    def vectors(self, products: Products) -> Tensor:
        """Return the vectors that products are compared by, (batch, features)."""
        return self._encoder.vectors(products)

    def logits(self, encoded: Tensor) -> Tensor:
        """Return the logits of the leaves, (batch, N) float32."""
        logits: Tensor = self.model(encoded)
        return logits.float()


def join_outputs(
    policy: FusionNetwork, outputs: Sequence[ModalityOutput], present: Tensor
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Join the outputs of the modalities into the scores, present and features that a policy takes."""
    scores = torch.stack([output.scores for output in outputs], 1)
    return scores, present, torch.cat([output.features for output in outputs], 1) if policy.config.widths else None


ENCODERS: dict[str, Callable[[Network, torch.device, torch.dtype, str], Encoder]] = {
    "encoder": PictureEncoder,
    "sentence-encoder": TextEncoder,
    "classifier": PictureEncoder,
    "encoder-decoder": PictureEncoder,
    "text": TextEncoder,
    "sentence": TextEncoder,
    "text-encoder-decoder": TextEncoder,
    "sentence-encoder-decoder": TextEncoder,
    "fusion": JoinedEncoder,
    "head": JoinedEncoder,
}
"""The encoder of each of `atlas_ray.artifacts.kinds.VECTOR_KINDS`."""
SINGLES: dict[str, Callable[[Artifact, torch.device, torch.dtype, str], Single]] = {
    "classifier": ClassifierInference,
    "encoder-decoder": EncoderDecoderInference,
    "text": TextInference,
    "sentence": TextInference,
    "text-encoder-decoder": EncoderDecoderInference,
    "sentence-encoder-decoder": EncoderDecoderInference,
    "head": HeadInference,
}
"""The kinds of models that another may fuse."""
INFERENCES: dict[str, Callable[[Artifact, torch.device, torch.dtype, str], Inference]] = {
    **SINGLES,
    "fusion": FusedInference,
}
"""The inference of each of `atlas_ray.artifacts.kinds.PATH_KINDS`."""


def build_encoder(network: Network, device: torch.device, dtype: torch.dtype, engine: str = PLAIN) -> Encoder:
    """Prepare what turns products into vectors; the network is changed."""
    network.model.eval().requires_grad_(False)
    return ENCODERS[network.kind](network, device, dtype, engine)


def build_single(artifact: Artifact, device: torch.device, dtype: torch.dtype, engine: str = PLAIN) -> Single:
    """Prepare the network of an artifact that reads one modality; the network is changed."""
    artifact.model.eval().requires_grad_(False)
    return SINGLES[artifact.kind](artifact, device, dtype, engine)


def build_inference(artifact: Artifact, device: torch.device, dtype: torch.dtype, engine: str = PLAIN) -> Inference:
    """Prepare an artifact's network; the network is changed."""
    artifact.model.eval().requires_grad_(False)
    return INFERENCES[artifact.kind](artifact, device, dtype, engine)
