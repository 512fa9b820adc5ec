import csv
import gzip
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atlas_ray.catalog.importer import ImportConfig, ImportReport, import_catalog
from atlas_ray.catalog.rows import Unread
from atlas_ray.catalog.split import StratifiedSplit, parse_shares
from atlas_ray.cli.main import main
from atlas_ray.errors import CatalogError, ConfigError, OutputError
from atlas_ray.io import storage
from atlas_ray.reports.terminal import print_import
from atlas_ray.schemas import IMAGES, PRODUCTS, QUARANTINE, image_ids
from atlas_ray.taxonomy import Taxonomy, read_taxonomy


def run(source: Path | str, output: Path, **fields: Any) -> ImportReport:
    return import_catalog(ImportConfig(source=str(source), output=str(output), **fields))


def rows(output: Path, table: str) -> list[dict[str, Any]]:
    return list(pq.read_table(output / table).to_pylist())


def test_a_drawn_catalogue(catalog: str) -> None:
    root = Path(catalog)
    products, images = pq.read_table(root / "products"), pq.read_table(root / "images")
    assert products.schema.equals(PRODUCTS)
    assert images.schema.equals(IMAGES)
    assert len(products) == len(images) == 117
    assert (
        images["image_id"].to_numpy().tolist()
        == image_ids(images["product_id"].to_pylist(), images["image_uri"].to_pylist()).tolist()
    )
    labelled = [row for row in products.to_pylist() if row["category_path"]]
    assert Counter(row["split"] for row in labelled).keys() == {"train", "val", "test"}
    assert all(row["split"] is None for row in products.to_pylist() if not row["category_path"])
    (bad,) = rows(root, "quarantine")
    assert pq.read_schema(next((root / "quarantine").iterdir())).equals(QUARANTINE)
    assert bad["error_code"] == "missing_images"
    assert "products.jsonl, line 118: " in bad["message"]
    assert len(read_taxonomy(str(root / "taxonomy.json")).leaves) == 8
    assert json.loads((root / "run.json").read_text())["counts"]["products"] == 117


@pytest.mark.long
def test_the_atlas_layout(test_data: Path, tmp_path: Path) -> None:
    report = run(test_data / "myntra" / "catalog.json", tmp_path / "out")
    assert report.products == report.images == 7692
    assert report.splits == {"train": 5418, "val": 744, "test": 1530}
    assert report.taxonomy is not None
    assert len(report.taxonomy.leaves) == 158
    assert not report.quarantined
    assert report.few[0][1] == 1
    first = rows(tmp_path / "out", "products")[0]
    assert first["product_id"] == "10001"
    assert first["category_path"] == ["Women", "Apparel", "Bottomwear", "Skirts"]
    assert first["image_uris"] == [str(test_data / "myntra" / "images" / "10001.jpg")]


CSV = """sku,name,cost,photo,where,kind
1,One,"1,299.50",a.jpg|b.jpg,s,A > B
2,Two,,s3://bucket/c.jpg,s,A > C
2,Again,5,d.jpg,s,A > B
,No id,5,d.jpg,s,A > B
3,No photo,5,,s,A > B
4,Bad price,cheap,e.jpg,s,A > B
5,Out,5,../../etc/passwd,s,A > B
6,Elsewhere,5,/etc/passwd,s,A > B
7,Scheme,5,file:///etc/passwd,s,A > B
8,Empty name,5,f.jpg,s,A > > B
9,Unlabelled,5,g.jpg,s,
10,short,5
11,"quoted
line",5,h.jpg,s,A > B
"""
COLUMNS = {"product_id": "sku", "title": "name", "price": "cost", "image_uris": "photo", "category_path": "kind"}


