import functools
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from atlas_ray.arrays import tagged
from atlas_ray.errors import AuditError
from atlas_ray.runtime.shuffle import FILTERED, IMAGE, OUTCOME, PRODUCT, QUARANTINED
from atlas_ray.schemas import CATEGORIZED
from atlas_ray.scoring.combine import CASCADED, JOINED, combine
from atlas_ray.scoring.product_labels import merge_labels
from atlas_ray.scoring.product_paths import merge_paths

S, T, D = ["M", "W", "S"], ["M", "W", "T"], ["W", "D"]


def rows(kind: int, items: list[dict[str, Any]]) -> pa.Table:
    names = [name for name in JOINED.names if any(name in item for item in items)]
    return tagged(pa.Table.from_pylist(items, schema=pa.schema([JOINED.field(name) for name in names])), kind, JOINED)


def prediction(
    product: str, image: int, path: list[str], levels: list[float], *others: tuple[list[str], float]
) -> dict[str, Any]:
    alternatives = [{"category_path": other, "probability": p} for other, p in others]
    return {
        "product_id": product, "image_id": image, "category_path": path, "probability": levels[-1],
        "level_probabilities": levels, "alternatives": alternatives, "outside_probability": 0.1 * image,
    }  # fmt: skip


PRODUCTS = rows(PRODUCT, [
    {"product_id": "a", "category_path": S, "split": "test"}, {"product_id": "b"}, {"product_id": "c"},
    {"product_id": "no-picture"},
])  # fmt: skip
IMAGES = rows(IMAGE, [{"product_id": p, "image_id": i} for p, i in (("a", 1), ("a", 2), ("b", 3), ("c", 4), ("b", 5))])
PREDICTIONS = rows(OUTCOME, [
    prediction("a", 1, S, [0.9, 0.8, 0.6], (T, 0.2), (D, 0.1)),
    prediction("a", 2, D, [0.6, 0.5], (S, 0.45)),
    prediction("b", 3, D, [0.7, 0.7]),
])  # fmt: skip
FAILED = rows(QUARANTINED, [{"product_id": "c", "image_id": 4}, {"product_id": "b", "image_id": 5}])


def merged(table: pa.Table, zoom_threshold: float | None = None, **options: Any) -> pa.Table:
    merge = functools.partial(merge_paths, **({"top_k": 5} | options))
    return combine(table, merge, model_id="m", taxonomy_id="t", zoom_threshold=zoom_threshold)


def combined(*tables: pa.Table, top_k: int = 5) -> dict[str, dict[str, Any]]:
    table = merged(pa.concat_tables(tables), top_k=top_k)
    assert table.schema.equals(CATEGORIZED)
    return {row["product_id"]: row for row in table.to_pylist()}


def test_pictures_of_a_product_become_one_path() -> None:
    found = combined(PRODUCTS, IMAGES, PREDICTIONS, FAILED)
    assert list(found) == ["a", "b", "c", "no-picture"]
    a = found["a"]
    assert a["category_path"] == S
    assert a["probability"] == pytest.approx((0.6 + 0.45) / 2)
    # picture 1 has its own levels, picture 2 lists 0.45 below M > W > S
    assert a["level_probabilities"] == pytest.approx([(0.9 + 0.45) / 2, (0.8 + 0.45) / 2, (0.6 + 0.45) / 2])
    assert [other["category_path"] for other in a["alternatives"]] == [D, T]
    assert [other["probability"] for other in a["alternatives"]] == pytest.approx([0.3, 0.1])
    assert a["outside_probability"] == pytest.approx(0.15)
    assert (a["true_category_path"], a["split"], a["images_scored"]) == (S, "test", 2)
    b = found["b"]
    assert (b["category_path"], b["images_scored"], b["images_quarantined"]) == (D, 1, 1)
    assert b["level_probabilities"] == pytest.approx([0.7, 0.7])
    for name in ("c", "no-picture"):
        assert found[name]["category_path"] is None
        assert found[name]["probability"] is None
        assert found[name]["alternatives"] is None
    assert found["c"]["images_quarantined"] == 1


