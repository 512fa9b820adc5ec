"""Which outcomes of an earlier run still hold: each reason to carry one over, and each to score a picture again."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from atlas_ray.arrays import tagged
from atlas_ray.io import etags
from atlas_ray.io.objects import ObjectReader
from atlas_ray.runtime.joined import NO_PICTURE
from atlas_ray.runtime.shuffle import FILTERED, IMAGE, OUTCOME, PRODUCT, QUARANTINED
from atlas_ray.schemas import image_ids, texts_ids
from atlas_ray.scoring.carry import (
    AGAIN,
    CARRIED_PICTURES,
    CHANGED,
    NEW,
    NOT_OF_PICTURES,
    TO_SCORE,
    Previous,
    compare,
    shape,
    split_compared,
)
from atlas_ray.scoring.trust import TRUST


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file may be compared at once."""
    monkeypatch.setattr(etags, "SETTLED_S", 0.0)


class Shop:
    """Pictures on a disk, and what an earlier run says of them."""

    def __init__(self, folder: Path, texts: Sequence[str] = ()) -> None:
        self.folder, self.texts = folder, tuple(texts)
        self.rows: list[tuple[int, dict[str, Any]]] = []
        self.compared = pa.table({})

    def product(self, product: str, **texts: str | None) -> None:
        """List a product."""
        self.rows.append((PRODUCT, {"product_id": product, **texts}))

    def picture(self, product: str, name: str, outcome: int | None = OUTCOME, **fields: Any) -> Path:
        """Draw a picture and list it, with what became of it in the earlier run."""
        path = self.folder / name
        path.write_bytes(name.encode())
        self.rows.append((IMAGE, keys(product, str(path))))
        if outcome is not None:
            self.outcome(product, path, outcome, **fields)
        return path

    def outcome(self, product: str, path: Path, kind: int, **fields: Any) -> None:
        """Add what became of a picture in the earlier run."""
        with ObjectReader() as reader:
            read = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "etag": reader.etag(str(path))}
        if kind == QUARANTINED:
            read |= {"sha256": None, "stage": "decode", "error_code": "truncated"}
        self.rows.append((kind, {**keys(product, str(path)), **read, **fields}))

    def compare(self, **options: Any) -> dict[str, str]:
        """Return what is to be done with each picture, by its name."""
        schema = shape(self.texts)
        tables = [
            tagged(pa.Table.from_pylist([row], schema=pa.schema([schema.field(name) for name in row])), kind, schema)
            for kind, row in self.rows
        ]
        asked = {"filters": False, "same_program": True, "trust": "etag", **options}
        with ObjectReader(attempts=1) as reader:
            self.compared = compare(pa.concat_tables(tables), reader=reader, texts=self.texts, **asked)
        return {Path(row["image_uri"]).name: row["what"] for row in self.compared.to_pylist()}


def keys(product: str, uri: str) -> dict[str, Any]:
    return {"image_id": int(image_ids([product], [uri])[0]), "product_id": product, "image_uri": uri}


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


@pytest.mark.parametrize(
    ("trust", "written", "touched", "gone"),
    [
        ("etag", CHANGED, CHANGED, CHANGED),
        ("content", CHANGED, "predictions", CHANGED),
        ("uri", "predictions", "predictions", "predictions"),
    ],
)
def test_what_makes_a_picture_another_one(shop: Shop, trust: str, written: str, touched: str, gone: str) -> None:
    assert set(TRUST) == {"etag", "content", "uri"}
    shop.product("a")
    shop.picture("a", "same")
    paths = [shop.picture("a", name) for name in ("written", "touched", "gone")]
    shop.picture("a", "new", None)
    paths[0].write_bytes(b"WRITTEN")
    os.utime(paths[1])
    paths[2].unlink()
    assert shop.compare(trust=trust) == {
        "same": "predictions", "written": written, "touched": touched, "gone": gone, "new": NEW,
    }  # fmt: skip
    if trust == "content":  # the next run may compare by etag again
        with ObjectReader() as reader:
            assert shop.compared["etag"].to_pylist()[2] == reader.etag(str(paths[1]))


