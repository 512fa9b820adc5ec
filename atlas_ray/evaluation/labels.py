"""Models of labels measured on the labelled products of a split, all of them in one stream."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from atlas_ray.arrays import Integers
from atlas_ray.artifacts import Artifact, check_labels, load_artifact
from atlas_ray.errors import ArtifactError, CatalogError, NotFiniteError, OutputError, tell
from atlas_ray.io import storage
from atlas_ray.io.lease import holding
from atlas_ray.metrics import MicroF1, compare
from atlas_ray.prediction.labels import LabelPredictor
from atlas_ray.runtime.joined import forget_inputs
from atlas_ray.runtime.labelled import BATCH, products_of, stream_labelled
from atlas_ray.runtime.progress import ProgressDisplay
from atlas_ray.runtime.tables import count_labels
from atlas_ray.taxonomy import match_labels

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


@dataclass(frozen=True)
class LabelReport:
    """The measures of each model, in the order in which the models were given."""

    models: list[dict[str, Any]]
    """The rows of `models.parquet`."""
    missed: list[dict[str, Any]]
    """The rows of `missed.parquet`: for each model all labels, the most often missed first."""
    products: int
    """Number of labelled products of the split; one with several pictures counts once for each."""
    left_out: int
    """Number of those that have no leaf of the models' taxonomy."""
    fitted: dict[str, int | None]
    """Number of those that each model was fitted on, which prove nothing; None if that is not known."""


@holding("evaluate-labels", "output")
def evaluate_labels(catalog: str, output: str, models: Sequence[str], *, split: str = "test") -> LabelReport:
    """Run models of labels over a split, and count the labels that each names rightly, wrongly, or misses.

    All models are measured on the same products: if a product has none of a model's modalities, it misses all of its
    labels.

    Args:
        catalog: The catalogue of the products.
        output: The folder for `models.parquet` and `missed.parquet`.
        models: Artifacts of models of labels, of one modality or fused.
        split: The split of the products.

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
    modalities = LabelPredictor(artifacts, device="cpu").modalities  # fails here, not in a worker
    counts = np.zeros((len(uris), 3, len(first.labels)), np.int64)
    labelled = f"the catalogue {catalog}, split {split!r},"
    note = match_labels(
        count_labels(catalog, split), first.taxonomy, labelled=labelled, predicted=f"the model {uris[0]}"
    )
    if note:
        tell(note)
    answered, fitted, left_out, products = np.zeros(len(uris), np.int64), np.zeros(len(uris), np.int64), 0, 0
    try:
        with ProgressDisplay("running the models", "products") as display:
            stream, _ = stream_labelled(catalog, output, split, modalities, LabelsActor, (uris,), display=display)
            for block in stream.iter_batches(batch_size=None, batch_format="numpy"):
                counts += block["counts"].sum(0)
                answered += block["answered"].sum(0)
                fitted += block["fitted"].sum(0)
                products += int(block["products"].sum())
                left_out += int(block["left_out"].sum())
    finally:
        forget_inputs(output)
    if not products:
        raise CatalogError(
            f"{catalog}: none of the {left_out} labelled products in the split {split!r} has a path that is a leaf of "
            "the models' taxonomy"
        )
    measured = [_row(artifacts[uri], uri, counts[at], int(answered[at])) for at, uri in enumerate(uris)]
    missed = [row for at, uri in enumerate(uris) for row in _missed(uri, first.labels.names, counts[at])]
    for name, rows, schema in (("models", measured, MODELS), ("missed", missed, MISSED)):
        storage.write_table(storage.join(output, f"{name}.parquet"), pa.Table.from_pylist(rows, schema=schema))
    seen = {uri: int(fitted[at]) if artifacts[uri].fitted else None for at, uri in enumerate(uris)}
    return LabelReport(measured, missed, products, left_out, seen)


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


class LabelsActor:
    """An actor that runs the models over blocks of products and counts labels."""

    def __init__(self, uris: Sequence[str], threads: int) -> None:
        if threads:
            torch.set_num_threads(threads)
        self._uris = uris
        artifacts = {uri: load_artifact(uri, target="labels") for uri in uris}
        self._predictor = LabelPredictor(artifacts)
        first = artifacts[uris[0]]
        assert first.labels is not None
        self._leaves = first.taxonomy.leaf_positions
        self._fitted = [artifacts[uri].fitted for uri in uris]
        self._has = first.labels.targets(first.taxonomy.leaves)  # (leaves, labels)

    def __call__(self, table: pa.Table) -> dict[str, Any]:
        """Return one row of counts for a block.

        `counts` (models, 3, labels): named rightly, wrongly, and missed; `answered` (models,): products that a model
        can answer; `fitted` (models,): products that it was fitted on; `products`; and `left_out`, products of
        which no label is a leaf.
        """
        predictor = self._predictor
        kept, label, products = products_of(
            table, self._leaves, predictor.modalities, predictor.image_size_px, self._has
        )
        has = torch.from_numpy(label)  # (products, labels)
        counts = torch.zeros(len(self._uris), 3, has.shape[1], dtype=torch.int64)
        answered = torch.zeros(len(self._uris), dtype=torch.int64)
        for start, batch in zip(range(0, len(kept), BATCH), products.split(BATCH), strict=True):
            answers = predictor(batch)
            for at, uri in enumerate(self._uris):
                logits, present = (part.cpu() for part in answers[uri])
                if wrong := int((~logits[present].isfinite().all(1)).sum()):
                    raise NotFiniteError(
                        f"{uri}: its answers for {wrong} of {len(batch)} products are NaN or infinite; train it again"
                    )
                counts[at] += compare((logits > 0) & present[:, None], has[start : start + BATCH]).sum(1)
                answered[at] += present.sum()
        ids = kept["product_id"].to_pylist()
        fitted = [0 if model is None else int((model.uses(ids) > 0).sum()) for model in self._fitted]
        return {
            "counts": counts[None].numpy(),
            "fitted": np.array([fitted]),
            "answered": answered[None].numpy(),
            "products": np.array([len(kept)]),
            "left_out": np.array([len(table) - len(kept)]),
        }
