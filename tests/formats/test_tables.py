"""The one door through which tables are opened."""

import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from atlas_ray.errors import CatalogError
from atlas_ray.formats.table_files import parquet_files
from atlas_ray.formats.tables import UNFINISHED, Table, Unreadable, open_table
from atlas_ray.schemas import IMAGES, PRODUCTS, image_ids


def write(folder: Path, name: str, columns: dict[str, Any] | pa.Table, **options: Any) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), path, **options)
    return path


def images(folder: Path, **options: Any) -> Table:
    return open_table(str(folder), IMAGES, foreign=True, **options)


def opened(folder: Path, *columns: str, **options: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = open_table(str(folder), PRODUCTS, columns=columns, **options).read().to_pylist()
    return rows


@pytest.mark.parametrize("ids", [[0, 1, 0, 1], ["0", "1", "0", "1"], [None] * 4, [0.0, 1.0, 0.0, 1.0], None], ids=str)
def test_a_picture_is_known_by_its_product_and_uri(tmp_path: Path, ids: list[Any] | None) -> None:
    owners, uris = ["A", "A", "B", "B"], ["1.jpg", "2.jpg", "1.jpg", "2.jpg"]
    columns = {"product_id": owners, "image_uri": uris} | ({"image_id": ids} if ids else {})
    write(tmp_path, "a.parquet", columns)
    found = images(tmp_path).read()
    assert found["image_id"].to_pylist() == image_ids(owners, uris).tolist()
    assert len(set(found["image_id"].to_pylist())) == 4
    assert found.schema.equals(IMAGES)


def test_files_of_several_programs_are_one_table(tmp_path: Path) -> None:
    polars = {
        "product_id": pa.array(["A"], pa.large_string()),
        "image_uris": pa.array([["a.jpg"]], pa.large_list(pa.large_string())),
        "price": pa.array([1.5]),
    }
    pandas = {
        "price": pa.array(["N/A", "2.5"]).dictionary_encode(),
        "title": pa.array(["x", None]).dictionary_encode(),
        "product_id": pa.array([7, 8]),
    }
    write(tmp_path, "1.parquet", polars)
    write(tmp_path, "2.parquet", pandas)
    write(tmp_path, "3.parquet", {"product_id": ["C"], "price": pa.nulls(1), "image_uris": pa.nulls(1)})
    table = open_table(str(tmp_path), PRODUCTS, columns=["product_id", "title", "price", "image_uris"])
    assert table.read().to_pylist() == [
        {"product_id": "A", "title": None, "price": 1.5, "image_uris": ["a.jpg"]},
        {"product_id": "7", "title": "x", "price": None, "image_uris": None},
        {"product_id": "8", "title": None, "price": 2.5, "image_uris": None},
        {"product_id": "C", "title": None, "price": None, "image_uris": None},
    ]
    assert table.unreadable == {"price": Unreadable(1, "'N/A'", f"{tmp_path}/2.parquet")}
    assert table.schema == pa.schema([PRODUCTS.field(name) for name in table.schema.names])


def test_a_type_of_nothing_in_the_first_file_hides_no_later_value(tmp_path: Path) -> None:
    write(tmp_path, "1.parquet", {"product_id": ["A"], "category_path": pa.nulls(1), "title": pa.nulls(1)})
    write(tmp_path, "2.parquet", {"title": ["t"], "category_path": [["W", "S"]], "product_id": ["B"]})
    assert opened(tmp_path, "title", "category_path") == [
        {"title": None, "category_path": None}, {"title": "t", "category_path": ["W", "S"]},
    ]  # fmt: skip


def test_what_lies_beside_the_files_is_left_alone(tmp_path: Path) -> None:
    write(tmp_path, "b.parquet", {"product_id": ["B"]})
    write(tmp_path, "A.PARQUET", {"product_id": ["A"]})
    for name in ("README", "README.md", "_SUCCESS", ".b.parquet.crc", ".hidden.parquet", "_metadata.parquet", "x.csv"):
        (tmp_path / name).write_text("not Parquet")
    for folder in ("_temporary/0", ".ipynb_checkpoints"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "c.parquet").write_text("not Parquet")
    assert [row["product_id"] for row in opened(tmp_path, "product_id")] == ["A", "B"]


def test_folders_say_columns(tmp_path: Path) -> None:
    write(tmp_path, "split=train/part=0/x.parquet", {"product_id": ["A"]})
    write(tmp_path, "split=test/part=1/x.parquet", {"product_id": ["B"], "store": ["own"]})
    write(tmp_path, "split=__HIVE_DEFAULT_PARTITION__/x.parquet", {"product_id": ["C"]})
    write(tmp_path, "split=val/store=S%20%26%20Co/x.parquet", {"product_id": ["D"]})
    found = {
        row["product_id"]: (row["split"], row["store"]) for row in opened(tmp_path, "product_id", "split", "store")
    }
    assert found == {"A": ("train", None), "B": ("test", "own"), "C": (None, None), "D": ("val", "S & Co")}
    others = open_table(str(tmp_path), PRODUCTS, others=True).read()
    assert sorted(others["part"].drop_null().to_pylist()) == ["0", "1"]


def test_a_key_may_stand_in_a_folder(tmp_path: Path) -> None:
    write(tmp_path, "product_id=A/x.parquet", {"image_uri": ["1.jpg"]})
    write(tmp_path, "product_id=__HIVE_DEFAULT_PARTITION__/x.parquet", {"image_uri": ["2.jpg"]})
    table = images(tmp_path)
    assert (table.rows, table.unusable_rows) == (1, 1)
    assert table.read()["image_id"].to_pylist() == image_ids(["A"], ["1.jpg"]).tolist()


@pytest.mark.parametrize("statistics", [True, False])
@pytest.mark.parametrize("group", [1, 2, 100])
def test_rows_without_a_key_are_named_and_do_not_come_out(tmp_path: Path, statistics: bool, group: int) -> None:
    first = {"product_id": ["A", None, "C", "", "E"], "image_uri": ["1", "2", None, "4", "5"]}
    options = {"write_statistics": statistics, "row_group_size": group}
    write(tmp_path, "1.parquet", first, **options)
    write(tmp_path, "2.parquet", {"product_id": ["F", "G"], "image_uri": ["6", ""]}, **options)
    table = images(tmp_path)
    assert (table.all_rows, table.unusable_rows, table.rows) == (7, 4, 3)
    assert table.read()["product_id"].to_pylist() == ["A", "E", "F"]
    assert list(table.unusable()) == [
        (f"{tmp_path}/1.parquet", 2, "product_id", {"product_id": None, "image_uri": "2"}),
        (f"{tmp_path}/1.parquet", 3, "image_uri", {"product_id": "C", "image_uri": None}),
        (f"{tmp_path}/1.parquet", 4, "product_id", {"product_id": "", "image_uri": "4"}),
        (f"{tmp_path}/2.parquet", 2, "image_uri", {"product_id": "G", "image_uri": ""}),
    ]
    assert table.losses == [
        f"{tmp_path}: 4 of 7 rows have no key and are left out, such as row 2 of {tmp_path}/1.parquet, "
        "without product_id"
    ]


def test_values_that_cannot_be_read_are_told_column_by_column(tmp_path: Path) -> None:
    write(tmp_path, "1.parquet", {"product_id": ["A", "B"], "price": [1.5, None]})
    late = {"product_id": ["C", "D", None], "price": ["N/A", "?", "2"], "crawled_at": ["2024-01-01", "soon", None]}
    write(tmp_path, "2.parquet", late)
    columns = ["product_id", "title", "price", "crawled_at"]
    table = open_table(str(tmp_path), PRODUCTS, columns=columns, foreign=True)
    file = f"{tmp_path}/2.parquet"
    assert table.losses[0] == (
        f"{tmp_path}: 1 of 5 rows have no key and are left out, such as row 3 of {file}, without product_id"
    )
    assert sorted(table.losses[1:]) == [
        f"{tmp_path}: 1 values of 'crawled_at' cannot be read and count as missing, such as 'soon' in {file}",
        f"{tmp_path}: 2 values of 'price' cannot be read and count as missing, such as 'N/A' in {file}",
    ]
    assert open_table(str(tmp_path), PRODUCTS, columns=["product_id"]).losses[1:] == []


def test_a_catalogue_whose_import_did_not_finish_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "images", "part-00000.parquet", {"product_id": ["A"], "image_uri": ["1"]})
    (tmp_path / UNFINISHED).write_text("{}")
    with pytest.raises(CatalogError, match=f"{tmp_path}: its import has not finished"):
        images(tmp_path / "images")
    (tmp_path / "run.json").write_text("{}")  # an import that was killed after it had written all
    assert images(tmp_path / "images").rows == 1


