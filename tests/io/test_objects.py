"""Keys and failures of an object store, on a real S3 server and on one that fails as it is told."""

import errno
import os
import resource
import socket
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import boto3
import pyarrow as pa
import pytest

from atlas_ray.catalog.importer import ImportConfig, import_catalog
from atlas_ray.cli.main import main
from atlas_ray.errors import RETRYABLE_CODES, FetchError, StorageError
from atlas_ray.formats.tables import open_table
from atlas_ray.io import objects, storage
from atlas_ray.io.objects import ObjectReader, await_stores
from atlas_ray.schemas import IMAGES
from atlas_ray.zoom.settings import ZoomTraining
from atlas_ray.zoom.sources import draw_candidates
from tests.support.parts import rows
from tests.support.servers import WebServer

# Each beside the key that a path, a URL or a trimmed text would make of it.
TWINS = {
    "/a.jpg": "a.jpg", "a//b.jpg": "a/b.jpg", "./c.jpg": "c.jpg", "../d.jpg": "d.jpg", "e/../f.jpg": "f.jpg",
    "e/./g.jpg": "e/g.jpg", "h.jpg ": "h.jpg", "  i.jpg": "i.jpg", "j%2Fk.jpg": "j/k.jpg", "l+m.jpg": "l m.jpg",
    "n?o.jpg": "n", "p#q.jpg": "p", "a%20b.jpg": "a b.jpg", "Cafe\u0301.jpg": "Caf\u00e9.jpg", "r\x01s.jpg": "rs.jpg",
    "t\tu.jpg": "tu.jpg", "v\x7fw.jpg": "vw.jpg", "x\\y.jpg": "x/y.jpg", "z/": "z", "//": "", "a/..": "a/",
    "%": "%25", "a&b=c'd\"e<f>[g]{h}|i^j`k~l*m.jpg": "a", "\u2028.jpg": ".jpg", "日本/😀.jpg": "日本",
}  # fmt: skip


@pytest.fixture(scope="module")
def keys(s3: str) -> list[str]:
    client = boto3.client("s3")
    client.create_bucket(Bucket="odd")
    keys = [key for pair in TWINS.items() for key in pair if key]
    for key in dict.fromkeys(keys):
        client.put_object(Bucket="odd", Key=key, Body=b"of " + key.encode())
    return list(dict.fromkeys(keys))


def test_a_key_reads_its_own_object_and_no_other(keys: list[str]) -> None:
    with ObjectReader() as reader:
        assert reader.read_many([f"s3://odd/{key}" for key in keys]) == [b"of " + key.encode() for key in keys]
        with pytest.raises(FetchError, match="too_large"):
            ObjectReader(max_bytes=3).read("s3://odd//a.jpg")


def test_a_key_that_is_not_there_is_not_read_from_its_twin(keys: list[str]) -> None:
    client = boto3.client("s3")
    client.create_bucket(Bucket="twins")
    for key in ("a.jpg", "a/b.jpg", "b.jpg", "c.jpg"):
        client.put_object(Bucket="twins", Key=key, Body=b"another one")
    odd = [
        "/a.jpg",
        "./a.jpg",
        "a.jpg/",
        "a//b.jpg",
        "a/./b.jpg",
        "a/../b.jpg",
        "a%2Fb.jpg",
        "c.jpg ",
        "c.jpg?x",
        "c.jpg#",
    ]
    with ObjectReader(attempts=1) as reader:
        outcomes = reader.read_many([f"s3://twins/{key}" for key in odd])
    assert [outcome.code for outcome in outcomes if isinstance(outcome, FetchError)] == ["not_found"] * len(odd)


def test_what_is_no_address_of_an_object_is_refused_at_once() -> None:
    uris = [
        "s3://",
        "s3:///a.jpg",
        "s3://shop",
        "s3://shop/",
        "s3://two words/a.jpg",
        "s3://../a.jpg",
        "s3://shop/\udc80",
    ]
    with ObjectReader() as reader:
        outcomes = reader.read_many(uris)
    assert [outcome.code for outcome in outcomes if isinstance(outcome, FetchError)] == ["unsupported_uri"] * len(uris)
    assert "unsupported_uri" not in RETRYABLE_CODES


def test_a_walk_gives_each_key_as_it_is(keys: list[str]) -> None:
    client = boto3.client("s3")
    for key in keys:
        client.put_object(Bucket="shop", Key=f"walked/{key}", Body=b"x")
    client.put_object(Bucket="shop", Key="walked/made by a console/", Body=b"")
    client.put_object(Bucket="shop", Key="walked-not/a.jpg", Body=b"x")
    assert sorted(storage.walk("s3://shop/walked")) == sorted((key, 1) for key in keys)
    assert sorted(storage.walk("s3://shop/walked/")) == sorted((key, 1) for key in keys)