def test_a_csv_with_a_column_map(tmp_path: Path) -> None:
    (tmp_path / "shop.csv").write_text(CSV)
    report = run(tmp_path / "shop.csv", tmp_path / "out", columns=COLUMNS, store="mine")
    products = {row["product_id"]: row for row in rows(tmp_path / "out", "products")}
    assert products.keys() == {"1", "2", "3", "4", "9", "11"}
    assert (products["3"]["image_uris"], report.without_picture) == ([], 1)
    assert products["4"]["price"] is None
    assert report.unread["price"] == Unread(1, "'cheap', text (line 7)")
    assert products["1"]["price"] == 1299.5
    assert products["1"]["image_uris"] == [str(tmp_path / "a.jpg"), str(tmp_path / "b.jpg")]
    assert products["2"]["image_uris"] == ["s3://bucket/c.jpg"]
    assert products["9"]["category_path"] is None
    assert products["11"]["title"] == "quoted\nline"
    assert {row["store"] for row in products.values()} == {"mine"}
    lines = {
        row["message"].partition(": ")[0].rpartition(" ")[2]: row["error_code"]
        for row in rows(tmp_path / "out", "quarantine")
    }
    assert lines == {
        "4": "contradicting_rows", "5": "missing_product_id", "8": "bad_image_uri", "9": "bad_image_uri",
        "10": "bad_image_uri", "11": "bad_category_path", "13": "bad_row",
    }  # fmt: skip
    assert report.quarantined.total() == 7


@pytest.mark.parametrize("separator", [";", "\t", ","])
@pytest.mark.parametrize("begin", ["", "\ufeff", "sep=@\n", "\ufeffsep=,\r\n"])
def test_a_csv_of_another_country(tmp_path: Path, begin: str, separator: str) -> None:
    lines = [
        ["sku", "name, long", "price", "image", "category", "", ""],
        ["1", "One", "1.299,50", "a.jpg", "A > B", "", ""],
        ["2", "Two; 2", "1\u202f299,5", "b.jpg", "A > C", "unnamed"],
        ["5", "Five; 5", "1\u202f299,5", "b.jpg", "A > C"],
        ["", "", "", "", "", "", "", ""],
        ["3", "short", "5"],
        ["4", "Four", "1,299", "c.jpg", "A > B", "", "", ""],
    ]
    with (tmp_path / "shop.csv").open("w", newline="", encoding="utf-8") as stream:
        stream.write(begin.replace("@", separator))
        csv.writer(stream, delimiter=separator).writerows(lines)
    report = run(tmp_path / "shop.csv", tmp_path / "out", columns={"title": "name, long"})
    products = rows(tmp_path / "out", "products")
    assert [(row["product_id"], row["title"], row["price"]) for row in products] == [
        ("1", "One", 1299.5), ("5", "Five; 5", 1299.5), ("4", "Four", 1299.0)
    ]  # fmt: skip
    assert report.quarantined == {"bad_row": 2}  # one is cut off, one has a cell too many


def test_a_header_that_breaks_lines(tmp_path: Path) -> None:
    (tmp_path / "shop.csv").write_text('"Item\nname",sku,image\na,1,1.jpg\n')
    run(tmp_path / "shop.csv", tmp_path / "out")
    assert [row["product_id"] for row in rows(tmp_path / "out", "products")] == ["1"]


def test_lines_are_counted_past_broken_ones(tmp_path: Path) -> None:
    text = b'id,image\n1,a.jpg\n\xff,b.jpg\n2,"b\n.jpg"\n\xff\n3\n4\n'
    (tmp_path / "shop.csv").write_bytes(text)
    run(tmp_path / "shop.csv", tmp_path / "out")
    places = [
        row["message"].partition("shop.csv, ")[2].partition(":")[0] for row in rows(tmp_path / "out", "quarantine")
    ]
    assert places == ["line 3", "line 6", "line 7", "line 8"]


