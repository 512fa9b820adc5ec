"""An S3 server that fails now and then: only what is truly missing ends in quarantine."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from atlas_ray.errors import FetchError
from atlas_ray.objects import ObjectReader
from benchmarks.parts import free_port, wait_for, write_catalog
from tests.parts import rows


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
    command = [sys.executable, "-m", "atlas_ray.cli", "score", "--catalog", "s3://shop/faulty-catalog"]
    command += ["--model", small_model, "--output", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {row["error_code"] for row in rows(tmp_path / "run", "quarantine")} == {"not_found"}
    assert len(rows(tmp_path / "run", "quarantine")) == 6
    assert len(rows(tmp_path / "run", "predictions")) == 594
