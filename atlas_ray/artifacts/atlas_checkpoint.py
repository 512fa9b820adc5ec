"""Checkpoints: the published Atlas encoder-decoder, turned into an artifact.

Atlas (Umaashankar et al. 2019) saves its two networks as whole modules:

    encoder    resnet.0 .. resnet.7 (a torchvision ResNet without its last two parts), adaptive_pool
    decoder    attention, embedding, decode_step, init_h, init_c, f_beta, fc: as our LstmDecoder

and beside them WORDMAP_*.json, {word: row of the embedding}. Nothing in the file is executed: see
`atlas_ray.artifacts.pickles`.
"""

import json
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from atlas_ray.artifacts import save_artifact
from atlas_ray.artifacts.pickles import PickledFile, Record, read_pickled
from atlas_ray.errors import ArtifactError, ConfigError
from atlas_ray.io import storage
from atlas_ray.io.lease import holding
from atlas_ray.models.decoders.decoder import EncoderDecoderConfig
from atlas_ray.models.encoder_decoder import EncoderDecoder
from atlas_ray.models.weights import check_finite
from atlas_ray.taxonomy import Taxonomy, Vocabulary

MAX_PARTS, MAX_DEPTH, MAX_NAME_LENGTH = 10_000, 16, 100
"""Of the tree of modules; a ResNet-101 with its decoder has 300 modules and 650 tensors."""
MAX_POOLED_SIZE = 64
NAMES_SHOWN = 20

RESNET_PARTS = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
RESNETS = {(2, False): "resnet18", (6, False): "resnet34", (6, True): "resnet50", (23, True): "resnet101"}
"""By the blocks of layer3, and whether they are bottlenecks."""
WORD_TENSORS = ("decoder.embedding.weight", "decoder.fc.weight", "decoder.fc.bias")
"""The tensors with one row a word."""


@holding("import-checkpoint", "output")
def import_checkpoint(
    checkpoint: str, word_map: str, output: str, *, taxonomy: Taxonomy, image_size_px: int = 150
) -> str:
    """Turn a checkpoint in the layout of Atlas into an artifact, without executing anything in it.

    Args:
        checkpoint: The `.pth.tar` file.
        word_map: Its `WORDMAP_*.json`. Words that the taxonomy does not name are left out.
        output: The artifact's folder.
        taxonomy: What the model is to predict; the word map must have each of its names.
        image_size_px: Side of the pictures that it was trained on, which the file does not say.

    Returns:
        The artifact's content id.

    Raises:
        ArtifactError: for a file that is damaged, hostile or of another layout, and for a word map
            that does not fit it or the taxonomy.
    """
    vocabulary = Vocabulary.of(taxonomy)
    networks = _read_networks(checkpoint)
    words, embedding_dim = networks.matrix("decoder.embedding.weight")
    attention_dim, _ = networks.matrix("decoder.attention.encoder_att.weight")
    _, decoder_dim = networks.matrix("decoder.decode_step.weight_hh")
    rows = _word_rows(word_map, vocabulary, words)
    try:
        config = EncoderDecoderConfig(
            vocabulary_size=len(vocabulary),
            backbone=networks.backbone,
            image_size_px=image_size_px,
            pooled_size=networks.pooled_size,
            embedding_dim=embedding_dim,
            attention_dim=attention_dim,
            decoder_dim=decoder_dim,
        )
    except ConfigError as error:
        raise ArtifactError(f"{checkpoint}: no model can be built for it: {error}") from None
    model = EncoderDecoder(config)
    _fill(model, networks, words, torch.tensor(rows))
    check_finite(model.state_dict(), checkpoint)
    metrics = {"imported_from": checkpoint}
    return save_artifact(output, model, vocabulary=vocabulary, taxonomy=taxonomy, metrics=metrics)


@dataclass(frozen=True)
class _Networks:
    """The two networks of a checkpoint: their tensors, under our names."""

    uri: str
    tensors: dict[str, Tensor]
    pooled_size: int

    def matrix(self, name: str) -> tuple[int, int]:
        """Return the rows and columns of a tensor."""
        shape = tuple(self.tensors[name].shape) if name in self.tensors else ()
        if len(shape) != 2:
            raise ArtifactError(f"{self.uri}: not in the layout of Atlas: {name} is missing or no matrix")
        return shape

    @property
    def backbone(self) -> str:
        """Which ResNet the encoder is."""
        blocks = {name.split(".")[2] for name in self.tensors if name.startswith("encoder.layer3.")}
        bottlenecks = "encoder.layer3.0.conv3.weight" in self.tensors
        if (len(blocks), bottlenecks) not in RESNETS:
            known = ", ".join(RESNETS.values())
            raise ArtifactError(f"{self.uri}: its encoder has {len(blocks)} blocks in layer3; expected one of {known}")
        return RESNETS[len(blocks), bottlenecks]


