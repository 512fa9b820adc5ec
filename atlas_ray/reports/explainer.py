"""A model asked about single pictures: where it looks, and what it would say of its own accord."""

import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from atlas_ray.artifacts import load_artifact
from atlas_ray.errors import ArtifactError, FetchError, StorageError
from atlas_ray.images import decode_batch
from atlas_ray.predictors import PathPredictor, PredictorConfig
from atlas_ray.products import Products, Texts
from atlas_ray.reports.attention import strip
from atlas_ray.reports.examples import Content
from atlas_ray.reports.page import read_pictures
from atlas_ray.taxonomy import CategoryPath


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
