"""What several benchmarks build on: an S3 server, catalogues of repeated pictures, random models."""

import os
import random
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from atlas_ray.artifacts import save_artifact
from atlas_ray.demo.drawing import draw_catalog
from atlas_ray.io import storage
from atlas_ray.models.decoders.decoder import EncoderDecoderConfig
from atlas_ray.models.encoder_decoder import EncoderDecoder
from atlas_ray.schemas import IMAGES, PRODUCTS, image_ids
from atlas_ray.taxonomy import Taxonomy, Vocabulary, read_taxonomy

_drawn: set[int] = set()


def free_port() -> int:
    """Return a port that nobody listens on, another one each time, away from those that Ray's workers take."""
    for _ in range(1000):
        port = random.SystemRandom().randint(7000, 9999)  # not that of another process with the same seed
        if port in _drawn:
            continue
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            _drawn.add(port)
            return port
    raise RuntimeError("no free port between 7000 and 9999")


def wait_for(url: str, process: "subprocess.Popen[bytes]", timeout_s: float = 30.0) -> None:
    """Wait until a server answers, with whatever status."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"the server of {url} ended with {process.returncode}")
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"{url} did not answer within {timeout_s:.0f} s")


class Server:
    """A server process and its URL."""

    def __init__(self, url: str, process: "subprocess.Popen[bytes]") -> None:
        self.url = url
        self.process = process

    def cpu_s(self) -> float:
        """Return the CPU seconds that it has used, on Linux."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def s3_server(bucket: str = "shop") -> Iterator[Server]:
    """Run moto as a process of its own, with one bucket; set the environment to it.

    Yields:
        The server.
    """
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    before = os.environ.get("AWS_ENDPOINT_URL")
    os.environ.update(AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test", AWS_REGION="us-east-1")
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    try:
        wait_for(url, server)
        os.environ["AWS_ENDPOINT_URL"] = url
        boto3.client("s3").create_bucket(Bucket=bucket)
        yield Server(url, server)
    finally:
        os.environ.pop("AWS_ENDPOINT_URL", None)
        if before:
            os.environ["AWS_ENDPOINT_URL"] = before
        server.kill()
        server.wait()


def pictures(folder: str | None, count: int, scratch: str) -> list[Path]:
    """Return `count` JPEG files of a folder, or of a drawn sample where none is given."""
    if folder is None:
        draw_catalog(scratch, products_a_leaf=-(-count // 8), unlabelled_a_leaf=0)
        folder = f"{scratch}/images"
    files = sorted(path for path in Path(folder).glob("*.jp*g") if path.stat().st_size > 1000)[:count]
    if len(files) < count:
        raise SystemExit(f"{folder}: {len(files)} JPEG files; {count} are needed")
    return files


def write_catalog(uri: str, image_uris: Sequence[str]) -> None:
    """Write products and images tables with one product a picture; a picture may stand often."""
    products = [f"P{number:07d}" for number in range(len(image_uris))]
    images = {
        "image_id": image_ids(products, image_uris),
        "product_id": products,
        "image_uri": list(image_uris),
        **{name: pa.nulls(len(products), IMAGES.field(name).type) for name in IMAGES.names[3:]},
    }
    columns = {name: pa.nulls(len(products), PRODUCTS.field(name).type) for name in PRODUCTS.names}
    columns |= {"product_id": pa.array(products), "image_uris": pa.array([[uri] for uri in image_uris])}
    for name, table in (("images", pa.table(images, schema=IMAGES)), ("products", pa.table(columns, schema=PRODUCTS))):
        folder = storage.join(uri, name)
        storage.make_folder(folder)
        place = storage.locate(storage.join(folder, "part-00000.parquet"))
        pq.write_table(table, place.path, filesystem=place.filesystem)


def random_model(
    uri: str, backbone: str, *, image_size_px: int = 150, dim: int = 512, taxonomy: Taxonomy | None = None
) -> str:
    """Write an untrained model of the paper's shape; its speed is that of a trained one."""
    torch.manual_seed(0)
    taxonomy = taxonomy or read_taxonomy("atlas-52")
    vocabulary = Vocabulary.of(taxonomy)
    config = EncoderDecoderConfig(
        vocabulary_size=len(vocabulary),
        backbone=backbone,
        image_size_px=image_size_px,
        embedding_dim=dim,
        attention_dim=dim,
        decoder_dim=dim,
    )
    return save_artifact(uri, EncoderDecoder(config), vocabulary=vocabulary, taxonomy=taxonomy, metrics={})
