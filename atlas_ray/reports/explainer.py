"""Explanations of single pictures: attention maps, and the paths that a model would propose without a taxonomy."""

import io
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from atlas_ray.artifacts import Artifact, load_artifact
from atlas_ray.errors import (
    NOT_A_NUMBER,
    CatalogError,
    ConfigError,
    FetchError,
    NotFiniteError,
    StorageError,
    TaxonomyError,
)
from atlas_ray.modalities import Texts, texts_of
from atlas_ray.modalities.products import Products
from atlas_ray.modalities.texts import MAX_RAW_CHARACTERS
from atlas_ray.prediction.paths import PathPredictor, PredictorConfig
from atlas_ray.reports.attention import frames, strip
from atlas_ray.reports.page import GROUP, picture_groups, read_pictures, thumbnail
from atlas_ray.runs.catalog_products import read_products
from atlas_ray.runs.scored import ScoredRun
from atlas_ray.taxonomy import CategoryPath, Taxonomy, format_path, parse_path, read_taxonomy

SEARCHED = ("search", "beam_width", "precision")
"""Names of the settings of a run that its answers depend on."""


def explain_picture(
    uri: str,
    model: str,
    *,
    within: CategoryPath = (),
    texts: Texts | None = None,
    config: PredictorConfig | None = None,
) -> tuple[dict[str, Any], bytes]:
    """Categorize one picture, and draw where the model looked at each level.

    Args:
        uri: The picture.
        model: The artifact of an encoder-decoder, or of a fused model with one.
        within: Answer at and below this node alone.
        texts: What else there is of the product.
        config: How the model is run and its answer searched.

    Returns:
        A row of the columns `prediction.columns.COLUMNS`, and a PNG.

    Raises:
        ConfigError: if the model has no attention.
        StorageError: if the picture cannot be read.
        NotFiniteError: if the model's answer is no number.
        ArtifactError, TaxonomyError: if the model cannot be, or has no node `within`.
    """
    config = replace(config or PredictorConfig(), batch_size=1)
    predictor = PathPredictor(load_artifact(model), config, within=within)
    content = read_pictures([uri])[uri]
    if isinstance(content, FetchError):
        raise StorageError(str(content))
    pixels, refused = predictor.decode([content]) if predictor.explains else (torch.zeros(1, 0), {})
    if refused:
        raise StorageError(f"{uri}: {refused[0]}")
    table, maps = predictor.explain(Products(pixels, texts or {}))
    (row,) = table.to_pylist()
    if row["category_path"] is None:
        raise NotFiniteError(f"{uri}: {NOT_A_NUMBER}")
    drawn = io.BytesIO()
    strip(pixels[0].numpy(), maps[0].numpy(), _levels(row)).save(drawn, "PNG")
    return row, drawn.getvalue()


def explain_text(
    model: str, texts: Texts, *, within: CategoryPath = (), config: PredictorConfig | None = None
) -> tuple[dict[str, Any], list[list[tuple[str, float]]]]:
    """Categorize one text, and tell which words the model looked at for each level.

    Args:
        model: The artifact of an encoder-decoder of titles or descriptions.
        texts: The text, by its field.
        within: Answer at and below this node alone.
        config: How the model is run and its answer searched.

    Returns:
        A row of the columns `prediction.columns.COLUMNS`, and for each level of its path the words or tokens of the
        text, each with its share of the attention, the largest first.

    Raises:
        ConfigError: if the model looks at a picture, has no attention, or is given no text.
        NotFiniteError: if the model's answer is no number.
        ArtifactError, TaxonomyError: if the model cannot be, or has no node `within`.
    """
    artifact = load_artifact(model)
    index = artifact.words or artifact.tokens
    if index is None or not artifact.spells:
        raise ConfigError(f"{model}: a {artifact.kind}, which is asked about a picture; name one before --model")
    predictor = PathPredictor(artifact, replace(config or PredictorConfig(), batch_size=1), within=within)
    products = Products(torch.zeros(1, 0), texts)
    (field,) = artifact.texts
    if not predictor.answerable(products):
        raise ConfigError(f"{model}: reads the {field}; give one with --{field}")
    table, maps = predictor.explain(products)
    (row,) = table.to_pylist()
    if row["category_path"] is None:
        raise NotFiniteError(f"{model}: {NOT_A_NUMBER}")
    pieces = index.pieces(products.text(field)[0])
    shares = maps[0, : len(row["category_path"]), 0, : len(pieces)].tolist()
    return row, [sorted(zip(pieces, level, strict=True), key=lambda one: -one[1]) for level in shares]


def _levels(row: Mapping[str, Any]) -> list[tuple[str, float]]:
    return list(zip(row["category_path"], row["level_probabilities"], strict=True))


@dataclass(frozen=True)
class Strip:
    """Where a model looked in a product's picture."""

    drawing: Sequence[tuple[Image.Image, str]] | str
    """The picture, and the same under the attention of each level, with what stands below each; a code if it cannot
    be read."""
    explains: str = ""
    """A note about the drawing, if the model's answer is not the run's."""


@dataclass(frozen=True)
class Proposal:
    """A path of which a model thought first, of its own accord."""

    probability: float
    row: int
    """Whose picture it was."""
    thumbnail: Image.Image | str


