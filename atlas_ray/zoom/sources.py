"""Pictures to train the zoom filter on, drawn from a catalogue, from two folders, or from a JSON file of labels."""

import json
import os.path
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from atlas_ray.errors import CatalogError, RowError
from atlas_ray.formats.tables import open_table
from atlas_ray.formats.values import describe, printable, text_value, valid_text
from atlas_ray.io import storage, stores
from atlas_ray.schemas import IMAGES, PRODUCTS, quarantine_row
from atlas_ray.zoom.settings import ZoomTraining

Found = tuple[list["Candidate"], list[dict[str, object]]]
"""Pictures, and rows of the quarantine table."""
LABELS = {"zoomed": True, "normal": False, "1": True, "0": False}


@dataclass(frozen=True)
class Candidate:
    """A picture that may become an example."""

    uri: str
    product_id: str
    """Pictures of one product go to one split."""
    zoomed: bool
    """What it is or, where close-ups are cut, what is to be made of it."""


@dataclass(frozen=True)
class Candidates:
    """The pictures that were drawn from a source."""

    drawn: list[Candidate]
    where: str = "the catalogue's images table names them"
    """The place that they were looked for in, for messages."""
    cut: bool = False
    """The source has no labels: the zoomed ones are still whole pictures, to be cut."""
    refused: list[dict[str, object]] = field(default_factory=list)
    """Rows of the quarantine table: entries of the source that cannot be used."""


def draw_candidates(config: ZoomTraining) -> Candidates:
    """Draw pictures from the source that the settings name, at most `config.pictures` of them.

    Raises:
        CatalogError: if the source is missing or of another kind.
        StorageError: if it cannot be read.
    """
    rng = np.random.default_rng(config.seed)
    if config.catalog is not None:
        return _catalog(config.catalog, config.pictures, rng)
    if config.labels is not None:
        base = _base(config.labels, config.image_base)
        candidates, refused = _labels(config.labels, base)
        origin = (
            f"looked for below {base}, which --image-base names"
            if config.image_base
            else (f"looked for below {base}, the folder of {config.labels}; --image-base names another one")
        )
    else:
        assert config.zoomed is not None
        assert config.normal is not None
        zoomed, refused = _folder(config.zoomed, zoomed=True)
        normal, more = _folder(config.normal, zoomed=False)
        candidates, refused = zoomed + normal, refused + more
        origin = f"found in {config.zoomed} and {config.normal}"
    drawn = rng.permutation(len(candidates))[: config.pictures]
    return Candidates([candidates[index] for index in drawn], origin, refused=refused)


def _catalog(catalog: str, pictures: int, rng: np.random.Generator) -> Candidates:
    """Draw rows of the images table by their position; no more than those stays in memory.

    A product's first picture stands for the one that was drawn: shops show the whole product first and its close-ups
    after it, and close-ups that count as normal would teach the filter to find none.
    """
    uri = storage.join(storage.absolute(catalog), "images")
    table = open_table(uri, IMAGES, columns=["product_id", "image_uri"], foreign=True)
    positions = np.sort(rng.choice(table.rows, min(pictures, table.rows), replace=False))
    rows: list[dict[str, Any]] = []
    start = 0
    for batch in table.batches():
        here = positions[(positions >= start) & (positions < start + len(batch))]
        rows += batch.take(here - start).to_pylist()
        start += len(batch)
    refused = [
        quarantine_row("train", f"missing_{key}", f"row {number} of {file} has no {key}")
        for file, number, key, _ in table.unusable()
    ]
    first = _first_pictures(catalog, {row["product_id"] for row in rows})
    found = {(first.get(row["product_id"], row["image_uri"]), row["product_id"]): None for row in rows}
    pairs = list(found)
    shuffled = (pairs[index] for index in rng.permutation(len(pairs)))
    return Candidates(
        [Candidate(uri, owner, zoomed=position % 2 == 0) for position, (uri, owner) in enumerate(shuffled)],
        cut=True,
        refused=refused,
    )


