"""Products to look at: how a model sees them, and what it would have said of its own accord."""

import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from atlas_ray.artifacts import load_artifact
from atlas_ray.errors import ArtifactError, FetchError, StorageError
from atlas_ray.images import decode_batch
from atlas_ray.predictors import PathPredictor, PredictorConfig
from atlas_ray.products import Products, Texts
from atlas_ray.records import CATEGORY_PATH
from atlas_ray.reports.attention import strip
from atlas_ray.reports.page import read_pictures
from atlas_ray.reports.tally import ALL, leaf_paths, path_keys, products_of
from atlas_ray.taxonomy import CategoryPath

COLUMNS = (
    "product_id", "image_uri", "split", "probability", "outside_probability", "true_category_path", "category_path",
    "level_probabilities", "alternatives", "decided_level",
)  # fmt: skip
KEPT = pa.schema(
    [
        ("product_id", pa.string()),
        ("image_uri", pa.string()),
        ("probability", pa.float32()),
        ("outside_probability", pa.float32()),
        ("true_category_path", CATEGORY_PATH),
        ("category_path", CATEGORY_PATH),
    ]
)
Content = bytes | FetchError


@dataclass
class Wanted:
    """The surest products of some kind, `count` at most; rows of `KEPT`."""

    by: str
    """The column whose greatest values are kept."""
    count: int
    table: pa.Table = field(default_factory=KEPT.empty_table)

    def offer(self, rows: pa.Table) -> None:
        """Take in rows, and keep the best."""
        if len(rows):
            joined = pa.concat_tables([self.table, rows])
            order = pc.select_k_unstable(joined, self.count, [(self.by, "descending"), ("product_id", "ascending")])
            self.table = joined.take(order)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """What was kept, the greatest first."""
        found: list[dict[str, Any]] = self.table.to_pylist()
        return found


@dataclass
class Examples:
    """Products of one split that a report shows."""

    confused: dict[tuple[CategoryPath, CategoryPath | None], Wanted]
    """Of each confusion the surest ones."""
    right: Wanted
    wrong: Wanted
    outside: Wanted
    """Those of which the model thinks most that they belong nowhere in the taxonomy."""


def find_examples(
    run: str,
    split: str,
    confusions: Sequence[tuple[CategoryPath, CategoryPath | None]],
    *,
    each: int,
    explained: int,
    outside: int,
) -> Examples:
    """Read the products of a run once more, and keep those to look at.

    Args:
        run: The scoring run.
        split: Its products, or `ALL`.
        confusions: (true, predicted) leaf paths.
        each: How many products of each confusion.
        explained: How many right and how many wrong ones.
        outside: How many that may belong nowhere.
    """
    found = Examples(
        {pair: Wanted("probability", each) for pair in confusions},
        Wanted("probability", explained),
        Wanted("probability", explained),
        Wanted("outside_probability", outside),
    )
    for batch in products_of(run).to_batches(columns=list(COLUMNS)):
        chosen = batch["true_category_path"].is_valid()
        if split != ALL:
            chosen = pc.and_(chosen, pc.equal(pc.fill_null(batch["split"], "none"), split))
        rows = batch.filter(chosen)
        leaves = leaf_paths(rows)
        true, said = path_keys(rows["true_category_path"]), pc.fill_null(path_keys(leaves), "")
        kept = pa.table([*(rows[name] for name in KEPT.names[:-1]), leaves], schema=KEPT)
        kept = kept.set_column(2, "probability", pc.fill_null(kept["probability"], 0.0))
        for (one, other), wanted in found.confused.items():
            key = path_keys(pa.array([list(other)], CATEGORY_PATH))[0] if other else ""
            same = pc.and_(pc.equal(true, path_keys(pa.array([list(one)], CATEGORY_PATH))[0]), pc.equal(said, key))
            wanted.offer(kept.filter(same))
        pictured = pc.greater(pc.fill_null(pc.utf8_length(rows["image_uri"]), 0), 0)
        found.right.offer(kept.filter(pc.and_(pc.equal(true, said), pictured)))
        found.wrong.offer(kept.filter(pc.and_(pc.and_(pc.not_equal(true, said), pictured), leaves.is_valid())))
        found.outside.offer(kept.filter(pictured))
    return found


