"""Real parts for the tests: an S3 server of its own process, a local Ray, a small model."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import boto3
import hypothesis
import pytest
import torch

from atlas_ray.artifacts import load_artifact
from atlas_ray.catalog.importer import ImportConfig, import_catalog
from atlas_ray.crawl.browser import find_chromium
from atlas_ray.demo.drawing import GARMENTS, draw_catalog
from atlas_ray.errors import ConfigError
from atlas_ray.io import storage
from atlas_ray.io.objects import ObjectReader
from atlas_ray.runs import run_record
from atlas_ray.runs.run_record import KEYS
from atlas_ray.runtime.session import connect
from atlas_ray.taxonomy import Taxonomy
from tests.support.held_files import HeldFiles
from tests.support.inputs import free_port, s3_server
from tests.support.parts import make_artifact
from tests.support.stores import Front, azure_connection, azure_front, azurite, google_front

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# A machine may be busy with other tests; how long one example takes says nothing.
hypothesis.settings.register_profile("shared", deadline=None)
hypothesis.settings.load_profile("shared")
# Who starts the tests in the background has them ignore stops, and so would each process that they start and stop.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)
DATA = os.environ.get("ATLAS_RAY_TEST_DATA")
SHOP_COLUMNS = {"product_id": "id", "image_uris": "image", "category_path": "category"}


MARK_OF_FIXTURE = {"local_ray": "ray", "s3_endpoint": "s3", "google": "s3", "azure": "s3", "browser": "browser"}
"""What a test needs that takes it this fixture; a test that starts one itself says so with the marker."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with what it needs, by its fixtures; `make test-fast` leaves those tests out."""
    for item in items:
        for name in set(getattr(item, "fixturenames", ())) & MARK_OF_FIXTURE.keys():
            item.add_marker(MARK_OF_FIXTURE[name])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Count the tests that were skipped for a program: a machine without it must not look tested."""
    for program, why in (
        ("Chromium", "it is not on PATH; install it, or name it with CHROMIUM_PATH"),
        ("Azurite", "it is not on PATH; `make azurite` brings it where npm is, or AZURITE_PATH names it"),
        ("kubectl", "it is not on PATH, and renders the manifests of cluster/"),
        ("CUDA GPU", "PyTorch sees none, and what runs on one is not tested"),
    ):
        skipped = [report for report in terminalreporter.stats.get("skipped", ()) if program in str(report.longrepr)]
        if skipped:
            terminalreporter.write_line(f"{len(skipped)} tests were skipped for want of {program}: {why}", red=True)


@pytest.fixture(scope="session", autouse=True)
def _described_runs() -> Iterator[None]:
    """Check that the reference has each key of each `run.json` that a test's own process writes."""
    commands = {job for jobs, _ in KEYS.values() for job in jobs}

    def checked(uri: str, data: bytes) -> None:
        run = json.loads(data)
        described = {key for key, (jobs, _) in KEYS.items() if run["job"] in (jobs or commands)}
        assert run["job"] not in commands or run.keys() <= described, f"add to KEYS: {run.keys() - described}"
        storage.write_bytes(uri, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_record, "storage", SimpleNamespace(**vars(storage) | {"write_bytes": checked}))
        yield


@pytest.fixture(scope="session")
def test_data() -> Path:
    if not DATA:
        pytest.skip("ATLAS_RAY_TEST_DATA names no folder of real inputs")
    return Path(DATA).resolve()


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Small networks on a busy machine: threads that wait for each other cost more than they gain."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of its own that takes 256 KiB."""
    folder = tmp_path / "full-disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[None]:
    """An S3 server of its own process; `AWS_ENDPOINT_URL` names it."""
    with s3_server("shop"):
        yield


@pytest.fixture(scope="module")
def s3(s3_endpoint: None) -> Iterator[str]:
    """A bucket of the S3 server, empty again after each module, so that the order of modules does not matter."""
    yield "s3://shop"
    for one in boto3.resource("s3").Bucket("shop").objects.all():
        one.delete()  # one by one: the XML that names many cannot hold a key with a control character


@pytest.fixture(scope="session")
def store_ports() -> dict[str, int]:
    """The ports of the emulators of `gs://` and `az://`, which the environment names before they run."""
    ports = {"gs": free_port(), "az": free_port()}
    os.environ["STORAGE_EMULATOR_HOST"] = f"http://127.0.0.1:{ports['gs']}"
    os.environ["AZURE_STORAGE_CONNECTION_STRING"] = azure_connection(ports["az"])
    return ports


@pytest.fixture(scope="session")
def google(store_ports: dict[str, int]) -> Iterator[Front]:
    """An emulator of Google Cloud Storage with the bucket `gs://shop`."""
    with google_front(store_ports["gs"]) as front:
        yield front


@pytest.fixture(scope="session")
def azure(store_ports: dict[str, int]) -> Iterator[Front]:
    """An emulator of Azure Blob Storage with the container `az://shop`; tests are skipped if there is none."""
    if not (program := azurite()):
        pytest.skip("Azurite is not there; `make azurite` brings it")
    with azure_front(store_ports["az"], program) as front:
        yield front


@pytest.fixture(scope="session")
def local_ray(s3_endpoint: None, store_ports: dict[str, int]) -> None:
    """A Ray whose workers know the S3 server and the emulators; it ends with the test process."""
    connect()


@pytest.fixture(scope="session")
def garments() -> Taxonomy:
    return Taxonomy(GARMENTS, name="garments")


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


@pytest.fixture
def held_files(monkeypatch: pytest.MonkeyPatch) -> HeldFiles:
    counts = HeldFiles()
    monkeypatch.setattr(ObjectReader, "read", counts.counted(ObjectReader.read))
    return counts


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """A Chromium; the tests that ask for it are skipped where there is none."""
    try:
        executable = find_chromium()
    except ConfigError as error:
        pytest.skip(str(error))
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield started
        started.close()
