"""Etags of files and objects: equal as long as nothing was written, another one after anything was."""

import hashlib
import os
from pathlib import Path

import boto3
import pytest

from atlas_ray.errors import FetchError
from atlas_ray.io import etags
from atlas_ray.io.objects import HashedObject, Object, ObjectReader


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(etags, "SETTLED_S", 0.0)


@pytest.mark.usefixtures("settled")
def test_a_file_keeps_its_etag_until_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"one")
    uris = [str(path), f"file://{path}"]
    with ObjectReader() as reader:
        first = reader.get_many(uris)
        sha256 = hashlib.sha256(b"one").hexdigest()
        assert first == [HashedObject(b"one", first[0].etag, sha256)] * 2  # type: ignore[union-attr]
        assert reader.etags(uris) == [first[0].etag] * 2  # type: ignore[union-attr]
        times = path.stat()
        path.write_bytes(b"two")
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        other = reader.etag(uris[0])
        assert other != first[0].etag  # type: ignore[union-attr]
        (tmp_path / "b.jpg").write_bytes(b"six")
        os.utime(tmp_path / "b.jpg", ns=(times.st_atime_ns, times.st_mtime_ns))
        (tmp_path / "b.jpg").replace(path)
        assert reader.etag(uris[0]) not in (other, first[0].etag)  # type: ignore[union-attr]


def test_a_file_that_was_just_written_has_no_etag(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"one")
    with ObjectReader() as reader:
        assert reader.get(str(tmp_path / "a.jpg")) == Object(b"one", None)
        assert reader.etag(str(tmp_path / "a.jpg")) is None


def test_an_object_keeps_its_etag_until_it_is_written(s3: str) -> None:
    client = boto3.client("s3")
    client.put_object(Bucket="shop", Key="a.jpg", Body=b"one")
    with ObjectReader() as reader:
        content, etag = reader.get(f"{s3}/a.jpg")
        assert content == b"one"
        assert etag == "f97c5d29941bfb1b2fdab0874906ab82-3"  # the MD5 of its content, and its size
        assert reader.etags([f"{s3}/a.jpg"] * 40) == [etag] * 40
        client.put_object(Bucket="shop", Key="a.jpg", Body=b"two")
        assert reader.etag(f"{s3}/a.jpg") not in (None, etag)


def test_a_key_that_is_no_path_has_none(s3: str) -> None:
    boto3.client("s3").put_object(Bucket="shop", Key="odd//a.jpg", Body=b"one")
    with ObjectReader() as reader:
        assert reader.get(f"{s3}/odd//a.jpg") == Object(b"one", None)
        assert reader.etag(f"{s3}/odd//a.jpg") is None


@pytest.mark.usefixtures("settled")
def test_what_cannot_be_had_has_the_code_that_reading_it_has(s3: str, tmp_path: Path) -> None:
    uris = [f"{s3}/no.jpg", f"{tmp_path}/no.jpg", str(tmp_path), "ftp://a/b.jpg", "s3://shop"]
    with ObjectReader(attempts=1) as reader:
        codes = [
            [one.code for one in found if isinstance(one, FetchError)]
            for found in (reader.etags(uris), reader.get_many(uris))
        ]
    assert codes == [["not_found", "not_found", "unreadable", "unsupported_uri", "unsupported_uri"]] * 2


def test_a_store_without_etags_says_nothing() -> None:
    assert etags.etag_of_object(None, 3) is None
    assert etags.etag_of_object('""', 3) is None