@pytest.mark.parametrize("uri", ["s3://shop//", "s3://shop//a", "s3://shop/a//b", "s3://shop/./a", "s3://shop/a/../b"])
def test_a_folder_of_ours_is_never_another_one(uri: str) -> None:
    for function in (storage.locate, storage.absolute, storage.exists, storage.ObjectFolder):
        with pytest.raises(StorageError, match="that is empty"):
            function(uri)


def test_odd_keys_do_not_end_an_import_of_a_prefix(keys: list[str], tmp_path: Path) -> None:
    client = boto3.client("s3")
    names = [
        "Men/Shirts/a.jpg",
        "Men/Shirts/b .jpg",
        "Men/Shirts/c%2Fd.jpg",
        "Men/Shirts/e?f#g+h.jpg",
        "Men/Shirts/i.JPG ",
    ]
    odd = ["Men//j.jpg", "./k.jpg", "Men/../l.jpg", "/m.jpg"]
    for name in (*names, *odd):
        client.put_object(Bucket="shop", Key=f"imported/{name}", Body=b"x")
    report = import_catalog(ImportConfig(source="s3://shop/imported", output=str(tmp_path)))
    uris = {row["image_uri"] for row in rows(tmp_path, "images")}
    assert uris == {f"s3://shop/imported/{name}" for name in names[:4]}
    assert report.quarantined == {"bad_key": 4, "not_a_picture": 1}
    assert all(name in " ".join(row["message"] for row in rows(tmp_path, "quarantine")) for name in odd)


def test_names_of_a_table_below_a_prefix_are_kept_or_refused(s3: str, tmp_path: Path) -> None:
    names = [
        "./a.jpg",
        "b.jpg ",
        "c%2Fd.jpg",
        "e//f.jpg",
        "g/../h.jpg",
        "/i.jpg",
        "s3://shop//j.jpg",
        "s3://shop/k.jpg ",
    ]
    lines = [f'{{"product_id": "{n}", "image_uris": ["{name}"]}}\n' for n, name in enumerate(names)]
    (tmp_path / "rows.jsonl").write_text("".join(lines))
    source, output = str(tmp_path / "rows.jsonl"), str(tmp_path / "out")
    import_catalog(ImportConfig(source=source, output=output, image_base=f"{s3}/base"))
    assert {row["product_id"]: row["image_uri"] for row in rows(tmp_path / "out", "images")} == {
        "0": "s3://shop/base/a.jpg", "1": "s3://shop/base/b.jpg", "2": "s3://shop/base/c%2Fd.jpg",
        "5": "s3://shop/base/i.jpg", "6": "s3://shop//j.jpg", "7": "s3://shop/k.jpg ",
    }  # fmt: skip
    assert [row["error_code"] for row in rows(tmp_path / "out", "quarantine")] == ["bad_image_uri"] * 2


def test_pictures_of_a_folder_to_train_on_are_read_under_their_own_keys(s3: str) -> None:
    client = boto3.client("s3")
    names = ["a.jpg", "/a.jpg", "b//c.jpg", "./d.jpg", "e.jpg ", "f/../g.jpg"]
    for kind in ("zoomed", "normal"):
        for name in names:
            client.put_object(Bucket="shop", Key=f"zoom/{kind}/{name}", Body=f"{kind} {name}".encode())
    config = ZoomTraining(zoomed=f"{s3}/zoom/zoomed", normal=f"{s3}/zoom/normal", output="unused")
    drawn = draw_candidates(config).drawn
    with ObjectReader() as reader:
        contents = reader.read_many([one.uri for one in drawn])
    expected = [f"{kind} {name}".encode() for kind in ("zoomed", "normal") for name in names]
    assert sorted(one for one in contents if isinstance(one, bytes)) == sorted(expected)


@pytest.mark.parametrize("odd", ["/part-0.parquet", "a//part-0.parquet", "./part-0.parquet"])
def test_a_file_of_a_table_is_never_read_in_the_place_of_another(s3: str, odd: str) -> None:
    table = pa.table({"product_id": ["1"], "image_uri": ["a.jpg"]})
    folder = f"{s3}/twice/{len(odd)}"
    storage.write_table(f"{folder}/part-0.parquet", table)
    key = f"{folder.removeprefix('s3://shop/')}/{odd}"
    boto3.client("s3").put_object(Bucket="shop", Key=key, Body=storage.read_bytes(f"{folder}/part-0.parquet"))
    with pytest.raises(StorageError, match="that is empty"):
        open_table(folder, IMAGES, foreign=True)


