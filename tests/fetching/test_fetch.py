"""Fetching a catalogue's pictures from a real server, which misbehaves; killed and run again."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from atlas_ray.arrays import tagged
from atlas_ray.errors import AuditError, CatalogError, ConfigError, OutputError, PictureError
from atlas_ray.fetching.pictures import OUTCOMES, PictureFetcher, picture_size, write_outcomes
from atlas_ray.fetching.run import FetchConfig, fetch
from atlas_ray.fetching.tables import JOINED, write_products
from atlas_ray.formats.tables import open_table
from atlas_ray.io.addresses import AddressRule
from atlas_ray.io.downloads import Download, Downloader
from atlas_ray.runs.run_record import RunReport
from atlas_ray.runtime.shuffle import IMAGE, OUTCOME, PRODUCT
from atlas_ray.schemas import IMAGES, PRODUCTS, QUARANTINE, image_ids
from tests.support.damaged_pictures import encoded
from tests.support.parts import rows
from tests.support.picture_server import PictureServer, jpeg


@pytest.fixture
def server() -> Iterator[PictureServer]:
    with PictureServer() as server:
        yield server


def write_catalog(folder: Path, products: dict[str, list[str]]) -> None:
    """Write a catalogue whose pictures are numbered within each product."""
    images = [
        {"image_id": number, "product_id": product, "image_uri": uri}
        for product, uris in products.items()
        for number, uri in enumerate(uris)
    ]
    listed = [
        {"product_id": product, "title": f"a {product}", "image_uris": uris} for product, uris in products.items()
    ]
    for name, content, schema in (("products", listed, PRODUCTS), ("images", images, IMAGES)):
        (folder / name).mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(content, schema=schema), folder / name / "part-00000.parquet")
    (folder / "taxonomy.json").write_text('{"made": "elsewhere"}')


def _images(catalog: Path) -> pa.Table:
    return open_table(str(catalog / "images"), IMAGES, foreign=True).read()


def joined(catalog: Path, output: Path) -> pa.Table:
    folders = (
        (catalog / "products", PRODUCTS, PRODUCT), (catalog / "images", IMAGES, IMAGE),
        (output / "fetched", OUTCOMES, OUTCOME),
    )  # fmt: skip
    tables = [
        (open_table(str(folder), schema, foreign=kind == IMAGE, may_be_missing=True), kind)
        for folder, schema, kind in folders
    ]
    return pa.concat_tables(tagged(table.read(), kind, JOINED) for table, kind in tables)


def test_outcomes_become_tables_that_balance(server: PictureServer, tmp_path: Path) -> None:
    catalog, output = tmp_path / "catalog", tmp_path / "output"
    web = server.url
    local = str(tmp_path / "own.jpg")
    products = {
        "A": [f"{web}/ok/1.jpg", f"{web}/status/404", f"{web}/ok/2.jpg", f"{web}/to/%2Fok%2F1.jpg"],
        "B": [f"{web}/wide/", f"{web}/cut/"],
        "C": [local, "s3://shop/a.jpg", f"{web}/ok/2.jpg"],
    }
    write_catalog(catalog, products)
    rule = AddressRule(allow_private=frozenset({server.place}))
    with Downloader(rule=rule, attempts=1) as downloader:
        fetcher = PictureFetcher(str(output), downloader)
        outcomes = fetcher.fetch(_images(catalog))
        write_outcomes(str(output), outcomes)
        write_outcomes(str(output), outcomes.slice(0, 2))  # what a repeated task may leave
    assert outcomes.schema.equals(OUTCOMES)
    counted = {row["name"]: row["count"] for row in write_products(joined(catalog, output), str(output)).to_pylist()}
    size = len(jpeg(1)) * 2 + len(jpeg(2)) * 2
    assert counted == {
        "input": 9, "stored": 6, "carried_over": 2, "quarantined": 3, "images": 5, "products": 3,
        "products_without_picture": 1, "bytes": size,
    }  # fmt: skip
    for name, schema in (("products", PRODUCTS), ("images", IMAGES), ("quarantine", QUARANTINE)):
        assert all(pq.read_schema(file).equals(schema) for file in (output / name).iterdir())
    one, two = (hashlib.sha256(jpeg(number)).hexdigest() for number in (1, 2))
    first, second = (f"{output}/pictures/{digest[:2]}/{digest}.jpg" for digest in (one, two))
    assert [(row["product_id"], row["title"], row["image_uris"]) for row in rows(output, "products")] == [
        ("A", "a A", [first, second]), ("B", "a B", []), ("C", "a C", [local, "s3://shop/a.jpg", second]),
    ]  # fmt: skip
    images = {(row["product_id"], row["image_uri"]): row for row in rows(output, "images")}
    assert images.keys() == {("A", first), ("A", second), ("C", local), ("C", "s3://shop/a.jpg"), ("C", second)}
    assert [row["image_id"] for row in images.values()] == image_ids(*zip(*images, strict=True)).tolist()
    own = images[("A", first)]
    assert (own["sha256"], own["width"], own["height"]) == (one, 32, 24)
    assert sorted(path.name for path in (output / "pictures").rglob("*.*")) == sorted([f"{one}.jpg", f"{two}.jpg"])
    assert Path(first).read_bytes() == jpeg(1)
    source = {row["image_id"]: row["image_uri"] for row in _images(catalog).to_pylist()}
    for row in rows(output, "quarantine"):
        assert row["stage"] == "fetch"
        assert source[row["image_id"]] == row["image_uri"]
        assert row["message"]


@pytest.mark.long
def test_a_header_that_is_slow_to_read_stops_nobody_else(server: PictureServer, tmp_path: Path) -> None:
    write_catalog(tmp_path / "slow", {"A": [f"{server.url}/slow-header/1.jpg", f"{server.url}/slow-header/2.jpg"]})
    write_catalog(tmp_path / "quick", {"B": [f"{server.url}/ok/{number}.jpg" for number in range(4)]})
    slow, quick = (_images(tmp_path / name) for name in ("slow", "quick"))
    rule = AddressRule(allow_private=frozenset({server.place}))
    with Downloader(rule=rule, attempts=1) as downloader, ThreadPoolExecutor(1) as pool:
        fetcher = PictureFetcher(str(tmp_path / "output"), downloader)
        delayed = pool.submit(fetcher.fetch, slow)
        done_while_slow = 0
        while not delayed.done():
            assert fetcher.fetch(quick)["error_code"].null_count == 4
            done_while_slow += 1
        assert delayed.result()["error_code"].to_pylist() == ["corrupt"] * 2
    assert done_while_slow >= 5


def test_a_lost_picture_fails_the_account(tmp_path: Path) -> None:
    write_catalog(tmp_path / "catalog", {"A": ["http://shop.example/1.jpg"]})
    with pytest.raises(AuditError, match="1 pictures of the catalogue have no outcome"):
        write_products(joined(tmp_path / "catalog", tmp_path / "output"), str(tmp_path / "output"))


def test_mistakes_are_told_before_anything_starts(tmp_path: Path) -> None:
    write_catalog(tmp_path / "catalog", {"A": ["http://shop.example/1.jpg"]})
    settings: dict[str, Any] = {"catalog": str(tmp_path / "catalog"), "output": str(tmp_path / "output")}
    with pytest.raises(CatalogError, match="no images table"):
        fetch(FetchConfig(**settings | {"catalog": str(tmp_path)}))
    with pytest.raises(OutputError, match="is the catalogue itself"):
        fetch(FetchConfig(**settings | {"output": settings["catalog"]}))
    with pytest.raises(ConfigError, match="workers is 8; expected at most 4"):
        FetchConfig(**settings, workers=8, per_host_concurrency=4)
    with pytest.raises(ConfigError, match="'a/b' names no private place"):
        FetchConfig(**settings, allow_private="10.0.0.1:80, a/b")
    assert not (tmp_path / "output").exists()
    shutil.copytree(tmp_path / "catalog", tmp_path / "other")
    with pytest.raises(OutputError, match="other holds products of another origin"):
        fetch(FetchConfig(**settings | {"output": str(tmp_path / "other")}))


RUN = """
import json, sys
from atlas_ray.fetching.run import FetchConfig, fetch
from atlas_ray.runtime.session import connect
connect()
fetch(FetchConfig(**json.loads(sys.argv[1])))
"""


def test_killed_run_again_and_asked_again_for_what_failed(
    server: PictureServer, tmp_path: Path, local_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog, output = tmp_path / "catalog", tmp_path / "output"
    paths = [f"/{'later' if number % 10 == 0 else 'ok'}/{number}.jpg" for number in range(400)]
    write_catalog(catalog, {f"P{n:03d}": [server.url + paths[n], server.url + paths[n + 1]] for n in range(0, 400, 2)})
    settings: dict[str, Any] = {
        "catalog": str(catalog), "output": str(output), "allow_private": server.place, "rows_per_file": 20,
        "workers": 2, "concurrency": 8, "per_host_concurrency": 8, "per_host_rate": 0.0,
    }  # fmt: skip

    def run(**more: Any) -> RunReport:
        return fetch(FetchConfig(**settings | more))

    def journal() -> list[Path]:
        return list((output / "fetched").glob("*.parquet"))

    server.delay_s = 0.05
    killed = subprocess.Popen([sys.executable, "-c", RUN, json.dumps(settings)], env=dict(os.environ))
    end = time.monotonic() + 60
    while len(journal()) < 5:
        assert killed.poll() is None, "the run ended too early"
        assert time.monotonic() < end, "nothing was fetched"
        time.sleep(0.02)
    killed.kill()
    killed.wait()
    assert server.busiest <= 8
    done = [row["image_uri"].removeprefix(server.url) for file in journal() for row in pq.read_table(file).to_pylist()]
    assert 0 < len(done) < 400
    server.delay_s = 0.0

    report = run()
    assert report.run["resumed_from"] >= len(done)
    assert report.counts["input"] == 400
    assert report.counts["stored"] == 360
    assert report.run["quarantined_by_code"] == {"not_found": 40}
    assert {server.asked[path] for path in done} == {1}
    assert len(rows(output, "images")) == 360
    assert sorted(len(row["image_uris"]) for row in rows(output, "products")) == [1] * 40 + [2] * 160
    assert json.loads((output / "taxonomy.json").read_text()) == {"made": "elsewhere"}

    before = server.asked.copy()
    assert run().already_done
    assert server.asked == before
    server.open = True
    monkeypatch.setattr("atlas_ray.fetching.run.PICTURES_PER_PARTITION", 150)  # from here on the tables are shuffled
    again = run(retry_failed=True, timeout_s=5.0)
    assert again.counts["stored"] == 400
    assert again.counts["quarantined"] == 0
    assert server.asked - before == {path: 1 for path in paths if path.startswith("/later")}
    assert rows(output, "quarantine") == []
    assert {len(row["image_uris"]) for row in rows(output, "products")} == {2}
    assert run(retry_failed=True).already_done

    before = server.asked.copy()
    shutil.rmtree(catalog)  # the catalogue is made anew: one product has gone, one has come
    changed = {f"P{n:03d}": [server.url + paths[n], server.url + paths[n + 1]] for n in range(2, 400, 2)}
    write_catalog(catalog, changed | {"P400": [f"{server.url}/ok/400.jpg"]})
    (catalog / "run.json").write_text('{"job": "import"}')
    assert run().counts == again.counts | {
        "input": 399, "stored": 399, "images": 399, "bytes": again.counts["bytes"] - len(jpeg(0)) * 2 + len(jpeg(400)),
    }  # fmt: skip
    assert server.asked - before == {"/ok/400.jpg": 1}
    assert {row["product_id"] for row in rows(output, "products")} == changed.keys() | {"P400"}
    with pytest.raises(OutputError, match="holds a run with catalog = "):
        run(catalog=str(shutil.copytree(catalog, tmp_path / "other")))


@pytest.mark.parametrize("scheme", ["HTTP", "Http", "hTTP"])
def test_a_scheme_in_any_case_is_asked_for(server: PictureServer, tmp_path: Path, scheme: str) -> None:
    uri = f"{scheme}{server.url.removeprefix('http')}/ok/1.jpg"
    images = pa.Table.from_pylist([{"image_id": 1, "product_id": "A", "image_uri": uri}], schema=IMAGES)
    with Downloader(rule=AddressRule(frozenset({server.place}))) as downloader:
        (outcome,) = PictureFetcher(str(tmp_path), downloader).fetch(images).to_pylist()
    assert outcome["error_code"] is None
    assert outcome["bytes"] > 0
    assert Path(outcome["stored_uri"]).is_relative_to(tmp_path / "pictures")


def test_a_fetched_picture_is_looked_at_as_all_others_are() -> None:
    png = encoded(Image.effect_noise((40, 30), 60), "PNG")
    at = png.index(b"IDAT") + 9
    for bad, code in (
        (png[:at] + b"\0" + png[at + 1 :], "corrupt"),
        (png[:-3], "truncated"),
        (png[:8] + b"rubbish" + png[8:], "truncated"),
        (b"\xff\xd8\xff\xe0rubbish", "corrupt"),
    ):
        with pytest.raises(PictureError) as error:
            picture_size(Download(bad, "PNG", "https://shop.example/a.png", None))
        assert (error.value.code, "https://shop.example/a.png: " in error.value.message) == (code, True)
    assert picture_size(Download(png, "PNG", "https://shop.example/a.png", None)) == (40, 30)