def _read_networks(uri: str) -> _Networks:
    """Read the modules of a checkpoint, which are records, down to their tensors."""
    file = read_pickled(uri)
    root = _mapping(file, file.root)
    tensors: dict[str, Tensor] = {}
    pooled: Any = None
    pending = [(name, root.get(name)) for name in ("decoder", "encoder")]
    walked = 0
    while pending:
        walked += 1
        if walked + len(pending) + len(tensors) > MAX_PARTS:
            raise ArtifactError(f"{uri}: not in the layout of Atlas: it has more than {MAX_PARTS} parts")
        name, module = pending.pop()
        if not isinstance(module, Record) or name.count(".") > MAX_DEPTH:
            raise ArtifactError(f"{uri}: not in the layout of Atlas: {name[:80]!r} is no module")
        state = _mapping(file, module.state)
        for kind in ("_parameters", "_buffers"):
            for key, value in _mapping(file, state.get(kind)).items():
                if value is not None:  # a convolution without bias
                    tensors[_our_name(f"{name}.{key}")] = file.tensor(value)
        pending += [(f"{name}.{key}", child) for key, child in _mapping(file, state.get("_modules")).items()]
        if name == "encoder.adaptive_pool":
            pooled = state.get("output_size")
    rows, columns = pooled if isinstance(pooled, tuple) and len(pooled) == 2 else (pooled, pooled)
    if type(rows) is not int or type(columns) is not int or not 1 <= rows == columns <= MAX_POOLED_SIZE:
        raise ArtifactError(f"{uri}: not in the layout of Atlas: encoder.adaptive_pool gives no square grid")
    return _Networks(uri, tensors, rows)


def _mapping(file: PickledFile, value: Any) -> dict[str, Any]:
    """Return what a dict holds: a plain one, or the record of an OrderedDict."""
    found = value.items if isinstance(value, Record) else value
    if not isinstance(found, dict) or not all(isinstance(key, str) and len(key) <= MAX_NAME_LENGTH for key in found):
        raise ArtifactError(f"{file.uri}: not in the layout of Atlas: no dict of names where one belongs")
    return found


def _our_name(name: str) -> str:
    """Turn `encoder.resnet.4.0.conv1.weight` into `encoder.layer1.0.conv1.weight`."""
    for index, part in enumerate(RESNET_PARTS):
        theirs = f"encoder.resnet.{index}."
        if name.startswith(theirs):
            return f"encoder.{part}.{name.removeprefix(theirs)}"
    return name


def _word_rows(uri: str, vocabulary: Vocabulary, words: int) -> list[int]:
    """Return the checkpoint's row of each token of ours.

    A name counts as the same word in another case if it is not there exactly, and only one such
    word is.
    """
    try:
        row_of = json.loads(storage.read_bytes(uri))
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{uri}: not a word map: {error}") from None
    if not isinstance(row_of, dict) or not all(type(row) is int for row in row_of.values()):
        raise ArtifactError(f"{uri}: not a word map; expected an object of words and their rows")
    if len(row_of) != words or sorted(row_of.values()) != list(range(words)):
        raise ArtifactError(
            f"{uri}: does not fit the checkpoint: it numbers {len(row_of)} words, and the checkpoint "
            f"has {words}, from row 0 to {words - 1}"
        )
    any_case: dict[str, list[str]] = {}
    for word in row_of:
        any_case.setdefault(word.casefold(), []).append(word)
    rows = {}
    for token in vocabulary.tokens:
        same = [token] if token in row_of else any_case.get(token.casefold(), [])
        if len(same) == 1:
            rows[token] = row_of[same[0]]
    missing = [token for token in vocabulary.tokens if token not in rows]
    if missing:
        names = ", ".join(map(repr, missing[:NAMES_SHOWN])) + (", ..." if len(missing) > NAMES_SHOWN else "")
        raise ArtifactError(
            f"{uri}: has no word for {names} ({len(missing)} of {len(vocabulary)} tokens); give a "
            f"taxonomy with the names that the model was trained with"
        )
    if len(set(rows.values())) != len(rows):
        raise ArtifactError(f"{uri}: two names of the taxonomy differ in case alone, and share one word")
    return list(rows.values())


def _fill(model: EncoderDecoder, networks: _Networks, words: int, rows: Tensor) -> None:
    """Copy the checkpoint's tensors into a model: all of the model's, and no other."""
    left = dict(networks.tensors)
    for name, target in model.state_dict().items():
        tensor = left.pop(name, None)
        if tensor is None:
            if name.endswith(".num_batches_tracked"):  # it came with PyTorch 0.4.1, and evaluation does not use it
                continue
            raise ArtifactError(f"{networks.uri}: not in the layout of Atlas: {name} is missing")
        if name in WORD_TENSORS and tensor.shape[:1] == (words,):
            tensor = tensor[rows]
        if tensor.shape != target.shape or tensor.is_floating_point() != target.is_floating_point():
            raise ArtifactError(
                f"{networks.uri}: {name} is {tuple(tensor.shape)} of {tensor.dtype}; expected {tuple(target.shape)}"
            )
        target.copy_(tensor)
    if left:
        names = ", ".join(map(repr, sorted(left)[:NAMES_SHOWN]))
        raise ArtifactError(f"{networks.uri}: not in the layout of Atlas: it also holds {names}")
