"""Arrow schemas of all tables that this project reads and writes, and the ids of products and pictures."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from atlas_ray.formats.values import printable

PATH_KEY_SEPARATOR = "\x1f"
"""A separator of the names of a category path in a single string, such as a key to group by."""
CATEGORY_PATH = pa.list_(pa.string())
MEANS = (pa.field("outside_probability", pa.float32()),)
"""The numbers of an answer whose value of a product is the mean over its pictures; a row without an answer has none."""
PICTURE_COLUMNS = (
    pa.field("image_id", pa.int64(), nullable=False),
    pa.field("product_id", pa.string(), nullable=False),
    pa.field("image_uri", pa.string(), nullable=False),
    pa.field("sha256", pa.string()),
    pa.field("etag", pa.string()),
)
"""The columns of a picture: its keys, and what its file was when somebody read it."""
ALTERNATIVE = pa.struct([("category_path", CATEGORY_PATH), ("probability", pa.float32())])
LABEL = pa.struct([("label", pa.string()), ("probability", pa.float32())])
LABELS = (pa.field("labels", pa.list_(LABEL)), pa.field("other_labels", pa.list_(LABEL)))
"""The answer of a model of labels: those of at least their thresholds, and the less probable ones; best first."""

PRODUCTS = pa.schema(
    [
        pa.field("product_id", pa.string(), nullable=False),
        ("store", pa.string()),
        ("url", pa.string()),
        ("title", pa.string()),
        ("description", pa.string()),
        ("price", pa.float64()),
        ("currency", pa.string()),
        ("brand", pa.string()),
        ("sku", pa.string()),
        ("availability", pa.string()),
        ("breadcrumb", pa.list_(pa.string())),
        ("image_uris", pa.list_(pa.string())),
        ("category_path", CATEGORY_PATH),
        ("category_paths", pa.list_(CATEGORY_PATH)),
        ("attributes", pa.map_(pa.string(), pa.string())),
        ("split", pa.string()),
        ("crawled_at", pa.timestamp("us", tz="UTC")),
    ]
)
"""Products: one row for each product. `category_path` is null if it has no label, `split` if it has no split.

`category_paths` is null unless the product has several labels, of which `category_path` is the first. `image_uris` may
be empty if the product has a text. `attributes` are further columns of its source, kept on request.
"""

IMAGES = pa.schema(
    [
        *PICTURE_COLUMNS,
        ("width", pa.int32()),
        ("height", pa.int32()),
    ]
)
"""Pictures: one row for each picture. What follows its URI is null until someone reads the picture."""

PREDICTIONS = pa.schema(
    [
        *PICTURE_COLUMNS,
        ("texts_id", pa.int64()),
        ("category_path", CATEGORY_PATH),
        ("probability", pa.float32()),
        ("level_probabilities", pa.list_(pa.float32())),
        ("alternatives", pa.list_(ALTERNATIVE)),
        *MEANS,
        *LABELS,
        ("zoomed_probability", pa.float32()),
        ("picture_error", pa.string()),
        ("model_id", pa.string()),
        ("taxonomy_id", pa.string()),
    ]
)
"""Predictions: one row for each scored picture.

`probability` is normalized over the taxonomy; `outside_probability` is the mass that the model put
outside it. `level_probabilities[i]` is the probability of the first `i + 1` names of the path.
`alternatives` are the next best paths, best first, without the chosen one. `zoomed_probability` is
null if no zoom filter ran. `etag` and `texts_id` tell a later run whether picture and texts are the ones that were
scored (`atlas_ray.scoring.carry`).

A model of labels fills `labels` and `other_labels`; its paths and their probabilities are null. In the predictions of a
model of paths it is the other way round.

A model that reads texts answers even if the picture could not be had; `picture_error` then says
why, and is null elsewhere. Without `sha256` and `picture_error` the picture was not read, since the texts were enough.
A product without a picture has one row, whose `image_uri` is "".

