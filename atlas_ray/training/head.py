"""The training of a head: a classifier over stored vectors, which reads no picture and no text.

Labels and splits are those that were embedded, or as a catalogue has them now, joined by product.
"""

import functools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray.data
import torch
from torch import Tensor

from atlas_ray.arrays import Array, Integers, matrix, numbered, row_at
from atlas_ray.artifacts import Artifact, Network, load_artifact, load_network, save_joint_artifact
from atlas_ray.decoding.classes import classes_search
from atlas_ray.decoding.scope import Scope
from atlas_ray.errors import CatalogError, EmbeddingError, tell
from atlas_ray.formats.fitted import CALIBRATED, TRAINED, Fitted, product_keys
from atlas_ray.formats.tables import open_table
from atlas_ray.io import storage
from atlas_ray.io.lease import holding
from atlas_ray.metrics.calibration import FEWEST
from atlas_ray.models.head import Head, HeadConfig, unit_parts
from atlas_ray.prediction.aggregate import is_below, label_nodes
from atlas_ray.prediction.calibration import MAX_PATHS, MAX_PICTURES, FittedTemperature, fit_answers, listed_paths
from atlas_ray.runs.embedded import Embedded, open_several, summed
from atlas_ray.runtime.labelled import batches_of
from atlas_ray.runtime.session import connect
from atlas_ray.runtime.shuffle import PRODUCT, by_product
from atlas_ray.runtime.source import read_table
from atlas_ray.runtime.tables import label_pairs
from atlas_ray.schemas import PRODUCTS, embeddings, path_counts
from atlas_ray.settings import pin_settings
from atlas_ray.taxonomy import CategoryPath, Taxonomy, Vocabulary, match_labels
from atlas_ray.training.data import repeats_of, shuffled
from atlas_ray.training.loop import Plan
from atlas_ray.training.run import (
    CHECKPOINTS,
    SETTINGS,
    TrainReport,
    final_metrics,
    finished,
    fit,
    forget,
    settings_of,
    taxonomy_of,
    write_history,
)
from atlas_ray.training.settings import HeadTraining
from atlas_ray.training.tracker import mlflow_environment
from atlas_ray.training.zero_shot import prior_of

COLUMNS = ("product_id", "category_path", "split", "vector")
VECTOR = 1
"""The kind of a row with a vector, beside `PRODUCT`."""
PARTITION_NUMBERS = 2**24
"""Numbers of the vectors that are brought together at once: 64 MiB."""
LEAST_DEVIATION = 1e-8
"""A feature that varies less says nothing, and is left out."""


