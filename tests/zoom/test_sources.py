import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atlas_ray.catalog.importer import ImportConfig, import_catalog
from atlas_ray.cli.main import main
from atlas_ray.errors import CatalogError, ConfigError, StorageError
from atlas_ray.zoom.examples import read_examples
from atlas_ray.zoom.settings import ZoomTraining
from atlas_ray.zoom.sources import draw_candidates
from tests.support.parts import picture


def settings(**fields: Any) -> ZoomTraining:
    return ZoomTraining(output="unused", **fields)


def write(path: Path, data: str | bytes = b"x") -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return str(path)


def test_a_catalogue_is_drawn_from_at_random(catalog: str) -> None:
    every = draw_candidates(settings(catalog=catalog))
    assert every.cut
    assert len({one.uri for one in every.drawn}) == len(every.drawn) == 117
    assert sum(one.zoomed for one in every.drawn) == 59  # every other one
    some, same, other = (draw_candidates(settings(catalog=catalog, pictures=20, seed=seed)) for seed in (1, 1, 2))
    assert some == same
    assert len(some.drawn) == len(other.drawn) == 20
    assert set(some.drawn) != set(other.drawn)
    assert {(one.uri, one.product_id) for one in some.drawn} < {(one.uri, one.product_id) for one in every.drawn}


def test_close_ups_that_follow_a_picture_are_not_taken_for_normal(tmp_path: Path) -> None:
    """The images table may have any order, and pictures of products that the products table does not list."""
    catalog = tmp_path / "shop"
    shown = {f"p{number}": [f"/p{number}/whole.jpg", f"/p{number}/near.jpg"] for number in range(30)}
    products: dict[str, Any] = {"product_id": [*shown, "bare"], "image_uris": [*shown.values(), []]}
    pairs = [(name, uri) for name, uris in shown.items() for uri in reversed(uris)]
    pairs += [("bare", "/bare/only.jpg"), ("unlisted", "/unlisted/only.jpg")]
    ids, uris = zip(*pairs, strict=True)
    for name, table in (("products", products), ("images", {"product_id": ids, "image_uri": uris})):
        (catalog / name).mkdir(parents=True)
        pq.write_table(pa.table(table), catalog / name / "a.parquet")
    drawn = draw_candidates(settings(catalog=str(catalog))).drawn
    assert len(drawn) == len(set(drawn)) == 32
    assert {one.uri for one in drawn} == {uri for uri in uris if "near" not in uri}
    assert all(one.product_id in one.uri for one in drawn)
    assert sum(one.zoomed for one in drawn) == 16
    assert 10 <= len(draw_candidates(settings(catalog=str(catalog), pictures=20)).drawn) <= 20


def test_two_folders(tmp_path: Path) -> None:
    for name in ("zoomed/a.jpg", "zoomed/deep/b.png", "normal/a.jpg", "normal/.DS_Store"):
        write(tmp_path / name)
    found = draw_candidates(settings(zoomed=str(tmp_path / "zoomed"), normal=str(tmp_path / "normal")))
    assert sorted((one.uri, one.product_id, one.zoomed) for one in found.drawn) == [
        (str(tmp_path / "normal/a.jpg"), "a", False),
        (str(tmp_path / "zoomed/a.jpg"), "a", True),
        (str(tmp_path / "zoomed/deep/b.png"), "deep/b", True),
    ]
    assert not found.cut


def test_the_published_json(tmp_path: Path) -> None:
    """A list, and the files in a folder a label, as the published script leaves them."""
    entries = [
        {"filename": "1.jpg", "image_url": "http://shop/1.jpg", "label": "zoomed", "title": "White shirt"},
        {"filename": "2.jpg", "image_url": "http://shop/2.jpg", "label": "normal", "title": "White shirt"},
    ]
    source = write(tmp_path / "zvsn_data.json", json.dumps(entries))
    write(tmp_path / "pictures/zoomed/1.jpg")
    write(tmp_path / "pictures/normal/2.jpg")
    found = draw_candidates(settings(labels=source, image_base=str(tmp_path / "pictures"))).drawn
    assert sorted((one.uri, one.product_id, one.zoomed) for one in found) == [
        (str(tmp_path / "pictures/normal/2.jpg"), "White shirt", False),
        (str(tmp_path / "pictures/zoomed/1.jpg"), "White shirt", True),
    ]


def test_json_with_other_names_and_unusable_entries(tmp_path: Path) -> None:
    images = [
        {"file": "a.jpg", "class": 1},
        {"file": "b/c.jpg", "class": 0},
        {"file": "../../etc/passwd", "label": "zoomed"},
        {"file": "/etc/passwd", "label": "zoomed"},
        {"file": "http://shop/a.jpg", "label": "zoomed"},
        {"file": "d.jpg", "label": "blurred"},
        {"file": "d.jpg"},
        {"label": "normal"},
        "d.jpg",
    ]
    source = write(tmp_path / "labels.json", json.dumps({"images": images}))
    found = draw_candidates(settings(labels=source))
    assert {(one.uri, one.zoomed) for one in found.drawn} == {
        (str(tmp_path / "a.jpg"), True),
        (str(tmp_path / "b/c.jpg"), False),
    }
    assert [row["error_code"] for row in found.refused] == [
        *["bad_image_uri"] * 3, "bad_value", "bad_value", "missing_images", "bad_row",
    ]  # fmt: skip
    assert str(found.refused[0]["message"]).startswith(f"{source}, picture 3: '../../etc/passwd'")


