"""The settings of a training run: what all models share, and what each adds.

The defaults are the Atlas paper's where it names a value; `configs/` holds its two
recipes as files.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from atlas_ray.errors import ConfigError
from atlas_ray.io import storage
from atlas_ray.modalities import MODALITIES
from atlas_ray.modalities.limits import min_side_setting
from atlas_ray.modalities.texts import FIELDS
from atlas_ray.models.backbones import BACKBONES
from atlas_ray.models.decoders import DECODERS
from atlas_ray.models.fusion import POLICIES
from atlas_ray.settings import Settings, setting
from atlas_ray.taxonomy.labels import TARGETS


def _schedule(default: str) -> Any:
    """Define the setting, whose default differs by the kind of model."""
    text = "the rates as they are, or up to them and down again (Smith)"
    return setting(text, default, choices=("constant", "one-cycle"))


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Settings):
    """What to train on, and how."""

    model: ClassVar[str]
    """The kind of network that comes out."""
    examples: ClassVar[str] = "pictures"
    """What it learns from, in the plural."""
    starts_from: ClassVar[str] = "weights"
    """The field that names a file to start from."""

    catalog: str = setting("a catalogue with labelled products")
    output: str = setting("where the model goes; the run's checkpoints lie below it until it is done")
    taxonomy: str | None = setting("a taxonomy; the catalogue's own where none is given", None)
    hidden_dim: int = setting("width of the decoder or the head", 512, low=1, high=8192)
    dropout: float = setting("before the output layer", 0.5, low=0, high=0.99)
    epochs: int = setting("passes over the training split", 3, low=1, high=10_000)
    batch_size: int = setting("pictures an optimizer step, over all workers together", 128, low=2, high=65_536)
    accumulate: int = setting("parts that each worker's share of a batch is computed in", 1, low=1, high=1024)
    encoder_lr: float = setting("learning rate of the encoder, a text's word vectors", 1e-4, low=0, high=10)
    decoder_lr: float = setting("learning rate of the decoder or the head", 4e-4, low=0, high=10)
    schedule: str = _schedule("constant")
    weight_decay: float = setting("decoupled, of all but biases and normalizations", 0.0, low=0, high=10)
    label_smoothing: float = setting("share of the target that goes to other labels", 0.0, low=0, high=0.99)
    smoothing: str = setting(
        "which other labels: all alike, or along the tree, the nearer the more", "uniform", choices=("uniform", "tree")
    )
    balance: str = setting(
        "help for rare paths: none, weights (loss by 1/sqrt of the count), or sampling (shown more often, likewise)",
        "none",
        choices=("none", "weights", "sampling"),
    )
    clip: float = setting("gradients are scaled down to this norm", 5.0, low=1e-6, high=1e6)
    patience: int = setting("epochs without progress of the validation loss before it ends; 0: never", 0, low=0,
                            high=10_000)  # fmt: skip
    min_delta: float = setting("by how much that loss must fall to count as progress", 0.0, low=0, high=100)
    precision: str = setting(
        "float32, bfloat16 (autocast), or auto: bfloat16 where the device computes in it",
        "auto",
        choices=("auto", "float32", "bfloat16"),
    )
    compile: bool = setting("compile the network; it costs a minute or two at the start", False)
    workers: str = setting(
        "processes that train, each on a GPU where there are enough; MIN:MAX trains elastically", "1"
    )
    device: str = setting(
        "auto: GPUs where the cluster has enough of them now; cuda: as many as workers, which it may bring; or cpu",
        "auto",
        choices=("auto", "cpu", "cuda"),
    )
    checkpoint_steps: int = setting("a checkpoint after so many steps; 0: after each epoch alone", 0, low=0,
                                    high=10_000_000)  # fmt: skip
    seed: int = setting("of weights and shuffling", 0, low=0, high=2**31)

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        super().__post_init__()
        least, most = self.worker_range
        if self.batch_size // most < 2 * self.accumulate:
            raise ConfigError(
                f"batch_size is {self.batch_size}, which {most} workers cannot share in {self.accumulate} parts; "
                "each part needs at least 2 pictures"
            )
        assert least <= most
        if self.label_products is not None:
            self.check_labels()

    @property
    def worker_range(self) -> tuple[int, int]:
        """The least and the most workers.

        Raises:
            ConfigError: for a text that is neither a number nor MIN:MAX.
        """
        least, separator, most = self.workers.partition(":")
        try:
            low = int(least)
            high = int(most) if separator else low
        except ValueError:
            raise ConfigError(f"workers is {self.workers!r}; expected a number, or MIN:MAX") from None
        if not 1 <= low <= high <= 4096:
            raise ConfigError(f"workers is {self.workers!r}; expected 1 to 4096, the least before the most")
        return low, high

    @property
    def title_of_run(self) -> str:
        """What a person calls the run."""
        return self.model

    @property
    def of_pictures(self) -> "PictureTraining | None":
        """These settings, if they are of a model of pictures."""
        return None

    @property
    def label_products(self) -> int | None:
        """How many training products a label needs, of a model of labels; None of one of paths."""
        return None

    def check_labels(self) -> None:
        """Refuse what is of no use where the target is labels.

        Raises:
            ConfigError: naming the setting.
        """
        if self.smoothing == "tree":
            raise ConfigError("smoothing is 'tree'; labels are smoothed each by itself: expected uniform")

    def absolute(self) -> Self:
        """Return these settings with absolute paths, which hold in any folder."""
        names = ["catalog", "output"]
        if self.starts_from and getattr(self, self.starts_from) not in ("none", "imagenet"):
            names.append(self.starts_from)
        if self.taxonomy and storage.exists(self.taxonomy):  # else a built-in one, by its name
            names.append("taxonomy")
        changed: dict[str, Any] = {name: storage.absolute(getattr(self, name)) for name in names}
        return replace(self, **changed)


@dataclass(frozen=True, kw_only=True)
class PictureTraining(TrainConfig):
    """What models of pictures share."""

    backbone: str = setting("the picture encoder", "resnet101", choices=BACKBONES)
    weights: str = setting("what the backbone starts from: none, imagenet, or a path to a state dict", "none")
    image_size_px: int = setting("side of the square that pictures become", 150, low=32, high=2048)
    min_side_px: int = min_side_setting()
    head_epochs: int = setting("first epochs in which the encoder keeps still, with a cycle of their own", 0, low=0,
                               high=10_000)  # fmt: skip
    augment: bool = setting("crop, stretch and mirror training pictures at random; from scratch one needs it", False)
    sync_batch_norm: bool = setting(
        "normalize over the pictures of all workers together, not of each by itself; for several workers on GPUs",
        False,
    )

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        super().__post_init__()
        if self.weights == "imagenet" and not BACKBONES[self.backbone].torchvision:
            raise ConfigError(
                f"weights is 'imagenet', which torchvision has none of for a {self.backbone}; "
                "expected none, or a path to a state dict"
            )
        if self.head_epochs >= self.epochs:
            raise ConfigError(f"head_epochs is {self.head_epochs}, of {self.epochs} epochs in all; expected fewer")

    @property
    def title_of_run(self) -> str:
        """What a person calls the run."""
        return f"{self.model}, {self.backbone}"

    @property
    def of_pictures(self) -> "PictureTraining":
        """These settings."""
        return self

    def frozen_layers(self, encoder: Any) -> list[Any]:
        """Return the layers of an encoder that are not trained."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class PathTraining(PictureTraining):
    """What models of pictures that answer category paths share."""

    train_from_block: int = setting(
        "first block of the backbone that is trained: 0 all with the stem, 2 the paper's blocks 2 to 4 of a ResNet, "
        "5 none of it",
        0,
        low=0,
        high=100,
    )

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        super().__post_init__()
        most = len(BACKBONES[self.backbone].blocks)
        if self.train_from_block > most:
            raise ConfigError(f"train_from_block is {self.train_from_block}; expected 0 to {most} of a {self.backbone}")

    def frozen_layers(self, encoder: Any) -> list[Any]:
        """Return what is before the first block that is trained."""
        layers: list[Any] = encoder.layers_before(self.train_from_block)
        return layers


