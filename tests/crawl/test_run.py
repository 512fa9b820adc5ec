"""The whole of `atlas-ray crawl` for real: Ray, a crawl process, an HTTP shop, stored pictures."""

import json
import random
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from atlas_ray.cli.main import main
from atlas_ray.demo.drawing import GARMENTS, draw_garment, to_jpeg
from atlas_ray.demo.shop import ODD, ShopProduct, draw_shop, serve_shop
from atlas_ray.io import storage
from tests.support.parts import rows

pytestmark = pytest.mark.usefixtures("local_ray")


def products() -> list[ShopProduct]:
    rng = random.Random(1)
    trails = [*GARMENTS, ("Sale", "Last pieces")]
    return [
        ShopProduct(
            title=f"Piece {number}",
            description="Of cotton",
            price=10 + number,
            breadcrumb=trails[number % len(trails)],
            picture=to_jpeg(draw_garment(list(GARMENTS)[number % 8], rng)[0]),
        )
        for number in range(18)
    ]


def test_a_shop_becomes_a_catalogue(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw_shop(str(tmp_path / "shop"), products())
    taxonomy = tmp_path / "taxonomy.csv"
    taxonomy.write_text("level_1,level_2,level_3\n" + "".join(",".join(path) + "\n" for path in GARMENTS))
    mapping = tmp_path / "mapping.csv"
    mapping.write_text("store,breadcrumb_prefix,category_path\ndemo,Women > Ethnic Wear,Women > Ethnic Wear > Sarees\n")
    with serve_shop(str(tmp_path / "shop")) as shop:
        shop.write_stores(str(tmp_path / "stores.yaml"))
        command = ["crawl", "--stores", str(tmp_path / "stores.yaml"), "--only", "demo", "--taxonomy", str(taxonomy)]
        command += ["--mapping", str(mapping), "--output", str(tmp_path / "out"), "--allow-private", shop.place]
        command += ["--timeout-s", "3", "--retries", "1", "--backoff-s", "0.05"]
        assert main(command) == 0
        capsys.readouterr()
        asked = len(shop.requests)
        assert "/odd/forbidden.html" not in shop.requests
        assert main(command) == 0  # all of it is done
        assert len(shop.requests) == asked
        said = capsys.readouterr().out
        assert "2 of demo: Sale > Last pieces" in said
        assert "holds this crawl, finished" in said
        account = json.loads((tmp_path / "out" / "crawl" / "run.json").read_text())
        with mapping.open("a") as lines:  # as the report says
            lines.write("demo,Sale,Men > Western Wear > Shirts\n")
        assert main(command) == 0
        assert len(shop.requests) == asked
        assert "leads nowhere" not in capsys.readouterr().out
        extended = json.loads((tmp_path / "out" / "crawl" / "run.json").read_text())
        assert extended["counts"] == account["counts"] | {"labelled": 18}
        assert all(row["category_path"] for row in rows(tmp_path / "out" / "catalog", "products"))
        assert main([*command, "--retry-failed"]) == 0
        again = set(shop.requests[asked:])
        assert "/odd/broken.html" in again
        assert not any(path.startswith(("/product/", "/pictures/")) for path in again)
    account = json.loads((tmp_path / "out" / "crawl" / "run.json").read_text())
    assert account["counts"]["products"] == 18
    assert account["counts"]["waiting"] == 0
    assert account["counts"]["labelled"] == 18
    assert set(account["quarantined_by_code"]) == set(ODD.values())
    assert account["fields_by_origin"]["price"].keys() == {"json-ld", "microdata", "opengraph", "selector"}
    found = rows(tmp_path / "out" / "catalog", "products")
    assert {tuple(row["category_path"] or ()) for row in found} == set(GARMENTS)
    assert all(row["store"] == "demo" and row["currency"] == "EUR" for row in found)
    images = rows(tmp_path / "out" / "catalog", "images")
    # One product's pictures may not be used; it stays with its texts.
    assert (len(found), len(images)) == (18, 17)
    for row in images:
        assert row["width"] == 128
        assert row["sha256"] in row["image_uri"]
        assert Path(row["image_uri"]).stat().st_size > 0
    assert not (tmp_path / "out" / "urls" / "quarantine").exists()


def test_a_shop_that_fails_leaves_the_others_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw_shop(str(tmp_path / "shop"), products()[:4])
    held = tmp_path / "out" / "crawl" / "jobs" / "two" / "store.json"
    held.parent.mkdir(parents=True)
    held.write_text("damaged")
    with serve_shop(str(tmp_path / "shop")) as shop:
        shop.write_stores(str(tmp_path / "stores.json"))
        demo = json.loads((tmp_path / "stores.json").read_text())["stores"][0]
        stores = [demo | {"name": "one"}, demo | {"name": "two"}]
        (tmp_path / "stores.json").write_text(json.dumps({"stores": stores}))
        command = ["crawl", "--stores", str(tmp_path / "stores.json"), "--output", str(tmp_path / "out")]
        command += ["--allow-private", shop.place, "--timeout-s", "3", "--retries", "0", "--no-pictures"]
        command += ["--max-quarantine-fraction", "0.3"]
        assert main(command) == 1
        assert "the crawl of 'two' ended with 2: crawl: " in capsys.readouterr().err
        found = rows(tmp_path / "out" / "urls", "products")
        assert {row["store"] for row in found} == {"one"}
        held.unlink()
        asked = len(shop.requests)
        assert main(command) == 0
        assert len(shop.requests) <= 2 * asked  # the first one's pages are not asked for again
    assert {row["store"] for row in rows(tmp_path / "out" / "urls", "products")} == {"one", "two"}


@pytest.mark.slow  # in every run one shop is crawled, and its kills
def test_two_shops_at_once_into_object_storage(tmp_path: Path, s3: str) -> None:
    draw_shop(str(tmp_path / "shop"), products())
    with serve_shop(str(tmp_path / "shop")) as one, serve_shop(str(tmp_path / "shop")) as two:
        stores = []
        for name, shop in (("one", one), ("two", two)):
            shop.write_stores(str(tmp_path / "stores.json"))
            stores.append(json.loads((tmp_path / "stores.json").read_text())["stores"][0] | {"name": name})
        (tmp_path / "stores.json").write_text(json.dumps({"stores": stores}))
        common = ["crawl", "--stores", str(tmp_path / "stores.json"), "--timeout-s", "3", "--retries", "1"]
        common += ["--backoff-s", "0.05", "--allow-private", f"{one.place},{two.place}"]
        common += ["--max-quarantine-fraction", "0.1"]
        assert main([*common, "--output", f"{s3}/two-shops"]) == 0
        assert main([*common, "--output", f"{s3}/one-file", "--only", "two", "--format", "atlas-json"]) == 0
    account = json.loads(storage.read_bytes(f"{s3}/two-shops/crawl/run.json"))
    assert account["counts"]["products"] == 36
    images = rows_of(f"{s3}/two-shops/catalog/images")
    assert len(images) == 34
    # Both shops have the same pictures: each is stored once.
    assert len({row["image_uri"] for row in images}) == 17
    for uri in {row["image_uri"] for row in images}:
        assert uri.startswith(f"{s3}/two-shops/catalog/pictures/")
        assert storage.exists(uri)
    assert {row["store"] for row in rows_of(f"{s3}/two-shops/catalog/products")} == {"one", "two"}

    entries = json.loads(storage.read_bytes(f"{s3}/one-file/atlas.json"))["images"]
    assert len(entries) == 17
    crawled = {row["product_id"]: row for row in rows_of(f"{s3}/one-file/catalog/products")}
    for entry in entries:
        product = crawled[entry["product_id"]]
        assert [f"{s3}/one-file/{entry['filename']}"] == product["image_uris"]
        assert entry["image_url"].startswith(f"http://{two.place}/pictures/")
        assert {name: entry[name] for name in ("title", "price", "split", "url")} == {
            name: product[name] for name in ("title", "price", "split", "url")
        }
        assert entry["sentences"] == ([{"tokens": product["category_path"]}] if product["category_path"] else [])
    output = str(tmp_path / "imported")
    assert main(["import", f"{s3}/one-file/atlas.json", "--output", output]) == 0
    imported = rows(output, "products")
    for name in ("title", "image_uris", "category_path", "split"):
        assert {row["product_id"]: row[name] for row in imported} == {
            product_id: crawled[product_id][name] for product_id in crawled if crawled[product_id]["image_uris"]
        }
    addresses = {row["product_id"]: dict(row["attributes"])["image_url"] for row in imported}
    assert addresses == {entry["product_id"]: entry["image_url"] for entry in entries}


def rows_of(uri: str) -> list[dict[str, Any]]:
    place = storage.locate(uri)
    found: list[dict[str, Any]] = pq.read_table(place.path, filesystem=place.filesystem).to_pylist()
    return found
