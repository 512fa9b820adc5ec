"""The training of a policy that fuses the models of several modalities.

Each model is run once over the labelled products of a split. Their outputs are written to a table, and the policy
learns from that.
"""

import functools
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import ray.data
import torch

from atlas_ray.artifacts import Artifact, check_member, load_artifact, save_joint_artifact
from atlas_ray.errors import CatalogError, NotFiniteError, tell
from atlas_ray.formats.fitted import FUSED, Fitted, product_keys
from atlas_ray.io import storage
from atlas_ray.io.lease import holding
from atlas_ray.metrics.labels import MicroF1, compare
from atlas_ray.models.fusion import POLICIES
from atlas_ray.models.fusion.policy import FusionConfig, FusionNetwork, build_fusion
from atlas_ray.prediction.aggregate import is_below, label_nodes
from atlas_ray.prediction.device import choose_device, choose_dtype
from atlas_ray.prediction.engines import AUTO
from atlas_ray.prediction.networks import FusedInference
from atlas_ray.runtime.joined import forget_inputs
from atlas_ray.runtime.labelled import BATCH, batches_of, products_of, stream_labelled
from atlas_ray.runtime.progress import ProgressDisplay
from atlas_ray.runtime.session import connect
from atlas_ray.runtime.sink import write_table
from atlas_ray.runtime.tables import count_labels
from atlas_ray.schemas import hash_fractions
from atlas_ray.settings import pin_settings
from atlas_ray.taxonomy import CategoryPath, LabelSpace, Taxonomy, Vocabulary, match_labels
from atlas_ray.taxonomy.labels import Targets
from atlas_ray.training.data import shuffled
from atlas_ray.training.fallback import contests
from atlas_ray.training.loop import Plan
from atlas_ray.training.packing import pack_outputs, packed_width, unpack_outputs
from atlas_ray.training.run import (
    CHECKPOINTS,
    SETTINGS,
    TrainReport,
    final_metrics,
    finished,
    fit,
    forget,
    settings_of,
    write_history,
)
from atlas_ray.training.settings import FusionTraining
from atlas_ray.training.tracker import mlflow_environment

MEMBER_OUTPUTS = "member_outputs"
JUDGED_SHARE = 0.2
"""Share of the products that a policy that can memorize is judged by, if the settings hold none out."""