@holding("train head", "config.output")
def train_head(config: HeadTraining, *, fresh: bool = False, callbacks: Sequence[Any] = ()) -> TrainReport:
    """Train a head and write its artifact, which holds copies of the models that make its vectors.

    The same call on an output that was stopped goes on; on a finished one it does nothing. The artifact holds the
    epoch that was best on the validation split, whose products it is calibrated on.

    Args:
        config: The settings.
        fresh: Delete an earlier run in the output first.
        callbacks: As in `train`.

    Raises:
        EmbeddingError: if there are no finished vectors, or no copy of the model that made them.
        OutputError: if the output holds a run with other settings, or something else.
        CatalogError: if too few labelled products of the training split have a vector, or there is no taxonomy.
        TaxonomyError: if none of the labels is in the taxonomy.
    """
    config = config.absolute()
    output = config.output
    runs = open_several(config.embeddings)
    encoder_id = "+".join(run.model_id for run in runs)
    start = load_artifact(config.prior) if config.prior else None
    settings = settings_of(config) | {"encoder_id": encoder_id, "prior_id": start and start.id}
    if fresh:
        forget(output)
    if done := finished(output, settings):
        return done
    encoders, members = _encoders(runs)
    if start and not config.taxonomy:
        taxonomy = start.taxonomy
    else:
        taxonomy = taxonomy_of(config.taxonomy, config.catalog or runs[0].catalog)
    prior = prior_of(start, config.prior or "", encoders, taxonomy) if start else None
    _tell_of_labels(config, runs, taxonomy)
    connect()
    learned, validation = _sides(config, runs, taxonomy)
    products, counts = _counted(learned, taxonomy)
    leaf_counts = counts[: len(taxonomy.leaves)]
    if len(products) < config.batch_size:
        raise CatalogError(
            f"{config.catalog or runs[0].uri}: {len(products)} labelled products of the split 'train' have a vector, "
            f"and a batch has {config.batch_size}; label more products, or give a smaller --batch-size"
        )
    shape = HeadConfig(
        modalities="+".join(encoders),
        features="+".join(str(encoder.feature_widths[0]) for encoder in encoders.values()),
        encoder_id=encoder_id,
        outputs=len(taxonomy.leaves),
        hidden_dim=config.hidden_dim,
        dropout=config.dropout,
        prior=prior is not None,
    )
    pin_settings(output, SETTINGS, settings)
    known = _moments(learned, shape) | ({} if prior is None else {"prior": prior})
    plan = Plan(
        config, taxonomy.to_json(), 0, shape=shape, input_width=sum(shape.widths), known=known,
        leaf_counts=tuple(leaf_counts.tolist()), above=len(products) - int(leaf_counts.sum()),
        environment=mlflow_environment(),
    )  # fmt: skip
    state = _fit(plan, learned, validation, counts, callbacks)
    network = Head(shape)
    network.load_state_dict(state["best"]["network"])
    metrics = final_metrics(config, state) | {"products": len(products), "examples_above_leaf": plan.above}
    if prior is not None:
        metrics |= _at_least_the_prior(network, known, validation, taxonomy, metrics)
    write_history(config, state["history"])
    fitted = Fitted.of(products, TRAINED)
    found, judged = _calibrated(network.eval(), validation, taxonomy)
    if prior is not None and found is not None and found.products < FEWEST:
        tell(
            f"not calibrated: {found.products} products of the split 'val' have a label and a vector, and "
            f"{FEWEST} tell something; the probabilities are as sure as the prior's"
        )
        found = None
    if found is not None:
        metrics["calibration"] = found.metrics | {"split": "val", "unusable_rows": 0}
        fitted |= Fitted.of(product_keys(judged), CALIBRATED)
    model_id = save_joint_artifact(
        output, network, members, taxonomy=taxonomy, metrics=metrics,
        fitted=_with_encoders(fitted, encoders.values()), temperature=None if found is None else found.temperature,
    )  # fmt: skip
    storage.delete_folder(storage.join(output, CHECKPOINTS))
    return TrainReport(model_id, output, metrics)


@torch.inference_mode()
def _at_least_the_prior(
    network: Head,
    known: Mapping[str, Tensor],
    validation: ray.data.Dataset,
    taxonomy: Taxonomy,
    metrics: Mapping[str, Any],
) -> dict[str, float]:
    """Let a head answer what its prior does, if that is right more often on the validation split.

    Returns:
        The metrics that this changes or adds; {} if nothing is in that split.
    """
    prior = Head(network.config).eval()
    prior.load_state_dict(known, strict=False)
    right = count = 0
    nodes = label_nodes(taxonomy)
    for batch in batches_of(validation):
        answers = prior(torch.tensor(batch["inputs"])).argmax(1).numpy()
        right, count = right + int(is_below(nodes, answers, batch["label"]).sum()), count + len(answers)
    if not count:
        return {}
    accuracy, learned = right / count, float(metrics["val_accuracy"])
    if accuracy > learned:
        tell(
            f"the prior is right on {accuracy:.4f} of the split 'val', and what was learned on {learned:.4f}; "
            "the model answers what its prior does"
        )
        network.load_state_dict(prior.state_dict())
    return {"prior_val_accuracy": accuracy, "val_accuracy": max(accuracy, learned)}


def _encoders(runs: Sequence[Embedded]) -> tuple[dict[str, Network], dict[str, str]]:
    """Return the network that makes each modality's vectors, and its folder.

    Raises:
        EmbeddingError: if a run keeps no copy of it, or two runs read the same modality.
    """
    encoders, members = dict[str, Network](), dict[str, str]()
    for run in runs:
        if run.encoder is None:
            raise EmbeddingError(
                f"{run.uri} keeps no copy of model {run.model_id}, which made it; embed anew, with this version"
            )
        network = load_network(run.encoder)
        if len(runs) > 1 and (network.members or network.modalities[0] in encoders):
            what = " and ".join(network.modalities)
            raise EmbeddingError(f"{run.uri}: vectors of the {what}; several --embeddings are of one modality each")
        for name in network.modalities:
            encoders[name] = network.members.get(name, network)
            members[name] = storage.join(run.encoder, name) if network.members else run.encoder
    return encoders, members