def test_our_own_tables_may_name_no_picture(tmp_path: Path) -> None:
    write(tmp_path, "1.parquet", {"image_id": [5, 6], "product_id": ["A", "B"], "image_uri": ["", "b.jpg"]})
    table = open_table(str(tmp_path), IMAGES)
    assert table.unusable_rows == 0
    assert table.read(["image_id", "image_uri"]).to_pylist() == [
        {"image_id": 5, "image_uri": ""}, {"image_id": 6, "image_uri": "b.jpg"},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("ids", "good"),
    [
        (pa.nulls(3), []),
        (pa.array([1.0, 2.5, float("nan")]), ["1"]),
        (pa.array([b"a", b"\xff", b"c"]), ["a", "c"]),
        (pa.array(["a", None, "c"]).dictionary_encode(), ["a", "c"]),
        (pa.array([3, None, 5], pa.int32()), ["3", "5"]),
    ],
)
def test_a_key_that_cannot_be_read_is_none(tmp_path: Path, ids: pa.Array, good: list[str]) -> None:
    write(tmp_path, "1.parquet", {"product_id": ids})
    table = open_table(str(tmp_path), PRODUCTS, columns=["product_id"])
    assert table.read()["product_id"].to_pylist() == good
    assert table.unusable_rows == len(list(table.unusable())) == 3 - len(good)


