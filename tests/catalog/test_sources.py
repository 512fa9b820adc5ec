import json
import math
import os
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from atlas_ray.catalog.importer import ImportConfig, ImportReport, import_catalog
from atlas_ray.catalog.parts import RawRow
from atlas_ray.catalog.sources import Source, guess_format
from atlas_ray.cli.main import main
from atlas_ray.errors import CatalogError
from atlas_ray.taxonomy import Taxonomy
from tests.catalog.test_import import rows

PRODUCTS = [{"id": "1", "title": "Café", "images": ["a.jpg"]}, {"id": "2", "title": "B", "images": ["b.jpg"]}]
LINES = [json.dumps(product, ensure_ascii=False) for product in PRODUCTS]
ATLAS = [{"filename": f"{name}.jpg", "title": name} for name in "12"]


def run(source: Path, **fields: Any) -> ImportReport:
    return import_catalog(ImportConfig(source=str(source), output=str(source.parent / "out"), **fields))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("\n".join(LINES), "jsonl"),
        ("\n\n".join(LINES) + "\n", "jsonl"),
        (LINES[0], "jsonl"),
        ("{damaged\n" + "\n".join(LINES) + "\n{", "jsonl"),
        (json.dumps(PRODUCTS), "json"),
        (json.dumps(PRODUCTS, indent=1, ensure_ascii=False), "json"),
        (f"[{LINES[0]},\n{LINES[1]}\n]", "json"),
        (json.dumps({"count": 2, "tags": ["x"], "products": PRODUCTS}), "json"),
        (json.dumps({"items": PRODUCTS}, indent=2), "json"),
        (json.dumps({"images": ATLAS}), "atlas-json"),
        (json.dumps({"images": ATLAS}, indent=1), "atlas-json"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_a_json_file_is_told_by_its_content(tmp_path: Path, text: str, kind: str, encoding: str) -> None:
    file = tmp_path / "shop.json"
    file.write_bytes(text.encode(encoding))
    assert guess_format(str(file)) == kind
    found = [row.fields for row in Source(str(file), "auto", ["id"]) if row.fields]
    if kind == "atlas-json":
        assert [row["product_id"] for row in found] == ["1", "2"]
    else:
        assert found == PRODUCTS[: len(found)]
        assert found


@pytest.mark.parametrize(
    ("entry", "product_id", "pictures", "error"),
    [
        ({"filename": "x/7.jpg"}, "7", ["x/7.jpg"], None),
        ({"filename": "x/7"}, "7", ["x/7"], None),
        ({"filename": "7.jpg", "product_id": 0}, 0, ["7.jpg"], None),
        ({"filename": None, "image_uri": "7.jpg"}, "7", ["7.jpg"], None),
        ({"filename": 7}, None, [7], None),
        ({"title": "x"}, None, [], None),
        ({"filename": "7.jpg", "sentences": [{"tokens": "Women"}]}, "7", ["7.jpg"], "no list of tokens"),
        ({"filename": "7.jpg", "sentences": [3]}, "7", ["7.jpg"], "no list of tokens"),
        ([1], None, None, "a list; expected an object"),
    ],
)
def test_an_atlas_picture(tmp_path: Path, entry: Any, product_id: Any, pictures: Any, error: str | None) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"images": [entry]}))
    (row,) = Source(str(tmp_path / "a.json"), "atlas-json", [])
    assert (row.fields.get("product_id"), row.fields.get("image_uris")) == (product_id, pictures)
    assert (error in row.error.message) if error and row.error else (row.error is None and error is None)


