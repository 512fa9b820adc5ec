"""A catalogue as other programs write it, through every stage: each picture once, and nothing lost without a trace."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atlas_ray.artifacts import save_zoom_artifact
from atlas_ray.catalog.selection import SelectConfig, select
from atlas_ray.catalog.split import SplitRule, resplit_catalog
from atlas_ray.cli.main import main
from atlas_ray.duplicates.run import DuplicatesRunConfig, detect_duplicates
from atlas_ray.embedding.run import embed
from atlas_ray.embedding.settings import EmbedConfig
from atlas_ray.errors import CatalogError
from atlas_ray.formats.tables import open_table
from atlas_ray.models.zoom import ZoomConfig, ZoomNetwork
from atlas_ray.prediction.settings import PredictorConfig
from atlas_ray.runs.run_record import RunReport
from atlas_ray.runtime.tables import UNUSABLE
from atlas_ray.schemas import IMAGES, image_ids
from atlas_ray.scoring.run import score
from atlas_ray.scoring.settings import ScoreConfig
from atlas_ray.taxonomy import Taxonomy
from atlas_ray.training.data import labelled_pictures
from atlas_ray.zoom.filter import FilterConfig, filter_catalog
from tests.support.parts import rows

pytestmark = pytest.mark.usefixtures("local_ray")
PRODUCTS, LOST = 30, 3
LARGE = pa.large_string()
GOOD = 2 * PRODUCTS


@pytest.fixture(scope="module")
def odd(catalog: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty products of two pictures, numbered 0 and 1 within each.

    Their tables are those of Polars, pandas and Spark: large and dictionary types, a folder a part, a README, a price
    "N/A" in the last file, columns of nothing, one picture twice, and three rows without a key.
    """
    folder = tmp_path_factory.mktemp("odd")
    source = [row for row in rows(catalog, "products") if row["category_path"]]
    uris = [row["image_uris"][0] for row in source]
    products = [f"{number:03d}" for number in range(PRODUCTS)]
    pictures = [(product, uris[2 * at + side], side) for at, product in enumerate(products) for side in (0, 1)]
    listed = [
        {
            "product_id": product,
            "image_uris": [uri for owner, uri, _ in pictures if owner == product],
            "category_path": source[at]["category_path"],
            "split": "train" if at % 3 else "test",
        }
        for at, product in enumerate(products)
    ]
    (folder / "images" / "part=0").mkdir(parents=True)
    (folder / "images" / "part=1").mkdir()
    (folder / "products").mkdir()
    (folder / "images" / "README.md").write_text("one row a picture")
    (folder / "images" / "_SUCCESS").write_text("")
    columns = list(zip(*pictures, strict=True))
    first, second = ([column[part] for column in columns] for part in (slice(0, 40), slice(40, None)))
    polars = {
        "product_id": pa.array(first[0], LARGE), "image_uri": pa.array(first[1], LARGE), "image_id": first[2],
        "sha256": pa.nulls(40),
    }  # fmt: skip
    pq.write_table(pa.table(polars), folder / "images" / "part=0" / "a.parquet", row_group_size=7)
    pandas = {  # the last picture is there twice, then come those that are none
        "image_uri": pa.array([*second[1], second[1][-1], None, "s3://shop/a.jpg", ""]).dictionary_encode(),
        "product_id": pa.array([*second[0], second[0][-1], "000", None, "001"]).dictionary_encode(),
        "image_id": pa.array([*map(float, second[2]), 1.0, 0.0, float("nan"), 0.0]),
    }  # fmt: skip
    pq.write_table(pa.table(pandas), folder / "images" / "part=1" / "a.parquet")
    early = pa.Table.from_pylist(listed[:20]).append_column("price", pa.nulls(20))
    pq.write_table(early, folder / "products" / "1.parquet")
    late = pa.Table.from_pylist(listed[20:]).append_column("price", pa.array(["N/A"] * 4 + ["12.5"] * 6))
    late = late.set_column(1, "image_uris", late["image_uris"].cast(pa.large_list(LARGE)))
    pq.write_table(late, folder / "products" / "2.parquet")
    (folder / "taxonomy.json").write_bytes((Path(catalog) / "taxonomy.json").read_bytes())
    return folder


def wanted(odd: Path) -> set[int]:
    table = open_table(str(odd / "images"), IMAGES, foreign=True)
    assert table.rows == GOOD + 1
    return set(table.read()["image_id"].to_pylist())