class Explainer:
    """A model asked about single products of a run as the run asked: with their texts, in its taxonomy."""

    def __init__(self, model: str, scored: ScoredRun) -> None:
        """Load the model.

        Args:
            model: Its artifact, of the run's model or of another one.
            scored: The run.

        Raises:
            ArtifactError: if it cannot be read.
            ConfigError: if the run's account has invalid settings.
        """
        artifact = load_artifact(model)
        self._scored = scored
        self.notes: list[str] = []
        """What the model was not asked as in the run."""
        self._predictor = self._of_run(artifact)
        self.model_id = artifact.id
        self.attends = self._predictor.explains
        self.proposes = self._predictor.proposes

    def _of_run(self, artifact: Artifact) -> PathPredictor:
        identity, settings = self._scored.identity, self._scored.run.get("config")
        searched = {name: identity[name] for name in SEARCHED if identity.get(name) is not None}
        config = PredictorConfig(batch_size=GROUP, **searched)
        try:
            taxonomy, within = _narrowed(settings if isinstance(settings, dict) else {})
            self._leaves = (taxonomy or artifact.taxonomy).leaf_set
            predictor = PathPredictor(artifact, config, taxonomy=taxonomy, within=within)
        except (StorageError, TaxonomyError) as error:
            self._leaves = artifact.taxonomy.leaf_set
            predictor = PathPredictor(artifact, config)
            self.notes.append(f"was asked in its own taxonomy, as the run's cannot be used: {error}")
        else:
            if identity.get("taxonomy_id") not in (None, predictor.taxonomy.id):
                self.notes.append(
                    f"was asked in the taxonomy {predictor.taxonomy.id}, as the run's, {identity['taxonomy_id']}, "
                    "is not at hand"
                )
        return predictor

    def strips(self, rows: Sequence[Mapping[str, Any]]) -> Iterator[Strip]:
        """Draw where the model looked in the picture of each product, in order.

        Args:
            rows: Of products of the run: `product_id`, `image_uri` and `category_path`, the run's answer.
        """
        texts = self._texts([row["product_id"] for row in rows])
        for number, contents in enumerate(picture_groups([row["image_uri"] for row in rows])):
            codes, good, pixels = self._decoded(contents)
            drawn = [Strip(code) for code in codes]
            if good:
                some = [rows[number * GROUP + place] for place in good]
                given = {name: [found.get(row["product_id"]) for row in some] for name, found in texts.items()}
                table, maps = self._predictor.explain(Products(pixels, given))
                for place, row, answer, seen, looked in zip(good, some, table.to_pylist(), pixels, maps, strict=True):
                    if answer["category_path"] is None:
                        drawn[place] = Strip(NOT_A_NUMBER.code)
                        continue
                    levels = _levels(answer)
                    names = ["", *(f"{name} {probability:.1%}" for name, probability in levels)]
                    pictures = frames(seen.numpy(), looked.numpy(), len(levels))
                    drawing = list(zip(pictures, names, strict=True))
                    drawn[place] = Strip(drawing, _another(row["category_path"], answer["category_path"]))
            yield from drawn

    def new_paths(self, rows: Sequence[Mapping[str, Any]]) -> dict[CategoryPath, list[Proposal]]:
        """Return the paths outside the run's taxonomy that come first to the model's mind (Atlas, Table 2).

        Args:
            rows: Of products of the run: `product_id` and `image_uri`.

        Returns:
            For each path the products, the surest first; the paths of most products first.
        """
        proposals: dict[CategoryPath, list[Proposal]] = defaultdict(list)
        for number, contents in enumerate(picture_groups([row["image_uri"] for row in rows])):
            _, good, pixels = self._decoded(contents)
            for place, (path, probability) in zip(good, self._predictor.propose(Products(pixels)), strict=True):
                if path and path not in self._leaves:
                    shown = thumbnail(contents[place])
                    proposals[path].append(Proposal(probability, number * GROUP + place, shown))
        listed = sorted(proposals.items(), key=lambda item: (-len(item[1]), item[0]))
        return {path: sorted(some, key=lambda one: (-one.probability, one.row)) for path, some in listed}

    def _decoded(self, contents: Sequence[bytes | FetchError]) -> tuple[list[str], list[int], Tensor]:
        """Return why each picture cannot be looked at, "" if it can, which can, and the pixels of those."""
        files = [b"" if isinstance(content, FetchError) else content for content in contents]
        pixels, refused = self._predictor.decode(files)
        codes = [
            content.code if isinstance(content, FetchError) else refused[place].code if place in refused else ""
            for place, content in enumerate(contents)
        ]
        good = [place for place, code in enumerate(codes) if not code]
        return codes, good, pixels[torch.tensor(good, dtype=torch.int64)]

    def _texts(self, product_ids: Sequence[str]) -> dict[str, dict[str, str | None]]:
        """Read the texts of products that the model reads, by field and product, from the catalogue that was scored."""
        fields = texts_of(self._predictor.modalities)
        if not fields or not product_ids:
            return {}
        texts: dict[str, dict[str, str | None]] = {field: {} for field in fields}
        try:
            catalog = str(self._scored.identity.get("catalog") or "")
            for row in read_products(catalog, product_ids, fields):
                for field in fields:
                    texts[field][row["product_id"]] = (row[field] or "")[:MAX_RAW_CHARACTERS]
        except (StorageError, CatalogError) as error:
            self.notes.append(f"was not given the products' texts, which cannot be read: {str(error).splitlines()[0]}")
        return texts


def _narrowed(settings: Mapping[str, Any]) -> tuple[Taxonomy | None, CategoryPath]:
    """Return the taxonomy that a run was given, if any, and the path that it stayed at and below."""
    source, within = (str(settings.get(name) or "") for name in ("taxonomy", "within"))
    return read_taxonomy(source) if source else None, parse_path(within) if within else ()


def _another(answer: Sequence[str] | None, explained: Sequence[str]) -> str:
    """Return a note about a drawing's path, if it is neither the run's answer nor below the ancestor that it gave."""
    answered = list(answer or ())
    same = list(explained)[: len(answered)] == answered
    return "" if same else f"the strip explains {format_path(explained)}, the model's answer about this picture"