In a run that was migrated to another taxonomy, the answer is null if its path has no certain place there, and
`level_probabilities` are where a level holds other leaves than it did.
"""

FILTERED = pa.schema(
    [
        *PICTURE_COLUMNS,
        ("texts_id", pa.int64()),
        ("zoomed_probability", pa.float32()),
    ]
)
"""Pictures that a scoring run left out as zoomed: one row for each."""

QUARANTINE = pa.schema(
    [
        pa.field("image_id", pa.int64(), nullable=False),
        ("product_id", pa.string()),
        ("image_uri", pa.string()),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("error_code", pa.string(), nullable=False),
        ("message", pa.string()),
        ("etag", pa.string()),
    ]
)
"""Inputs that could not be processed: one row for each. `etag` is null if nothing was read.

Rows of an import that never became a picture have `image_id` -1; their message names file and line.
"""

CATEGORIZED = pa.schema(
    [
        pa.field("product_id", pa.string(), nullable=False),
        ("category_path", CATEGORY_PATH),
        ("probability", pa.float32()),
        ("level_probabilities", pa.list_(pa.float32())),
        ("alternatives", pa.list_(ALTERNATIVE)),
        *MEANS,
        *LABELS,
        ("images_scored", pa.int32()),
        ("images_carried", pa.int32()),
        ("images_unread", pa.int32()),
        ("images_filtered", pa.int32()),
        ("images_quarantined", pa.int32()),
        ("only_zoomed", pa.bool_()),
        ("decided_level", pa.int32()),
        ("image_uri", pa.string()),
        ("zoomed_probability", pa.float32()),
        ("image_size_px", pa.int32()),
        ("store", pa.string()),
        ("price", pa.float64()),
        ("brand", pa.string()),
        ("sku", pa.string()),
        ("availability", pa.string()),
        ("attributes", pa.map_(pa.string(), pa.string())),
        ("true_category_path", CATEGORY_PATH),
        ("true_category_paths", pa.list_(CATEGORY_PATH)),
        ("split", pa.string()),
        ("model_id", pa.string()),
        ("taxonomy_id", pa.string()),
        ("fitted", pa.bool_()),
    ]
)
"""Scored products: one row for each product of the catalogue, its pictures' predictions combined into one path.