@dataclass(frozen=True, kw_only=True)
class EncoderDecoderTraining(PathTraining):
    """The model that spells category paths (Atlas)."""

    model: ClassVar[str] = "encoder-decoder"
    decoder: str = setting("what spells the path", "lstm", choices=DECODERS)
    layers: int = setting("of the transformer", 2, low=1, high=64)
    heads: int = setting("of the transformer's attention", 4, low=1, high=64)
    normalization: str = setting(
        "loss over all tokens, or over those alone that the taxonomy allows at each place",
        "vocabulary",
        choices=("vocabulary", "taxonomy"),
    )
    attention_regularization: float = setting("weight of the doubly stochastic regularization", 1.0, low=0, high=100)

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        super().__post_init__()
        DECODERS[self.decoder].check(self, "hidden_dim")


@dataclass(frozen=True, kw_only=True)
class ClassifierTraining(PathTraining):
    """The model that tells leaf paths apart (Atlas)."""

    model: ClassVar[str] = "classifier"
    backbone: str = setting("the picture encoder", "resnet34", choices=BACKBONES)
    epochs: int = setting("passes over the training split", 17, low=1, high=10_000)
    batch_size: int = setting("pictures an optimizer step, over all workers together", 64, low=2, high=65_536)
    decoder_lr: float = setting("learning rate of the head", 3e-3, low=0, high=10)
    schedule: str = _schedule("one-cycle")
    patience: int = setting("epochs without progress of the validation loss before it ends; 0: never", 3, low=0,
                            high=10_000)  # fmt: skip
    min_delta: float = setting("by how much that loss must fall to count as progress", 0.001, low=0, high=100)


