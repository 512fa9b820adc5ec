"""An S3 server that fails now and then: only what is truly missing ends in quarantine."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from atlas_ray.catalog.importer import ImportConfig, import_catalog
from atlas_ray.errors import FetchError, OutageError, StorageError
from atlas_ray.formats.table_files import _footer
from atlas_ray.formats.tables import open_table
from atlas_ray.io.objects import ObjectReader
from atlas_ray.schemas import IMAGES
from tests.conftest import SHOP_COLUMNS
from tests.scoring.faulty import Faulty, faulty
from tests.support.inputs import free_port, wait_for, write_catalog
from tests.support.parts import rows

pytestmark = pytest.mark.ray


@pytest.fixture
def faulty_s3(s3: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    port = free_port()
    upstream = os.environ["AWS_ENDPOINT_URL"].removeprefix("http://")
    proxy = subprocess.Popen([sys.executable, "-m", "tests.scoring.faulty", upstream, str(port)])
    try:
        wait_for(f"http://127.0.0.1:{port}", proxy)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        yield
    finally:
        proxy.kill()
        proxy.wait()


@pytest.fixture(scope="module")
def keys(s3: str, shop: str) -> list[str]:
    """600 objects of 112 drawn pictures, 6 of them missing."""
    client = boto3.client("s3")
    pictures = sorted((Path(shop).parent / "images").iterdir())[:112]
    for number, picture in enumerate(pictures):
        client.upload_file(str(picture), "shop", f"faulty/{number}.jpg")
    uris = [f"{s3}/faulty/{'missing' if n % 100 == 7 else ''}{n % len(pictures)}.jpg" for n in range(600)]
    write_catalog("s3://shop/faulty-catalog", uris)
    write_catalog("s3://shop/outage-catalog", uris[:224])
    return uris


@pytest.mark.usefixtures("faulty_s3")
def test_the_reader_gets_all_that_is_there(keys: list[str]) -> None:
    with ObjectReader(threads=16, timeout_s=10) as reader:
        outcomes = reader.read_many(keys)
    failed = {key: outcome.code for key, outcome in zip(keys, outcomes, strict=True) if isinstance(outcome, FetchError)}
    assert set(failed.values()) == {"not_found"}
    assert set(failed) == {key for key in keys if "missing" in key}


@pytest.mark.usefixtures("faulty_s3")
def test_a_run_quarantines_only_what_is_missing(keys: list[str], small_model: str, tmp_path: Path) -> None:
    assert len(keys) == 600
    command = [sys.executable, "-m", "atlas_ray", "score", "--catalog", "s3://shop/faulty-catalog"]
    command += ["--model", small_model, "--output", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {row["error_code"] for row in rows(tmp_path / "run", "quarantine")} == {"not_found"}
    assert len(rows(tmp_path / "run", "quarantine")) == 6
    assert len(rows(tmp_path / "run", "predictions")) == 594


@pytest.fixture
def store(s3: str, keys: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Faulty]]:
    port = free_port()
    with faulty(os.environ["AWS_ENDPOINT_URL"].removeprefix("http://"), port) as store:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        yield store
    store.outages.clear()
    store.poisoned.clear()


@pytest.mark.parametrize(("status", "error"), [(503, "SlowDown"), (403, "ExpiredToken"), (400, "ExpiredToken")])
def test_a_store_that_comes_back_is_waited_for(keys: list[str], store: type[Faulty], status: int, error: str) -> None:
    store.outages[100] = (3.0, status, error)
    said: list[str] = []
    with ObjectReader(threads=16, attempts=2, store_retries=2, outage_s=60, say=said.append) as reader:
        outcomes = reader.read_many(keys)
    assert {outcome.code for outcome in outcomes if isinstance(outcome, FetchError)} == {"not_found"}
    assert len(said) >= 1
    assert all("s3://shop has not answered for" in line for line in said)


def test_an_object_that_fails_alone_holds_nobody_up(keys: list[str], store: type[Faulty]) -> None:
    store.poisoned.update(("/faulty/3.jpg", "/faulty/4.jpg"))
    said: list[str] = []
    with ObjectReader(threads=16, attempts=2, store_retries=2, outage_s=60, say=said.append) as reader:
        outcomes = reader.read_many(keys[:112])
    codes = {n: outcome.code for n, outcome in enumerate(outcomes) if isinstance(outcome, FetchError)}
    assert codes == {3: "server_error", 4: "server_error", 7: "not_found", 107: "not_found"}
    assert not said


def test_a_store_that_stays_away_ends_the_reading(keys: list[str], store: type[Faulty]) -> None:
    store.outages[50] = (1e6, 403, "InvalidAccessKeyId")
    with (
        ObjectReader(threads=16, attempts=2, store_retries=2, outage_s=2) as reader,
        pytest.raises(OutageError, match=r"s3://shop has not answered for .*InvalidAccessKeyId; the same command"),
    ):
        reader.read_many(keys)


@pytest.mark.parametrize("answer", [(403, "ExpiredToken"), (403, "AccessDenied")])
def test_a_table_whose_store_is_away_is_not_damaged(
    keys: list[str], store: type[Faulty], answer: tuple[int, str]
) -> None:
    uri = "s3://shop/outage-catalog/images"
    table = open_table(uri, IMAGES, foreign=True)
    assert table.rows == len(keys[:224])
    store.outages[0] = (1.0, *answer)  # it comes back
    assert len(table.read()) == table.rows
    (file,) = table.files
    store.outages[0] = (1.0, *answer)
    assert _footer(uri, file.uri, set()).schema == file.schema
    store.outages[0] = (1e6, *answer)
    with pytest.raises(OutageError, match=r"images/.*parquet: .*AWS Error.*; run the same command again"):
        table.read()
    with pytest.raises(StorageError, match="AWS Error"):
        _footer(uri, file.uri, set())


@pytest.mark.slow  # likewise
def test_a_training_waits_for_its_pictures(store: type[Faulty], shop: str, catalog: str, tmp_path: Path) -> None:
    client, folder = boto3.client("s3"), Path(shop).parent
    for picture in (folder / "images").iterdir():
        client.upload_file(str(picture), "shop", f"trained-on/images/{picture.name}")
    far = str(tmp_path / "catalog")
    import_catalog(ImportConfig(source=shop, output=far, columns=SHOP_COLUMNS, image_base="s3://shop/trained-on"))
    command = [sys.executable, "-m", "atlas_ray", "train", "classifier", "--catalog", far]
    command += ["--output", str(tmp_path / "model"), "--backbone", "resnet18", "--image-size-px", "32"]
    command += ["--batch-size", "16", "--epochs", "1"]
    store.outages[20] = (8.0, 403, "ExpiredToken")
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert store.away_until > 0
    metrics = json.loads((tmp_path / "model" / "metrics.json").read_text())
    assert metrics["refused_examples"] == 0
    assert metrics["val_examples"] == sum(row["split"] == "val" for row in rows(catalog, "products"))


@pytest.mark.slow  # the reader's own tests wait for a store, too
def test_a_run_outlives_outages_and_asks_again_for_what_failed(
    keys: list[str], store: type[Faulty], small_model: str, tmp_path: Path
) -> None:
    assert len(keys) == 600
    output = tmp_path / "run"
    command = [sys.executable, "-m", "atlas_ray", "score", "--catalog", "s3://shop/outage-catalog"]
    command += ["--model", small_model, "--output", str(output), "--rows-per-file", "32", "--batch-size", "16"]

    def run(*flags: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([*command, *flags], capture_output=True, text=True)

    store.outages[100] = (1e6, 403, "ExpiredToken")
    stopped = run("--outage-s", "2")
    assert stopped.returncode == 1, stopped.stderr
    assert "the same command goes on from here" in stopped.stderr.splitlines()[-1]
    assert "Traceback" not in stopped.stderr
    assert not (output / "run.json").exists()
    assert {row["error_code"] for row in rows(output, "quarantine")} <= {"not_found"}

    store.away_until = 0.0
    store.outages[store.pictures + 20] = (12.0, 503, "SlowDown")
    store.poisoned.add("/faulty/5.jpg")
    went_on = run()
    assert went_on.returncode == 0, went_on.stderr
    assert "waiting, up to 300 s" in went_on.stderr
    assert "--retry-failed" in went_on.stderr
    failed = sorted((row["error_code"], row["image_uri"].rpartition("/")[2]) for row in rows(output, "quarantine"))
    missing = [("not_found", "missing107.jpg"), ("not_found", "missing7.jpg"), ("not_found", "missing95.jpg")]
    assert failed == [*missing, *[("server_error", "5.jpg")] * 2]

    store.poisoned.clear()
    assert run("--retry-failed").returncode == 0
    assert len(rows(output, "quarantine")) == 3
    scored = rows(output, "predictions")
    assert len(scored) == len({row["image_id"] for row in scored}) == 221
    products = rows(output, "products")
    assert len(products) == 224
    assert sum(row["category_path"] is not None for row in products) == 221
    account = json.loads((output / "run.json").read_text())
    assert account["counts"]["scored"] == 221
    assert account["quarantined_by_code"] == {"not_found": 3}
    assert not (output / "checkpoint").exists()
