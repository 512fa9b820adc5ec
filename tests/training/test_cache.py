"""Pictures that are decoded once for all epochs."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atlas_ray.errors import ConfigError
from atlas_ray.modalities.limits import PictureLimits
from atlas_ray.runtime.session import connect
from atlas_ray.taxonomy import Taxonomy
from atlas_ray.training.cache import Cached, check_room
from atlas_ray.training.data import labelled_pictures, with_pixels
from atlas_ray.training.run import train
from atlas_ray.training.settings import ClassifierTraining
from tests.support.inputs import pictures

pytestmark = pytest.mark.ray
PATHS = (("Toys", "Cars"), ("Toys", "Dolls"))


def shop(folder: Path, count: int) -> tuple[str, list[Path]]:
    """Write a labelled catalogue of pictures, of which the last is none."""
    files = pictures(None, count, str(folder / "shop"))
    files[-1].write_bytes(b"not a picture")
    table = {
        "product_id": [file.stem for file in files],
        "image_uris": [[str(file)] for file in files],
        "category_path": [list(PATHS[number % 2]) for number in range(count)],
        "split": ["train"] * count,
    }
    (folder / "catalog" / "products").mkdir(parents=True)
    pq.write_table(pa.table(table), folder / "catalog" / "products" / "0.parquet")
    return str(folder / "catalog"), files


def by_name(dataset: Any) -> dict[str, tuple[Any, ...]]:
    return {row["name"]: (row["inputs"].tobytes(), int(row["label"]), row["refused"]) for row in dataset.iter_rows()}


@pytest.mark.usefixtures("local_ray")
def test_each_epoch_has_the_same_rows_in_another_order_and_opens_no_file(tmp_path: Path) -> None:
    catalog, files = shop(tmp_path, 150)
    taxonomy = Taxonomy(PATHS, name="toys")
    decoded = with_pixels(labelled_pictures(catalog, "train", taxonomy), 32, PictureLimits(), None, shuffle_seed=None)
    wanted = by_name(decoded)
    assert len(wanted) == 150
    assert sum(bool(refused) for _, _, refused in wanted.values()) == 1
    kept = Cached(decoded)
    for file in files:
        file.unlink()
    assert by_name(kept.read(shuffle_seed=None)) == wanted
    epochs = kept.read(shuffle_seed=1)
    orders = [[row["name"] for row in epochs.iter_rows()] for _ in range(2)]
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(wanted)
    assert orders[0] != orders[1]
    assert by_name(epochs) == wanted


@pytest.mark.usefixtures("local_ray")
def test_a_training_with_a_cache_learns_from_all(catalog: str, tmp_path: Path) -> None:
    config = ClassifierTraining(
        catalog=catalog, output=str(tmp_path / "model"), backbone="resnet18", image_size_px=32, batch_size=16, epochs=2,
        cache=True,
    )  # fmt: skip
    done = train(config)
    (first, second) = done.metrics["history"]
    assert np.isfinite([first["train_loss"], second["train_loss"]]).all()
    assert second["val_examples"] == first["val_examples"] > 0


@pytest.mark.usefixtures("local_ray")
def test_more_than_the_shared_memory_is_refused_with_figures() -> None:
    connect()
    check_room(1000, 150)
    with pytest.raises(ConfigError, match=r"--cache: 100000000 pictures of 150 px take 6286\.4 GiB, and a machine's"):
        check_room(100_000_000, 150)