def balanced(report: RunReport, *outcomes: str) -> None:
    counts = report.counts
    assert counts["input"] == sum(counts[name] for name in outcomes) + counts["quarantined"] == GOOD + LOST
    assert report.run["quarantined_by_code"] == {"missing_image_uri": 2, "missing_product_id": 1}
    lost = [row for row in rows(report.output, "quarantine") if row["image_id"] == -1]
    assert sorted((row["product_id"], row["error_code"]) for row in lost if row["product_id"]) == [
        ("000", "missing_image_uri"), ("001", "missing_image_uri"),
    ]  # fmt: skip
    (orphan,) = (row for row in lost if not row["product_id"])
    assert (orphan["image_uri"], orphan["error_code"]) == ("s3://shop/a.jpg", "missing_product_id")
    assert orphan["message"].endswith("part=1/a.parquet has no product_id")
    assert orphan["message"].startswith("row 23 of ")


def test_scored_and_scored_on(odd: Path, small_model: str, tmp_path: Path) -> None:
    output = tmp_path / "run"

    def run() -> RunReport:
        predictor = PredictorConfig(precision="float32", batch_size=8)
        config = ScoreConfig(catalog=str(odd), model=small_model, output=str(output), predictor=predictor)
        return score(config)

    report = run()
    balanced(report, "scored", "filtered")
    assert report.counts["repeated_input_rows"] == 1
    assert {row["image_id"] for row in rows(output, "predictions")} == wanted(odd)
    whole = {row["product_id"]: row for row in rows(output, "products")}
    assert {row["images_scored"] for row in whole.values()} == {2}
    assert [whole[f"{number:03d}"]["price"] for number in (0, 20, 29)] == [None, None, 12.5]
    unreadable = report.run["unreadable_values"]
    assert unreadable == {"products.price": {"values": 4, "example": "'N/A'", "file": f"{odd}/products/2.parquet"}}

    # A run that was killed after it had committed the first pictures of some products, and had ended its quarantine.
    (output / "run.json").unlink()
    predictions = pq.read_table(output / "predictions").sort_by("image_id")
    for file in (output / "predictions").iterdir():
        file.unlink()
    (output / "checkpoint").mkdir()
    done = predictions.slice(0, 25)
    pq.write_table(done, output / "predictions" / "old_000001.parquet")
    pq.write_table(done.select(["image_id"]), output / "checkpoint" / "old_000001.parquet")
    again = run()
    # The picture that is there twice has two rows if they were in blocks of their own, and counts once.
    assert again.run["resumed_from"] == len(set(done["image_id"].to_pylist()))
    balanced(again, "scored", "filtered")
    assert again.counts == report.counts
    found = {row["product_id"]: row for row in rows(output, "products")}
    assert found.keys() == whole.keys()
    assert all(found[name]["category_path"] == whole[name]["category_path"] for name in whole)
    assert len(rows(output, "predictions")) in (GOOD, GOOD + 1)  # the picture that is there twice


@pytest.mark.slow  # of the readers of odd tables, every run has scoring
def test_filtered(odd: Path, tmp_path: Path) -> None:
    model = str(tmp_path / "zoom")
    save_zoom_artifact(model, ZoomNetwork(ZoomConfig(image_size_px=30)), metrics={})
    config = FilterConfig(
        catalog=str(odd), model=model, output=str(tmp_path / "out"), threshold=0.5, precision="float32"
    )
    report = filter_catalog(config)
    balanced(report, "kept", "rejected")
    kept = rows(tmp_path / "out" / "kept", "images")
    assert {row["image_id"] for row in kept + rows(tmp_path / "out", "rejected")} == wanted(odd)
    assert filter_catalog(config).already_done


@pytest.mark.slow  # likewise
def test_embedded(odd: Path, small_model: str, tmp_path: Path) -> None:
    predictor = PredictorConfig(precision="float32", batch_size=16)
    report = embed(EmbedConfig(catalog=str(odd), model=small_model, output=str(tmp_path / "out"), predictor=predictor))
    balanced(report, "embedded")
    assert report.counts["products"] == PRODUCTS
    assert len(rows(tmp_path / "out", "embeddings")) == PRODUCTS


def test_duplicates_are_looked_for_once_a_picture(odd: Path, tmp_path: Path) -> None:
    config = DuplicatesRunConfig(catalog=str(odd), output=str(tmp_path / "out"))
    found, run = detect_duplicates(config)
    balanced(run, "fingerprinted")
    assert run.counts["repeated_input_rows"] == 1
    ids = found.duplicates["image_id"].to_pylist()
    assert len(ids) == len(set(ids))
    resplit_catalog(str(odd), str(tmp_path / "split"), found.groups, SplitRule(shares="60/20/20"))
    copied = open_table(str(tmp_path / "split" / "images"), IMAGES, foreign=True)
    assert set(copied.read()["image_id"].to_pylist()) == wanted(odd)