def _first_pictures(catalog: str, product_ids: set[str]) -> dict[str, str]:
    """Return the URI of the first picture of each of these products that the products table lists one for."""
    uri = storage.join(storage.absolute(catalog), "products")
    columns = ["product_id", "image_uris"]
    table = open_table(uri, PRODUCTS, columns=columns, foreign=True, may_be_missing=True)
    asked = pa.array(sorted(product_ids), pa.string())
    first: dict[str, str] = {}
    for batch in table.batches():
        for row in batch.filter(pc.is_in(batch["product_id"], asked)).to_pylist():
            if row["image_uris"] and row["image_uris"][0]:
                first.setdefault(row["product_id"], row["image_uris"][0])
    return first


def _folder(folder: str, *, zoomed: bool) -> Found:
    """Read the files below a folder; those of one name without its ending count as one product."""
    base = storage.absolute(folder)
    if not storage.is_folder(base):
        raise CatalogError(f"{folder}: no such folder")
    candidates: list[Candidate] = []
    refused: list[dict[str, object]] = []
    for name, _ in storage.walk(base):
        if printable(name) != name:
            message = f"{base}, {printable(name)}: its name is not UTF-8; rename it"
            refused.append(quarantine_row("train", "bad_encoding", message))
        elif not storage.is_hidden(name):
            candidates.append(Candidate(storage.join(base, name), os.path.splitext(name)[0], zoomed))
    return candidates, refused


def _base(source: str, image_base: str | None) -> str:
    """Return the folder that the pictures of a file of labels are below.

    Raises:
        CatalogError: if the one named is not there.
    """
    if not image_base:
        return storage.absolute(source).rpartition("/")[0]
    base = storage.absolute(image_base)
    if not storage.is_folder(base):
        raise CatalogError(f"--image-base {image_base}: no such folder; it is where the pictures of {source} are")
    return base


def _labels(source: str, base: str) -> Found:
    """Read `[{filename, label, title}]`, as Atlas publishes it, or `{"images": [...]}` around it.

    `file` and `class` are taken for filename and label too, 1 and 0 for zoomed and normal. The
    files lie below the base, or in `zoomed` and `normal` there, where the script of Atlas puts
    them. Pictures of one title count as one product.
    """
    source = storage.absolute(source)
    try:
        document = json.loads(storage.read_bytes(source))
    except (ValueError, RecursionError) as error:
        raise CatalogError(f"{source}: not JSON: {error}") from None
    entries = document.get("images") if isinstance(document, dict) else document
    if not isinstance(entries, list):
        raise CatalogError(f'{source}: no list of pictures; expected [{{"filename": ..., "label": "zoomed"}}, ...]')
    in_folders = all(storage.is_folder(storage.join(base, name)) for name in ("zoomed", "normal"))
    candidates: list[Candidate] = []
    refused: list[dict[str, object]] = []
    for position, entry in enumerate(entries, 1):
        try:
            candidates.append(_entry(entry, base, in_folders))
        except RowError as error:
            refused.append(quarantine_row("train", error.code, f"{source}, picture {position}: {error.message}"))
    return candidates, refused


def _entry(entry: Any, base: str, in_folders: bool) -> Candidate:
    if not isinstance(entry, dict):
        raise RowError("bad_row", f"a {type(entry).__name__}, not an object")
    name = entry.get("filename", entry.get("file"))
    label = entry.get("label", entry.get("class"))
    zoomed = LABELS.get((text_value(label, "label") or "").lower())
    if zoomed is None:
        raise RowError("bad_value", f"label is {describe(label)}; expected zoomed or normal")
    if not isinstance(name, str) or not name:
        raise RowError("missing_images", "the entry names no file")
    inside = os.path.normpath(valid_text(name, "file name"))
    changed = stores.is_object(base) and stores.ODD_SEGMENT.search(name.removeprefix("./"))
    if "://" in name or "\0" in name or inside.startswith(("/", "..")) or changed:
        raise RowError("bad_image_uri", f"{name[:120]!r}; expected a name below {base}")
    folder = storage.join(base, "zoomed" if zoomed else "normal") if in_folders else base
    return Candidate(storage.join(folder, inside), text_value(entry.get("title"), "title") or inside, zoomed)
