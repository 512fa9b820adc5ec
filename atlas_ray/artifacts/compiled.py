"""The encoder of an artifact compiled for an engine: files beside the weights, and their entry in `model.json`.

They are data that an engine reads and checks; a file of machine code is never among them.
"""

import functools
import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any

from atlas_ray.artifacts.files import read
from atlas_ray.errors import ArtifactError
from atlas_ray.io import storage

ENTRY = "compiled"
"""The entry of `model.json`: by the engine's name, the SHA-256 of each file by its ending, and what was measured."""
NAME, ENDING = re.compile(r"[a-z0-9][a-z0-9-]{0,39}"), re.compile(r"[a-z0-9]{1,8}")
MAX_BYTES = 4 * 1024**3
"""The size of the largest file that is read; the encoders of today have some hundred MiB."""

Files = Mapping[str, bytes]
"""The files of a compiled encoder, by their endings."""
Compiled = Mapping[str, Callable[[], Files]]
"""By the engine's name, a function that reads and checks the files."""


def files_of(document: dict[str, Any]) -> list[str]:
    """Return the names of the files of a `model.json`."""
    return [_file(engine, ending) for engine, entry in document.get(ENTRY, {}).items() for ending in entry["files"]]


def save_compiled(uri: str, engine: str, files: Files, about: dict[str, Any]) -> dict[str, Any]:
    """Write the files into an artifact's folder, and return their entry in `model.json`."""
    for ending, data in files.items():
        storage.write_bytes(storage.join(uri, _file(engine, ending)), data)
    hashes = {ending: hashlib.sha256(data).hexdigest() for ending, data in files.items()}
    return {engine: {"files": hashes, **about}}


def find_compiled(uri: str, document: dict[str, Any]) -> Compiled:
    """Return what reads the compiled encoders of an artifact; nothing is read before it is needed.

    Raises:
        ArtifactError: if the entry in `model.json` is damaged.
    """
    entries = document.get(ENTRY, {})
    try:
        if not all(
            NAME.fullmatch(engine)
            and all(ENDING.fullmatch(ending) and str(sha) == sha for ending, sha in files.items())
            for engine, files in ((engine, entry["files"]) for engine, entry in entries.items())
        ):
            raise ValueError("a name is invalid")
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ArtifactError(f"{uri}: model.json is damaged: its entry {ENTRY!r} is {str(entries)[:80]!r}") from None
    return {engine: functools.partial(_read, uri, engine, entry["files"]) for engine, entry in entries.items()}


def _read(uri: str, engine: str, hashes: Mapping[str, str]) -> Files:
    files = {}
    for ending, sha256 in hashes.items():
        name = _file(engine, ending)
        at = storage.join(uri, name)
        if storage.exists(at) and storage.size(at) > MAX_BYTES:
            raise ArtifactError(f"{uri}: {name} has {storage.size(at)} bytes; at most {MAX_BYTES} are read")
        files[ending] = read(uri, name)
        if hashlib.sha256(files[ending]).hexdigest() != sha256:
            raise ArtifactError(f"{uri}: {name} is damaged: its sha256 is not the one in model.json")
    return files


def _file(engine: str, ending: str) -> str:
    return f"encoder-{engine}.{ending}"