def test_what_the_catalogue_says_of_a_product_travels() -> None:
    said = {"store": "one", "price": 9.5, "brand": "B", "sku": "007", "availability": "InStock"}
    several = {"category_paths": [S, D], "attributes": [("colour", "red"), ("fit", "slim")]}
    listed = rows(PRODUCT, [{"product_id": "a", "category_path": S, **said, **several}, {"product_id": "b"}])
    found = combined(listed, IMAGES, PREDICTIONS, FAILED)
    assert {name: found["a"][name] for name in said} == said
    assert found["a"]["true_category_paths"] == [S, D]
    assert found["a"]["attributes"] == [("colour", "red"), ("fit", "slim")]
    assert {found["b"][name] for name in (*said, "true_category_paths", "attributes")} == {None}


def test_top_k_counts_the_chosen_path() -> None:
    assert len(combined(PRODUCTS, IMAGES, PREDICTIONS, FAILED, top_k=2)["a"]["alternatives"]) == 1


def test_the_order_of_the_rows_does_not_matter() -> None:
    whole = pa.concat_tables([PRODUCTS, IMAGES, PREDICTIONS, FAILED])
    wanted = merged(whole)
    for seed in range(5):
        mixed = whole.take(pa.array(np.random.default_rng(seed).permutation(len(whole))))
        assert merged(mixed).equals(wanted)


TWICE = PREDICTIONS.slice(2)
BOTH = rows(QUARANTINED, [{"product_id": "b", "image_id": 3}])


@pytest.mark.parametrize(
    ("tables", "reason"),
    [
        ((PRODUCTS, IMAGES, PREDICTIONS), "2 pictures do not balance"),  # lost
        ((PRODUCTS, IMAGES, PREDICTIONS, FAILED, TWICE), "image_id 3 of product 'b'.*2 times in the output"),
        ((PRODUCTS, IMAGES.slice(0, 3), PREDICTIONS, FAILED), "0 times in the catalogue"),  # from nowhere
        ((PRODUCTS, IMAGES, PREDICTIONS, FAILED, BOTH), "image_id 3"),
    ],
)
def test_what_does_not_balance_is_told(tables: tuple[pa.Table, ...], reason: str) -> None:
    with pytest.raises(AuditError, match=reason):
        merged(pa.concat_tables(tables))


def test_a_picture_that_the_catalogue_holds_twice_counts_once() -> None:
    found = combined(PRODUCTS, IMAGES, IMAGES.slice(2, 1), PREDICTIONS, PREDICTIONS.slice(2), FAILED)
    assert found["b"]["images_scored"] == 1


def test_what_could_not_be_seen_has_no_say_beside_what_was() -> None:
    dead = {"picture_error": "not_found: x"}
    images = rows(
        IMAGE, [{"product_id": p, "image_id": i} for p, i in (("a", 1), ("a", 2), ("a", 3), ("b", 4), ("b", 5))]
    )
    predictions = rows(OUTCOME, [
        prediction("a", 1, S, [0.9, 0.9, 0.9]) | {"picture_error": None},
        prediction("a", 2, D, [0.8, 0.8], (S, 0.1)) | dead,
        prediction("a", 3, D, [0.8, 0.8], (S, 0.1)) | dead,
        prediction("b", 4, D, [0.8, 0.8], (S, 0.1)) | dead,
        prediction("b", 5, D, [0.8, 0.8], (S, 0.1)) | dead,
    ])  # fmt: skip
    found = combined(PRODUCTS, images, predictions)
    a, b = found["a"], found["b"]
    assert (a["category_path"], a["probability"], a["images_scored"], a["images_quarantined"]) == (
        S, pytest.approx(0.9), 1, 2,
    )  # fmt: skip
    assert (b["category_path"], b["probability"], b["images_scored"], b["images_quarantined"]) == (
        D, pytest.approx(0.8), 0, 2,
    )  # fmt: skip
    assert b["outside_probability"] == pytest.approx(0.4)  # one of the two, not their sum