@holding("train fusion", "config.output")
def train_fusion(config: FusionTraining, *, fresh: bool = False, callbacks: Sequence[Any] = ()) -> TrainReport:
    """Fit a policy and write a fused artifact, which holds copies of the models that it fuses.

    The same call on an output that was stopped goes on; on a finished one it does nothing.

    Args:
        config: The settings.
        fresh: Delete an earlier run in the output first.
        callbacks: As in `train`.

    Raises:
        ArtifactError: if a model cannot be read, or does not match the others.
        OutputError: if the output holds a run with other settings, or something else.
        CatalogError: if the split has too few labelled products.
        TaxonomyError: if none of their labels is in the models' taxonomy.
    """
    config = config.absolute()
    output = config.output
    members = {name: load_artifact(uri, target=None) for name, uri in config.members.items()}
    settings = settings_of(config) | {"members": {name: member.id for name, member in members.items()}}
    if fresh:
        forget(output)
        _forget_outputs(output)
    if done := finished(output, settings):
        return done
    first = next(iter(members.values()))
    taxonomy, space = first.taxonomy, first.labels
    for name, member in members.items():
        check_member(name, member, taxonomy, space, config.members[name])
    if space is not None:
        config.check_labels()
    shape = _shape(config, members)
    policy = POLICIES[config.policy]
    pin_settings(output, SETTINGS, settings)
    labelled = f"the catalogue {config.catalog}, split {config.fit_split!r},"
    note = match_labels(
        count_labels(config.catalog, config.fit_split), taxonomy, labelled=labelled, predicted="the models",
        leaves_only=space is not None,
    )  # fmt: skip
    if note:
        tell(note)
    outputs = _member_outputs(config, members, shape)
    learned, held_out = _sides(config, outputs, config.held_out)
    least = config.batch_size if policy.fitting == "descent" else 1
    judged, is_held_out = held_out if config.held_out else outputs.dataset, True
    if config.keep_best and policy.memorizes and not config.held_out:
        part, rest = _sides(config, outputs, JUDGED_SHARE)
        is_held_out = part.count() >= least
        learned, judged = (part, rest) if is_held_out else (learned, judged)
    solves_nothing = policy.fitting == "solve" and space is None and not any(outputs.leaf_counts)
    if learned.count() < least or solves_nothing:
        _forget_outputs(output)
        raise CatalogError(
            f"{config.catalog}: {outputs.count} labelled products in the split {config.fit_split!r}, {learned.count()} "
            f"of them to learn from; the policy {config.policy!r} needs {least}"
        )
    network = build_fusion(shape)
    metrics: dict[str, Any] = {
        "products": outputs.count,
        "examples_above_leaf": outputs.above,
        "unusable_rows": outputs.unusable_rows,
        "settings": {"model": config.model, **config.to_dict()},
    }
    if policy.fitting == "descent":
        state = _fit(config, shape, taxonomy, space, outputs, (learned, held_out), callbacks)
        network.load_state_dict(state["best"]["network"])
        metrics |= final_metrics(config, state)
        write_history(config, state["history"])
    elif policy.fitting == "solve":
        _solve(network, learned, config.ridge_penalty)
    if config.keep_best:
        compared = contests(network, batches_of(judged), held_out=is_held_out, nodes=label_nodes(taxonomy))
        metrics |= {"contests": [asdict(contest) for contest in compared], "judged_on": "fitted"}
        if judged is not outputs.dataset:
            metrics["judged_on"] = "held-out"
        if policy.fitting == "solve":  # a second pass, over all products: it learns from those held out, too
            _solve(network, outputs.dataset, config.ridge_penalty)
        network = _with_fallback(network, [contest.model for contest in compared if contest.kept])
    metrics["members"] = {name: member.id for name, member in members.items()}
    if space is None:
        metrics["fit_accuracy"] = _accuracy(network, outputs.dataset, taxonomy)
    else:
        metrics["fit_micro_f1"] = _micro_f1(network, outputs.dataset)
    model_id = save_joint_artifact(
        output, network, config.members, taxonomy=taxonomy, metrics=metrics, labels=space,
        fitted=_fitted(members, outputs.dataset),
    )  # fmt: skip
    storage.delete_folder(storage.join(output, CHECKPOINTS))
    _forget_outputs(output)
    return TrainReport(model_id, output, metrics)


def _with_fallback(network: FusionNetwork, models: Sequence[str]) -> FusionNetwork:
    """Return the policy with these models' own answers for the products that they can answer."""
    kept = build_fusion(FusionConfig(**network.config.to_dict() | {"fallback": "+".join(models)}))
    kept.load_state_dict(network.state_dict())
    return kept


def _fitted(members: dict[str, Artifact], dataset: ray.data.Dataset) -> Fitted | None:
    """Return the products that the models and the policy were fitted on; None if that is unknown for a model."""
    keys = [product_keys(batch["name"].tolist()) for batch in batches_of(dataset.select_columns(["name"]))]
    fitted = Fitted.of(np.concatenate(keys), FUSED)
    for member in members.values():
        if member.fitted is None:
            return None
        fitted |= member.fitted
    return fitted


def _forget_outputs(output: str) -> None:
    storage.delete_file(storage.join(output, f"{MEMBER_OUTPUTS}.json"))
    storage.delete_folder(storage.join(output, MEMBER_OUTPUTS))
    forget_inputs(output)


def _shape(config: FusionTraining, members: dict[str, Artifact]) -> FusionConfig:
    first = next(iter(members.values()))
    shape: dict[str, Any] = {
        "modalities": "+".join(members),
        "outputs": len(first.labels or first.taxonomy.leaves),
        "target": "labels" if first.labels else "path",
        "policy": config.policy,
        "hidden_dim": config.hidden_dim,
    }
    if not POLICIES[config.policy].joins_features:
        return FusionConfig(**shape, second_dim=config.second_dim, layers=config.layers, activation=config.activation)
    widths = "+".join(str(member.feature_widths[0]) for member in members.values())
    return FusionConfig(**shape, features=widths, dropout=config.dropout)


def _inference(members: dict[str, str], shape: FusionConfig, device_name: str) -> FusedInference:
    """Load the models, with a policy of this shape."""
    loaded = {name: load_artifact(uri, target=None) for name, uri in members.items()}
    first = next(iter(loaded.values()))
    device = choose_device("cpu" if device_name == "cpu" else "auto")
    network = build_fusion(shape)
    artifact = Artifact(
        id="", model=network, vocabulary=Vocabulary.of(first.taxonomy), taxonomy=first.taxonomy, members=loaded,
        labels=first.labels,
    )  # fmt: skip
    return FusedInference(artifact, device, choose_dtype("auto", device), AUTO)


