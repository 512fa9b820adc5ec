"""Models of labels measured on the labelled products of a split, all of them in one stream."""

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from atlas_ray.arrays import Array, Integers
from atlas_ray.artifacts import Artifact, check_labels, load_artifact
from atlas_ray.errors import ArtifactError, CatalogError, OutputError, tell
from atlas_ray.evaluation.label_answers import LabelsActor, products_of_answers, schema_of
from atlas_ray.formats.tables import open_table
from atlas_ray.io import storage
from atlas_ray.io.lease import holding
from atlas_ray.metrics.labels import MicroF1
from atlas_ray.prediction.engines import AUTO, PLAIN
from atlas_ray.prediction.label_lists import applied
from atlas_ray.prediction.label_models import LabelModels
from atlas_ray.runtime.joined import forget_inputs
from atlas_ray.runtime.labelled import stream_labelled
from atlas_ray.runtime.progress import ProgressDisplay
from atlas_ray.runtime.shuffle import by_product
from atlas_ray.runtime.sink import write_table
from atlas_ray.runtime.tables import count_labels
from atlas_ray.taxonomy import match_labels

ANSWERS = "answers"
"""The folder of the answers about pictures, until they are joined to products."""
MODELS = pa.schema(
    [
        ("model", pa.string()),
        ("modalities", pa.string()),
        ("policy", pa.string()),  # null for a model of one modality
        ("micro_precision", pa.float64()),
        ("micro_recall", pa.float64()),
        ("micro_f1", pa.float64()),
        ("products", pa.int64()),  # those that it could answer
    ]
)
MISSED = pa.schema(
    [
        ("model", pa.string()),
        ("label", pa.string()),
        ("missed", pa.int64()),
        ("support", pa.int64()),
        ("rank", pa.int32()),  # 1: the one most often missed
    ]
)
OVERLAP = pa.schema(
    [
        ("model", pa.string()),
        ("other", pa.string()),
        ("missed", pa.int64()),
        ("missed_by_both", pa.int64()),
    ]
)
"""What each pair of models misses: labels of products that the first misses, and those of them that the other does."""


@dataclass(frozen=True)
class LabelReport:
    """The measures of each model, in the order in which the models were given."""

    models: list[dict[str, Any]]
    """The rows of `models.parquet`."""
    missed: list[dict[str, Any]]
    """The rows of `missed.parquet`: for each model all labels, the most often missed first."""
    overlap: list[dict[str, Any]]
    """The rows of `overlap.parquet`: each pair of different models."""
    products: int
    """Number of labelled products of the split."""
    left_out: int
    """Number of those that have no leaf of the models' taxonomy."""
    fitted: dict[str, int | None]
    """Number of those that each model was fitted on, which prove nothing; None if that is not known."""


@holding("evaluate-labels", "output")
def evaluate_labels(
    catalog: str,
    output: str,
    models: Sequence[str],
    *,
    split: str = "test",
    precision: str = "auto",
    engine: str = AUTO,
) -> LabelReport:
    """Run models of labels over a split, and count the labels that each names rightly, wrongly, or misses.

    A label is named if its mean probability over the product's pictures is at least the model's threshold for it, as
    a scoring run applies it. All models are measured on the same products: if a product has none of a model's
    modalities, it misses all of its labels.

    Args:
        catalog: The catalogue of the products.
        output: The folder for `models.parquet`, `missed.parquet` and `overlap.parquet`.
        models: Artifacts of models of labels, of one modality or fused.
        split: The split of the products.
        precision: As in `PredictorConfig`.
        engine: As in `PredictorConfig`.

    Raises:
        ArtifactError: if a model is not a model of labels, or has other labels than the first.
        CatalogError: if the split has no labelled product that is a leaf of their taxonomy.
        ConfigError: if the models cannot be run together.
        OutputError: if the output holds something else.
        TaxonomyError: if no label of the split is in their taxonomy.
    """
    catalog, output = storage.absolute(catalog), storage.absolute(output)
    uris = list(dict.fromkeys(storage.absolute(uri) for uri in models))
    for name in ("products", "model.json"):
        if storage.exists(storage.join(output, name)):
            raise OutputError(f"{output} holds {name}; name a folder of its own with --output")
    artifacts = {uri: load_artifact(uri, target="labels") for uri in uris}
    first = artifacts[uris[0]]
    for uri, artifact in artifacts.items():
        if artifact.taxonomy.leaves != first.taxonomy.leaves:
            raise ArtifactError(f"{uri}: trained on taxonomy {artifact.taxonomy.id}, {uris[0]} on {first.taxonomy.id}")
        check_labels(artifact, first.labels, uri)
    assert first.labels is not None
    modalities = LabelModels(artifacts, device="cpu", engine=PLAIN).modalities  # fails here, not in a worker
    labelled = f"the catalogue {catalog}, split {split!r},"
    note = match_labels(
        count_labels(catalog, split),
        first.taxonomy,
        labelled=labelled,
        predicted=f"the model {uris[0]}",
        leaves_only=True,
    )
    if note:
        tell(note)
    schema, answers = schema_of(len(uris)), storage.join(output, ANSWERS)
    storage.delete_folder(answers)
    try:
        with ProgressDisplay("running the models", "products") as display:
            arguments = (uris, precision, engine)
            stream, _ = stream_labelled(catalog, output, split, modalities, LabelsActor, arguments, display=display)
            write_table(stream.write_datasink, output, ANSWERS)
        table = open_table(answers, schema)
        count = functools.partial(
            _counted,
            thresholds=[np.array(artifact.thresholds) for artifact in artifacts.values()],
            modalities=[artifact.modalities for artifact in artifacts.values()],
        )
        sums = _summed(by_product(((table, 0),), schema, table.rows, count).blocks(), len(uris), len(first.labels))
    finally:
        forget_inputs(output)
        storage.delete_folder(answers)
    counts, answered, fitted = sums["counts"], sums["answered"], sums["fitted"]
    products, left_out = int(sums["products"][0]), int(sums["left_out"][0])
    if not products:
        raise CatalogError(
            f"{catalog}: none of the {left_out} labelled products in the split {split!r} has a path that is a leaf of "
            "the models' taxonomy"
        )
    measured = [_row(artifacts[uri], uri, counts[at], int(answered[at])) for at, uri in enumerate(uris)]
    missed = [row for at, uri in enumerate(uris) for row in _missed(uri, first.labels.names, counts[at])]
    overlap = _overlap(uris, sums["overlap"])
    tables = (("models", measured, MODELS), ("missed", missed, MISSED), ("overlap", overlap, OVERLAP))
    for name, rows, schema in tables:
        storage.write_table(storage.join(output, f"{name}.parquet"), pa.Table.from_pylist(rows, schema=schema))
    seen = {uri: int(fitted[at]) if artifacts[uri].fitted else None for at, uri in enumerate(uris)}
    return LabelReport(measured, missed, overlap, products, left_out, seen)


