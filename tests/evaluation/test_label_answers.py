"""Answers about pictures joined to products, and counted."""

from typing import Any

import numpy as np
import pyarrow as pa

from atlas_ray.evaluation.label_answers import products_of_answers, schema_of
from atlas_ray.evaluation.labels import _counted, _overlap, _summed

PICTURE, TITLE = ("picture",), ("title",)


def answer(product: str, has: list[int] | None, *listed: dict[int, float] | None, seen: bool = True) -> dict[str, Any]:
    models = {
        f"model_{number}": None if one is None else [{"label": label, "probability": p} for label, p in one.items()]
        for number, one in enumerate(listed)
    }
    return {"product_id": product, "has": has, "seen": seen, "fitted": [product == "a", False], **models}


TABLE = pa.Table.from_pylist(
    [
        answer("a", [0, 2], {0: 0.75}, {2: 0.5}),
        answer("b", [1], None, {1: 0.875}, seen=False),
        answer("a", [0, 2], {0: 0.5, 1: 0.5}, {2: 0.5}),
        answer("a", [0, 2], None, {2: 0.5}, seen=False),
        answer("left-out", None),
        answer("left-out", None),
    ],
    schema=schema_of(2),
)


def test_a_product_of_several_pictures_has_their_mean() -> None:
    found = products_of_answers(TABLE, 0, 3, PICTURE)
    assert found.ids.to_pylist() == ["a", "b"]
    assert found.has.tolist() == [[True, False, True], [False, True, False]]
    assert found.answered.tolist() == [True, False]
    assert dict(zip(found.means.answer.tolist(), found.means.probability.tolist(), strict=True)) == {0: 0.625, 1: 0.25}
    title = products_of_answers(TABLE, 1, 3, TITLE)
    assert title.means.probability.tolist() == [0.5, 0.875]  # the same title with each picture


def test_each_product_is_counted_once_and_what_both_miss() -> None:
    thresholds = [np.full(3, 0.5), np.full(3, 0.5)]
    counted = _counted(TABLE, thresholds=thresholds, modalities=[PICTURE, TITLE])
    nothing = _counted(TABLE.slice(0, 0), thresholds=thresholds, modalities=[PICTURE, TITLE])
    sums = _summed([counted, nothing], 2, 3)
    assert (sums["products"].tolist(), sums["left_out"].tolist()) == ([2], [1])
    assert (sums["answered"].tolist(), sums["fitted"].tolist()) == ([1, 2], [1, 0])
    assert sums["counts"].tolist() == [
        [[1, 0, 0], [0, 0, 0], [0, 1, 1]],  # right, wrong, missed: of a label 2, of b all
        [[0, 1, 1], [0, 0, 0], [1, 0, 0]],
    ]
    assert _overlap(["p", "t"], sums["overlap"]) == [
        {"model": "p", "other": "t", "missed": 2, "missed_by_both": 0},
        {"model": "t", "other": "p", "missed": 1, "missed_by_both": 0},
    ]
    both = _counted(TABLE, thresholds=[np.full(3, 2.0), thresholds[1]], modalities=[PICTURE, TITLE])
    assert both["overlap"].to_pylist() == [[3, 1, 1, 1]]
