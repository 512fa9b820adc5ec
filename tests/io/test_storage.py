import asyncio
import errno
import os
import pickle
import resource
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import ray.exceptions
import torch
from ray.data._internal.util import _annotate_exception_with_retry_context as annotated

from atlas_ray.errors import CatalogError, ConfigError, DiskFullError, FetchError, OutageError, StorageError, reason_of
from atlas_ray.io import storage
from atlas_ray.io.objects import ObjectReader


def test_a_local_path_and_s3_work_alike(tmp_path: Path, s3: str) -> None:
    for root in (str(tmp_path), f"{s3}/storage"):
        uri = storage.join(root, "a", "b.txt")
        assert not storage.exists(uri)
        storage.write_bytes(uri, b"hello")
        assert storage.read_bytes(uri) == b"hello"
        assert storage.files(storage.join(root, "a")) == [uri]
        assert storage.files(storage.join(root, "missing")) == []
        assert list(storage.walk(root)) == [("a/b.txt", 5)]
        assert storage.is_folder(storage.join(root, "a"))
        storage.delete_file(uri)
        storage.delete_file(uri)
        assert not storage.exists(uri)


def test_many_files_are_put_at_the_same_time(tmp_path: Path, s3: str) -> None:
    async def put(folder: storage.ObjectFolder) -> list[str]:
        return await asyncio.gather(*(folder.put(f"{number % 7}/{number % 50}", b"x" * 100) for number in range(99)))

    for root in (str(tmp_path), f"{s3}/folder", f"{s3}/folder/deeper/"):
        uris = asyncio.run(put(storage.ObjectFolder(root)))
        assert uris[52] == storage.join(root, "3", "2")
        assert storage.read_bytes(uris[52]) == b"x" * 100
    assert len(list(storage.walk(str(tmp_path)))) == len(set(uris))


def test_a_file_that_cannot_be_put_is_named(tmp_path: Path, s3: str) -> None:
    (tmp_path / "folder").mkdir()
    folder = storage.ObjectFolder(str(tmp_path / "folder"))
    (tmp_path / "folder" / "taken").write_text("a file where a folder must be")
    with pytest.raises(StorageError, match=r"folder/taken/a\.jpg: "):
        asyncio.run(folder.put("taken/a.jpg", b"abc"))
    with pytest.raises(StorageError, match=r"not-there/pictures/a\.jpg: "):
        asyncio.run(storage.ObjectFolder("s3://bucket-that-is-not-there/pictures").put("a.jpg", b"abc"))


def _save_weights(uri: str) -> None:
    with storage.writing(uri) as stream:
        torch.save({"weights": torch.zeros(100_000)}, stream)


def _put(uri: str) -> None:
    folder, _, name = uri.rpartition("/")
    asyncio.run(storage.ObjectFolder(folder).put(name, b"x" * 400_000))