@dataclass(frozen=True, kw_only=True)
class ImageLabelsTraining(PictureTraining):
    """The model that names the labels of a picture (late fusion)."""

    model: ClassVar[str] = "image-labels"
    backbone: str = setting("the picture encoder", "resnet50", choices=BACKBONES)
    min_products: int = setting("training products that a label needs to be one", 400, low=1, high=10**9)
    trainable_layers: int = setting(
        "last layers of the backbone that are trained, each convolution and each normalization counted as one; "
        "where it starts from nothing, all are",
        40,
        low=0,
        high=100_000,
    )
    epochs: int = setting("passes over the training split", 17, low=1, high=10_000)
    batch_size: int = setting("pictures an optimizer step, over all workers together", 64, low=2, high=65_536)
    decoder_lr: float = setting("learning rate of the head", 1e-3, low=0, high=10)
    schedule: str = _schedule("one-cycle")

    @property
    def label_products(self) -> int:
        """How many training products a label needs."""
        return self.min_products

    def frozen_layers(self, encoder: Any) -> list[Any]:
        """Return what is before the last layers, which are trained."""
        return [] if self.weights == "none" else encoder.layers_before_last(self.trainable_layers)


@dataclass(frozen=True, kw_only=True)
class TextTraining(TrainConfig):
    """The model that reads titles or descriptions (late fusion)."""

    model: ClassVar[str] = "text"
    examples: ClassVar[str] = "texts"
    starts_from: ClassVar[str] = "word_vectors"
    field: str = setting("what it reads of a product", choices=tuple(FIELDS))
    target: str = setting("what it answers: a category path, or each label by itself", "path", choices=TARGETS)
    min_products: int = setting("training products that a label needs to be one", 400, low=1, high=10**9)
    word_vectors: str = setting(
        "what the words start from: none (at random), or a text file of GloVe's layout, a word and its numbers a line",
        "none",
    )
    embedding_dim: int = setting("width of a word's vector", 300, low=1, high=8192)
    filters: int = setting("of the convolution", 200, low=1, high=8192)
    width: int = setting("words that a filter sees", 5, low=1, high=57)
    hidden_dim: int = setting("width of the dense layer", 170, low=1, high=8192)
    max_words: int = setting("words known, the most common ones", 50_000, low=1, high=5_000_000)
    min_count: int = setting("training texts that a word must stand in to be known", 2, low=1, high=1_000_000)
    epochs: int = setting("passes over the training split", 20, low=1, high=10_000)
    batch_size: int = setting("texts an optimizer step, over all workers together", 32, low=2, high=65_536)
    encoder_lr: float = setting("learning rate of the word vectors", 1e-3, low=0, high=10)
    decoder_lr: float = setting("learning rate of the rest", 1e-3, low=0, high=10)
    weight_decay: float = setting("decoupled, of all but biases and normalizations", 0.01, low=0, high=10)
    label_smoothing: float = setting("share of the target that goes to other labels", 0.1, low=0, high=0.99)
    schedule: str = _schedule("one-cycle")

    @property
    def label_products(self) -> int | None:
        """How many training products a label needs; None where the target is paths."""
        return self.min_products if self.target == "labels" else None

    @property
    def title_of_run(self) -> str:
        """What a person calls the run."""
        return f"{self.model}, {self.field}"