def test_jsonl_with_broken_lines(tmp_path: Path) -> None:
    lines = [
        b'{"id": "1", "image": "a.jpg", "category_path": ["A", "B"], "split": "validation"}',
        b"{not json", b"[1, 2]", b"\xff\xfe", b"", b'{"id": "2", "images": ["b.jpg", "b.jpg", "c.jpg"]}',
        b'{"id": "5", "image": "a.jpg", "category": "Shoes \\ud83d"}', b'{"id": "6", "image": "a\\ud83d.jpg"}',
        b'{"id": "3", "image": 7}', b'{"id": "4", "image": "d.jpg", "split": "middle"}',
        b"[" * 100_000,
    ]  # fmt: skip
    (tmp_path / "shop.jsonl").write_bytes(b"\n".join(lines))
    report = run(tmp_path / "shop.jsonl", tmp_path / "out")
    assert (report.products, report.images) == (3, 4)
    assert report.splits == {"val": 1}
    assert report.quarantined == {"bad_row": 3, "bad_encoding": 3, "bad_image_uri": 1}
    assert report.unread == {"split": Unread(1, "'middle', text (line 10)")}


def test_category_folders_local_and_in_s3(tmp_path: Path, s3: str) -> None:
    names = ["Men/Shirts/1.jpg", "Men/Shirts/2.PNG", "Women/Sarees/3.webp", "Women/notes.txt", "Women/Sarees/zero.jpg"]
    client = boto3.client("s3")
    for name in names:
        body = b"" if "zero" in name else b"x"
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).write_bytes(body)
        client.put_object(Bucket="shop", Key=f"folders/tree/{name}", Body=body)
    (tmp_path / "tree" / ".DS_Store").write_bytes(b"x")
    found = []
    for source, output in ((tmp_path / "tree", tmp_path / "out"), (f"{s3}/folders/tree", tmp_path / "out-s3")):
        report = run(source, output)
        assert report.quarantined == {"not_a_picture": 1, "empty": 1}
        found.append([(row["product_id"], row["category_path"]) for row in rows(output, "products")])
        assert rows(output, "images")[0]["image_uri"] == f"{source}/Men/Shirts/1.jpg"
    assert sorted(found[0]) == sorted(found[1])
    assert ("Men/Shirts/1", ["Men", "Shirts"]) in found[0]


def test_the_output_may_be_in_s3(shop: str, s3: str) -> None:
    report = import_catalog(
        ImportConfig(source=shop, output=f"{s3}/imported", columns={"product_id": "id", "image_uris": "image"})
    )
    assert report.products == 117
    (file,) = storage.files(f"{s3}/imported/images")
    assert re.fullmatch(r"s3://shop/imported/images/part-00000-[0-9a-f]{16}\.parquet", file)


def test_labels_outside_a_taxonomy(tmp_path: Path) -> None:
    (tmp_path / "shop.csv").write_text("id,image,category\n1,a.jpg,A > B\n2,b.jpg,A\n3,c.jpg,Z\n")
    report = run(tmp_path / "shop.csv", tmp_path / "out", taxonomy=Taxonomy([("A", "B")], name="t"))
    assert report.quarantined == {"unknown_category": 1}
    assert (report.labelled, report.not_leaves) == (2, [(("A",), 1)])
    assert {row["product_id"]: row["category_path"] for row in rows(tmp_path / "out", "products")}["2"] == ["A"]
    free = run(tmp_path / "shop.csv", tmp_path / "free")
    assert free.not_leaves == [(("A",), 1)]  # a label above another label