def folder(root: Path, *names: str | bytes) -> None:
    for name in names:
        path = os.path.join(os.fsencode(root), os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as stream:
            stream.write(b"x")


def read(root: Path) -> list[RawRow]:
    return list(Source(str(root), "folder", []))


def test_files_of_one_name_are_as_many_products(tmp_path: Path) -> None:
    folder(
        tmp_path,
        "A/0.jpg",
        "A/0.png",
        "A/0.png.jpg",
        "A/1.jpg",
        "B/0.jpg",
        "A/0/0.jpg",
        "A/0-1.jpg",
        "A/2.a.jpg",
        "A/2.b.jpg",
    )
    assert {str(row.place): row.fields["product_id"] for row in read(tmp_path)} == {
        "A/0.jpg": "A/0", "A/0.png": "A/0.png", "A/0.png.jpg": "A/0.png.jpg", "A/1.jpg": "A/1", "B/0.jpg": "B/0",
        "A/0/0.jpg": "A/0/0", "A/0-1.jpg": "A/0-1", "A/2.a.jpg": "A/2.a", "A/2.b.jpg": "A/2.b",
    }  # fmt: skip


@pytest.mark.parametrize(
    "hidden",
    [
        ".ipynb_checkpoints/a.jpg",
        "__MACOSX/A/._a.jpg",
        ".git/a.jpg",
        "A/@eaDir/a.jpg",
        "A/.DS_Store",
        "A/.thumb/b/c.png",
    ],
)
def test_hidden_folders_are_no_categories(tmp_path: Path, hidden: str) -> None:
    folder(tmp_path, "A/a.jpg", hidden)
    assert [str(row.place) for row in read(tmp_path)] == ["A/a.jpg"]


@pytest.mark.parametrize("ending", ["jfif", "JFIF", "jpe", "JPG", "avif"])
def test_endings_of_pictures(tmp_path: Path, ending: str) -> None:
    folder(tmp_path, f"A/a.{ending}")
    assert [row.fields["product_id"] for row in read(tmp_path)] == ["A/a"]


def test_names_that_are_not_text(tmp_path: Path) -> None:
    folder(tmp_path / "tree", "A/good.jpg", b"A/bad\xff.jpg", b"caf\xe9/b.jpg", "A/new\nline.jpg", b"A/\xc3.txt")
    report = run(tmp_path / "tree")
    assert (report.records, report.products) == (5, 1)
    assert report.quarantined == {"bad_encoding": 3, "bad_value": 1}
    messages = [row["message"] for row in rows(tmp_path / "out", "quarantine")]
    assert any("tree, A/bad\\udcff.jpg: its name is not UTF-8; rename it" in message for message in messages)


def test_links(tmp_path: Path) -> None:
    folder(tmp_path, "tree/A/a.jpg", "other/b.jpg")
    (tmp_path / "tree" / "B").symlink_to(tmp_path / "other")
    (tmp_path / "tree" / "A" / "gone.jpg").symlink_to(tmp_path / "nothing")
    (tmp_path / "tree" / "A" / "up").symlink_to(tmp_path / "tree")
    found = {str(row.place): row.error and row.error.code for row in read(tmp_path / "tree")}
    assert found == {"A/a.jpg": None, "B/b.jpg": None, "A/gone.jpg": "not_found"}


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_folder_from_another_system_has_the_same_categories(tmp_path: Path, form: str) -> None:
    names = [unicodedata.normalize(form, name) for name in ("Café/Größe/é.jpg", "Café/Größe/b.jpg")]  # type: ignore[arg-type]
    folder(tmp_path / "tree", *names)
    report = run(tmp_path / "tree", taxonomy=Taxonomy([("Café", "Größe")], name="t"))
    assert report.quarantined == {}
    products = rows(tmp_path / "out", "products")
    assert [row["category_path"] for row in products] == [["Café", "Größe"]] * 2
    assert {row["product_id"] for row in products} == {"Café/Größe/é", "Café/Größe/b"}
    assert all(os.path.exists(row["image_uri"]) for row in rows(tmp_path / "out", "images"))


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ('"title": NaN', None), ('"title": null', None), ('"title": {"en": "x"}', None), ('"title": 501', None),
        ('"id": NaN', "missing_product_id"), ('"id": null', "missing_product_id"), ('"id": 123.0', "bad_value"),
        ('"id": true', "bad_value"), ('"id": {"$oid": "x"}', "bad_value"), ('"id": ["a"]', "bad_value"),
        ('"category": ["W", null]', "bad_value"), ('"category": ["W", NaN]', "bad_value"),
        ('"category": ["W", {"name": "x"}]', "bad_value"), ('"category": [["W"], 3]', "bad_value"),
        ('"category": true', "bad_category_path"), ('"category": NaN', None), ('"category": ["", "W"]', None),
    ],
)  # fmt: skip
def test_nothing_is_read_by_its_looks(tmp_path: Path, value: str, code: str | None) -> None:
    first = {"id": 7, "title": "T", "image": "a.jpg"} | json.loads(f"{{{value}}}")
    (tmp_path / "a.jsonl").write_text(f'{json.dumps(first)}\n{{"id": "8", "image": "b.jpg"}}\n')
    report = run(tmp_path / "a.jsonl")
    products = {row["product_id"]: row for row in rows(tmp_path / "out", "products")}
    if code:
        assert report.quarantined == {code: 1}
        assert products.keys() == {"8"}
    else:
        assert products.keys() == {"7", "8"}
        assert products["7"]["title"] in {"T", "501", None}
        assert products["7"]["category_path"] == (["W"] if "W" in value else None)


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "utf-16", "utf-8-sig"])
def test_the_encoding_is_told_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str], encoding: str) -> None:
    text = "id;title;image;category\n" + "".join(f"{n};Größe {n};{n}.jpg;Kindermöbel > Stühle\n" for n in range(5))
    (tmp_path / "shop.csv").write_bytes(text.encode(encoding))
    assert main(["import", str(tmp_path / "shop.csv"), "--output", str(tmp_path / "out")]) == 0
    assumed = encoding in ("cp1252", "latin-1")
    assert ("read as Windows-1252, which is a guess; --encoding says another" in capsys.readouterr().out) == assumed
    document = json.loads((tmp_path / "out" / "run.json").read_text())
    assert document["encoding_assumed"] == assumed
    assert document["encoding"] == {"utf-16": "UTF-16-LE", "utf-8-sig": "UTF-8"}.get(encoding, "Windows-1252")
    assert rows(tmp_path / "out", "products")[4]["title"] == "Größe 4"
    assert rows(tmp_path / "out", "products")[4]["category_path"] == ["Kindermöbel", "Stühle"]


