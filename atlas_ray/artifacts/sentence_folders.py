"""Folders of sentence encoders as Hugging Face's hub and sentence-transformers lay them out, read as networks.

Nothing is downloaded, no code of a folder is run, and no pickle is executed:

    config.json                        the transformer
    model.safetensors, pytorch_model.bin    its weights: one of them
    tokenizer.json                     its tokenizer
    modules.json                       what follows the transformer; without it the mean of the tokens does
    1_Pooling/config.json              how the tokens' vectors become one
    sentence_bert_config.json          the most tokens of a text
    config_sentence_transformers.json  what is put before a text
"""

import importlib.util
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from atlas_ray.artifacts.artifact import Network
from atlas_ray.artifacts.files import token_index
from atlas_ray.artifacts.saving import new_encoder
from atlas_ray.errors import ArtifactError, ConfigError
from atlas_ray.io import storage
from atlas_ray.models.backbones import PACKAGE
from atlas_ray.models.sentences import FAMILIES, MAX_TOKENS, SentenceConfig, SentenceEncoder
from atlas_ray.models.weights import FILES, check_finite, parse_state_dict

PACKAGES = {"minilm": ("all_minilm_l6_v2", "minilm")}
"""Encoders that a package brings: name -> the package, which holds the folder as `model.zip`, and its extra."""
READ_MODULES = ("Transformer", "Pooling", "Normalize")
"""Modules of sentence-transformers that are read; vectors are brought to length 1 in any case."""
POOLING_MODES = {"mean_tokens": "mean", "cls_token": "cls", "max_tokens": "max"}
"""How a folder's `pooling_mode_...` are called here."""
PROMPTS = ("classification", "query")
"""Prompts of a folder that suit texts that are compared with texts of the same kind, the best first."""
MAX_FILE_BYTES = 16 * 2**30
"""The most bytes of a file in a package's archive."""


@dataclass(frozen=True)
class Folder:
    """A folder of files, on disk, in a store or in a package."""

    name: str
    """What messages call it."""
    find: Callable[[str], bytes | None]
    """A function that reads a file; None if there is none."""

    def json(self, file: str) -> Any:
        """Read a file of JSON; None if there is none.

        Raises:
            ArtifactError: if it holds something else.
        """
        data = self.find(file)
        try:
            return None if data is None else json.loads(data)
        except (ValueError, RecursionError) as error:
            raise ArtifactError(f"{self.name}: {file} is not JSON: {error}") from None

    def object(self, file: str) -> dict[str, Any]:
        """Read a file of a JSON object; {} if there is none.

        Raises:
            ArtifactError: if it holds something else.
        """
        found = self.json(file)
        if not isinstance(found, dict | None):
            raise ArtifactError(f"{self.name}: {file} holds a {type(found).__name__}; expected an object")
        return found or {}


def read_sentence_encoder(uri: str, field: str, *, prefix: str | None = None) -> Network:
    """Read a sentence encoder of others, on the CPU.

    Args:
        uri: Its folder, or `package:minilm`.
        field: The text of a product that it is to read, `title` or `description`.
        prefix: A text that is put before each text; None for what the folder says.

    Raises:
        ArtifactError: if a file is missing or damaged, the weights are of another network, or the folder needs a
            module that is not known.
        ConfigError: for a package that is not known.
    """
    folder = _package(uri) if uri.startswith(PACKAGE) else _stored(uri)
    config = _config(folder, field, prefix)
    tokens_file = folder.find("tokenizer.json")
    if tokens_file is None:
        raise ArtifactError(
            f"{folder.name}: no tokenizer.json; transformers.AutoTokenizer.from_pretrained(FOLDER).save_pretrained"
            "(FOLDER) writes it"
        )
    try:
        tokens = token_index(tokens_file, config)
        network = SentenceEncoder(config)
    except (ArtifactError, ConfigError) as error:
        raise ArtifactError(f"{folder.name}: {error}") from None
    network.load_state_dict(_weights(folder, network))
    if len(tokens) > (known := int(network.transformer.config.vocab_size)):
        raise ArtifactError(f"{folder.name}: tokenizer.json numbers {len(tokens)} tokens; the network knows {known}")
    return new_encoder(network.eval(), tokens)


def _stored(uri: str) -> Folder:
    def find(file: str) -> bytes | None:
        place = storage.join(uri, *file.split("/"))
        return storage.read_bytes(place) if storage.exists(place) else None

    return Folder(uri, find)


def _package(name: str) -> Folder:
    """Open the archive of an installed package, none of whose code is run."""
    known = name.removeprefix(PACKAGE)
    if known not in PACKAGES:
        names = ", ".join(PACKAGE + other for other in PACKAGES)
        raise ConfigError(f"encoder is {name!r}; expected a folder, or {names}")
    package, extra = PACKAGES[known]
    found = importlib.util.find_spec(package)
    archives = [Path(place, "model.zip") for place in (found.submodule_search_locations or ())] if found else []
    archive = next((file for file in archives if file.exists()), None)
    if archive is None:
        raise ArtifactError(f"encoder is {name!r}, which is not installed; pip install 'atlas-ray[{extra}]' brings it")

    def find(file: str) -> bytes | None:
        with zipfile.ZipFile(archive) as opened:
            if file not in opened.namelist():
                return None
            if opened.getinfo(file).file_size > MAX_FILE_BYTES:
                raise ArtifactError(f"{archive}: {file} is larger than {MAX_FILE_BYTES:,} bytes")
            return opened.read(file)

    return Folder(name, find)


