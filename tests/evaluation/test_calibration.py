"""Calibration looks at what a scoring run answers."""

import functools
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy.special import log_softmax

from atlas_ray.arrays import tagged
from atlas_ray.metrics.calibration import tempered
from atlas_ray.prediction.calibration import TOP_K, PictureScores, fit_answers
from atlas_ray.runtime.shuffle import IMAGE, OUTCOME, PRODUCT
from atlas_ray.scoring.combine import JOINED, combine
from atlas_ray.scoring.product_paths import merge_paths
from atlas_ray.taxonomy import Taxonomy

TAXONOMY = Taxonomy(
    [(f"a{one}", f"b{two}", f"c{three}") for one in range(3) for two in range(3) for three in range(4)]
    + [("z",), ("y", "x")],
    name="letters",
)
LEAVES = len(TAXONOMY.leaves)


def rows(kind: int, items: list[dict[str, Any]]) -> pa.Table:
    names = [name for name in JOINED.names if any(name in item for item in items)]
    return tagged(pa.Table.from_pylist(items, schema=pa.schema([JOINED.field(name) for name in names])), kind, JOINED)


def prediction(product: str, image: int, p: Any, dead: bool) -> dict[str, Any]:
    """Return what a scoring run writes of a picture, whose leaves have these probabilities."""
    best = [int(leaf) for leaf in np.argsort(-p, kind="stable")[:TOP_K]]
    path = TAXONOMY.leaves[best[0]]
    levels = [
        sum(p[leaf] for leaf, other in enumerate(TAXONOMY.leaves) if other[:level] == path[:level])
        for level in range(1, len(path) + 1)
    ]
    others = [{"category_path": list(TAXONOMY.leaves[leaf]), "probability": p[leaf]} for leaf in best[1:]]
    return {
        "product_id": product, "image_id": image, "category_path": list(path), "probability": p[best[0]],
        "level_probabilities": levels, "alternatives": others, "outside_probability": 0.0,
        "picture_error": "not_found: x" if dead else None,
    }  # fmt: skip


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.5])
def test_answers_are_those_of_a_scoring_run(factor: float) -> None:
    rng = np.random.default_rng(0)
    product = np.sort(rng.integers(0, 60, 150))
    dead = rng.random(150) < 0.2
    log_p = log_softmax(rng.normal(size=(150, LEAVES)) * 2, axis=1)
    log_p[dead] = log_p[product[dead]]  # by a product's texts, which are the same for all of its pictures
    order = np.argsort(-log_p, axis=1, kind="stable")
    names = np.array([f"p{number:03}" for number in product], dtype=object)
    said = PictureScores.of({
        "leaf": np.concatenate([order, np.full((150, 1), -1)], 1),
        "log_p": np.concatenate([np.take_along_axis(log_p, order, 1), np.full((150, 1), -np.inf)], 1),
        "label": product % LEAVES, "product": names, "seen": ~dead, "left_out": np.ones(150),
    }, TAXONOMY)  # fmt: skip
    found = said.answers(TAXONOMY, factor)
    p = tempered(log_p, factor)
    table = pa.concat_tables([
        rows(PRODUCT, [{"product_id": name} for name in np.unique(names)]),
        rows(IMAGE, [{"product_id": name, "image_id": image} for image, name in enumerate(names)]),
        rows(OUTCOME, [prediction(name, i, p[i], bool(dead[i])) for i, name in enumerate(names)]),
    ])  # fmt: skip
    merge = functools.partial(merge_paths, top_k=TOP_K)
    wanted = combine(table, merge, model_id="m", taxonomy_id="t").to_pylist()
    assert [list(TAXONOMY.leaves[leaf]) for leaf in found.best] == [row["category_path"] for row in wanted]
    assert found.probability == pytest.approx([row["probability"] for row in wanted], abs=1e-6)
    for levels, row in zip(found.levels, wanted, strict=True):
        assert levels[: len(row["level_probabilities"])] == pytest.approx(row["level_probabilities"], abs=1e-6)
    assert list(found.label) == [int(name[1:]) % LEAVES for name in np.unique(names)]


