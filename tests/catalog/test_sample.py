from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas_ray.catalog.sample import allot
from atlas_ray.cli.main import main
from atlas_ray.io import storage
from atlas_ray.runtime.tables import open_catalog
from atlas_ray.schemas import IMAGES, PRODUCTS, image_ids
from tests.support.parts import rows

SIZES = {"Shirts": 300, "Sarees": 90, "=odd, | name": 9, "Rare": 1, None: 100}


def write(uri: str, sizes: dict[str | None, int], *, backwards: bool = False, files: int = 3) -> str:
    """Write a catalogue whose products have a picture each; a column of its own is `season`."""
    products: list[dict[str, Any]] = [
        {"product_id": f"{name} {number}", "category_path": ["Top", name] if name else None, "split": name and "train",
         "image_uris": [f"{name}/{number}.jpg"]}
        for name, size in sizes.items() for number in range(size)
    ]  # fmt: skip
    products = products[::-1] if backwards else products
    ids, uris = [row["product_id"] for row in products], [row["image_uris"][0] for row in products]
    images = {"image_id": image_ids(ids, uris), "product_id": ids, "image_uri": uris}
    tables = {"products": pa.Table.from_pylist(products, schema=PRODUCTS)}
    tables["products"] = tables["products"].append_column("season", pa.array(["summer"] * len(products)))
    empty = {name: pa.nulls(len(ids), IMAGES.field(name).type) for name in IMAGES.names}
    tables["images"] = pa.table(empty | images, schema=IMAGES)
    for name, table in tables.items():
        step = -(-len(table) // files)
        for part in range(files):
            storage.write_table(f"{uri}/{name}/{part}.parquet", table.slice(part * step, step))
    return uri


def drawn(output: Path | str) -> list[str]:
    return sorted(row["product_id"] for row in open_catalog(str(output)).products.read(["product_id"]).to_pylist())


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=60), st.integers(0, 20_000))
def test_every_stratum_keeps_its_share_and_at_least_one(sizes: list[int], more: int) -> None:
    count, total = len(sizes) + more, sum(sizes)
    quotas = allot(np.array(sizes), count)
    assert quotas.sum() == min(count, total)
    assert all(1 <= quota <= size for quota, size in zip(quotas, sizes, strict=True))
    for one, first in zip(sizes, quotas, strict=True):
        for other, second in zip(sizes, quotas, strict=True):
            assert one <= other or first + 1 >= second  # a larger one has no less, up to rounding


def test_shares_are_exact_where_no_path_is_rare() -> None:
    assert allot(np.array([300, 90, 10, 100]), 50).tolist() == [30, 9, 1, 10]
    assert allot(np.array([1000, 1, 1, 1]), 10).tolist() == [7, 1, 1, 1]


def test_a_sample_is_a_catalogue_with_all_paths(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    catalog = write(str(tmp_path / "catalog"), SIZES)
    command = ["sample", "--catalog", catalog, "--count", "50", "--seed", "7", "--output"]
    assert main([*command, str(tmp_path / "small")]) == 0
    found = rows(tmp_path / "small", "products")
    paths = Counter((row["category_path"] or [None])[-1] for row in found)
    # Shares are 30, 9, 0.9, 0.1 and 10; what the rare one has more, the largest has less.
    assert paths == {"Shirts": 29, "Sarees": 9, "=odd, | name": 1, "Rare": 1, None: 10}
    assert {row["season"] for row in found} == {"summer"}
    pictures = {row["image_uri"] for row in rows(tmp_path / "small", "images")}
    assert pictures == {row["image_uris"][0] for row in found}
    said = capsys.readouterr().out
    assert said.startswith(
        "50 of 500 products, 50 pictures; 4 category paths, each kept\n  10 of them without a label\n"
    )
    assert main([*command, str(tmp_path / "small")]) == 2
    assert "already holds a catalogue" in capsys.readouterr().err


def test_a_seed_draws_the_same_whatever_the_order_and_another_one_others(tmp_path: Path, s3: str) -> None:
    outputs = []
    for name, seed, backwards in (("one", "7", False), ("again", "7", True), ("other", "8", False)):
        catalog = write(f"{s3}/sample/{name}", SIZES, backwards=backwards, files=1 + backwards)
        outputs.append(f"{s3}/sample/{name}-small")
        assert main(["sample", "--catalog", catalog, "--count", "60", "--seed", seed, "--output", outputs[-1]]) == 0
    one, again, other = map(drawn, outputs)
    assert one == again != other
    assert len(one) == len(set(one)) == len(other) == 60


@pytest.mark.long
def test_memory_of_candidates_is_pruned_without_a_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = write(str(tmp_path / "catalog"), SIZES, files=12)
    command = ["sample", "--catalog", catalog, "--count", "20", "--output"]
    assert main([*command, str(tmp_path / "one")]) == 0
    monkeypatch.setattr("atlas_ray.catalog.sample.PRUNED_AT", 0)
    assert main([*command, str(tmp_path / "two")]) == 0
    assert drawn(tmp_path / "one") == drawn(tmp_path / "two")


def test_a_sample_that_is_too_small_is_refused_and_a_large_one_is_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    catalog = write(str(tmp_path / "catalog"), SIZES)
    assert main(["sample", "--catalog", catalog, "--count", "4", "--output", str(tmp_path / "a")]) == 2
    assert "--count is 4; the catalogue has 5 category paths" in capsys.readouterr().err
    assert main(["sample", "--catalog", catalog, "--count", "9999", "--output", str(tmp_path / "b")]) == 0
    assert len(drawn(tmp_path / "b")) == 500