def _with_encoders(fitted: Fitted, encoders: Iterable[Network]) -> Fitted | None:
    """Add the products that the models which make the vectors were fitted on; None if that is not known."""
    for encoder in encoders:
        if isinstance(encoder, Artifact):  # a bare encoder was fitted on no product
            if encoder.fitted is None:
                return None
            fitted |= encoder.fitted
    return fitted


def _tell_of_labels(config: HeadTraining, runs: Sequence[Embedded], taxonomy: Taxonomy) -> None:
    """Tell of labels of the training split that are not in the taxonomy."""
    if config.catalog:
        table = open_table(
            storage.join(config.catalog, "products"), PRODUCTS, columns=("category_path", "split"), foreign=True
        )
    else:
        most = max(runs, key=lambda run: int(run.run["counts"]["products"]))
        table = most.table(("category_path", "split"))
    labels = Counter[CategoryPath]()
    for batch in table.batches():
        labels.update(path_counts(batch["category_path"].filter(pc.equal(batch["split"], "train").fill_null(False))))
    if not labels:
        raise CatalogError(
            f"{config.catalog or runs[0].uri}: no labelled product in the split 'train'; embed a catalogue with "
            "labels, or name one with --catalog"
        )
    labelled = f"{config.catalog or runs[0].uri}, split 'train',"
    if note := match_labels(labels, taxonomy, labelled=labelled, predicted="the head"):
        tell(note)