def test_labels_above_the_leaf_are_judged_at_their_level() -> None:
    rng = np.random.default_rng(1)
    labels = [("a0",), ("a1", "b0"), ("z",), ("y",), ("a2", "b2", "c3")]  # y has one leaf below it
    label = np.array([TAXONOMY.label_positions[path] for path in labels])
    log_p = log_softmax(rng.normal(size=(5, LEAVES)) * 2, axis=1)
    log_p[[0, 3]] = log_softmax(log_p[[0, 3]] + 9 * np.eye(LEAVES)[[5, LEAVES - 1]], axis=1)  # right, below a0 and y
    order = np.argsort(-log_p, axis=1, kind="stable")[:, :TOP_K]
    rest = np.log1p(-np.exp(np.take_along_axis(log_p, order, 1)).sum(1, keepdims=True))
    scores = PictureScores.of({
        "leaf": np.concatenate([order, np.full((5, 1), -1)], 1),
        "log_p": np.concatenate([np.take_along_axis(log_p, order, 1), rest], 1),
        "label": label, "product": np.array(list("vwxyz"), object), "seen": np.ones(5, bool), "left_out": np.ones(5),
    }, TAXONOMY)  # fmt: skip
    found = scores.answers(TAXONOMY, 1.0)
    for row, (path, leaf) in enumerate(zip(labels, found.best, strict=True)):
        best = TAXONOMY.leaves[leaf]
        assert found.right[row] == (best[: len(path)] == path)
        node = best if path in TAXONOMY.leaf_set else best[: len(path)]
        listed = [np.exp(log_p[row, one]) for one in order[row] if TAXONOMY.leaves[one][: len(node)] == node]
        assert found.probability[row] == pytest.approx(sum(listed), abs=1e-6)
        below = [at for at, one in enumerate(order[row]) if TAXONOMY.leaves[one][: len(path)] == path]
        assert [at for at in scores.place[row] if at >= 0] == (below or [TOP_K])  # the last column: those left out
    assert found.right[[0, 3]].all()
    surest = found.decisions(TAXONOMY)[0]  # every answer is given in full
    assert surest.precision == found.right.mean()


def test_answers_by_texts_alone_are_measured_by_their_leaf_at_the_temperature() -> None:
    rng = np.random.default_rng(2)
    log_p = log_softmax(rng.normal(size=(80, LEAVES)) * 4, axis=1)
    order = np.argsort(-log_p, axis=1, kind="stable")
    best = order[:, 0]
    label = np.where(rng.random(80) < 0.6, best, rng.integers(0, LEAVES, 80))
    label[:4] = [TAXONOMY.label_positions[TAXONOMY.leaves[leaf][:1]] for leaf in best[:4]]  # above the leaf, and right
    rows = {
        "leaf": np.concatenate([order, np.full((80, 1), -1)], 1),
        "log_p": np.concatenate([np.take_along_axis(log_p, order, 1), np.full((80, 1), -np.inf)], 1),
        "label": label, "product": np.array([f"p{number:02}" for number in range(80)], object),
        "seen": np.zeros(80, bool), "left_out": np.ones(80),
    }  # fmt: skip
    some = {name: column[:60] for name, column in rows.items()}
    found = fit_answers(rows, TAXONOMY, texts_alone=some)
    measured = found.metrics["texts_alone"]
    assert measured["products"] == 60
    leaf = tempered(log_p, found.temperature).max(1)[:60]
    right = (best == label)[:60]
    right[:4] = True
    assert len(measured["decisions"]) > 50
    for row in measured["decisions"]:
        sure = leaf >= row["threshold"] - 1e-9
        assert row["answered"] == row["leaves"] == pytest.approx(sure.mean())
        assert row["precision"] == pytest.approx(right[sure].mean())
    assert "texts_alone" not in fit_answers(rows, TAXONOMY).metrics
    nobody = {name: column[:0] for name, column in rows.items()}
    assert "texts_alone" not in fit_answers(rows, TAXONOMY, texts_alone=nobody).metrics


def test_what_is_left_out_counts_at_another_temperature_too() -> None:
    """Of many equally unlikely leaves the sum is told; at a temperature each of them is divided by it."""
    rng = np.random.default_rng(0)
    log_p = log_softmax(np.concatenate([rng.normal(size=(20, 4)) + 6, np.zeros((20, 500))], 1), axis=1)
    rest = np.log(np.exp(log_p[:, 4:]).sum(1, keepdims=True))
    for temperature in (0.7, 1.0, 2.0):
        wanted = tempered(log_p, temperature)[:, :4]
        found = tempered(np.concatenate([log_p[:, :4], rest], 1), temperature, left_out=500)[:, :4]
        assert found == pytest.approx(wanted, rel=1e-6)