`images_scored` counts pictures that were seen or did not have to be, `images_carried` those of them whose answer was
carried over from an earlier run, `images_unread` those that were not read since the texts alone were sure enough (null
without a cascade), `images_quarantined` those that could not be had, also where the
product's texts gave an answer. `category_path` is null if the product could not be scored, or if its
path has no certain place in the taxonomy that the run was migrated to. From `store` to `split` the columns are the
catalogue's own, carried along so that an evaluation or an export reads this one table. `only_zoomed`: all
of its pictures were zoomed, and the least zoomed one was scored. `decided_level` is the level of
`category_path`: its leaf's, or with a target precision the deepest one that is sure enough; the leaf then
comes first among the alternatives. At 0 no level is, and `category_path` and `probability` are null.
`image_uri` is the scored picture that was surest, `zoomed_probability` that of the least zoomed one,
`image_size_px` the shorter side of the largest one, null if the images table does not know. `fitted`: whether the
model was fitted on this product, so that its answer proves nothing; null if that is not known.
"""

CORRECTED_LABELS = pa.schema([pa.field("product_id", pa.string(), nullable=False), ("category_path", CATEGORY_PATH)])
"""Labels that a person corrected: one row for each product. An update of the catalogue keeps them."""

UNDETERMINED = pa.schema(
    [
        pa.field("product_id", pa.string(), nullable=False),
        ("category_path", CATEGORY_PATH),
        pa.field("reason", pa.string(), nullable=False),
        ("candidates", pa.list_(CATEGORY_PATH)),
    ]
)
"""Products whose path has no certain place in a new version of the taxonomy: one row for each. `category_path` is the
old one. `reason` is removed, split, not_a_leaf, unknown or regrouped (see `atlas_ray.taxonomy.changes`); `candidates`
are the new paths at or below which the product belongs, as far as that is known."""

LABEL_ERRORS = pa.schema(
    [
        pa.field("product_id", pa.string(), nullable=False),
        ("category_path", CATEGORY_PATH),
        pa.field("other_product_id", pa.string(), nullable=False),
        ("other_category_path", CATEGORY_PATH),
        ("similarity", pa.float32()),
    ]
)
"""Pairs of nearly identical products whose labels differ: one row for each pair, the most similar first."""


def embeddings(width: int) -> pa.Schema:
    """Return the schema of embeddings: one row a product, its vector of `width` numbers and length 1.

    `category_path` is its label, null if it has none. `picture_error` says why a picture could not
    be had, where the model reads texts, too, and the product has a vector all the same.
    """
    return pa.schema(
        [
            pa.field("product_id", pa.string(), nullable=False),
            ("category_path", CATEGORY_PATH),
            ("split", pa.string()),
            ("vector", pa.list_(pa.float32(), width)),
            ("picture_error", pa.string()),
            ("model_id", pa.string()),
        ]
    )


COLUMNS = {
    "product_id": "Id of the product, unique in its catalogue.",
    "image_id": "Stable hash of `product_id` and `image_uri`, the key of all stages; -1 for what never was a picture.",
    "image_uri": "Where the picture is: a path, `s3://BUCKET/KEY` or `http(s)://`; empty if there is no picture.",
    "image_uris": "Where the product's pictures are, in their order.",
    "store": "Shop that the product comes from.",
    "url": "Address of the product's page.",
    "title": "Title of the product.",
    "description": "Description of the product, with its markup.",
    "price": "Price as a number, without its currency.",
    "currency": "Currency of the price, an ISO 4217 code if it is known.",
    "brand": "Brand of the product.",
    "sku": "Number under which the shop keeps the product.",
    "availability": "Whether the product can be had, as its source says: `InStock`, `OutOfStock` or its own word.",
    "breadcrumb": "Names of the shop's own navigation, from the root down.",
    "category_path": "Names from the root of the taxonomy to the category.",
    "category_paths": "All labels of a product that has several, null for others; the first is `category_path`.",
    "attributes": "Further columns of the product's source, by name, that the import was asked to keep.",
    "true_category_path": "Label of the product in the catalogue, null if it has none.",
    "true_category_paths": "All labels of a product that has several, null for others.",
    "split": "Side of the product: `train`, `val` or `test`, null if it has none.",
    "crawled_at": "When the product's page was read.",
    "sha256": "Hash of the picture's bytes, null until somebody reads it.",
    "etag": "What the store said of the picture when it was read, and says as long as it stays the same: an object's "
    "ETag and size, a file's size, times and inode; null if it was not read, or was written a moment before.",
    "texts_id": "Hash of the texts that the model read, null if it reads none.",
    "width": "Width of the picture in pixels, null until somebody reads it.",
    "height": "Height of the picture in pixels, null until somebody reads it.",
    "probability": "Probability of `category_path` among all paths that were searched.",
    "level_probabilities": "Probability of the first 1, 2, ... names of the path.",
    "alternatives": "Next best paths with their probabilities, best first.",
    "labels": "Labels that are applied, with their probabilities, best first; null for a model of paths.",
    "other_labels": "Further labels of at least 0.001, which are under their thresholds, best first.",
    "outside_probability": "Share of the model's own distribution on sequences that are no searched path; 0 for a "
    "model that names leaves, over its whole taxonomy.",
    "zoomed_probability": "Probability of being a close-up, of a product that of its least zoomed picture; null "
    "where no zoom filter ran.",
    "picture_error": "Why the picture could not be had if the texts alone gave the answer; null elsewhere.",
    "model_id": "Id of the model, a hash of its content.",
    "taxonomy_id": "Id of the taxonomy that was searched, a hash of its content.",
    "stage": "Stage that gave the input up.",
    "error_code": "Short stable code, see the list of error codes.",
    "message": "What was wrong, in a sentence.",
    "images_scored": "Pictures of the product that were seen, or did not have to be.",
    "images_carried": "Those of them whose answer was carried over from an earlier run.",
    "images_unread": "Those of them that were not read, since the texts alone were sure enough; null without "
    "`--cascade`.",
    "images_filtered": "Pictures of the product that the zoom filter left out.",
    "images_quarantined": "Pictures of the product that could not be had.",
    "only_zoomed": "Whether all pictures were close-ups, of which the least zoomed one was scored.",
    "decided_level": "Level of `category_path`: that of its leaf, a lower number where only an ancestor is sure "
    "enough, 0 where nothing is.",
    "image_size_px": "Shorter side of the product's largest picture, null if it is not known.",
    "fitted": "Whether the model was fitted on this product, so that its answer proves nothing; null if that is "
    "not known.",
    "reason": "Why the path has no certain place: `removed`, `split`, `not_a_leaf`, `unknown` or `regrouped`.",
    "candidates": "Paths of the new taxonomy at or below which the product belongs, as far as that is known.",
    "other_product_id": "Id of the product that is nearly identical.",
    "other_category_path": "Label of the product that is nearly identical.",
    "similarity": "Cosine similarity of both products' vectors.",
    "vector": "Features of the product, of length 1.",
}
"""Descriptions of all columns of the tables, a sentence for each."""


def path_keys(paths: pa.Array | pa.ChunkedArray) -> Any:
    """Return category paths as strings to group and compare by; null stays null."""
    return pc.binary_join(paths, PATH_KEY_SEPARATOR)


def path_counts(paths: pa.Array | pa.ChunkedArray) -> Counter[tuple[str, ...]]:
    """Return how often each category path stands; null is left out."""
    rows = pc.value_counts(path_keys(paths.drop_null())).to_pylist()
    return Counter({tuple(row["values"].split(PATH_KEY_SEPARATOR)): row["counts"] for row in rows})


def image_ids(product_ids: Sequence[str], image_uris: Sequence[str]) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """Return the stable ids of pictures, int64: the first 8 bytes of a hash of both names.

    Among 100 million pictures two share an id with a probability of 0.0003.
    """
    joined = [f"{owner}\x1f{uri}" for owner, uri in zip(product_ids, image_uris, strict=True)]
    # A name that holds the sign itself gets a prefix, so that no two pairs of names result in the same text.
    names = [
        name if name.count("\x1f") == 1 else f"{len(owner)}\x1f{name}"
        for owner, name in zip(product_ids, joined, strict=True)
    ]
    return _hashes(names).astype(np.int64)


def texts_ids(texts: Sequence[Sequence[str | None]]) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """Return ids of the texts of products, int64.

    Args:
        texts: For each field, in the same order each time, the texts of all products.
    """
    products = zip(*texts, strict=True)
    joined = ["".join("-" if text is None else f"{len(text)}:{text}" for text in one) for one in products]
    return _hashes(joined).astype(np.int64)


def hash_fractions(seed: int, names: Sequence[str]) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """Return fractions from 0 to 1, each of which depends on a seed and a name alone: the same in every process."""
    numbers = _hashes([f"{seed}\x1f{name}" for name in names]).byteswap()
    return numbers.view(np.uint64) / 2**64


def _hashes(texts: Sequence[str]) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """Return the first 8 bytes of a hash of each text, the least first."""
    new, passed = hashlib.blake2b, "surrogatepass"
    return np.frombuffer(b"".join([new(text.encode("utf-8", passed), digest_size=8).digest() for text in texts]), "<i8")


def product_id_of(store: str, url: str) -> str:
    """Return the stable id of a product that was found on a page, by its canonical URL."""
    digest = hashlib.blake2b(url.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    return f"{store}-{digest}"


def quarantine_row(
    stage: str,
    code: str,
    message: str,
    *,
    image_id: int = -1,
    product_id: str | None = None,
    image_uri: str | None = None,
) -> dict[str, object]:
    """Return one row of the quarantine table; what its texts hold that Arrow refuses is written as an escape."""
    return {
        "image_id": image_id,
        "product_id": product_id if product_id is None else printable(product_id),
        "image_uri": image_uri if image_uri is None else printable(image_uri),
        "stage": stage,
        "error_code": code,
        "message": printable(message),
    }
