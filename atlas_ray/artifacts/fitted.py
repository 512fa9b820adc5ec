"""The file of an artifact that says which products it was fitted on."""

import hashlib
import io
from typing import Any

import numpy as np

from atlas_ray.artifacts.files import read
from atlas_ray.errors import ArtifactError
from atlas_ray.formats.fitted import LAYOUT, Fitted
from atlas_ray.io import storage


def file_of(document: dict[str, Any]) -> str | None:
    """Return the name of the file of a `model.json`; None if the model does not say what it was fitted on."""
    stated = document.get("fitted")
    return None if stated is None else f"fitted-{str(stated.get('sha256'))[:16]}.npy"


def save_fitted(uri: str, fitted: Fitted | None) -> dict[str, Any]:
    """Write the file into an artifact's folder, and return its entry in `model.json`; {} if it is not known."""
    if fitted is None:
        return {}
    rows = np.empty(len(fitted.products), LAYOUT)
    rows["product"], rows["use"] = fitted.products, fitted.use
    buffer = io.BytesIO()
    np.save(buffer, rows, allow_pickle=False)
    document = {"fitted": {"products": len(rows), "sha256": hashlib.sha256(buffer.getvalue()).hexdigest()}}
    storage.write_bytes(storage.join(uri, str(file_of(document))), buffer.getvalue())
    return document


def load_fitted(uri: str, document: dict[str, Any]) -> Fitted | None:
    """Read what `save_fitted` wrote; None for a model that does not say it: an imported or an older one.

    Raises:
        ArtifactError: if the file is missing, damaged, or not the one of `model.json`.
    """
    stated = document.get("fitted")
    if stated is None:
        return None
    if not isinstance(stated, dict) or not isinstance(stated.get("sha256"), str):
        raise ArtifactError(f"{uri}: model.json is damaged: its entry 'fitted' is {str(stated)[:80]!r}")
    name = f"fitted-{stated['sha256'][:16]}.npy"
    if not name.replace("-", "").replace(".", "").isalnum():
        raise ArtifactError(f"{uri}: model.json is damaged: its entry 'fitted' is {str(stated)[:80]!r}")
    data = read(uri, name)
    if hashlib.sha256(data).hexdigest() != stated["sha256"]:
        raise ArtifactError(f"{uri}: {name} is damaged: its sha256 is not the one in model.json")
    try:
        rows = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ArtifactError(f"{uri}: {name} is no table of products: {str(error).splitlines()[0]}") from None
    if rows.dtype != LAYOUT or rows.ndim != 1 or len(rows) != stated.get("products"):
        raise ArtifactError(f"{uri}: {name} is no table of {stated.get('products')} products")
    if (rows["product"][1:] <= rows["product"][:-1]).any():
        raise ArtifactError(f"{uri}: {name} is no table of products: they are not in order")
    return Fitted(rows["product"].astype(np.uint64), rows["use"].copy())