def test_pictures_that_were_not_read_are_counted_for_a_cascade_alone() -> None:
    images = rows(IMAGE, [{"product_id": p, "image_id": i} for p, i in (("a", 1), ("a", 2), ("b", 3), ("c", 4))])
    read = {"sha256": "0" * 64}
    answers = [
        prediction("a", 1, S, [0.9, 0.9, 0.9]) | {"image_uri": "1"},
        prediction("a", 2, S, [0.9, 0.9, 0.9]) | {"image_uri": "2"},
        prediction("b", 3, D, [0.8, 0.8]) | {"image_uri": "3", **read},
        prediction("c", 4, D, [0.8, 0.8]) | {"image_uri": "4", "picture_error": "not_found: x"},
        prediction("no-picture", 5, D, [0.8, 0.8]) | {"image_uri": ""},
    ]
    schema = pa.schema([CASCADED.field(name) for name in {name: 0 for row in answers for name in row}])
    bare = rows(IMAGE, [{"product_id": "no-picture", "image_id": 5}])
    outcomes = tagged(pa.Table.from_pylist(answers, schema=schema), OUTCOME, CASCADED)
    tables = [*(tagged(table, 0, CASCADED).set_column(0, "kind", table["kind"]) for table in (PRODUCTS, images, bare))]
    found = {row["product_id"]: row for row in merged(pa.concat_tables([*tables, outcomes])).to_pylist()}
    assert {name: row["images_unread"] for name, row in found.items()} == {"a": 2, "b": 0, "c": 0, "no-picture": 0}
    assert (found["a"]["images_scored"], found["a"]["category_path"]) == (2, S)
    assert {row["images_unread"] for row in combined(PRODUCTS, IMAGES, PREDICTIONS, FAILED).values()} == {None}


def test_nothing_scored() -> None:
    failed = rows(
        QUARANTINED, [{"product_id": p, "image_id": i} for p, i in (("a", 1), ("a", 2), ("b", 3), ("c", 4), ("b", 5))]
    )
    found = combined(PRODUCTS, IMAGES, failed)
    assert all(row["category_path"] is None for row in found.values())
    assert found["a"]["images_quarantined"] == 2


def test_zoomed_pictures_count_only_where_a_product_has_no_other() -> None:
    zoomed = {"a": (0.2, 0.9), "b": (0.95,)}
    chances = [p for product in zoomed.values() for p in product]
    column = pa.array(chances, pa.float32())
    predictions = PREDICTIONS.set_column(
        PREDICTIONS.schema.get_field_index("zoomed_probability"), "zoomed_probability", column
    )
    filtered = rows(FILTERED, [{"product_id": "b", "image_id": 5}])
    failed = rows(QUARANTINED, [{"product_id": "c", "image_id": 4}])
    table = merged(pa.concat_tables([PRODUCTS, IMAGES, predictions, filtered, failed]), 0.8)
    found = {row["product_id"]: row for row in table.to_pylist()}
    counts = {p: (row["images_scored"], row["images_filtered"], row["only_zoomed"]) for p, row in found.items()}
    assert counts == {"a": (1, 1, False), "b": (1, 1, True), "c": (0, 0, False), "no-picture": (0, 0, False)}
    assert found["a"]["probability"] == pytest.approx(0.6)  # picture 1 alone
    assert found["b"]["category_path"] == D


