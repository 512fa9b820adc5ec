"""Every format, written by its own library, makes the same products."""

import csv
import gzip
import json
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.sax.saxutils import escape

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from atlas_ray.catalog import shuffling
from atlas_ray.catalog.importer import ImportConfig, ImportReport, import_catalog
from atlas_ray.catalog.sources import Source
from atlas_ray.cli.main import main
from atlas_ray.errors import CatalogError, ConfigError
from atlas_ray.formats import workbooks
from tests.catalog.test_import import rows

COLUMNS = ("id", "title", "description", "link", "image_link", "additional_image_link", "price", "availability",
           "brand", "product_type")  # fmt: skip
PRODUCTS = [
    {
        "id": f"SKU-{number:04d}" if number % 2 else str(70_000 + number),
        "title": f"Größe {number} & Co.",
        "description": f'It\'s <b>no. {number}</b>, "fine"; a > b',
        "link": f"https://shop.example/p/{number}",
        "image_link": f"https://cdn.example/{number}.jpg",
        "additional_image_link": f"https://cdn.example/{number}-b.jpg,https://cdn.example/{number}-c.jpg",
        "price": f"{number}.50 USD",
        "availability": ("in_stock", "out of stock")[number % 2],
        "brand": "Acme",
        "product_type": ("Apparel > Shirts", "Home & Garden > Decor > Vases")[number % 2],
    }
    for number in range(12)
]
EXPECTED: list[dict[str, Any]] = [
    {
        "product_id": product["id"],
        "title": product["title"],
        "description": product["description"],
        "url": product["link"],
        "price": float(product["price"].split()[0]),
        "currency": "USD",
        "availability": product["availability"],
        "brand": "Acme",
        "category_path": product["product_type"].split(" > "),
        "image_uris": [product["image_link"], *product["additional_image_link"].split(",")],
    }
    for product in PRODUCTS
]


def table() -> pa.Table:
    return pa.table({name: [product[name] for product in PRODUCTS] for name in COLUMNS})


def tsv(folder: Path, *, prefix: str = "", suffix: str = ".tsv") -> Path:
    path = folder / f"feed{suffix}"
    lines = ["\t".join(prefix + name for name in COLUMNS)]
    lines += ["\t".join('"' + product[name].replace('"', '""') + '"' for name in COLUMNS) for product in PRODUCTS]
    path.write_text("\n".join(lines) + "\n")
    return path


def xml_item(product: dict[str, str], tag: str) -> str:
    plain = ("title", "description") if tag == "item" else ("title",)
    fields = []
    for name in COLUMNS:
        for value in product[name].split(",") if name.startswith("additional") else [product[name]]:
            text = f"<![CDATA[{value}]]>" if name == "description" else escape(value)
            if name == "link" and tag == "entry":
                fields.append(f'<link href="{text}"/>')
            else:
                name_ = name if name in plain or name == "link" else f"g:{name}"
                fields.append(f"<{name_}>{text}</{name_}>")
    fields.append("<g:shipping><g:country>US</g:country><g:price>1.00 USD</g:price></g:shipping>")
    return f"<{tag}>{''.join(fields)}</{tag}>"


def rss(folder: Path) -> Path:
    items = "\n".join(xml_item(product, "item") for product in PRODUCTS)
    path = folder / "feed.xml"
    path.write_text(
        '<?xml version="1.0"?>\n<rss xmlns:g="http://base.google.com/ns/1.0" version="2.0"><channel><title>Shop</title>'
        f"<link>https://shop.example</link><!-- <item><g:id>old</g:id></item> -->\n{items}</channel></rss>"
    )
    return path


def atom(folder: Path) -> Path:
    items = "\n".join(xml_item(product, "entry") for product in PRODUCTS)
    path = folder / "feed.atom"
    path.write_text(
        '<feed xmlns="http://www.w3.org/2005/Atom" xmlns:g="http://base.google.com/ns/1.0"><title>Shop</title>'
        f'<link rel="self" href="https://shop.example"/>{items}</feed>'
    )
    return path


