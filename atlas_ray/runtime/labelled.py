"""A stream of the labelled products of a split through one or several trained models."""

import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import ray.data
import torch

from atlas_ray.errors import CatalogError
from atlas_ray.modalities import PICTURE, texts_of
from atlas_ray.modalities.pictures import decode_batch, decoding_pool
from atlas_ray.modalities.products import Products
from atlas_ray.runtime.joined import write_inputs
from atlas_ray.runtime.lost_devices import given_up_when_lost
from atlas_ray.runtime.outcomes import KEYS
from atlas_ray.runtime.pictures import ask_model, stream_pictures
from atlas_ray.runtime.progress import ProgressDisplay
from atlas_ray.runtime.session import connect
from atlas_ray.runtime.settings import ReadConfig
from atlas_ray.runtime.tables import count_labels, label_pairs, open_catalog
from atlas_ray.runtime.workers import plan_workers
from atlas_ray.taxonomy import CategoryPath
from atlas_ray.taxonomy.labels import Targets, united

BLOCK_ROWS = 256
BATCH = 64


class Ask:
    """Holds what asks models, on the device of the plan."""

    def __init__(self, progress: Any, device: str, actor: Any, *arguments: Any) -> None:
        if device == "cpu":
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray leaves GPUs to be seen that it has not given to the process
        self._progress = progress
        self._actor = actor(*arguments)

    @given_up_when_lost
    def __call__(self, table: pa.Table) -> pa.Table:
        """Return the actor's rows of a block."""
        rows: pa.Table = self._actor(table)
        return rows


def stream_labelled(
    catalog: str,
    scratch: str,
    split: str,
    modalities: Sequence[str],
    actor: Any,
    arguments: tuple[Any, ...],
    *,
    display: ProgressDisplay,
    device: str = "auto",
) -> tuple[ray.data.Dataset, int]:
    """Stream the labelled products of a split, each picture with its product's texts, through an actor.

    Args:
        catalog: The URI of the catalogue.
        scratch: The folder of the temporary table `inputs`.
        split: The split of the products.
        modalities: The modalities that the models read: picture, title, description.
        actor: A class that turns blocks with `bytes`, the texts, `category_path` and `category_paths` into rows.
        arguments: The arguments of its constructor; the number of threads is added.
        display: The run's progress.
        device: auto, or cpu.

    Returns:
        The actor's rows, and the number of rows of the catalogue that are left out for want of a key.

    Raises:
        CatalogError: if the split has no labelled product.
    """
    texts = texts_of(modalities)
    needed = (*texts, "category_path", "split")
    columns = (*needed, "category_paths")
    tables = open_catalog(catalog, products=columns, needed=needed, may_be_empty=bool(texts))
    if not count_labels(catalog, split):
        raise CatalogError(f"{catalog}: no labelled product in the split {split!r}")
    connect()
    inputs = write_inputs(tables, scratch, columns, split=split)
    plan = plan_workers(device="cpu" if device == "cpu" else "auto", workers=0, threads=0)
    stream = stream_pictures(
        inputs,
        display.actor,
        plan,
        ReadConfig(fetch_threads=16),
        block_rows=BLOCK_ROWS,
        columns=(*KEYS, *texts, "category_path", "category_paths"),
        read=PICTURE in modalities,
    )
    asked = ask_model(stream, plan, Ask, display.actor, plan.device, actor, *arguments, plan.threads)
    return asked, tables.unusable_rows


def products_of(
    table: pa.Table,
    positions: dict[CategoryPath, int],
    modalities: Sequence[str],
    size_px: int,
    has: Targets | None = None,
) -> tuple[pa.Table, Any, Products]:
    """Decode the products of a block whose label has a position.

    Args:
        table: The block.
        positions: The position of each label that counts; with `has` those of leaves.
        modalities: What the models read.
        size_px: The side of the square that pictures become; 0 to leave them out.
        has: (leaves, labels) which labels each leaf has, for models of labels.

    Returns:
        The rows; the position of each one's label, (rows,), or with `has` the labels of all of its paths, (rows,
        labels) bool; and the products.
    """
    row, position = label_pairs(table, positions, several=has is not None)
    kept, first = np.unique(row, return_index=True)
    table = table.take(pa.array(kept))
    label = position[first] if has is None else united(has, position, first)
    seen = table["bytes"].is_valid().to_numpy()
    pixels = torch.zeros((len(table), 0), dtype=torch.uint8)
    if size_px:
        contents = [content or b"" for content in table["bytes"].to_pylist()]
        pixels, refused = decode_batch(contents, size_px, pool=decoding_pool())
        seen = seen & ~np.isin(np.arange(len(table)), list(refused))
    texts = {name: table[name].to_pylist() for name in texts_of(modalities)}
    return table, label, Products(pixels, texts, torch.from_numpy(seen))


def batches_of(dataset: ray.data.Dataset) -> Iterable[dict[str, Any]]:
    """Return the batches of a dataset in this process."""
    batches: Iterable[dict[str, Any]] = dataset.iter_batches(batch_size=1024, batch_format="numpy")
    return batches