@pytest.mark.parametrize(
    ("late", "message"),
    [
        ({"product_id": ["B"], "price": [True]}, r"column 'price' is bool; expected numbers"),
        ({"product_id": ["B"], "image_uris": ["a.jpg"]}, r"column 'image_uris' is string; expected a list"),
        ({"product_id": [True]}, r"column 'product_id' is bool; expected text or whole numbers"),
        ({"product_id": ["B"], "category_path": ["W > S"]}, r"column 'category_path' is string; expected a list"),
        ({"id": ["B"]}, r"no column 'product_id'; it has \['id'\]"),
    ],
)
def test_a_late_file_that_does_not_fit_is_named(tmp_path: Path, late: dict[str, Any], message: str) -> None:
    write(tmp_path, "1.parquet", {"product_id": ["A"], "price": [1.0]})
    write(tmp_path, "deep/2.parquet", late)
    with pytest.raises(CatalogError, match=f"{tmp_path}/deep/2.parquet: {message}"):
        open_table(str(tmp_path), PRODUCTS)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    write(tmp_path, "1.parquet", {"product_id": ["A"]})
    for content in (b"", b"PAR1", b"no Parquet at all", (tmp_path / "1.parquet").read_bytes()[:-9]):
        (tmp_path / "2.parquet").write_bytes(content)
        with pytest.raises(CatalogError, match=r"2\.parquet: cannot be read as Parquet"):
            open_table(str(tmp_path), PRODUCTS)
    twice = pa.Table.from_arrays([pa.array(["A"]), pa.array(["B"])], names=["product_id", "product_id"])
    write(tmp_path, "2.parquet", twice)
    with pytest.raises(CatalogError, match=r"2\.parquet: the column 'product_id' is there 2 times"):
        open_table(str(tmp_path), PRODUCTS)


def test_a_page_that_is_damaged_is_named_when_it_is_read(tmp_path: Path) -> None:
    path = write(tmp_path, "1.parquet", {"product_id": [f"P{n}" for n in range(5000)]})
    content = bytearray(path.read_bytes())
    content[4:400] = b"\xff" * 396
    path.write_bytes(content)
    table = open_table(str(tmp_path), PRODUCTS)
    with pytest.raises(CatalogError, match=r"1\.parquet: cannot be read as Parquet"):
        table.read()


def test_what_is_needed_has_to_be_somewhere(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="no images table"):
        images(tmp_path / "images")
    assert images(tmp_path / "images", may_be_missing=True).read().schema.equals(IMAGES)
    write(tmp_path, "1.parquet", {"product_id": ["A"]})
    with pytest.raises(CatalogError, match=r"no column 'title'; it has \['product_id'\]"):
        open_table(str(tmp_path), PRODUCTS, needed=["title"])
    write(tmp_path, "2.parquet", {"product_id": ["B"], "title": ["t"]})
    assert opened(tmp_path, "title", needed=["title"]) == [{"title": None}, {"title": "t"}]


def test_empty_files_have_no_say(tmp_path: Path) -> None:
    write(tmp_path, "1.parquet", {"product_id": pa.array([], pa.float64()), "price": pa.array([], pa.bool_())})
    write(tmp_path, "2.parquet", pa.table({}))
    write(tmp_path, "3.parquet", {"product_id": ["A"], "price": [1.0]})
    assert opened(tmp_path, "product_id", "price") == [{"product_id": "A", "price": 1.0}]
    (tmp_path / "3.parquet").unlink()
    assert opened(tmp_path, "product_id", "price") == []


def test_other_columns_travel_and_widen(tmp_path: Path) -> None:
    write(tmp_path, "1.parquet", {"product_id": ["A"], "stock": pa.array([1], pa.int8()), "mark": pa.nulls(1)})
    write(tmp_path, "2.parquet", {"product_id": ["B"], "stock": [2**40], "mark": pa.array(["m"], pa.large_string())})
    found = open_table(str(tmp_path), PRODUCTS, columns=["product_id"], others=True).read()
    assert found.to_pylist() == [
        {"product_id": "A", "stock": 1, "mark": None}, {"product_id": "B", "stock": 2**40, "mark": "m"},
    ]  # fmt: skip
    write(tmp_path, "3.parquet", {"product_id": ["C"], "stock": ["many"]})
    with pytest.raises(CatalogError, match=r"3\.parquet: a column is of another type than in files before"):
        open_table(str(tmp_path), PRODUCTS, others=True)