def test_what_is_known_of_a_product_goes_along() -> None:
    products = rows(PRODUCT, [{"product_id": "a", "store": "here", "price": 9.5}, {"product_id": "b"}])
    images = rows(IMAGE, [
        {"product_id": "a", "image_id": 1, "image_uri": "1.jpg", "width": 90, "height": 400},
        {"product_id": "a", "image_id": 2, "image_uri": "2.jpg", "width": 120, "height": 100},
        {"product_id": "b", "image_id": 3, "image_uri": "3.jpg"},
    ])  # fmt: skip
    found = combined(products, images, rows(OUTCOME, [
        prediction("a", 1, D, [0.7, 0.5]) | {"image_uri": "1.jpg", "zoomed_probability": 0.25},
        prediction("a", 2, D, [0.9, 0.8]) | {"image_uri": "2.jpg", "zoomed_probability": 0.5},
        prediction("b", 3, D, [0.7, 0.5]) | {"image_uri": "3.jpg"},
    ]))  # fmt: skip
    names = ("image_uri", "zoomed_probability", "image_size_px", "store", "price", "decided_level")
    assert [found["a"][name] for name in names] == ["2.jpg", 0.25, 100, "here", 9.5, 2]
    assert [found["b"][name] for name in names] == ["3.jpg", None, None, None, None, 2]


@pytest.mark.parametrize(
    ("threshold", "level", "path", "probability"),
    [(0.3, 3, S, 0.5), (0.6, 2, S[:2], 0.6), (0.65, 1, S[:1], 0.7), (0.9, 0, None, None)],
)
def test_an_answer_ends_where_it_is_sure_enough(
    threshold: float, level: int, path: list[str] | None, probability: float | None
) -> None:
    tables = (
        rows(PRODUCT, [{"product_id": "a"}, {"product_id": "none"}]),
        rows(IMAGE, [{"product_id": "a", "image_id": 1}, {"product_id": "none", "image_id": 2}]),
        rows(OUTCOME, [prediction("a", 1, S, [0.7, 0.6, 0.5], (T, 0.2), (D, 0.1))]),
        rows(QUARANTINED, [{"product_id": "none", "image_id": 2}]),
    )
    a, none = merged(pa.concat_tables(tables), top_k=3, decision_threshold=threshold).to_pylist()
    assert (a["decided_level"], a["category_path"]) == (level, path)
    assert a["probability"] == (None if probability is None else pytest.approx(probability))
    assert a["level_probabilities"] == pytest.approx([0.7, 0.6, 0.5])
    others = [other["category_path"] for other in a["alternatives"]]
    assert others == ([T, D] if level == 3 else [S, T, D])
    assert (none["decided_level"], none["category_path"], none["alternatives"]) == (None, None, None)


def labelled(product: str, image: int, **probabilities: float) -> dict[str, Any]:
    """Return an answer that applies what it is surer of than 0.5."""
    lists: dict[str, list[dict[str, Any]]] = {"labels": [], "other_labels": []}
    for label, probability in probabilities.items():
        lists["labels" if probability >= 0.5 else "other_labels"].append({"label": label, "probability": probability})
    return {"product_id": product, "image_id": image, "image_uri": f"{image}.jpg", **lists}


def test_labels_of_a_product_are_those_whose_mean_reaches_their_threshold() -> None:
    answers = rows(OUTCOME, [
        labelled("a", 1, red=0.875, shirt=0.75, men=0.25),
        labelled("a", 2, shirt=0.5),
        labelled("b", 3),
    ])  # fmt: skip
    table = pa.concat_tables([PRODUCTS, IMAGES, answers, FAILED])
    merge = functools.partial(merge_labels, thresholds={"red": 0.4375, "men": 0.5, "shirt": 0.7, "never": 2.0})
    found = {row["product_id"]: row for row in combine(table, merge, model_id="m", taxonomy_id="t").to_pylist()}
    assert found["a"]["labels"] == [{"label": "red", "probability": 0.4375}]  # (0.875 + 0) / 2, just enough
    others = [{"label": "shirt", "probability": 0.625}, {"label": "men", "probability": 0.125}]
    assert found["a"]["other_labels"] == others
    assert found["a"]["image_uri"] == "1.jpg"
    assert (found["b"]["labels"], found["b"]["other_labels"], found["b"]["images_quarantined"]) == ([], [], 1)
    for product in ("c", "no-picture"):
        assert found[product]["labels"] is found[product]["other_labels"] is None
    assert all(row["category_path"] is row["probability"] is row["alternatives"] is None for row in found.values())