def _sides(
    config: HeadTraining, runs: Sequence[Embedded], taxonomy: Taxonomy
) -> tuple[ray.data.Dataset, ray.data.Dataset]:
    """Return the labelled products of the training split and of the validation split, in the object store.

    Rows: `inputs` (width,) float32, `label`, a position of `Taxonomy.label_positions`, `name`, and `refused`, which is
    "".
    """
    width = sum(run.width for run in runs)
    starts = np.cumsum([0, *(run.width for run in runs)])
    vectors = [run.part(COLUMNS, int(start), width) for run, start in zip(runs, starts, strict=False)]
    if config.catalog or len(runs) > 1:
        tables = [(table, VECTOR) for table in vectors]
        if config.catalog:
            columns = ("product_id", "category_path", "split")
            products = open_table(
                storage.join(config.catalog, "products"), PRODUCTS, columns=columns, needed=columns, foreign=True
            )
            tables.insert(0, (products, PRODUCT))
        fields = [field.with_nullable(True) for field in embeddings(width) if field.name in COLUMNS]
        rows = by_product(
            tables, pa.schema([("kind", pa.int8()), *fields]), sum(table.rows for table, _ in tables),
            relabelled if config.catalog else _joined, partition_rows=max(1, PARTITION_NUMBERS // width),
        ).stream().materialize()  # fmt: skip
    else:
        rows = read_table(vectors[0], COLUMNS)
    positions = taxonomy.label_positions
    learned, validation = (
        rows.map_batches(
            functools.partial(_examples, split=split, positions=positions), batch_size=None, batch_format="pyarrow"
        ).materialize()
        for split in ("train", "val")
    )
    return learned, validation


def relabelled(table: pa.Table) -> pa.Table:
    """Give vectors the labels and splits of their products.

    Args:
        table: Rows of `COLUMNS` of the products, and of the vectors, tagged by their `kind`.

    Returns:
        Rows of `COLUMNS`, without vectors of no product.
    """
    kind = table["kind"].to_numpy()
    products, vectors = (table.filter(pa.array(kind == which)) for which in (PRODUCT, VECTOR))
    vectors = _joined(vectors)
    products = products.combine_chunks()
    names = pa.chunked_array([*products["product_id"].chunks, *vectors["product_id"].chunks], pa.string())
    ids, owner = numbered(names)
    product = row_at(owner[: len(products)], len(ids), np.arange(len(products)))[owner[len(products) :]]
    kept = np.flatnonzero(product >= 0)
    columns = {name: vectors[name].take(pa.array(kept)) for name in ("product_id", "vector")}
    columns |= {name: products[name].take(pa.array(product[kept])) for name in ("category_path", "split")}
    return pa.table({name: columns[name] for name in COLUMNS})


def _joined(table: pa.Table) -> pa.Table:
    """Return rows of `COLUMNS`, one of each product."""
    return summed(table.select(COLUMNS))


def _examples(table: pa.Table, split: str, positions: dict[CategoryPath, int]) -> dict[str, Any]:
    """Turn the products of a split whose label is in the taxonomy into the rows of `_sides`."""
    chosen = table.filter(pc.and_(pc.equal(table["split"], split), pc.is_valid(table["category_path"])))
    row, label = label_pairs(chosen, positions)
    return {
        "inputs": matrix(chosen["vector"])[row],
        "label": label,
        "name": np.array(chosen["product_id"].to_pylist(), dtype=object)[row],
        "refused": np.full(len(row), "", dtype=object),
    }


def _counted(learned: ray.data.Dataset, taxonomy: Taxonomy) -> tuple[Array, Integers]:
    """Return the keys of the products (`atlas_ray.formats.fitted.product_keys`), and their number by label."""
    keys, counts = [np.zeros(0, np.uint64)], np.zeros(len(taxonomy.label_positions), np.int64)
    for batch in batches_of(learned.select_columns(["name", "label"])):
        keys.append(product_keys(batch["name"].tolist()))
        counts += np.bincount(batch["label"], minlength=len(counts))
    return np.concatenate(keys), counts


def _moments(learned: ray.data.Dataset, shape: HeadConfig) -> dict[str, Tensor]:
    """Return the head's `mean` and `scale`: those of the vectors' parts, over the products that have them."""
    sums = learned.map_batches(functools.partial(_sums, widths=shape.widths), batch_size=None, batch_format="numpy")
    whole = torch.zeros(3, sum(shape.widths), dtype=torch.float64)
    for batch in batches_of(sums):
        whole += torch.tensor(batch["sums"]).sum(0)
    count, total, squares = whole
    mean = total / count.clamp(min=1)
    deviation = (squares / count.clamp(min=1) - mean**2).clamp(min=0).sqrt()
    scale = torch.where(deviation > LEAST_DEVIATION, 1 / deviation, 0.0)
    return {"mean": mean.float(), "scale": scale.float()}


def _sums(batch: dict[str, Any], widths: tuple[int, ...]) -> dict[str, Any]:
    """Return the number, the sum and the sum of the squares of each feature, (1, 3, width) float64."""
    units, present = unit_parts(torch.tensor(batch["inputs"]), widths)
    count = present.sum(0).repeat_interleave(torch.tensor(widths))
    units = units.double()
    return {"sums": torch.stack([count.double(), units.sum(0), (units**2).sum(0)])[None].numpy()}


def _fit(
    plan: Plan,
    learned: ray.data.Dataset,
    validation: ray.data.Dataset,
    counts: Integers,
    callbacks: Sequence[Any],
) -> dict[str, Any]:
    config = plan.config
    count = int(counts.sum())
    if config.balance == "sampling":
        repeats = repeats_of(counts[: len(plan.leaf_counts)], len(counts))
        learned = learned.map_batches(functools.partial(_repeat, repeats=repeats), batch_format="numpy")
        count = int((counts * repeats).sum())
    plan = replace(plan, steps_per_epoch=count // config.batch_size)
    return fit(plan, {"train": functools.partial(shuffled, learned), "val": validation}, callbacks)


def _repeat(batch: dict[str, Any], repeats: Integers) -> dict[str, Any]:
    return {name: np.repeat(column, repeats[batch["label"]], axis=0) for name, column in batch.items()}


@torch.inference_mode()
def _calibrated(
    network: Head, validation: ray.data.Dataset, taxonomy: Taxonomy
) -> tuple[FittedTemperature | None, list[str]]:
    """Fit the temperature to the products of the validation split; return it, and them. There may be none."""
    leaves = taxonomy.leaf_positions
    scope = Scope.of(taxonomy, Vocabulary.of(taxonomy), torch.device("cpu"), trained_on=taxonomy)
    assert scope.classes is not None
    top_k = min(len(leaves), MAX_PATHS)
    posteriors, labels, names = [], list[Integers](), list[str]()
    for batch in batches_of(validation.limit(MAX_PICTURES)):
        logits = network(torch.tensor(batch["inputs"]))
        posteriors.append(classes_search(logits, scope.classes, scope.tree, top_k=top_k))
        labels.append(batch["label"])
        names += batch["name"].tolist()
    if not names:
        return None, names
    position = np.array([*(leaves[path] for path in scope.tree.trie.leaves), -1])
    leaf, log_p = listed_paths(posteriors, position, top_k + 1)
    rows = {
        "leaf": leaf,
        "log_p": log_p,
        "label": np.concatenate(labels),
        "product": np.array(names, dtype=object),
        "seen": np.ones(len(names), bool),
        "left_out": np.full(len(names), max(len(leaves) - top_k, 1)),
    }
    return fit_answers(rows, taxonomy), names