def test_pieces_are_the_table(tmp_path: Path) -> None:
    for number, rows in enumerate((7, 1, 30)):
        ids = [f"{number}-{row}" for row in range(rows)]
        write(tmp_path, f"{number}.parquet", {"product_id": ids}, row_group_size=4)
    table = open_table(str(tmp_path), PRODUCTS, columns=["product_id"])
    whole = table.read()["product_id"].to_pylist()
    for count, least, most in ((1, 3, 3), (5, 3, 7), (1000, 11, 11)):
        pieces = table.pieces(count=count)
        assert least <= len(pieces) <= most
        read = [value for piece in pieces for part in piece.tables(3) for value in part["product_id"].to_pylist()]
        assert read == whole
        assert sum(piece.rows for piece in pieces) == table.rows == 38
        assert all(piece.bytes > 0 for piece in pieces)


def test_rows_may_be_picked_and_one_file_be_a_table(tmp_path: Path) -> None:
    path = write(tmp_path, "list.parquet", {"product_id": [1, 2, 3], "title": ["x", "y", "x"]})
    table = open_table(str(path), PRODUCTS, columns=["product_id", "title"])
    picked = pa.concat_tables(table.batches(where=pc.field("title") == "x"))
    assert picked["product_id"].to_pylist() == ["1", "3"]
    folder = tmp_path / "out.parquet"  # as Spark names a folder
    write(folder, "part-0.snappy.parquet", {"product_id": ["A"]})
    assert parquet_files(str(folder)) == [f"{folder}/part-0.snappy.parquet"]


def test_tables_lie_in_s3_too(s3: str) -> None:
    from atlas_ray.io import storage

    place = storage.locate(f"{s3}/door/images/store=own/part-0.parquet")
    pq.write_table(pa.table({"product_id": ["A"], "image_uri": ["1"]}), place.path, filesystem=place.filesystem)
    storage.write_bytes(f"{s3}/door/images/_SUCCESS", b"")
    table = open_table(f"{s3}/door/images", IMAGES, foreign=True)
    assert table.read()["image_id"].to_pylist() == image_ids(["A"], ["1"]).tolist()


@pytest.mark.parametrize(
    ("splits", "read", "lost"),
    [
        (["train", "test", "val", None], ["train", "test", "val", None], 0),
        (["Train", "dev", "testing", "holdout"], ["train", "val", "test", "test"], 0),
        (["train", "none", "extra", "val"], ["train", None, None, "val"], 2),
        ([0, 1, 1, 0], [None] * 4, 4),
    ],
)
@pytest.mark.parametrize("statistics", [True, False])
def test_splits_in_other_words_are_read_and_others_told(
    tmp_path: Path, splits: list[Any], read: list[str | None], lost: int, statistics: bool
) -> None:
    write(tmp_path, "a.parquet", {"product_id": list("abcd"), "split": splits}, write_statistics=statistics)
    table = open_table(str(tmp_path), PRODUCTS, columns=["split"], foreign=True)
    assert table.read()["split"].to_pylist() == read
    assert sum(one.values for one in table.unreadable.values()) == lost
    assert len(table.losses) == bool(lost)


@pytest.mark.parametrize("kind", [pa.float64(), pa.float32(), pa.decimal128(30, 2), pa.int64(), pa.string()])
@pytest.mark.parametrize("statistics", [True, False])
def test_a_number_that_is_no_price_is_missing_and_told(tmp_path: Path, kind: pa.DataType, statistics: bool) -> None:
    odd = [math.inf, -math.inf, math.nan] if pa.types.is_floating(kind) else []
    prices = pa.array([3, 0, None, -4, 5_000_000_000_000]).cast(kind, safe=False)
    prices = pa.concat_arrays([prices, pa.array(odd, kind)])
    rows = {"product_id": [f"p{number}" for number in range(len(prices))], "price": prices}
    write(tmp_path, "a.parquet", rows, write_statistics=statistics)
    write(tmp_path, "b.parquet", {"product_id": ["good"], "price": [9.5]}, write_statistics=statistics)
    table = open_table(str(tmp_path), PRODUCTS, columns=["price"], foreign=True)
    assert table.read()["price"].to_pylist() == [3.0, 0.0, *[None] * (len(prices) - 2), 9.5]
    assert sum(one.values for one in table.unreadable.values()) == (4 if odd else 2)  # NaN says that there is none
    assert "values of 'price' cannot be read and count as missing" in table.losses[0]