def sheet_xlsx(folder: Path) -> Path:
    import openpyxl

    book = openpyxl.Workbook()
    page = book.active
    assert page is not None
    page.append([])
    page.append(list(COLUMNS))
    for product in PRODUCTS:
        page.append([int(value) if value.isdigit() else value for value in (product[name] for name in COLUMNS)])
    book.save(folder / "shop.xlsx")
    return folder / "shop.xlsx"


def sheet_xls(folder: Path) -> Path:
    import xlwt

    book = xlwt.Workbook()
    page = book.add_sheet("Products")
    for at, name in enumerate(COLUMNS):
        page.write(0, at, name)
        for row, product in enumerate(PRODUCTS, 1):
            page.write(row, at, int(product[name]) if product[name].isdigit() else product[name])
    book.save(folder / "shop.xls")
    return folder / "shop.xls"


def sheet_ods(folder: Path) -> Path:
    from odf.opendocument import OpenDocumentSpreadsheet
    from odf.table import Table, TableCell, TableRow
    from odf.text import P

    book = OpenDocumentSpreadsheet()
    page = Table(name="Products")
    for cells in ([*COLUMNS], *([product[name] for name in COLUMNS] for product in PRODUCTS)):
        row = TableRow()
        for value in cells:
            number = value.isdigit()
            cell = TableCell(valuetype="float", value=value) if number else TableCell(valuetype="string")
            cell.addElement(P(text=value))
            row.addElement(cell)
        page.addElement(row)
    book.spreadsheet.addElement(page)
    book.save(str(folder / "shop.ods"))
    return folder / "shop.ods"


def delta(folder: Path) -> Path:
    from deltalake import write_deltalake

    path = folder / "delta"
    write_deltalake(str(path), table().slice(0, 8), partition_by=["availability"])
    write_deltalake(str(path), table().slice(8), mode="append")
    return path


def lance(folder: Path) -> Path:
    from lance import write_dataset

    path = folder / "shop.lance"
    extra = pa.table({name: ["gone"] for name in COLUMNS})
    written = write_dataset(pa.concat_tables([extra, table()]), str(path), max_rows_per_file=5)
    written.delete("id = 'gone'")
    return path


def iceberg(folder: Path) -> Path:
    from pyiceberg.catalog.sql import SqlCatalog

    catalog = SqlCatalog("x", uri=f"sqlite:///{folder}/catalog.db", warehouse=f"file://{folder}/warehouse")
    catalog.create_namespace("shop")
    written = catalog.create_table("shop.products", schema=table().schema)
    written.append(pa.concat_tables([pa.table({name: ["gone"] for name in COLUMNS}), table().slice(0, 7)]))
    written.append(table().slice(7))
    written.delete("id = 'gone'")
    catalog.engine.dispose()
    return folder / "warehouse" / "shop" / "products"


def json_document(folder: Path, *, wrap: bool = False) -> Path:
    path = folder / "shop.json.gz"
    path.write_bytes(gzip.compress(json.dumps({"products": PRODUCTS} if wrap else PRODUCTS).encode()))
    return path


def json_lines_of_members(folder: Path) -> Path:
    path = folder / "shop.jsonl.gz"
    path.write_bytes(b"".join(gzip.compress((json.dumps(product) + "\n").encode()) for product in PRODUCTS))
    return path


def json_lines_of_frames(folder: Path) -> Path:
    path = folder / "shop.jsonl.zst"
    codec = pa.Codec("zstd")
    path.write_bytes(b"".join(codec.compress((json.dumps(p) + "\n").encode(), asbytes=True) for p in PRODUCTS))
    return path


def parquet_partitions(folder: Path) -> Path:
    path = folder / "hive"
    pq.write_to_dataset(table(), path, partition_cols=["availability"])
    return path


def csv_folder(folder: Path) -> Path:
    path = folder / "csv"
    path.mkdir()
    pa.csv.write_csv(table().slice(0, 5), path / "a.csv")
    pa.csv.write_csv(table().slice(5).select(list(reversed(COLUMNS))), path / "b.csv")
    return path