@dataclass(frozen=True, kw_only=True)
class FusionTraining(TrainConfig):
    """The policy that fuses the models of several modalities (late fusion)."""

    model: ClassVar[str] = "fusion"
    examples: ClassVar[str] = "products"
    starts_from: ClassVar[str] = ""
    picture: str | None = setting("a trained model of pictures", None)
    title: str | None = setting("a trained model of titles", None)
    description: str | None = setting("a trained model of descriptions", None)
    policy: str = setting("how the models' decisions become one", "weighted", choices=POLICIES)
    fit_split: str = setting(
        "what the policy is fitted on; on what the models were trained on, they are surer than elsewhere",
        "val",
        choices=("train", "val"),
    )
    held_out: float = setting(
        "share of those products that tells which epoch is the best, and is not learned from; 0: the last one is kept",
        0.0,
        low=0,
        high=0.9,
    )
    keep_best: bool = setting(
        "answer with the best of the models where the policy is not shown to beat it; a policy that can memorize its "
        "products is judged by a fifth of them, or by those held out, which it does not learn from",
        True,
    )
    hidden_dim: int = setting("width of a network policy's first layer", 200, low=1, high=65_536)
    second_dim: int = setting("width of a network policy's second layer", 150, low=1, high=65_536)
    modality_dropout: float = setting("how often each modality is left out while a policy learns", 0.3, low=0, high=0.9)
    ridge_penalty: float = setting("of the squared weights of the ridge regression", 1.0, low=1e-9, high=1e9)
    epochs: int = setting("passes over the split", 60, low=1, high=10_000)
    batch_size: int = setting("products an optimizer step, over all workers together", 32, low=2, high=65_536)
    decoder_lr: float = setting("learning rate", 3e-3, low=0, high=10)
    schedule: str = _schedule("one-cycle")
    precision: str = setting(
        "float32, bfloat16 (autocast), or auto", "float32", choices=("auto", "float32", "bfloat16")
    )

    def __post_init__(self) -> None:
        """Refuse values out of range, and fewer than two models."""
        super().__post_init__()
        if len(self.members) < 2:
            raise ConfigError("fusion needs two models or more; give them with --picture, --title and --description")
        if self.taxonomy:
            raise ConfigError(f"taxonomy is {self.taxonomy!r}; a fusion answers with that of its models: give none")
        descends = POLICIES[self.policy].fitting == "descent"
        if self.balance == "sampling" or (self.balance != "none" and not descends):
            raise ConfigError(
                f"balance is {self.balance!r}, which does nothing for the policy {self.policy!r}; expected none"
                + (", or weights" if descends else "")
            )
        if self.held_out and not descends:
            raise ConfigError(f"held_out is {self.held_out:g}; the policy {self.policy!r} has no epochs to choose from")

    @property
    def members(self) -> dict[str, str]:
        """The URI of each modality's model."""
        given = {name: getattr(self, name) for name in MODALITIES}
        return {name: uri for name, uri in given.items() if uri}

    @property
    def title_of_run(self) -> str:
        """What a person calls the run."""
        return f"{self.model}, {self.policy}"

    def absolute(self) -> Self:
        """Return these settings with absolute paths, which hold in any folder."""
        changed: dict[str, Any] = {name: storage.absolute(uri) for name, uri in self.members.items()}
        return replace(super().absolute(), **changed)


TRAININGS: dict[str, type[TrainConfig]] = {
    kind.model: kind
    for kind in (EncoderDecoderTraining, ClassifierTraining, ImageLabelsTraining, TextTraining, FusionTraining)
}
"""The settings by the kind of model."""


@dataclass(frozen=True, kw_only=True)
class TuneConfig(Settings):
    """How long a search for good settings goes, and how hard it is on its trials."""

    trials: int = setting("settings to try, the first of them those given", 16, low=1, high=10_000)
    concurrent: int = setting(
        "trials at a time; each takes the CPUs or GPUs of its workers, and decoding needs more CPUs",
        1,
        low=1,
        high=10_000,
    )
    grace_epochs: int = setting("epochs after which a trial is first compared with the others", 2, low=1, high=10_000)
    reduction: int = setting("one in so many goes on; compared again after so many times the epochs", 3, low=2,
                             high=100)  # fmt: skip
    search_seed: int = setting("of the settings that are tried", 0, low=0, high=2**31)