def test_a_row_is_carried_over_as_it_is(shop: Shop) -> None:
    shop.product("a")
    alternatives = [{"category_path": ["Men", "Shorts"], "probability": 0.25}]
    path = shop.picture("a", "same", category_path=["Men", "Shirts"], probability=0.75, alternatives=alternatives)
    shop.picture("a", "damaged", QUARANTINED, message="cut off")
    shop.picture("a", "close", FILTERED, zoomed_probability=0.875)
    shop.picture("a", "new", None)
    shop.compare()
    tables = {name: table.to_pylist() for name, table in split_compared(shop.compared, ()).items()}
    (row,) = tables["predictions"]
    assert (row["category_path"], row["probability"]) == (["Men", "Shirts"], 0.75)
    assert row["alternatives"] == alternatives
    assert row["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert [row["message"] for row in tables["quarantine"]] == ["cut off"]
    assert [row["zoomed_probability"] for row in tables["filtered"]] == [0.875]
    assert [Path(row["image_uri"]).name for row in tables[TO_SCORE]] == ["new"]
    assert [Path(row["image_uri"]).name for row in tables[CARRIED_PICTURES]] == ["same", "damaged", "close"]


@pytest.mark.parametrize("trust", TRUST)
def test_what_could_not_be_read_is_asked_for_again(shop: Shop, trust: str) -> None:
    shop.product("a")
    shop.picture("a", "was not there", QUARANTINED, etag=None, stage="fetch", error_code="not_found")
    shop.picture("a", "store was away", QUARANTINED, etag=None, stage="fetch", error_code="timeout")
    assert set(shop.compare(trust=trust).values()) == {AGAIN}


def test_what_was_refused_is_not_read_again_by_the_same_program(shop: Shop) -> None:
    shop.product("a")
    shop.picture("a", "damaged", QUARANTINED)
    shop.picture("a", "mended", QUARANTINED).write_bytes(b"MENDED")
    assert shop.compare() == {"damaged": "quarantine", "mended": CHANGED}
    assert shop.compare(same_program=False) == {"damaged": AGAIN, "mended": AGAIN}
    assert shop.compare(trust="uri") == {"damaged": "quarantine", "mended": "quarantine"}
    assert shop.compare(trust="content") == {"damaged": AGAIN, "mended": AGAIN}  # a refused picture has no hash


def test_what_has_no_etag_is_compared_by_its_content_alone(shop: Shop) -> None:
    shop.product("a")
    shop.picture("a", "picture", etag=None)
    assert shop.compare() == {"picture": AGAIN}
    assert shop.compare(trust="content") == {"picture": "predictions"}


def test_texts_are_compared_as_the_model_reads_them(tmp_path: Path) -> None:
    shop = Shop(tmp_path, ["title"])
    known = {title: int(texts_ids([[title]])[0]) for title in ("red", "blue", None)}
    for number, (title, before) in enumerate([("red", "red"), ("red", "blue"), ("red", None), (None, None)]):
        shop.product(f"P{number}", title=title)
        shop.picture(f"P{number}", f"picture {number}", texts_id=known[before])
        # Of what was answered by its texts alone nobody looks whether it is there.
        spared = {"texts_id": known[before], "etag": None, "sha256": None}
        shop.product(f"S{number}", title=title)
        shop.picture(f"S{number}", f"spared {number}", **spared).unlink()
    for number, before in enumerate(("red", "blue")):
        shop.product(f"bare {number}", title="red")
        bare = {**keys(f"bare {number}", NO_PICTURE), "texts_id": known[before], "category_path": ["Men"]}
        shop.rows.append((OUTCOME, bare))
    shop.product("nothing", title=None)
    shop.rows.append((QUARANTINED, {**keys("nothing", NO_PICTURE), "stage": "predict"}))
    shop.product("damaged", title="red")
    shop.picture("damaged", "damaged", texts_id=known["red"], picture_error="truncated: cut off")
    shop.product("missing", title="red")
    shop.picture(
        "missing", "missing", texts_id=known["red"], picture_error="not_found: no file", etag=None, sha256=None
    )
    for trust in TRUST:
        shop.compare(trust=trust)
        found = {row["product_id"]: row["what"] for row in shop.compared.to_pylist()}
        assert found == {
            "P0": "predictions", "P1": CHANGED, "P2": CHANGED, "P3": "predictions", "bare 0": "predictions",
            "bare 1": CHANGED, "nothing": AGAIN, "damaged": "predictions", "missing": AGAIN, "S0": "predictions",
            "S1": CHANGED, "S2": CHANGED, "S3": "predictions",
        }  # fmt: skip
    shop.compare(same_program=False)
    found = {row["product_id"]: row["what"] for row in shop.compared.to_pylist()}
    assert (found["P0"], found["S0"], found["damaged"]) == ("predictions", "predictions", AGAIN)
    (row,) = (
        row for row in split_compared(shop.compared, ["title"])[TO_SCORE].to_pylist() if row["product_id"] == "P1"
    )
    assert row["title"] == "red"


def test_a_filtered_picture_is_judged_again_with_the_others_of_its_product(shop: Shop) -> None:
    for product in ("settled", "new", "changed", "gone"):
        shop.product(product)
        shop.picture(product, f"{product} close", FILTERED, zoomed_probability=0.9)
        shop.picture(product, f"{product} normal", zoomed_probability=0.1)
    shop.picture("new", "another", None)
    (shop.folder / "changed normal").write_bytes(b"CHANGED")
    shop.rows = [row for row in shop.rows if row[0] != IMAGE or not row[1]["image_uri"].endswith("gone normal")]
    everything = {
        "settled close": "filtered", "settled normal": "predictions", "new close": AGAIN, "new normal": "predictions",
        "another": NEW, "changed close": AGAIN, "changed normal": CHANGED, "gone close": AGAIN,
    }  # fmt: skip
    assert shop.compare(filters=True) == everything


def test_a_picture_that_stands_twice_is_scored_once(shop: Shop) -> None:
    shop.product("a")
    shop.picture("a", "picture")
    shop.rows += shop.rows[1:]
    assert shop.compare() == {"picture": "predictions"}
    assert len(shop.compared) == 1


def test_all_that_decides_an_answer_has_to_be_the_same() -> None:
    identity = {
        "catalog": "a", "input_rows": 1, "model_id": "m", "taxonomy_id": "t", "search": "auto", "beam_width": 5,
        "top_k": 5, "precision": "float32", "engine": "torch", "min_side_px": 2, "answers": 1, "zoom_model_id": None,
        "zoom_threshold": None, "target_precision": None, "decision_threshold": None, "previous": None, "trust": None,
        "cascade": 0.98, "cascade_threshold": 0.875,
    }  # fmt: skip
    previous = Previous("run", {"identity": identity})
    assert previous.difference(identity) is None
    for name in identity:
        reason = previous.difference({**identity, name: "other"})
        if name in NOT_OF_PICTURES:
            assert reason is None
        else:
            assert reason == f"{name} is 'other', there it was {identity[name]!r}"
    older = {name: value for name, value in identity.items() if name != "min_side_px"}
    assert Previous("run", {"identity": older}).difference(identity) == "min_side_px is 2, there it was None"


@pytest.mark.parametrize("texts", [(), ("title",)])
def test_no_rows_at_all(tmp_path: Path, texts: tuple[str, ...]) -> None:
    shop = Shop(tmp_path, texts)
    shop.product("without a picture", **dict.fromkeys(texts))
    assert set(shop.compare().values()) == ({NEW} if texts else set())
    shop.rows = []
    with ObjectReader() as reader:
        found = compare(
            shape(texts).empty_table(), reader=reader, texts=texts, filters=True, same_program=True, trust="etag"
        )
    assert len(found) == 0
    assert all(len(table) == 0 for table in split_compared(found, texts).values())