def test_selected(odd: Path, tmp_path: Path) -> None:
    listed = tmp_path / "list.parquet"
    pq.write_table(pa.table({"product_id": pa.array(["003", "025"]).dictionary_encode()}), listed)
    report = select(SelectConfig(catalog=str(odd), products=str(listed), output=str(tmp_path / "part")))
    assert (report.products, report.images) == (2, 4)
    images = rows(tmp_path / "part", "images")
    assert sorted(row["image_id"] for row in images) == sorted(
        image_ids([row["product_id"] for row in images], [row["image_uri"] for row in images]).tolist()
    )
    assert [row["price"] for row in rows(tmp_path / "part", "products")] == [None, 12.5]
    assert json.loads((tmp_path / "part" / "run.json").read_text())["unusable_rows"] == LOST
    assert len(list((tmp_path / "part" / "quarantine").glob(f"{UNUSABLE}*"))) == 1


def test_learned_from(odd: Path, garments: Taxonomy) -> None:
    found = labelled_pictures(str(odd), "train", garments)
    assert found.count == 2 * sum(number % 3 > 0 for number in range(PRODUCTS))
    names = [row["name"] for row in found.dataset.take_all()]
    assert len(names) == len(set(names)) == found.count


@pytest.mark.parametrize(
    ("table", "columns", "message"),
    [
        ("products", {"product_id": ["x"], "price": [True]}, "column 'price' is bool; expected numbers"),
        ("products", {"product_id": ["x"], "category_path": ["a > b"]}, "column 'category_path' is string; expected a"),
        ("products", {"product_id": ["x"], "split": [True]}, "column 'split' is bool; expected text"),
        ("images", {"product_id": ["x"]}, "no column 'image_uri'; it has"),
        ("images", {"product_id": ["x"], "image_uri": ["a"], "width": [[1]]}, "column 'width' is list"),
    ],
)
def test_a_late_file_that_does_not_fit_ends_a_run_before_it_starts(
    odd: Path,
    small_model: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    table: str,
    columns: dict[str, Any],
    message: str,
) -> None:
    late = odd / table / "z.parquet"
    pq.write_table(pa.table(columns), late)
    try:
        call = ["score", "--catalog", str(odd), "--model", small_model, "--output", str(tmp_path / "out")]
        assert main(call) == 2
    finally:
        late.unlink()
    error = capsys.readouterr().err.strip()
    assert f"{late}: {message}" in error
    assert "\n" not in error
    assert not (tmp_path / "out").exists()


def test_only_rows_without_a_key(small_model: str, tmp_path: Path) -> None:
    for name in ("images", "products"):
        (tmp_path / "nothing" / name).mkdir(parents=True)
    lost = {"product_id": pa.nulls(5), "image_uri": [f"{number}.jpg" for number in range(5)]}
    pq.write_table(pa.table(lost), tmp_path / "nothing" / "images" / "a.parquet")
    pq.write_table(pa.table({"product_id": ["A", None]}), tmp_path / "nothing" / "products" / "a.parquet")
    call = ["score", "--catalog", str(tmp_path / "nothing"), "--model", small_model, "--output", str(tmp_path / "out")]
    assert main(call) == 3
    account = json.loads((tmp_path / "out" / "run.json").read_text())
    assert account["counts"]["input"] == account["counts"]["quarantined"] == 6
    assert account["quarantined_by_code"] == {"missing_product_id": 6}
    assert [row["product_id"] for row in rows(tmp_path / "out", "products")] == ["A"]
    with pytest.raises(CatalogError, match="no such folder"):
        score(ScoreConfig(catalog=str(tmp_path / "none"), model=small_model, output=str(tmp_path / "other")))


def test_ids_of_all_kinds_are_the_same_pictures(tmp_path: Path) -> None:
    owners, uris = ["A", "A", "B"], ["1", "2", "1"]
    for name, ids in (("int", pa.array([0, 1, 0])), ("text", pa.array(["x", "y", "x"])), ("none", pa.nulls(3))):
        folder = tmp_path / name
        folder.mkdir()
        pq.write_table(pa.table({"image_id": ids, "product_id": owners, "image_uri": uris}), folder / "a.parquet")
        found = open_table(str(folder), IMAGES, foreign=True).read()["image_id"].to_numpy()
        assert np.array_equal(found, image_ids(owners, uris))
