"""Real parts for the tests: an S3 server of its own process, a local Ray, a small model."""

import os
import random
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
import torch

from atlas_ray.artifacts import load_artifact, save_artifact
from atlas_ray.catalog.importer import ImportConfig, import_catalog
from atlas_ray.catalog.sample import GARMENTS, draw_catalog
from atlas_ray.models import EncoderDecoder, EncoderDecoderConfig
from atlas_ray.session import connect
from atlas_ray.taxonomy import Taxonomy, Vocabulary

DATA = os.environ.get("ATLAS_RAY_TEST_DATA")
SHOP_COLUMNS = {"product_id": "id", "image_uris": "image", "category_path": "category"}

# One environment for this process, the local Ray and every command the tests start.
os.environ.update(
    AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test", AWS_REGION="us-east-1", AWS_EC2_METADATA_DISABLED="true"
)


@pytest.fixture(scope="session")
def test_data() -> Path:
    if not DATA:
        pytest.skip("ATLAS_RAY_TEST_DATA names no folder of real inputs")
    return Path(DATA).resolve()


def free_port() -> int:
    with socket.socket() as listener:  # below the ports that Ray's workers take
        for _ in range(100):
            port = random.randint(7000, 9999)
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port between 7000 and 9999")


def wait_for(url: str, process: "subprocess.Popen[bytes]") -> None:
    for _ in range(300):
        if process.poll() is not None:
            raise RuntimeError(f"the server of {url} ended with {process.returncode}")
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"{url} did not answer within 30 s")


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """A bucket `shop` on an S3 server; `AWS_ENDPOINT_URL` names it."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(url, server)
        os.environ["AWS_ENDPOINT_URL"] = url
        boto3.client("s3").create_bucket(Bucket="shop")
        yield "s3://shop"
    finally:
        os.environ.pop("AWS_ENDPOINT_URL", None)
        server.kill()
        server.wait()


@pytest.fixture(scope="session")
def local_ray(s3: str) -> None:
    """A Ray whose workers know the S3 server; it ends with the test process."""
    connect()


@pytest.fixture(scope="session")
def garments() -> Taxonomy:
    return Taxonomy(GARMENTS, name="garments")


def make_artifact(uri: str, taxonomy: Taxonomy, seed: int = 0) -> str:
    """Write a small untrained model; its answers are fixed by the seed."""
    torch.manual_seed(seed)
    vocabulary = Vocabulary.of(taxonomy)
    config = EncoderDecoderConfig(
        vocabulary_size=len(vocabulary),
        backbone="resnet18",
        image_size_px=32,
        pooled_size=4,
        embedding_dim=16,
        attention_dim=16,
        decoder_dim=16,
    )
    return save_artifact(uri, EncoderDecoder(config), vocabulary=vocabulary, taxonomy=taxonomy, metrics={})


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory, garments: Taxonomy) -> str:
    uri = str(tmp_path_factory.mktemp("model"))
    make_artifact(uri, garments)
    assert load_artifact(uri).taxonomy == garments
    return uri


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A drawn catalogue of 8 x 14 products, 5 broken pictures and a row without any."""
    return draw_catalog(str(tmp_path_factory.mktemp("shop")), products_a_leaf=10, unlabelled_a_leaf=4)


@pytest.fixture(scope="session")
def catalog(tmp_path_factory: pytest.TempPathFactory, shop: str) -> str:
    output = str(tmp_path_factory.mktemp("catalog") / "tables")
    report = import_catalog(ImportConfig(source=shop, output=output, columns=SHOP_COLUMNS))
    assert report.products == 8 * 14 + 5
    return output