WRITERS: dict[str, Callable[[Path], Path]] = {
    "tsv": tsv,
    "tsv with prefixes": lambda folder: tsv(folder, prefix="g:", suffix=".txt"),
    "rss": rss,
    "atom": atom,
    "xlsx": sheet_xlsx,
    "xls": sheet_xls,
    "ods": sheet_ods,
    "delta": delta,
    "lance": lance,
    "iceberg": iceberg,
    "json": json_document,
    "json with a key": lambda folder: json_document(folder, wrap=True),
    "jsonl of gzip members": json_lines_of_members,
    "jsonl of zstd frames": json_lines_of_frames,
    "parquet partitions": parquet_partitions,
    "csv folder": csv_folder,
}


def run(source: Path | str, out: Path, **fields: Any) -> ImportReport:
    return import_catalog(ImportConfig(source=str(source), output=str(out), **fields))


def products(out: Path) -> list[dict[str, Any]]:
    found = [{name: row[name] for name in EXPECTED[0]} for row in rows(out, "products")]
    return sorted(found, key=lambda row: row["product_id"])


@pytest.mark.long
@pytest.mark.parametrize("name", WRITERS)
def test_every_format_makes_the_same_products(tmp_path: Path, name: str) -> None:
    report = run(WRITERS[name](tmp_path), tmp_path / "out")
    assert report.quarantined == {}
    assert products(tmp_path / "out") == sorted(EXPECTED, key=lambda row: row["product_id"])


def test_every_format_with_ray(tmp_path: Path, local_ray: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shuffling, "SMALL_BYTES", 0)
    for name in ("delta", "lance", "iceberg", "rss", "xlsx", "json"):
        folder = tmp_path / name
        folder.mkdir()
        run(WRITERS[name](folder), folder / "out")
        assert products(folder / "out") == sorted(EXPECTED, key=lambda row: row["product_id"]), name


@pytest.mark.long
def test_a_name_in_a_catalogue_of_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    iceberg(tmp_path)
    monkeypatch.setenv("PYICEBERG_CATALOG__MINE__TYPE", "sql")
    monkeypatch.setenv("PYICEBERG_CATALOG__MINE__URI", f"sqlite:///{tmp_path}/catalog.db")
    monkeypatch.chdir(tmp_path)
    from pyiceberg.catalog import _ENV_CONFIG
    from pyiceberg.utils.config import Config

    monkeypatch.setattr(_ENV_CONFIG, "config", Config().config)
    with sqlite3.connect(tmp_path / "catalog.db") as database:
        database.execute("update iceberg_tables set catalog_name = 'mine'")
    database.close()
    assert run("mine.shop.products", tmp_path / "out", format="iceberg").products == len(PRODUCTS)
    with pytest.raises(CatalogError, match=r"mine\.shop\.nothing: no Iceberg table"):
        run("mine.shop.nothing", tmp_path / "other", format="iceberg")


@pytest.mark.long
@pytest.mark.parametrize("name", ["delta", "lance", "iceberg"])
def test_all_parts_read_the_version_that_was_there_first(tmp_path: Path, name: str) -> None:
    uri = WRITERS[name](tmp_path)
    source = Source(str(uri), name, ["id"])
    more = pa.table({column: ["new"] for column in COLUMNS})
    if name == "delta":
        from deltalake import write_deltalake

        write_deltalake(str(uri), more, mode="append")
    elif name == "lance":
        from lance import write_dataset

        write_dataset(more, str(uri), mode="append")
    else:
        from pyiceberg.catalog.sql import SqlCatalog

        catalog = SqlCatalog("x", uri=f"sqlite:///{tmp_path}/catalog.db", warehouse=f"file://{tmp_path}/warehouse")
        catalog.load_table("shop.products").append(more)
        catalog.engine.dispose()
    parts = source.parts()
    assert len(parts) > 1
    found = [row.fields["id"] for part in parts for row in Source(str(uri), name, ["id"], part=part)]
    assert sorted(found) == sorted(product["id"] for product in PRODUCTS)
    assert len(list(Source(str(uri), name, ["id"]))) == len(PRODUCTS) + 1


def book(path: Path, cells: dict[str, Any], name: str = "Products") -> Path:
    import openpyxl

    written = openpyxl.Workbook()
    first = written.active
    assert first is not None
    first["A1"] = "nothing"
    page = written.create_sheet(name)
    for at, value in cells.items():
        page[at] = value
    written.save(path)
    return path


