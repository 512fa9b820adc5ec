from typing import Any

import pyarrow as pa
import pytest

from atlas_ray.errors import AuditError
from atlas_ray.runtime.shuffle import IMAGE, OUTCOME, PRODUCT, QUARANTINED
from atlas_ray.zoom.choose import JOINED, KEPT, LISTED, REJECTED, choose


def row(kind: int, product: str, image: int | None = None, **fields: Any) -> dict[str, Any]:
    uri = None if image is None else f"{image}.jpg"
    return {"kind": kind, "product_id": product, "image_id": image, "image_uri": uri, **fields}


ROWS = [
    row(PRODUCT, "a", image_uris=["1.jpg", "2.jpg", "3.jpg"], title="A shirt"),
    row(PRODUCT, "b", image_uris=["4.jpg", "5.jpg"]),
    row(PRODUCT, "c", image_uris=["6.jpg"]),
    *(row(IMAGE, product, image) for product, image in zip("aaabbc", range(1, 7), strict=True)),
    *(
        row(OUTCOME, product, image, zoomed_probability=p)
        for product, image, p in (("a", 1, 0.1), ("a", 2, 0.9), ("a", 3, 0.8), ("b", 4, 0.99), ("b", 5, 0.85))
    ),
    row(QUARANTINED, "c", 6),
]


def chosen(rows: list[dict[str, Any]]) -> dict[int, list[dict[str, Any]]]:
    found: list[dict[str, Any]] = choose(pa.Table.from_pylist(rows, schema=JOINED), 0.8).to_pylist()
    return {kind: [one for one in found if one["kind"] == kind] for kind in (KEPT, REJECTED, LISTED)}


@pytest.mark.parametrize("rows", [ROWS, ROWS[::-1]])
def test_a_product_keeps_its_normal_pictures_or_else_the_least_zoomed(rows: list[dict[str, Any]]) -> None:
    found = chosen(rows)
    assert sorted((one["image_id"], one["least_zoomed"]) for one in found[KEPT]) == [(1, False), (5, True)]
    assert sorted(one["image_id"] for one in found[REJECTED]) == [2, 3, 4]  # the threshold itself is zoomed
    products = {one["product_id"]: one for one in found[LISTED]}
    assert {name: one["image_uris"] for name, one in products.items()} == {"a": ["1.jpg"], "b": ["5.jpg"], "c": []}
    assert products["a"]["title"] == "A shirt"


def test_a_picture_that_the_catalogue_holds_twice_counts_once() -> None:
    twice = [*ROWS, row(IMAGE, "a", 1), row(OUTCOME, "a", 1, zoomed_probability=0.1)]
    assert len(chosen(twice)[KEPT]) == 2


@pytest.mark.parametrize("lost", [row(OUTCOME, "a", 2, zoomed_probability=0.9), row(QUARANTINED, "c", 6)])
def test_a_lost_picture_is_told(lost: dict[str, Any]) -> None:
    with pytest.raises(AuditError, match="6 pictures went in"):
        choose(pa.Table.from_pylist([one for one in ROWS if one != lost], schema=JOINED), 0.8)