def explain_picture(
    uri: str, model: str, *, within: CategoryPath = (), texts: Texts | None = None
) -> tuple[dict[str, Any], bytes]:
    """Categorize one picture, and draw where the model looked at each level.

    Args:
        uri: The picture.
        model: The artifact of an encoder-decoder, or of a fused model with one.
        within: Answer at and below this node alone.
        texts: What else there is of the product.

    Returns:
        A row of the columns `decoding.PREDICTED`, and a PNG.

    Raises:
        ConfigError: where the model has no attention.
        StorageError: where the picture cannot be read.
        ArtifactError, TaxonomyError: where the model cannot be, or has no node `within`.
    """
    predictor = PathPredictor(load_artifact(model), PredictorConfig(batch_size=1), within=within)
    content = read_pictures([uri])[uri]
    if isinstance(content, FetchError):
        raise StorageError(str(content))
    pixels, refused = predictor.decode([content]) if predictor.explains else (torch.zeros(1, 0), {})
    if refused:
        raise StorageError(f"{uri}: {refused[0]}")
    table, maps = predictor.explain(Products(pixels, texts or {}))
    (row,) = table.to_pylist()
    drawn = io.BytesIO()
    strip(pixels[0].numpy(), maps[0].numpy(), _captions(row)).save(drawn, "PNG")
    return row, drawn.getvalue()


def _captions(row: Mapping[str, Any]) -> list[str]:
    levels = zip(row["category_path"], row["level_probabilities"], strict=True)
    return [f"{name} {probability:.2f}" for name, probability in levels]


class Explainer:
    """The model of a run, asked about single pictures."""

    def __init__(self, model: str, model_id: str | None = None) -> None:
        """Load the model.

        Args:
            model: Its artifact.
            model_id: What its id has to be; None for any.

        Raises:
            ArtifactError: where it cannot be read, or is another one.
        """
        artifact = load_artifact(model)
        if model_id is not None and artifact.id != model_id:
            raise ArtifactError(f"{model}: model {artifact.id}; the run was made with {model_id}")
        self._predictor = PathPredictor(artifact, PredictorConfig(batch_size=16))
        self._leaves = frozenset(artifact.taxonomy.leaves)
        self.attends = self._predictor.explains
        self.proposes = self._predictor.proposes

    def strips(self, contents: Sequence[Content]) -> list[Any]:
        """Draw each picture under the attention of each level; a code where it cannot be read."""
        good, pixels, drawn = self._decoded(contents)
        if good:
            table, maps = self._predictor.explain(Products(pixels))
            for place, row, level_maps in zip(good, table.to_pylist(), maps.numpy(), strict=True):
                drawn[place] = strip(pixels[good.index(place)].numpy(), level_maps, _captions(row))
        return drawn

    def new_paths(self, contents: Sequence[Content]) -> dict[CategoryPath, list[tuple[float, int]]]:
        """Return the paths outside the taxonomy that come first to the model's mind (Atlas, Table 2).

        Returns:
            For each path its probability and the position in `contents` of each picture, the surest first.
        """
        good, pixels, _ = self._decoded(contents)
        found: dict[CategoryPath, list[tuple[float, int]]] = defaultdict(list)
        for place, (path, probability) in zip(good, self._predictor.propose(Products(pixels)), strict=True):
            if path and path not in self._leaves:
                found[path].append((probability, place))
        return {path: sorted(pictures, reverse=True) for path, pictures in found.items()}

    def _decoded(self, contents: Sequence[Content]) -> tuple[list[int], Any, list[Any]]:
        size = self._predictor.image_size_px
        pixels, refused = decode_batch([b"" if isinstance(one, FetchError) else one for one in contents], size)
        good = [place for place in range(len(contents)) if place not in refused]
        codes: list[Any] = [
            one.code if isinstance(one, FetchError) else refused[place].code if place in refused else ""
            for place, one in enumerate(contents)
        ]
        return good, pixels[np.array(good, dtype=np.int64)], codes


def read_of(rows: Sequence[Mapping[str, Any]]) -> list[Content]:
    """Read the picture of each row's product."""
    found = read_pictures(row["image_uri"] for row in rows)
    return [found[row["image_uri"]] for row in rows]