@pytest.mark.long
def test_cells_of_a_sheet(tmp_path: Path) -> None:
    cells = {"B3": "ID", "C3": "Title", "D3": "Price", "E3": "Crawled at", "F3": "Photo", "B5": 123.0, "C5": "a",
             "D5": 1.299, "E5": datetime(2024, 5, 1, 10), "F5": "a.jpg", "B6": "007", "C6": 501, "D6": "=1/0",
             "F6": "b.jpg", "H6": "a note", "B7": 1.5, "F7": "c.jpg", "B8": "ID", "C8": "Title", "D8": "Price",
             "E8": "Crawled at", "F8": "Photo"}  # fmt: skip
    path = book(tmp_path / "shop.xlsx", cells)
    with pytest.raises(CatalogError, match=r"shop\.xlsx, row 1: no known column in \['nothing'\]"):
        run(path, tmp_path / "first")
    with pytest.raises(CatalogError, match="no sheet 'Prices' in it; its sheets are 'Sheet', 'Products'"):
        run(path, tmp_path / "other", sheet="Prices")
    report = run(path, tmp_path / "out", sheet="Products")
    first, second = rows(tmp_path / "out", "products")
    assert (first["product_id"], first["price"], first["crawled_at"].isoformat()) == (
        "123", 1.299, "2024-05-01T10:00:00+00:00",
    )  # fmt: skip
    assert (second["product_id"], second["title"], second["price"]) == ("007", "501", None)
    assert report.quarantined == {"bad_value": 1, "bad_row": 1}
    assert (report.records, report.blank) == (5, 1)
    assert "row 7: the product id is 1.5" in report.examples["bad_value"]


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [("xlsx", "python_calamine", "excel"), ("delta", "deltalake", "delta"), ("lance", "lance", "lance"),
     ("iceberg", "pyiceberg", "iceberg")],
)  # fmt: skip
def test_who_lacks_an_extra_is_told_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    module: str,
    extra: str,
) -> None:
    path = WRITERS[name](tmp_path)
    for known in [one for one in sys.modules if one.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, known)
    monkeypatch.setitem(sys.modules, module, None)
    assert main(["import", str(path), "--output", str(tmp_path / "out")]) == 2
    assert f"pip install 'atlas-ray[{extra}]' brings it" in capsys.readouterr().err