WRITERS: dict[str, Callable[[str], None]] = {
    "bytes": lambda uri: storage.write_bytes(uri, b"x" * 400_000),
    "lines": lambda uri: storage.write_lines(uri, ("x" * 999 + "\n" for _ in range(400))),
    "table": lambda uri: storage.write_table(uri, pa.table({"number": np.random.default_rng(0).random(100_000)})),
    "torch": _save_weights,
    "async": _put,
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_full_disk_is_told_in_a_line_and_keeps_nothing(full_disk: Path, kind: str) -> None:
    target = full_disk / "folder" / "file"
    storage.write_bytes(str(target), b"before")
    with pytest.raises((DiskFullError, RuntimeError)) as told:  # torch raises its own from that
        WRITERS[kind](str(target))
    reason = reason_of(told.value)
    assert isinstance(reason, DiskFullError)
    assert "no space left" in str(reason)
    assert target.read_bytes() == b"before"
    assert [file.name for file in target.parent.iterdir()] == ["file"]


def test_a_file_over_the_limit_is_told_and_keeps_nothing(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(DiskFullError, match=r"folder/file: as large as"):
            WRITERS["table"](str(tmp_path / "folder" / "file"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list((tmp_path / "folder").iterdir()) == []


@pytest.mark.parametrize("error", [ValueError("the rows end"), KeyboardInterrupt()])
def test_what_is_not_written_to_its_end_is_not_there(tmp_path: Path, s3: str, error: BaseException) -> None:
    def lines() -> Iterator[str]:
        yield "one\n"
        yield "x" * (12 << 20)  # more than one part of an upload
        raise error

    for root in (str(tmp_path), f"{s3}/half"):
        with pytest.raises(type(error)):
            storage.write_lines(storage.join(root, "rows.jsonl"), lines())
        assert list(storage.walk(root)) == []
        storage.write_bytes(storage.join(root, "rows.jsonl"), b"before\n")
        with pytest.raises(type(error)):
            storage.write_lines(storage.join(root, "rows.jsonl"), lines())
        assert storage.read_bytes(storage.join(root, "rows.jsonl")) == b"before\n"
        storage.delete_file(storage.join(root, "rows.jsonl"))
    assert boto3.client("s3").list_multipart_uploads(Bucket="shop").get("Uploads", []) == []


def test_a_file_that_is_being_written_is_no_row_of_its_table(tmp_path: Path) -> None:
    table = pa.table({"number": [1, 2]})
    storage.write_table(str(tmp_path / "whole.parquet"), table)
    with storage.writing(str(tmp_path / "half.parquet")) as stream:
        pq.write_table(table, stream)
        assert len(list(tmp_path.iterdir())) == 2
        assert ds.dataset(tmp_path, format="parquet").to_table() == table
    assert ds.dataset(tmp_path, format="parquet").count_rows() == 4


def test_the_reason_is_found_behind_other_errors() -> None:
    def raised(error: BaseException, cause: BaseException) -> BaseException:
        error.__cause__ = cause
        return error

    full = OSError(errno.ENOSPC, "No space left on device", "/data/x")
    mistake = CatalogError("no products table")
    assert str(reason_of(raised(RuntimeError("task failed"), full))).startswith("/data/x: no space left")
    assert reason_of(raised(RuntimeError("a"), raised(ValueError("b"), mistake))) is mistake
    assert isinstance(reason_of(RuntimeError("lance: IO error: No space left on device (os error 28)")), DiskFullError)
    assert isinstance(reason_of(sqlite3.OperationalError("database or disk is full")), DiskFullError)
    assert reason_of(raised(RuntimeError("a"), OSError(errno.EIO, "Input/output error"))) is None
    gone = raised(RuntimeError("a"), ray.exceptions.LocalRayletDiedError())
    assert str(reason_of(gone)) == (
        "Ray lost what this command runs on: The task's local raylet died; give the same command again"
    )
    assert reason_of(raised(gone, mistake)) is mistake
    died = "The actor died because of an error raised in its creation task, ray::MapWorker.__init__()\n  File 'x.py'\n"
    told = reason_of(RuntimeError(died + "atlas_ray.errors.ConfigError: engine 'x': none\n"))
    assert (type(told), str(told)) == (ConfigError, "engine 'x': none")
    assert reason_of(RuntimeError(died + "atlas_ray.errors.ConfigError: no\nKeyError: 'x'")) is None
    caused = "\n\nThe above exception was the direct cause of the following exception:\n\nray.UserCodeException: UDF"
    assert str(reason_of(RuntimeError(died + "atlas_ray.errors.ConfigError: no" + caused))) == "no"
    assert reason_of(RuntimeError(died + "atlas_ray.errors.reason_of: no")) is None
    away = OSError(
        "When creating key 'run/checkpoint/1.parquet' in bucket 'shop': AWS Error NETWORK_CONNECTION: curl 7"
    )
    assert str(reason_of(raised(RuntimeError("a"), away))).startswith("the object store fails: AWS Error NETWORK_CONN")


def test_a_store_that_fails_in_the_middle_is_no_mistake() -> None:
    with (
        pytest.raises(OutageError, match="gone; the same command goes on from here"),
        storage.in_the_middle("s3://b/a"),
    ):
        raise StorageError("s3://b/a: gone")
    with pytest.raises(StorageError, match=r"denied$"), storage.in_the_middle("/a"):
        raise StorageError("/a: denied")
    with pytest.raises(StorageError, match=r"^/a: OSError$"), storage.named("/a"):
        raise OSError


@pytest.mark.parametrize(
    ("uri", "reason"), [("", "empty path"), ("s3://", "names no bucket"), ("ftp://x/y", "scheme 'ftp'")]
)
def test_a_bad_uri_is_refused_with_its_reason(uri: str, reason: str) -> None:
    with pytest.raises(StorageError, match=reason):
        storage.locate(uri)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"nothing.txt: no such file"):
        storage.read_bytes(str(tmp_path / "nothing.txt"))


def test_a_bad_endpoint_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "localhost:9000")
    with pytest.raises(StorageError, match="AWS_ENDPOINT_URL is 'localhost:9000'"):
        storage.locate("s3://bucket/key")


def test_each_object_has_its_own_outcome(tmp_path: Path, s3: str) -> None:
    boto3.client("s3").put_object(Bucket="shop", Key="objects/a.jpg", Body=b"abc")
    (tmp_path / "b.jpg").write_bytes(b"def")
    (tmp_path / "big.jpg").write_bytes(b"x" * 2000)
    uris = [
        f"{s3}/objects/a.jpg",
        str(tmp_path / "b.jpg"),
        f"{s3}/objects/none.jpg",
        str(tmp_path / "none.jpg"),
        str(tmp_path / "big.jpg"),
        "/dev/zero",
        str(tmp_path),
        "http://127.0.0.1/a.jpg",
        "s3://bucket-that-is-not-there/a.jpg",
        "s3://shop",
        "bad\0name",
    ]
    with ObjectReader(max_bytes=1000) as reader:
        outcomes = reader.read_many(uris)
    codes = [outcome.code if isinstance(outcome, FetchError) else outcome for outcome in outcomes]
    assert codes == [
        b"abc", b"def", "not_found", "not_found", "too_large", "unreadable", "unreadable",
        "unsupported_uri", "not_found", "unsupported_uri", "unreadable",
    ]  # fmt: skip


@pytest.mark.long
def test_a_dead_server_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with ObjectReader(attempts=1, timeout_s=1) as reader:
        (outcome,) = reader.read_many(["s3://shop/a.jpg"])
    assert isinstance(outcome, FetchError)
    assert outcome.code in ("unreachable", "timeout")


@pytest.mark.parametrize(
    ("name", "hidden"),
    [("a/b.jpg", False), (".a/b.jpg", True), ("a/.b.jpg", True), ("a/__MACOSX/b.jpg", True), ("@eaDir/x", True),
     ("a.b/c", False), ("x@eaDir/y", False)],
)  # fmt: skip
def test_hidden_files(name: str, hidden: bool) -> None:
    assert storage.is_hidden(name) == hidden


def test_a_folder_that_cannot_be_read_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b.jpg").write_bytes(b"x")
    scan = os.scandir

    def closed(path: str) -> Any:
        if path.endswith("/a"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(StorageError, match="Permission denied"):
        list(storage.walk(str(tmp_path)))


def test_links_are_followed_but_not_for_ever(tmp_path: Path) -> None:
    root, other = tmp_path / "root", tmp_path / "other"
    for path in (root / "a" / "1.jpg", root / "b" / "2.jpg", other / "3.jpg"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    (root / "linked").symlink_to(other)
    (root / "a" / "up").symlink_to(root)
    (root / "a" / "b").symlink_to(root / "b")
    (root / "b" / "a").symlink_to(root / "a")
    (root / "a" / "gone.jpg").symlink_to(tmp_path / "nothing")
    (root / "a" / "one.jpg").symlink_to(root / "a" / "1.jpg")
    found = dict(storage.walk(str(root)))
    assert found.items() >= {
        "a/1.jpg": 1, "b/2.jpg": 1, "linked/3.jpg": 1, "a/b/2.jpg": 1, "b/a/1.jpg": 1, "a/gone.jpg": -1, "a/one.jpg": 1
    }.items()  # fmt: skip
    assert len(found) == 9  # and b/a/gone.jpg and b/a/one.jpg


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (CatalogError("shop: no such table"), "shop: no such table"),
        (OSError(errno.ENOSPC, "No space left on device"), "a file of this run, or a temporary one: no space left"),
    ],
)
def test_what_ray_adds_to_an_error_of_a_task_is_left_out(error: Exception, told: str) -> None:
    context: dict[str, Any] = {
        "description": "apply UDF transform",
        "attempts": 1,
        "max_attempts": 1,
        "total_backoff_s": 0.0,
    }
    added = pickle.loads(pickle.dumps(annotated(error, exception_str=str(error), **context)))
    assert "DataContext" in str(added)
    reason = reason_of(added)
    assert str(reason).startswith(told)
    assert "\n" not in str(reason)