@pytest.mark.parametrize(
    ("text", "reason"),
    [("{", "not JSON"), ("[" * 100_000, "not JSON"), ("{}", "no list of pictures"), ("7", "no list")],
)
def test_json_of_another_kind_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(CatalogError, match=reason):
        draw_candidates(settings(labels=write(tmp_path / "labels.json", text)))


def test_missing_sources(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    with pytest.raises(CatalogError, match="no images table"):
        draw_candidates(settings(catalog=missing))
    with pytest.raises(CatalogError, match="no such folder"):
        draw_candidates(settings(zoomed=missing, normal=missing))
    with pytest.raises(StorageError, match="no such file"):
        draw_candidates(settings(labels=missing))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "expected one source"),
        ({"catalog": "c", "labels": "l"}, "expected one source"),
        ({"catalog": "c", "zoomed": "z"}, "zoomed and normal go together"),
        ({"catalog": "c", "image_base": "b"}, "image_base is 'b'"),
        ({"catalog": "c", "target_precision": 1.5}, "target_precision is 1.5"),
    ],
)
def test_mistakes_in_the_settings(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        settings(**fields)


def test_names_that_are_not_text_and_hidden_folders(tmp_path: Path) -> None:
    for kind in ("zoomed", "normal"):
        for name in (b"a.jpg", b"bad\xff.jpg", b".ipynb_checkpoints/a.jpg", b"__MACOSX/x/b.jpg"):
            path = os.path.join(os.fsencode(tmp_path), kind.encode(), name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as stream:
                stream.write(b"x")
    config = settings(zoomed=str(tmp_path / "zoomed"), normal=str(tmp_path / "normal"))
    candidates = draw_candidates(config)
    assert sorted(candidate.uri for candidate in candidates.drawn) == [
        str(tmp_path / "normal" / "a.jpg"), str(tmp_path / "zoomed" / "a.jpg")
    ]  # fmt: skip
    assert [row["error_code"] for row in candidates.refused] == ["bad_encoding"] * 2
    assert f"{tmp_path}/zoomed, bad\\udcff.jpg: its name is not UTF-8" in str(candidates.refused[0]["message"])


def labels_file(folder: Path, count: int) -> str:
    """A file of labels of pictures that are not beside it."""
    entries = [
        {"filename": f"{n}.jpg", "label": ("zoomed", "normal")[n % 2], "title": f"product {n}"} for n in range(count)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "labels.json").write_text(json.dumps(entries))
    return str(folder / "labels.json")


def told(folder: Path, capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    assert main(["train", "zoom", *flags, "--output", str(folder / "model"), "--image-size-px", "32"]) == 2
    assert not (folder / "model").exists()
    return capsys.readouterr().err


def test_pictures_that_are_not_where_they_were_looked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = labels_file(tmp_path / "labels", 700)
    said = told(tmp_path, capsys, "--labels", labels, "--image-base", str(tmp_path / "nowhere"))
    assert f"--image-base {tmp_path}/nowhere: no such folder" in said
    (tmp_path / "empty").mkdir()
    said = told(tmp_path, capsys, "--labels", labels, "--image-base", str(tmp_path / "empty"))
    assert "256 of 256 pictures could not be read (not_found 256)" in said  # the first ones say enough
    assert f"looked for below {tmp_path}/empty, which --image-base names; the first: {tmp_path}/empty/" in said
    said = told(tmp_path, capsys, "--labels", labels_file(tmp_path / "few", 40))
    assert "40 of 40 pictures could not be read (not_found 40); looked for below" in said
    assert f"{tmp_path}/few, the folder of {tmp_path}/few/labels.json; --image-base names another one" in said


@pytest.mark.long
def test_pictures_of_a_catalogue_that_are_gone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "shop.csv").write_text("id,image\n" + "".join(f"{n},{n}.jpg\n" for n in range(90)))
    import_catalog(ImportConfig(source=str(tmp_path / "shop.csv"), output=str(tmp_path / "catalog")))
    said = told(tmp_path, capsys, "--catalog", str(tmp_path / "catalog"))
    assert "90 of 90 pictures could not be read (not_found 90); the catalogue's images table names them" in said
    # Some that are missing end nothing, and are told before the training.
    for number in range(85):
        (tmp_path / f"{number}.jpg").write_bytes(picture(number))
    candidates = draw_candidates(ZoomTraining(catalog=str(tmp_path / "catalog"), output="unused"))
    read_examples(candidates, 32, seed=1)
    assert "5 of 90 pictures could not be read (not_found 5)" in capsys.readouterr().err