def test_only_a_workbook_has_sheets(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--sheet 'A'"):
        run(tsv(tmp_path), tmp_path / "out", sheet="A")


@pytest.mark.long
def test_a_workbook_that_asks_for_more_memory_than_there_is(tmp_path: Path) -> None:
    path = book(tmp_path / "far.xlsx", {"A1": "id", "XFD1048576": "x"})
    with pytest.raises(CatalogError, match=r"far\.xlsx: it cannot be read within 6 GiB of memory; save its sheet"):
        run(path, tmp_path / "out", sheet="Products")


@pytest.mark.long
def test_a_workbook_that_unpacks_without_end(tmp_path: Path) -> None:
    path = book(tmp_path / "bomb.xlsx", {"A1": "id"})
    with zipfile.ZipFile(path) as whole:
        parts = {name: whole.read(name) for name in whole.namelist()}
    row = b"<row><c t='inlineStr'><is><t>" + b"x" * 500 + b"</t></is></c></row>"
    parts["xl/worksheets/sheet2.xml"] = (
        b"<worksheet xmlns='http://schemas.openxmlformats.org/spreadsheetml/2006/main'><sheetData>" + row * 200_000
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb:
        for name, data in parts.items():
            bomb.writestr(name, data)
    assert path.stat().st_size < 1_000_000
    code = (
        "import atlas_ray.formats.workbooks as workbooks\nworkbooks.MEMORY_BYTES = 100 << 20\nworkbooks.OPEN_S = 60\n"
        f"workbooks._main({str(path)!r}, 'Products')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode  # an abort, a panic of the reader, or the alarm when its last words found no memory
    assert done.stdout == ""


def test_a_workbook_that_never_opens_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = book(tmp_path / "slow.xlsx", {"A1": "id"})
    (tmp_path / "python_calamine.py").write_text(
        "import sys, time\nsys.modules['__main__'].OPEN_S = 1\n"
        "class CalamineError(Exception): pass\nclass PasswordError(Exception): pass\n"
        "class CalamineWorkbook:\n    from_path = staticmethod(lambda path: time.sleep(60))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(sys.modules, "python_calamine", ModuleType("python_calamine"))
    monkeypatch.setattr(workbooks, "OPEN_S", 1)
    with pytest.raises(CatalogError, match=r"slow\.xlsx: opening it takes more than 1 s; save its sheet as a CSV"):
        list(workbooks.read_sheet(str(path)))


FEED = '<?xml version="1.0"?>{}<rss xmlns:x="http://base.google.com/ns/1.0"><channel>{}</channel></rss>'


def item(number: int, more: str = "") -> str:
    return f"<item><x:id>{number}</x:id><title>T {number}</title>{more}</item>"


@pytest.mark.parametrize(
    "damaged",
    [
        "<item><x:id>9</item>", "<item><x:id>R&D</x:id></item>", "<item><x:id>9</x:id>",
        "<item><x:id><![CDATA[9</x:id></item>", "<item><x:id><!-- 9</x:id></item>", "<item><x:id>&xxe;</x:id></item>",
        "<item><x:id>\x01</x:id></item>", "<item>" + "<a>" * 100 + "</a>" * 100 + "</item>",
    ],
)  # fmt: skip
def test_a_damaged_item_costs_itself(tmp_path: Path, damaged: str) -> None:
    path = tmp_path / "feed.xml"
    path.write_text(FEED.format("", item(1) + damaged + item(2) + item(3)))
    report = run(path, tmp_path / "out")
    assert (report.products, report.quarantined) == (3, {"bad_row": 1})
    assert "item 2: not XML" in report.examples["bad_row"]


def test_a_feed_that_breaks_off(tmp_path: Path) -> None:
    path = tmp_path / "feed.xml"
    path.write_text(FEED.format("", item(1) + item(2))[:-40])
    report = run(path, tmp_path / "out")
    assert (report.products, report.quarantined) == (1, {"bad_row": 1})


def test_no_entity_is_expanded_and_no_file_opened(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    kind = f'<!DOCTYPE r [<!ENTITY a "lol"><!ENTITY b "&a;&a;"><!ENTITY f SYSTEM "file://{tmp_path}/secret">]>'
    path = tmp_path / "feed.xml"
    path.write_text(FEED.format(kind, item(1, "<x:brand>&b;</x:brand>") + item(2, "<x:brand>&f;</x:brand>") + item(3)))
    report = run(path, tmp_path / "out")
    assert (report.products, report.quarantined) == (1, {"bad_row": 2})


def test_a_feed_has_categories_of_one_kind(tmp_path: Path) -> None:
    path = tmp_path / "feed.xml"
    google = "<x:google_product_category>1604</x:google_product_category>"
    items = [item(1, f"<x:product_type>A &gt; B</x:product_type>{google}"), item(2, google), item(3)]
    path.write_text(FEED.format("", "".join(items)))
    run(path, tmp_path / "out")
    assert [row["category_path"] for row in rows(tmp_path / "out", "products")] == [["A", "B"], None, None]


def test_our_own_table_is_read_again_with_all_paths(tmp_path: Path) -> None:
    source = tmp_path / "shop.jsonl"
    lines = [
        {"id": "a", "title": "A", "categories": [["X", "Y"], ["X", "Z"]]},
        {"id": "b", "title": "B", "category": "X > Y"},
    ]
    source.write_text("\n".join(map(json.dumps, lines)))
    run(source, tmp_path / "first")
    (part,) = (tmp_path / "first" / "products").glob("*.parquet")
    run(part, tmp_path / "again")
    wanted = {"a": (["X", "Y"], [["X", "Y"], ["X", "Z"]]), "b": (["X", "Y"], None)}
    for out in ("first", "again"):
        found = {
            row["product_id"]: (row["category_path"], row["category_paths"]) for row in rows(tmp_path / out, "products")
        }
        assert found == wanted


@pytest.mark.parametrize("kind", [pa.decimal128(38, 0), pa.decimal128(20, 2), pa.decimal256(50, 0)])
def test_ids_of_a_warehouse_are_decimals(tmp_path: Path, kind: pa.DataType) -> None:
    ids = pa.array([Decimal(1), Decimal(99999999999), None], kind)
    pq.write_table(pa.table({"id": ids, "title": ["a", "b", "c"]}), tmp_path / "shop.parquet")
    report = run(tmp_path / "shop.parquet", tmp_path / "out")
    assert [row["product_id"] for row in rows(tmp_path / "out", "products")] == ["1", "99999999999"]
    assert sum(report.quarantined.values()) == 1
    if kind.scale:
        ids = pa.array([Decimal(1), Decimal("2.50")], kind)
        pq.write_table(pa.table({"id": ids, "title": ["a", "b"]}), tmp_path / "parts.parquet")
        report = run(tmp_path / "parts.parquet", tmp_path / "parts")
        assert [row["product_id"] for row in rows(tmp_path / "parts", "products")] == ["1"]


def test_values_of_a_feed(tmp_path: Path) -> None:
    path = tmp_path / "feed.xml"
    more = (
        "<x:title>Caf\u00e9&nbsp;au lait</x:title><c:title>no</c:title><x:product_type>A &gt; B</x:product_type>"
        "<x:product_type>C</x:product_type><x:price>12.00 USD</x:price><x:sale_price>9 USD</x:sale_price>"
    )
    path.write_bytes(FEED.replace("?>", ' encoding="ISO-8859-1"?>', 1).format("", item(1, more)).encode("latin-1"))
    report = run(path, tmp_path / "out")
    (product,) = rows(tmp_path / "out", "products")
    assert (product["title"], product["price"], product["currency"]) == ("Caf\u00e9\u00a0au lait", 12.0, "USD")
    assert product["category_paths"] == [["A", "B"], ["C"]]
    assert report.encoding_assumed is False


def test_metadata_of_amazon(tmp_path: Path) -> None:
    path = tmp_path / "meta.json.gz"
    old = {"asin": "0001", "title": "A", "imUrl": "http://i.example/1.jpg", "price": 9.99,
           "categories": [["Books", "Art"], ["Books", "Maps"]]}  # fmt: skip
    new = {"asin": "0002", "title": "B", "imageURL": ["http://i.example/2s.jpg"], "price": "$1,299.00",
           "imageURLHighRes": ["http://i.example/2.jpg"], "category": ["Books", "Art"],
           "description": ["one", "two"]}  # fmt: skip
    sizes = {"thumb": "http://i.example/3t.jpg", "large": "http://i.example/3.jpg", "hi_res": None}
    newest = {"parent_asin": "0003", "title": "C", "price": None, "categories": [], "store": "S", "images": [sizes]}
    lines = [repr(old), json.dumps(new), json.dumps(newest), "{'asin': __import__('os')}"]
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    report = run(path, tmp_path / "out", format="amazon")
    first, second, third = rows(tmp_path / "out", "products")
    assert first["category_paths"] == [["Books", "Art"], ["Books", "Maps"]]
    assert (first["image_uris"], first["price"]) == (["http://i.example/1.jpg"], 9.99)
    assert (second["image_uris"], second["price"]) == (["http://i.example/2.jpg"], 1299.0)
    assert (second["category_path"], second["description"]) == (["Books", "Art"], "one\ntwo")
    assert (third["image_uris"], third["category_path"], third["store"]) == (["http://i.example/3.jpg"], None, "S")
    assert report.quarantined == {"bad_row": 1}


def test_columns_of_every_kind(tmp_path: Path) -> None:
    """Types that writers of Parquet use, which differ from file to file."""
    folder = tmp_path / "shop"
    (folder / "store=one").mkdir(parents=True)
    (folder / "store=two").mkdir()
    moments = [datetime(2024, 5, 1, 10, tzinfo=UTC)]
    one = {
        "id": pa.array([1.0]), "title": pa.array(["a"]).dictionary_encode(), "price": pa.array([Decimal("9.99")]),
        "crawled_at": pa.array(moments, pa.timestamp("ns", "UTC")), "brand": pa.nulls(1),
        "category": pa.array([[["A", "B"], ["C"]]]), "images": pa.array([["http://i.example/1.jpg"]]),
    }  # fmt: skip
    two = {
        "id": pa.array(["x2"], pa.large_string()), "title": pa.array(["b"], pa.large_string()),
        "price": pa.array(["12 EUR"]), "crawled_at": pa.array([moments[0].replace(tzinfo=None)], pa.timestamp("s")),
        "brand": pa.array(["B"]), "category": pa.array([["A", "B"]], pa.large_list(pa.large_string())),
        "images": pa.array([None], pa.list_(pa.string())),
    }  # fmt: skip
    pq.write_table(pa.table(one), folder / "store=one" / "a.parquet")
    pq.write_table(pa.table(two), folder / "store=two" / "b.parquet")
    report = run(folder, tmp_path / "out")
    assert report.quarantined == {}
    first, second = rows(tmp_path / "out", "products")
    assert [first[name] for name in ("product_id", "title", "price", "store", "brand")] == ["1", "a", 9.99, "one", None]
    assert [second[name] for name in ("product_id", "title", "price", "store", "brand")] == [
        "x2", "b", 12.0, "two", "B",
    ]  # fmt: skip
    assert first["crawled_at"] == second["crawled_at"] == moments[0]
    assert (first["category_paths"], second["category_path"]) == ([["A", "B"], ["C"]], ["A", "B"])


@pytest.mark.long
def test_a_file_that_unpacks_without_end_takes_little_memory(tmp_path: Path) -> None:
    line = json.dumps({"id": 1, "title": "a"}).encode() + b"\n"
    with gzip.open(tmp_path / "bomb.jsonl.gz", "wb", compresslevel=1) as stream:
        stream.write(line)
        for _ in range(100):
            stream.write(b" " * (1 << 20))
        stream.write(b"\n" + line.replace(b"1", b"2"))
    code = (
        "import resource, sys\nfrom atlas_ray.catalog.sources import Source\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"rows = list(Source({str(tmp_path / 'bomb.jsonl.gz')!r}, 'jsonl', []))\n"
        "print(sum(bool(row.fields) for row in rows), rows[1].error.code)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    said, grown = done.stdout.splitlines()
    assert said == "2 bad_row"
    assert int(grown) < 95 * 1024


SHOPIFY = next(
    csv.reader(
        [
            "Handle,Title,Body (HTML),Vendor,Product Category,Type,Tags,Published,Option1 Name,Option1 Value,"
            "Option2 Name,Option2 Value,Variant SKU,Variant Grams,Variant Inventory Tracker,Variant Inventory Qty,"
            "Variant Inventory Policy,Variant Fulfillment Service,Variant Price,Variant Compare At Price,"
            "Variant Requires Shipping,Variant Taxable,Variant Barcode,Image Src,Image Position,Image Alt Text,"
            "Gift Card,SEO Title,SEO Description,Google Shopping / Google Product Category,Google Shopping / Gender,"
            "Google Shopping / Age Group,Google Shopping / MPN,Google Shopping / Condition,"
            "Google Shopping / Custom Label 0,Variant Image,Variant Weight Unit,Variant Tax Code,Cost per item,Status"
        ]
    )
)
WOO = next(
    csv.reader(
        [
            "ID,Type,SKU,Name,Published,Is featured?,Visibility in catalog,Short description,Description,"
            "Date sale price starts,Date sale price ends,Tax status,Tax class,In stock?,Stock,Low stock amount,"
            "Backorders allowed?,Sold individually?,Weight (kg),Allow customer reviews?,Purchase note,Sale price,"
            "Regular price,Categories,Tags,Shipping class,Images,Download limit,Download expiry days,Parent,"
            "Grouped products,Upsells,Cross-sells,External URL,Button text,Position,Attribute 1 name,"
            "Attribute 1 value(s),Attribute 1 visible,Attribute 1 global,Meta: _wpcom_is_markdown"
        ]
    )
)


def export(path: Path, header: list[str], given: list[dict[str, str]]) -> Path:
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, header, restval="")
        writer.writeheader()
        writer.writerows(given)
    return path


def test_an_export_of_shopify(tmp_path: Path) -> None:
    image = "https://cdn.shopify.com/s/files/1/{}.jpg?v=1"
    shirt = {"Handle": "red-shirt", "Option1 Name": "Size", "Status": "active"}
    given = [
        shirt | {
            "Title": "Red shirt", "Body (HTML)": "<p>Soft</p>", "Vendor": "Acme", "Tags": "red, sale",
            "Product Category": "Apparel & Accessories > Clothing > Shirts", "Type": "Tops", "Option1 Value": "S",
            "Variant SKU": "RS-S", "Variant Price": "19.90", "Variant Compare At Price": "29.90",
            "Image Src": image.format("front"), "Image Position": "2",
        },
        {"Handle": "red-shirt", "Option1 Value": "M", "Variant SKU": "RS-M", "Variant Price": "21.90",
         "Image Src": image.format("back"), "Image Position": "1", "Variant Image": image.format("front")},
        {"Handle": "red-shirt", "Image Src": image.format("side"), "Image Position": "3"},
        {"Handle": "mug", "Title": "Mug", "Vendor": "Acme", "Product Category": "Home & Garden > Kitchen",
         "Variant Price": "5", "Image Src": image.format("mug"), "Image Position": "1", "Status": "draft",
         "Google Shopping / Google Product Category": "2169"},
    ]  # fmt: skip
    report = run(export(tmp_path / "products_export.csv", SHOPIFY, given), tmp_path / "out", keep=("Status",))
    mug, red = sorted(rows(tmp_path / "out", "products"), key=lambda row: row["product_id"])
    assert (report.records, report.products, report.joined, report.quarantined) == (4, 2, 2, {})
    assert (red["product_id"], red["title"], red["price"], red["brand"]) == ("red-shirt", "Red shirt", 19.9, "Acme")
    assert red["category_path"] == ["Apparel & Accessories", "Clothing", "Shirts"]
    assert red["image_uris"] == [image.format(name) for name in ("back", "front", "side")]
    assert (red["sku"], dict(red["attributes"])) == ("RS-S", {"Status": "active"})
    assert (mug["category_path"], mug["price"]) == (["Home & Garden", "Kitchen"], 5.0)


def test_the_kind_of_a_product_is_no_category(tmp_path: Path) -> None:
    given = [
        {"ID": str(number), "Type": kind, "Name": "A"} for number, kind in enumerate(("simple", "simple, virtual"))
    ]
    run(export(tmp_path / "wc-product-export.csv", WOO, given), tmp_path / "out")
    assert [row["category_path"] for row in rows(tmp_path / "out", "products")] == [None, None]


def test_an_export_of_woocommerce(tmp_path: Path) -> None:
    image = "https://shop.example/wp-content/uploads/{}.jpg"
    given = [
        {"ID": "44", "Type": "variable", "SKU": "hoodie", "Name": "Hoodie", "Description": "Warm",
         "Categories": "Clothing > Hoodies, Sale > Winter", "Images": f"{image.format('a')}, {image.format('b')}",
         "Attribute 1 name": "Colour", "Attribute 1 value(s)": "Red, Blue", "Meta: _wpcom_is_markdown": "1"},
        {"ID": "45", "Type": "variation", "SKU": "hoodie-red", "Name": "Hoodie - Red", "Parent": "hoodie",
         "Sale price": "39", "Regular price": "45", "Images": image.format("red")},
        {"ID": "46", "Type": "simple", "SKU": "cd", "Name": "CD", "Regular price": "9.50",
         "Categories": "Music\\, Film > CDs, Sale > Winter", "Images": image.format("cd")},
    ]  # fmt: skip
    report = run(export(tmp_path / "wc-product-export.csv", WOO, given), tmp_path / "out")
    hoodie, red, disc = rows(tmp_path / "out", "products")
    assert (report.products, report.quarantined) == (3, {})
    assert hoodie["category_paths"] == [["Clothing", "Hoodies"], ["Sale", "Winter"]]
    assert hoodie["image_uris"] == [image.format("a"), image.format("b")]
    assert (hoodie["product_id"], hoodie["sku"], hoodie["description"]) == ("44", "hoodie", "Warm")
    assert (red["product_id"], red["price"], red["category_path"]) == ("45", 39.0, None)
    assert (disc["price"], disc["category_paths"]) == (9.5, [["Music, Film", "CDs"], ["Sale", "Winter"]])