class Answering(BaseHTTPRequestHandler):
    """Answers with the status and the error that the last part of the path names: 403-AccessDenied."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        status, _, name = self.path.rpartition("/")[2].partition("-")
        body = f"<?xml version='1.0'?><Error><Code>{name}</Code><Message>no</Message></Error>".encode()
        self.send_response(int(status))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, os.environ.get(name, "test"))
    with WebServer(("127.0.0.1", 0), Answering) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        yield


@pytest.mark.parametrize("number", ["EMFILE", "ENFILE", "EIO", "ESTALE", "ENOTCONN", "ENOMEM", "ETIMEDOUT"])
def test_a_disk_that_is_away_says_nothing_of_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: str
) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    error = OSError(getattr(errno, number), os.strerror(getattr(errno, number)))
    monkeypatch.setattr(objects, "_without_waiting", lambda *_: (_ for _ in ()).throw(error))
    with ObjectReader(attempts=1) as reader:
        (outcome,) = reader.read_many([str(tmp_path / "a.jpg")])
    assert isinstance(outcome, FetchError)
    assert outcome.code == "unreachable"


@pytest.mark.long
def test_more_files_than_the_process_may_open_are_read_all_the_same(tmp_path: Path) -> None:
    paths = [str(tmp_path / f"{number}.jpg") for number in range(300)]
    for path in paths:
        Path(path).write_bytes(path.encode() * 1000)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    there = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (there + 3, before[1]))
    try:
        with ObjectReader(threads=32, attempts=8) as reader:
            outcomes = reader.read_many(paths)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert all(isinstance(one, bytes) or one.code == "unreachable" for one in outcomes)
    assert sum(isinstance(one, bytes) for one in outcomes) > 200


@pytest.mark.long
@pytest.mark.usefixtures("answering")
@pytest.mark.parametrize("folder", ["pictures", "odd/"])  # each client reads one of them
def test_passing_reasons_are_told_from_final_ones(folder: str) -> None:
    cases = {
        "403-AccessDenied": "forbidden", "404-NoSuchKey": "not_found", "404-NoSuchBucket": "not_found",
        "400-KeyTooLongError": "unsupported_uri", "405-MethodNotAllowed": "forbidden",
        "403-ExpiredToken": "bad_credentials", "400-ExpiredToken": "bad_credentials",
        "403-InvalidAccessKeyId": "bad_credentials", "403-RequestExpired": "bad_credentials",
        "403-SignatureDoesNotMatch": "bad_credentials", "403-RequestTimeTooSkewed": "bad_credentials",
        "401-Unauthorized": "bad_credentials", "429-TooManyRequests": "rate_limited", "408-RequestTimeout": "timeout",
        "400-ThrottlingException": "rate_limited", "403-RequestLimitExceeded": "rate_limited",
        "400-RequestTimeout": "timeout", "409-OperationAborted": "server_error", "403-InvalidObjectState": "forbidden",
        "503-SlowDown": "server_error", "500-InternalError": "server_error", "504-GatewayTimeout": "server_error",
    }  # fmt: skip
    with ObjectReader(attempts=1, store_retries=0) as reader:
        outcomes = reader.read_many([f"s3://shop/{folder}/{case}" for case in cases])
    found = [outcome.code for outcome in outcomes if isinstance(outcome, FetchError)]
    assert dict(zip(cases, found, strict=True)) == cases
    final = {"forbidden", "not_found", "unsupported_uri"}
    assert set(cases.values()) - final == RETRYABLE_CODES - {"dns", "unreachable"}


@pytest.fixture
def silent_store(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A store that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        for name, value in {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "REGION": "us-east-1"}.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        monkeypatch.delenv("AWS_ENDPOINT_URL_S3", raising=False)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        yield "s3://silent/catalog"


@pytest.mark.long
def test_a_store_that_does_not_answer_is_named_within_seconds_and_given_up(
    silent_store: str, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    began = time.monotonic()
    flags = ["--model", str(tmp_path / "model"), "--output", str(tmp_path / "run"), "--outage-s", "6"]
    assert main(["score", "--catalog", silent_store, *flags]) == 1
    assert time.monotonic() - began < 25
    told = capfd.readouterr().err.splitlines()
    assert told[0].startswith("atlas-ray: the store s3://silent has not answered for 5 s: ")
    assert told[0].endswith("waiting, up to 6 s")
    assert "the store s3://silent has not answered for" in told[-1]
    assert not (tmp_path / "run").exists()


def test_stores_that_answer_and_what_is_no_store_are_not_waited_for(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    await_stores([s3, f"{s3}/no/such/key", "s3://no-such-bucket/x", "/a/folder", "word"], 60, told.append)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "wrong")
    await_stores([s3], 60, told.append)  # an answer, whatever it says
    assert told == []