@dataclass(frozen=True)
class MemberOutputs:
    """The models' outputs for each product of a split: rows of `inputs`, `label`, `name` and `refused`.

    A `label` is a position of `Taxonomy.label_positions`, or for models of labels (labels,) bool, those that the
    product has.
    """

    dataset: ray.data.Dataset
    count: int
    leaf_counts: tuple[int, ...]
    """Number of rows of each leaf; all 0 for models of labels."""
    above: int
    """Number of rows that are labelled above the leaf."""
    unusable_rows: int
    """Number of rows of the catalogue without a key."""


def _member_outputs(config: FusionTraining, members: dict[str, Artifact], shape: FusionConfig) -> MemberOutputs:
    """Run the models, unless an earlier try of the run has."""
    output, done = config.output, storage.join(config.output, f"{MEMBER_OUTPUTS}.json")
    place = storage.locate(storage.join(output, MEMBER_OUTPUTS))
    account = json.loads(storage.read_bytes(done)) if storage.exists(done) else {}
    if "above" not in account:  # not finished, or by an earlier version, which wrote other labels
        storage.delete_folder(storage.join(output, MEMBER_OUTPUTS))
        first = next(iter(members.values()))
        leaves = first.taxonomy.leaf_positions
        positions = leaves if first.labels else first.taxonomy.label_positions
        has = first.labels.targets(first.taxonomy.leaves) if first.labels else None  # (leaves, labels)
        with ProgressDisplay("running the models", "products") as display:
            arguments = (config.members, shape, config.device, positions, has)
            stream, lost = stream_labelled(
                config.catalog, output, config.fit_split, tuple(members), RunMembers, arguments,
                display=display, device=config.device,
            )  # fmt: skip
            write_table(stream.write_datasink, output, MEMBER_OUTPUTS)
        counts, count = Counter[int](), 0
        dataset = ray.data.read_parquet(place.path, filesystem=place.filesystem)
        for batch in batches_of(dataset.select_columns(["label"])):
            count += len(batch["label"])
            if has is None:
                counts.update(batch["label"].tolist())
        leaf_counts = [counts[leaf] for leaf in range(len(leaves))]
        above = counts.total() - sum(leaf_counts)
        account = {"count": count, "leaf_counts": leaf_counts, "above": above, "unusable_rows": lost}
        storage.write_bytes(done, json.dumps(account).encode())
    connect()  # an earlier try may have run them
    # Read once, so that each epoch starts from the object store.
    dataset = ray.data.read_parquet(place.path, filesystem=place.filesystem).materialize()
    return MemberOutputs(
        dataset, account["count"], tuple(account["leaf_counts"]), account["above"], account["unusable_rows"]
    )


class RunMembers:
    """An actor that runs the models over blocks of products."""

    def __init__(
        self,
        members: dict[str, str],
        shape: FusionConfig,
        device: str,
        positions: dict[CategoryPath, int],
        has: Targets | None,
        threads: int,
    ) -> None:
        if threads:
            torch.set_num_threads(threads)
        self._models = _inference(members, shape, device)
        self._positions, self._has = positions, has

    @torch.inference_mode()
    def __call__(self, table: pa.Table) -> dict[str, Any]:
        """Return the rows of `MemberOutputs` of a block, without products that have none of the modalities."""
        size = self._models.image_size_px
        table, label, products = products_of(table, self._positions, self._models.modalities, size, self._has)
        parts = [pack_outputs(*self._models.policy_inputs(batch)).cpu() for batch in products.split(BATCH)]
        rows = torch.cat(parts) if parts else torch.zeros(0, 1)
        kept = products.present(self._models.modalities).any(1).numpy()
        if wrong := int((~rows.isfinite().all(1)).sum()):
            raise NotFiniteError(
                f"the models' outputs for {wrong} of {len(rows)} products are NaN or infinite; train the models again"
            )
        return {
            "inputs": rows.numpy()[kept],
            "label": label[kept],
            "name": np.array(table["product_id"].to_pylist(), dtype=object)[kept],
            "refused": np.full(int(kept.sum()), "", dtype=object),
        }