@pytest.mark.long
def test_the_catalogue_of_labels_above_the_leaf_is_one_like_any_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = [["A > B", "A > C", "A", "D"][number % 4] for number in range(40)]
    lines = [f"{number},t{number},{number}.jpg,{label}" for number, label in enumerate(labels)]
    (tmp_path / "shop.csv").write_text("\n".join(["id,title,image,category", *lines]))
    taxonomy = Taxonomy([("A", "B"), ("A", "C"), ("D", "E")], name="t")
    (tmp_path / "taxonomy.json").write_text(taxonomy.to_json())
    catalog = str(tmp_path / "catalog")
    command = ["import", str(tmp_path / "shop.csv"), "--output", catalog, "--taxonomy", str(tmp_path / "taxonomy.json")]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "40 products, 40 pictures; 40 labelled" in shown
    assert "2 labels above the leaves of the taxonomy, which say less than a leaf:\n  A: 10\n  D: 10\n" in shown
    account = json.loads((tmp_path / "catalog" / "run.json").read_text())
    assert (account["counts"]["labelled"], account["not_leaves"]) == (40, {"A": 10, "D": 10})
    assert {row["split"] for row in rows(Path(catalog), "products") if len(row["category_path"]) == 1} > {"train"}
    assert main(["sample", "--catalog", catalog, "--count", "8", "--output", str(tmp_path / "sample")]) == 0
    assert sorted(row["category_path"] for row in rows(tmp_path / "sample", "products")) == sorted(
        [["A", "B"], ["A", "C"], ["A"], ["D"]] * 2
    )
    assert main(["catalog", "stats", "--catalog", catalog, "--output", str(tmp_path / "stats.html")]) == 0
    (tmp_path / "list.csv").write_text("product_id\n2\n3\n")
    command = ["select", "--catalog", catalog, "--products", str(tmp_path / "list.csv"), "--output"]
    assert main([*command, str(tmp_path / "selected")]) == 0
    assert [row["category_path"] for row in rows(tmp_path / "selected", "products")] == [["A"], ["D"]]
    (tmp_path / "corrections.csv").write_text("product_id,corrected_category_path\n2,A > C\n")
    command = ["relabel", "--catalog", catalog, "--corrections", str(tmp_path / "corrections.csv"), "--output"]
    assert main([*command, str(tmp_path / "relabelled")]) == 0
    found = {row["product_id"]: row["category_path"] for row in rows(tmp_path / "relabelled", "products")}
    assert (found["2"], found["3"], found["6"]) == (["A", "C"], ["D"], ["A"])


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.csv", "", "an empty file"),
        ("a.csv", "id,id\n1,2\n", "a column stands twice"),
        ("a.csv", "\nnumber;size\n1;a.jpg\n", r"a\.csv, line 2: no known column in \['number', 'size'\]; expected"),
        ("a.csv", "id,image\n,\n,x.jpg\n", "not one row could be used"),
        ("a.json", "{}", "no list of products in it; expected"),
        ("a.json", '{"images": [{"filename": "a.jpg"}, ', "after image 1: not JSON"),
        ("a.bin", "x", "cannot tell its format"),
    ],
)
def test_a_source_of_another_kind_is_refused(tmp_path: Path, name: str, text: str, reason: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(CatalogError, match=reason):
        run(tmp_path / name, tmp_path / "out")


def test_mistakes_in_the_settings(tmp_path: Path, catalog: str, shop: str) -> None:
    with pytest.raises(CatalogError, match="no such file or folder"):
        run(tmp_path / "nothing", tmp_path / "out")
    with pytest.raises(ConfigError, match="'colour' is not a field of a product"):
        run(shop, tmp_path / "out", columns={"colour": "c"})
    with pytest.raises(ConfigError, match="split '70/30'"):
        run(shop, tmp_path / "out", split="70/30")
    with pytest.raises(OutputError, match="already holds a catalogue"):
        run(shop, Path(catalog))


@pytest.mark.parametrize("count", [1, 7, 40, 1000])
def test_the_exact_split_is_stratified_and_seeded(count: int) -> None:
    shares = parse_shares("65/5/30")
    for path in ("A\x1fB", "A\x1fC", "D"):
        one, again, other = (StratifiedSplit(shares, seed) for seed in (1, 1, 2))
        assigned = one.assign(["any"] * count, [path] * count)
        assert assigned == [side for _ in range(count) for side in again.assign(["any"], [path])]
        got = Counter(assigned)
        assert assigned[0] == "train"
        for name, share in zip(("train", "val", "test"), shares, strict=True):
            assert abs(got[name] - share * count) <= 3
        if count > 30:
            assert assigned != other.assign(["any"] * count, [path] * count)


@pytest.mark.long
def test_memory_does_not_grow_with_the_catalogue(tmp_path: Path) -> None:
    """Ten times the rows, about the same peak memory, each measured in a process of its own."""
    peaks = []
    for count in (100_000, 400_000):
        source = tmp_path / f"{count}.csv"
        with source.open("w") as stream:
            stream.write("id,title,image,category\n")
            for number in range(count):
                stream.write(f"{number},A title of some words {number},{number}.jpg,A > B{number % 50}\n")
        code = (
            "import resource, sys\n"
            "from atlas_ray.catalog.importer import ImportConfig, import_catalog\n"
            f"import_catalog(ImportConfig(source={str(source)!r}, output={str(tmp_path / f'out{count}')!r}))\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout))
    assert peaks[1] - peaks[0] < 80 * 1024  # KiB


def categories(tmp_path: Path, *cells: str, **fields: Any) -> tuple[ImportReport, list[list[str] | None], list[str]]:
    """Import category cells; return the labels, and the messages of what is in quarantine."""
    source = tmp_path / "shop.csv"
    with source.open("w", newline="") as stream:
        csv.writer(stream).writerows(
            [["id", "image", "category"], *([n, "a.jpg", cell] for n, cell in enumerate(cells))]
        )
    report = run(source, tmp_path / "out", **fields)
    refused = rows(tmp_path / "out", "quarantine") if report.quarantined else []
    return report, [row["category_path"] for row in rows(tmp_path / "out", "products")], [
        f"{row['error_code']}: {row['message']}" for row in refused
    ]  # fmt: skip


SEVERAL = ("Clothing, Clothing > Tshirts", "Clothing > Accessories, Sale", "Sale")


def test_several_categories_in_a_cell_are_not_one_name(tmp_path: Path) -> None:
    report, paths, refused = categories(tmp_path, *SEVERAL)
    assert (paths, refused) == ([["Clothing", "Tshirts"], ["Clothing", "Accessories"], ["Sale"]], [])
    several = [row["category_paths"] for row in rows(tmp_path / "out", "products")]
    assert several == [None, [["Clothing", "Accessories"], ["Sale"]], None]
    assert any("',' between them" in sentence and "--category-separator" in sentence for sentence in report.assumed)


def test_a_name_that_may_be_several_categories_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report, paths, refused = categories(tmp_path, "Clothing > Accessories, Sale", "Clothing > Belts")
    assert (paths, refused) == ([["Clothing", "Accessories, Sale"], ["Clothing", "Belts"]], [])
    assert report.unsure_paths == Unread(1, "'Clothing > Accessories, Sale' (line 2)")
    print_import(report)
    assert "--category-separator" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "run.json").read_text())["unsure_paths"]["count"] == 1