def test_an_encoding_that_is_named(tmp_path: Path) -> None:
    (tmp_path / "shop.csv").write_bytes("id,title,image\n1,Señor,a.jpg\n".encode("mac-roman"))
    report = run(tmp_path / "shop.csv", encoding="mac-roman")
    assert (report.encoding, report.encoding_assumed) == ("MAC-ROMAN", False)
    assert rows(tmp_path / "out", "products")[0]["title"] == "Señor"


def test_a_store_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "shop.csv").write_text("id,image\n1,a.jpg\n")
    run(tmp_path / "shop.csv", store="Cafe\u0301 \udcff")
    assert rows(tmp_path / "out", "products")[0]["store"] == "Caf\u00e9 \ufffd"
    assert json.loads((tmp_path / "out" / "run.json").read_text())["config"]["store"] == "Cafe\u0301 \udcff"


@pytest.mark.parametrize("wrap", ["%s", '{"products": %s}', '{"images": %s}'])
def test_numbers_that_are_none_cost_their_own_field_alone(tmp_path: Path, wrap: str) -> None:
    entries = [{"product_id": n, "filename": f"{n}.jpg", "price": n, "title": "t"} for n in range(3)]
    entries[0]["price"], entries[1]["title"], entries[2]["product_id"] = math.nan, math.nan, 2**70
    path = tmp_path / "a.json"
    path.write_text(wrap % json.dumps(entries))
    report = run(path)
    assert (report.products, report.quarantined.total(), report.records) == (3, 0, 3)
    products = rows(tmp_path / "out", "products")
    assert [row["product_id"] for row in products] == ["0", "1", str(2**70)]
    assert [row["price"] for row in products] == [None, 1.0, 2.0]
    assert [row["title"] for row in products] == ["t", None, "t"]


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("id;title;image\n1;Красная рубашка;a.jpg\n2;Синяя юбка;b.jpg\n", "cp1251"),
        ("id;title;image\n1;Моя шляпа;a.jpg\n", "cp1251"),
        ("id;title;image\n1;Żółta sukienka;a.jpg\n", "cp1250"),
    ],
)
def test_letters_that_are_damage_in_other_encodings(tmp_path: Path, text: str, encoding: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(text.encode(encoding))
    report = run(path)
    assert report.encoding_assumed
    titles = [line.split(";")[1] for line in text.splitlines()[1:]]
    assert [row["title"] for row in rows(tmp_path / "out", "products")] == titles


def test_a_header_of_other_words_says_how_to_name_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("Artikelnummer;Bild\n007;a.jpg\n")
    with pytest.raises(CatalogError, match="--map product_id=COLUMN"):
        run(path)
    assert run(path, columns={"product_id": "Artikelnummer", "image_uris": "Bild"}).products == 1


def test_cells_between_bars(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id|title|image|category\n1|A, B|a.jpg|X > Y\n")
    assert run(path).products == 1
    (product,) = rows(tmp_path / "out", "products")
    assert (product["title"], product["category_path"]) == ("A, B", ["X", "Y"])


def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "rows.csv")
    with pytest.raises(CatalogError, match="a pipe or a device, which cannot be read twice; write it to a file first"):
        Source(str(tmp_path / "rows.csv"), "auto", ["product_id"])


def test_a_key_with_two_values_costs_its_line(tmp_path: Path) -> None:
    lines = ['{"id": 1, "image": "a.jpg", "id": 2}', '{"id": 3, "image": "a.jpg"}', '{"image": "a.jpg", "image": "b"}}']
    (tmp_path / "shop.jsonl").write_text("\n".join(lines))
    report = run(tmp_path / "shop.jsonl")
    assert (report.products, report.quarantined) == (1, {"bad_row": 2})
    assert "line 1: the key 'id' has two values" in report.examples["bad_row"]