def _counted(table: pa.Table, thresholds: Sequence[Array], modalities: Sequence[Sequence[str]]) -> pa.Table:
    """Count some products, whose rows are all there, in one row of lists for `_summed`."""
    counts = np.zeros((len(thresholds), 3, len(thresholds[0])), np.int64)  # (models, 3, N)
    answered = np.zeros(len(thresholds), np.int64)
    missed = []
    for model, (least, reads) in enumerate(zip(thresholds, modalities, strict=True)):
        found = products_of_answers(table, model, len(least), reads)
        named = np.zeros_like(found.has)  # (products, N)
        kept = applied(found.means, least)
        named[found.means.product[kept], found.means.answer[kept]] = True
        counts[model] = [(named & found.has).sum(0), (named & ~found.has).sum(0), (~named & found.has).sum(0)]
        answered[model] = found.answered.sum()
        missed.append((~named & found.has).reshape(-1).astype(np.int64))
    known = table["has"].is_valid()
    ids = pc.unique(table["product_id"].filter(known))
    once = table.filter(known).combine_chunks()
    first = np.unique(once["product_id"].to_numpy(zero_copy_only=False), return_index=True)[1]
    uses = once["fitted"].take(pa.array(first)).combine_chunks().flatten().to_numpy(zero_copy_only=False)
    columns = {
        "counts": counts,
        "answered": answered,
        "overlap": np.stack(missed) @ np.stack(missed).T,  # (models, models)
        "fitted": uses.reshape(-1, len(thresholds)).sum(0),
        "products": np.array([len(ids)]),
        "left_out": np.array([len(pc.unique(table["product_id"].filter(pc.invert(known))))]),
    }
    return pa.table(
        {name: pa.array([column.reshape(-1).tolist()], pa.list_(pa.int64())) for name, column in columns.items()}
    )


def _summed(counted: Iterable[pa.Table], models: int, labels: int) -> dict[str, Integers]:
    """Add up the rows of `_counted`."""
    shapes = {
        "counts": (models, 3, labels), "answered": (models,), "overlap": (models, models), "fitted": (models,),
        "products": (1,), "left_out": (1,),
    }  # fmt: skip
    sums = {name: np.zeros(shape, np.int64) for name, shape in shapes.items()}
    for block in counted:
        for name, total in sums.items():
            for row in block[name].to_pylist():
                total += np.array(row, np.int64).reshape(total.shape)
    return sums


def _row(artifact: Artifact, uri: str, counts: Integers, answered: int) -> dict[str, Any]:
    micro = MicroF1.of(*counts.sum(1).tolist())
    return {
        "model": uri,
        "modalities": "+".join(artifact.modalities),
        "policy": artifact.model.config.to_dict().get("policy"),
        "micro_precision": micro.precision,
        "micro_recall": micro.recall,
        "micro_f1": micro.f1,
        "products": answered,
    }


def _overlap(uris: Sequence[str], missed: Integers) -> list[dict[str, Any]]:
    return [
        {"model": uri, "other": other, "missed": int(missed[at, at]), "missed_by_both": int(missed[at, place])}
        for at, uri in enumerate(uris)
        for place, other in enumerate(uris)
        if place != at
    ]


def _missed(uri: str, labels: Sequence[str], counts: Integers) -> list[dict[str, Any]]:
    right, _, missed = counts
    return [
        {
            "model": uri,
            "label": labels[label],
            "missed": int(missed[label]),
            "support": int(right[label] + missed[label]),
            "rank": rank,
        }
        for rank, label in enumerate(np.argsort(-missed, kind="stable").tolist(), 1)
    ]
