"""The files of an artifact's folder, each read with a reason if it cannot be."""

import hashlib
import json
from typing import Any

from atlas_ray.errors import ArtifactError, StorageError
from atlas_ray.io import storage
from atlas_ray.modalities.texts import WordIndex
from atlas_ray.modalities.tokens import TextIndex, TokenIndex
from atlas_ray.models.sentences import SentenceConfig

FORMAT = 1
DEFAULT_THRESHOLD = 0.5
"""The threshold of each label until a model is calibrated."""
WORDS, TOKENS = "words.json", "tokenizer.json"


def content_id(document: dict[str, Any]) -> str:
    """Return the id of a `model.json`: a hash of all that it says, the weights' hash among it."""
    parts = {key: value for key, value in document.items() if key not in ("id", "written_by")}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def write_json(uri: str, name: str, document: dict[str, Any]) -> None:
    """Write a file of an artifact."""
    storage.write_bytes(storage.join(uri, name), json.dumps(document, indent=1, ensure_ascii=False).encode())


def read(uri: str, name: str) -> bytes:
    """Read a file of an artifact.

    Raises:
        ArtifactError: if it is not there.
    """
    try:
        return storage.read_bytes(storage.join(uri, name))
    except StorageError as error:
        raise ArtifactError(f"{uri}: not a complete model folder: {error}") from None


def read_json(uri: str, name: str) -> dict[str, Any]:
    """Read a file of an artifact that holds a JSON object.

    Raises:
        ArtifactError: if it is not there, or holds something else.
    """
    try:
        document = json.loads(read(uri, name))
    except ValueError as error:
        raise ArtifactError(f"{uri}: {name} is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise ArtifactError(f"{uri}: {name} holds a {type(document).__name__}; expected an object")
    return document


def save_index(uri: str, index: TextIndex) -> dict[str, str]:
    """Write what a model of texts knows, words or a tokenizer, into its folder; return its entry in `model.json`."""
    if isinstance(index, TokenIndex):
        name, entry, data = TOKENS, "tokens_sha256", index.data
    else:
        name, entry = WORDS, "words_sha256"
        data = json.dumps(index.words, ensure_ascii=False).encode("utf-8", "surrogatepass")
    storage.write_bytes(storage.join(uri, name), data)
    return {entry: hashlib.sha256(data).hexdigest()}


def load_words(uri: str, field_name: str, sha256: str | None = None) -> WordIndex:
    """Read the words that `save_index` wrote.

    Raises:
        ArtifactError: if the file is missing, damaged, or not the one of that SHA-256.
    """
    data = _checked(uri, WORDS, sha256)
    try:
        words = json.loads(data)
    except ValueError as error:
        raise ArtifactError(f"{uri}: {WORDS} is not JSON: {error}") from None
    if not isinstance(words, list):
        raise ArtifactError(f"{uri}: {WORDS} holds a {type(words).__name__}; expected a list")
    return WordIndex(words, field_name)


def load_tokens(uri: str, config: SentenceConfig, sha256: str) -> TokenIndex:
    """Read the tokenizer that `save_index` wrote.

    Raises:
        ArtifactError: if the file is missing, damaged, or not the one of that SHA-256.
    """
    try:
        return token_index(_checked(uri, TOKENS, sha256), config)
    except ArtifactError as error:
        raise ArtifactError(f"{uri}: {error}") from None


def token_index(data: bytes, config: SentenceConfig) -> TokenIndex:
    """Read a `tokenizer.json` for a sentence encoder; raises as `TokenIndex`."""
    return TokenIndex(data, length=config.max_tokens, prefix=config.prefix, lower=config.family.lower)


def _checked(uri: str, name: str, sha256: str | None) -> bytes:
    """Read a file whose SHA-256 is known, unless it is None."""
    data = read(uri, name)
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise ArtifactError(f"{uri}: {name} is damaged: its sha256 is not the one in model.json")
    return data