def _config(folder: Folder, field: str, prefix: str | None) -> SentenceConfig:
    transformer = folder.object("config.json")
    if not transformer:
        raise ArtifactError(
            f"{folder.name}: no config.json; expected the folder of a sentence encoder: config.json, tokenizer.json "
            f"and {' or '.join(FILES)}"
        )
    family = FAMILIES.get(str(transformer.get("model_type")))
    try:
        return SentenceConfig(
            field=field,
            transformer=json.dumps(transformer, sort_keys=True),
            pooling=_pooling(folder) or (family.pooling if family else "mean"),
            prefix=_prompt(folder) if prefix is None else prefix,
            max_tokens=_max_tokens(
                folder, transformer.get(family.tower, {}) if family and family.tower else transformer
            ),
        )
    except ConfigError as error:
        raise ArtifactError(f"{folder.name}: config.json: {error}") from None


def _pooling(folder: Folder) -> str | None:
    """Return how the tokens' vectors become one; None if the folder does not say it."""
    modules = folder.json("modules.json")
    if modules is None:
        return None
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise ArtifactError(f"{folder.name}: modules.json holds no list of modules")
    names = [str(module.get("type")).rpartition(".")[2] for module in modules]
    if other := [name for name in names if name not in READ_MODULES]:
        raise ArtifactError(
            f"{folder.name}: modules.json has the module {other[0][:80]!r}; expected {', '.join(READ_MODULES)}"
        )
    path = next((str(module.get("path")) for module, name in zip(modules, names, strict=True) if name == "Pooling"), "")
    if not path:
        return None
    if not path.replace("_", "").isalnum():
        raise ArtifactError(
            f"{folder.name}: modules.json has the path {path[:80]!r}; expected a name, such as 1_Pooling"
        )
    found = folder.object(f"{path}/config.json")
    modes = [name.removeprefix("pooling_mode_") for name, value in found.items() if "mode_" in name and value is True]
    modes += [f"{found['pooling_mode']}_tokens"] if isinstance(found.get("pooling_mode"), str) else []
    known = [POOLING_MODES.get(mode.replace("cls_tokens", "cls_token")) for mode in modes]
    if len(known) != 1 or known[0] is None:
        raise ArtifactError(
            f"{folder.name}: {path}/config.json asks for {' and '.join(modes) or 'no pooling'}; expected one of "
            f"{', '.join(POOLING_MODES)}"
        )
    return known[0]


def _prompt(folder: Folder) -> str:
    found = folder.object("config_sentence_transformers.json")
    prompts = found.get("prompts")
    if not isinstance(prompts, dict):
        return ""
    names = (found.get("default_prompt_name"), *PROMPTS)
    return next((text for name in names if isinstance(text := prompts.get(name), str)), "")


def _max_tokens(folder: Folder, transformer: Mapping[str, Any]) -> int:
    """Return the most tokens of a text, of those that the folder and the network's positions allow."""
    stated = folder.object("sentence_bert_config.json").get("max_seq_length")
    positions = transformer.get("max_position_embeddings", 64)
    # Of RoBERTa's kin the first positions are those of padding.
    taken = int(transformer.get("pad_token_id") or 0) + 1 if "roberta" in str(transformer.get("model_type")) else 0
    most = [number for number in (stated, positions - taken if isinstance(positions, int) else None) if number]
    return min([int(number) for number in most if isinstance(number, int) and number > 0] + [MAX_TOKENS])


def _weights(folder: Folder, network: SentenceEncoder) -> dict[str, Tensor]:
    """Read the weights under the names of the network, without those that it has no use for."""
    for file in FILES:
        if (data := folder.find(file)) is not None:
            break
    else:
        raise ArtifactError(f"{folder.name}: no weights; expected one of {', '.join(FILES)}")
    state = parse_state_dict(data, f"{folder.name}/{file}")
    wanted = network.transformer.state_dict()
    first = next(iter(wanted))
    for prefix in sorted({name.removesuffix(first) for name in state if name.endswith(first)}, key=len):
        found = {name: state.get(prefix + name) for name in wanted}
        fits = {name for name, value in found.items() if value is not None and value.shape == wanted[name].shape}
        if fits == wanted.keys():
            weights = {
                f"transformer.{name}": value.to(torch.float32) for name, value in found.items() if value is not None
            }
            check_finite(weights, folder.name)
            return weights
        missing = sorted(wanted.keys() - fits)
    if not any(name.endswith(first) for name in state):
        missing = [first]
    raise ArtifactError(
        f"{folder.name}/{file}: not the weights of the network in config.json: {len(missing)} of {len(wanted)} tensors "
        f"are missing or of another shape, such as {missing[0]}"
    )