@pytest.mark.parametrize(
    ("separator", "label"),
    [
        ("none", ["Clothing", "Accessories, Sale"]),
        (",", ["Clothing", "Accessories"]),
        ("|", ["Clothing", "Accessories, Sale"]),
    ],
)
def test_what_stands_between_categories_is_named(tmp_path: Path, separator: str, label: list[str]) -> None:
    report, paths, refused = categories(tmp_path, SEVERAL[1], "Shoes", category_separator=separator)
    assert [*paths, len(refused)] == [label, ["Shoes"], 0]
    assert report.unsure_paths is None
    assert not any("--category-separator" in sentence for sentence in report.assumed)


def test_a_taxonomy_tells_which_of_several_categories_counts(tmp_path: Path) -> None:
    taxonomy = Taxonomy([("Clothing", "Accessories"), ("Clothing", "Tops, Tees"), ("Sale", "Summer")], name="target")
    cells = (
        "Clothing > Accessories, New", "Clothing > Tops, Tees", "Clothing > Accessories, Sale > Summer", "New",
        "Clothing, Sale > Summer", "Clothing, Sale",  # a leaf says more than a node above it
    )  # fmt: skip
    report, paths, refused = categories(tmp_path, *cells, taxonomy=taxonomy)
    assert paths == [
        ["Clothing", "Accessories"], ["Clothing", "Tops, Tees"], ["Clothing", "Accessories"], ["Sale", "Summer"],
        ["Clothing"],
    ]  # fmt: skip
    several = [row["category_paths"] for row in rows(tmp_path / "out", "products")]
    assert several == [None, None, [["Clothing", "Accessories"], ["Sale", "Summer"]], None, [["Clothing"], ["Sale"]]]
    assert report.unread["category_path"] == Unread(2, "'New', text (line 2)")
    assert [message.partition(":")[0] for message in refused] == ["unknown_category"]