def _sides(config: FusionTraining, outputs: MemberOutputs, share: float) -> tuple[ray.data.Dataset, ray.data.Dataset]:
    """Split rows into those to learn from and a share that is held out; a product's pictures stay together."""
    if not share:
        return outputs.dataset, outputs.dataset.limit(0)

    names = batches_of(outputs.dataset.select_columns(["name"]))
    draws = np.unique(np.concatenate([hash_fractions(config.seed, batch["name"]) for batch in names]))
    last = draws[int(np.ceil(share * len(draws))) - 1]

    def side(batch: dict[str, Any], *, is_held_out: bool) -> dict[str, Any]:
        below = hash_fractions(config.seed, batch["name"]) <= last
        return {name: column[below == is_held_out] for name, column in batch.items()}

    learned, held_out = (
        outputs.dataset.map_batches(
            functools.partial(side, is_held_out=is_held_out), batch_format="numpy"
        ).materialize()
        for is_held_out in (False, True)
    )
    return learned, held_out


def _fit(
    config: FusionTraining,
    shape: FusionConfig,
    taxonomy: Taxonomy,
    space: LabelSpace | None,
    outputs: MemberOutputs,
    sides: tuple[ray.data.Dataset, ray.data.Dataset],
    callbacks: Sequence[Any],
) -> dict[str, Any]:
    learned, held_out = sides
    steps = learned.count() // config.batch_size
    plan = Plan(
        config, taxonomy.to_json(), steps,
        shape=shape, input_width=packed_width(shape), labels=space.names if space else (),
        leaf_counts=outputs.leaf_counts, above=outputs.above, environment=mlflow_environment(),
    )  # fmt: skip
    return fit(plan, {"train": functools.partial(shuffled, learned), "val": held_out}, callbacks)


def _solve(network: FusionNetwork, dataset: ray.data.Dataset, penalty: float) -> None:
    """Fit a policy in one pass, on the one-hot leaf or on the labels.

    A product that is labelled above the leaf has no one-hot leaf, and is left out.
    """

    def rows() -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        for batch in batches_of(dataset):
            scores, _, present = unpack_outputs(torch.tensor(batch["inputs"]), network.config)
            label = torch.tensor(batch["label"])
            if network.config.target == "labels":
                yield scores, present, label
                continue
            of_leaf = label < network.config.outputs
            one_hot = torch.nn.functional.one_hot(label[of_leaf], network.config.outputs)
            yield scores[of_leaf], present[of_leaf], one_hot

    network.solve(rows(), penalty)


@torch.inference_mode()
def _accuracy(network: FusionNetwork, dataset: ray.data.Dataset, taxonomy: Taxonomy) -> dict[str, float]:
    """Return the share of products with a right leaf, for the policy and for each model on those it can answer."""
    network.eval()
    right, have = Counter[str](), Counter[str]()
    nodes = label_nodes(taxonomy)
    for batch in batches_of(dataset):
        scores, features, present = unpack_outputs(torch.tensor(batch["inputs"]), network.config)
        labels = batch["label"]
        fused = network(scores, present, features).argmax(1).numpy()
        right["fused"] += int(is_below(nodes, fused, labels).sum())
        have["fused"] += len(labels)
        for position, name in enumerate(network.config.names):
            there = present[:, position].numpy()
            right[name] += int((is_below(nodes, scores[:, position].argmax(1).numpy(), labels) & there).sum())
            have[name] += int(there.sum())
    return {name: right[name] / max(have[name], 1) for name in have}


@torch.inference_mode()
def _micro_f1(network: FusionNetwork, dataset: ray.data.Dataset) -> dict[str, float]:
    """Return the micro-F1 of the policy, and of each model on the products that it can answer."""
    network.eval()
    totals = dict[str, torch.Tensor]()
    for batch in batches_of(dataset):
        scores, features, present = unpack_outputs(torch.tensor(batch["inputs"]), network.config)
        true = torch.tensor(batch["label"])  # (batch, labels)
        answers = [("fused", network(scores, present, features), present.any(1))]
        answers += [(name, scores[:, at], present[:, at]) for at, name in enumerate(network.config.names)]
        for name, logits, rows in answers:
            counts = torch.stack(compare((logits > 0)[rows], true[rows])).sum((1, 2))
            totals[name] = totals.get(name, torch.zeros(3, dtype=torch.int64)) + counts
    return {name: MicroF1.of(*counts.tolist()).f1 for name, counts in totals.items()}
