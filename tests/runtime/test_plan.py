"""Plans: what is sampled of a catalogue, and what is made of what was measured."""

from pathlib import Path

import pyarrow as pa
import pytest

from atlas_ray.errors import CatalogError
from atlas_ray.runtime import plan
from atlas_ray.runtime.joined import NO_PICTURE
from atlas_ray.runtime.tables import open_catalog
from tests.support.inputs import write_catalog


def test_the_stream_flows_once_each_process_has_given_a_block() -> None:
    # Two processes give a block of 10 each every second, after a start of 5 s.
    arrivals = [(5.0 + second + late, 10) for second in range(1, 5) for late in (0.0, 0.1)]
    assert plan._flow(0.0, arrivals, 2) == pytest.approx((6.1, 20, 20.0))
    assert plan._flow(0.0, arrivals[::-1], 2) == pytest.approx((6.1, 20, 20.0))
    assert plan._flow(0.0, [(5.0, 30), (6.0, 10)], 2) == (6.0, 40, None)


def test_a_sample_comes_from_all_over_the_table(tmp_path: Path) -> None:
    write_catalog(str(tmp_path), [f"{number}.jpg" for number in range(1000)])
    images = tmp_path / "images"
    first = images / "part-00000.parquet"
    table = pa.parquet.read_table(first)
    for number in range(5):
        pa.parquet.write_table(table.slice(200 * number, 200), images / f"part-{number}.parquet")
    first.unlink()
    catalog = open_catalog(str(tmp_path))
    sample = plan.sample_pictures(catalog, 100, 16)
    assert (len(sample.table), sample.whole) == (100, 1000)
    numbers = [int(uri.removesuffix(".jpg")) // 200 for uri in sample.table["image_uri"].to_pylist()]
    assert [numbers.count(part) for part in range(5)] == [20] * 5
    pieces = sample.pieces(["image_uri"])
    assert [piece.rows for piece in pieces] == [16] * 6 + [4]
    assert next(iter(pieces[0].tables())).column_names == ["image_uri"]
    assert len(plan.sample_pictures(catalog, 5000, 16).table) == 1000


def test_a_sample_has_the_texts_of_its_products(tmp_path: Path) -> None:
    products = pa.table(
        {
            "product_id": ["a", "b", "c"],
            "title": ["A", "B", None],
            "image_uris": pa.array([["1", "2"], [], ["3"]], pa.list_(pa.string())),
        }
    )
    images = pa.table({"product_id": ["a", "a", "c"], "image_uri": ["1", "2", "3"]})
    for name, table in (("products", products), ("images", images)):
        (tmp_path / name).mkdir()
        pa.parquet.write_table(table, tmp_path / name / "part.parquet")
    sample = plan.sample_pictures(open_catalog(str(tmp_path)), 10, 16, ("title",))
    rows = sample.table.select(["product_id", "image_uri", "title"]).to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        ("a", "1", "A"), ("a", "2", "A"), ("b", NO_PICTURE, "B"), ("c", "3", None)
    ]  # fmt: skip
    assert sample.whole == 4


def test_nothing_to_try_is_told(tmp_path: Path) -> None:
    write_catalog(str(tmp_path), [])
    with pytest.raises(CatalogError, match="no product and no picture to try"):
        plan.sample_pictures(open_catalog(str(tmp_path), may_be_empty=True), 10, 16)


def test_refusals_are_shares_by_code() -> None:
    outcomes = pa.table(
        {
            "error_code": pa.array([None, "corrupt", "zoomed", None]),
            "picture_error": pa.array([None, None, None, "not_found: no such file"]),
        }
    )
    assert plan._refused(outcomes) == {"corrupt": 0.25, "not_found": 0.25}