def test_an_atlas_picture_keeps_its_address(tmp_path: Path) -> None:
    url = "https://shop.example/1.jpg"
    images = [{"filename": "1.jpg", "title": "T", "image_url": url}, {"image_url": url, "title": "T", "product_id": 2}]
    (tmp_path / "catalog.json").write_text(json.dumps({"images": images}))
    run(tmp_path / "catalog.json", tmp_path / "out")
    first, second = rows(tmp_path / "out", "products")
    assert first["image_uris"] == [str(tmp_path / "1.jpg")]
    assert second["image_uris"] == [url]
    assert [row["attributes"] for row in (first, second)] == [[("image_url", url)]] * 2


def test_further_columns_are_kept_on_request(tmp_path: Path) -> None:
    (tmp_path / "shop.csv").write_text("id,title,Colour ,material,image\n1,T,red,,1.jpg\n2,T,,,2.jpg\n")
    run(tmp_path / "shop.csv", tmp_path / "out", keep=("colour", "material"))
    assert [row["attributes"] for row in rows(tmp_path / "out", "products")] == [[("colour", "red")], None]
    with pytest.raises(ConfigError, match=r"--keep size: no column 'size' in .*shop.csv; it has 'id', 'title'"):
        run(tmp_path / "shop.csv", tmp_path / "other", keep=("size",))


@pytest.mark.parametrize("pack", [gzip.compress, lambda data: bytes(pa.compress(data, "zstd", asbytes=True))])
def test_compressed_files_are_read_as_they_are(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    (tmp_path / "shop.csv.gz").write_bytes(pack(CSV.encode()))
    report = run(tmp_path / "shop.csv.gz", tmp_path / "out", columns=COLUMNS)
    assert (report.products, report.quarantined.total()) == (6, 7)


def test_amazons_metadata(tmp_path: Path) -> None:
    first = {"asin": "B1", "title": "T", "imUrl": "http://h.example/1.jpg", "price": 9.5,
             "categories": [["Clothing", "Women"], ["Clothing", "Shoes", "Boots"]]}  # fmt: skip
    second = {"asin": "B2", "description": "D", "categories": [["Clothing", "Women"]]}
    (tmp_path / "meta.json").write_text(f"{first!r}\n{json.dumps(second)}\n{{'asin': open('/etc/passwd')}}\n")
    report = run(tmp_path / "meta.json", tmp_path / "out", format="amazon")
    one, two = rows(tmp_path / "out", "products")
    assert one["category_paths"] == [["Clothing", "Women"], ["Clothing", "Shoes", "Boots"]]
    assert (one["category_path"], one["price"]) == (["Clothing", "Women"], 9.5)
    assert (two["category_path"], two["category_paths"], two["image_uris"]) == (["Clothing", "Women"], None, [])
    assert report.quarantined == {"bad_row": 1}
    # A path that is nobody's first one is a label all the same.
    leaves = {("Clothing", "Women"): 2, ("Clothing", "Shoes", "Boots"): 1}
    assert set(read_taxonomy(str(tmp_path / "out" / "taxonomy.json")).leaves) == leaves.keys()
    assert dict(report.few) == leaves


def test_further_columns_of_an_atlas_file_leave_its_addresses(tmp_path: Path) -> None:
    entry = {
        "product_id": "a", "image": "a.jpg", "image_url": "http://shop/a.jpg", "category": "A > B", "colour": "red",
        "title": "T",
    }  # fmt: skip
    (tmp_path / "atlas.json").write_text(json.dumps({"images": [entry]}))
    run(tmp_path / "atlas.json", tmp_path / "out", format="atlas-json", keep=("colour",))
    (product,) = rows(tmp_path / "out", "products")
    assert dict(product["attributes"]) == {"image_url": "http://shop/a.jpg", "colour": "red"}
