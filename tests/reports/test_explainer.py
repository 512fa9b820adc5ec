"""Strips explain what the run answered: with its texts, in its taxonomy; or say so where they cannot."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atlas_ray.artifacts import load_artifact
from atlas_ray.evaluation.paths import evaluate
from atlas_ray.evaluation.review import ReviewConfig, review
from atlas_ray.prediction.paths import PathPredictor, PredictorConfig
from atlas_ray.reports.explainer import Explainer, Strip
from atlas_ray.runs.scored import open_scored
from atlas_ray.schemas import PRODUCTS
from atlas_ray.taxonomy import CategoryPath, Taxonomy, read_taxonomy
from tests.support.parts import make_fused, picture, scored_run

TITLES = ["red shirt", "blue saree", "<b>shirt</b>", "saree saree red", None, "blue"] * 4


def run_of(
    folder: Path, model: str, *, taxonomy: str | None = None, within: CategoryPath = ()
) -> tuple[str, list[dict[str, Any]]]:
    """Answer about products with titles as `score` would; return the run and its products."""
    artifact = load_artifact(model)
    config = PredictorConfig(precision="float32")
    given = read_taxonomy(taxonomy) if taxonomy else None
    predictor = PathPredictor(artifact, config, taxonomy=given, within=within)
    contents = [picture(number) for number in range(len(TITLES))]
    said = predictor(contents, {"title": TITLES, "description": TITLES[::-1]})[0].to_pylist()
    products, scored = [], []
    for number, (content, title, answer) in enumerate(zip(contents, TITLES, said, strict=True)):
        (folder / f"{number}.jpg").write_bytes(content)
        name = {"product_id": f"p{number}"}
        products.append({**name, "title": title, "description": TITLES[::-1][number]})
        scored.append(answer | name | {
            "image_uri": str(folder / f"{number}.jpg"), "decided_level": len(answer["category_path"]),
            "true_category_path": answer["category_path"], "split": "test",
        })  # fmt: skip
    (folder / "catalog" / "products").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(products, schema=PRODUCTS), folder / "catalog" / "products" / "a.parquet")
    identity = {"catalog": str(folder / "catalog"), "model_id": artifact.id, "taxonomy_id": predictor.taxonomy.id,
                "search": "auto", "beam_width": 5, "precision": "float32"}  # fmt: skip
    run = scored_run(folder / "run", scored, identity=identity)
    settings = {"taxonomy": taxonomy, "within": " > ".join(within) or None}
    (folder / "run" / "run.json").write_text(json.dumps({"identity": identity, "config": settings}))
    return run, scored


def strips(model: str, run: str, rows: Sequence[dict[str, Any]]) -> tuple[list[Strip], list[str]]:
    explainer = Explainer(model, open_scored(run))
    found = list(explainer.strips(rows))
    assert not any(isinstance(one.drawing, str) for one in found)
    return found, explainer.notes


@pytest.mark.long
def test_a_fused_model_is_given_the_texts(tmp_path: Path, garments: Taxonomy) -> None:
    model = make_fused(tmp_path, garments)
    run, rows = run_of(tmp_path, model)
    found, notes = strips(model, run, rows)
    assert [one.explains for one in found] == [""] * len(rows)
    assert notes == []
    shutil.rmtree(tmp_path / "catalog")
    found, notes = strips(model, run, rows)
    assert any(one.explains for one in found)  # other answers than with the texts
    assert [note.partition(",")[0] for note in notes] == ["was not given the products' texts"]
    report = review(ReviewConfig(run=run, output=str(tmp_path / "review"), model=model))
    assert "; the model was not given the products' texts, which cannot be read: " in report.note
    assert "the strip explains" in (tmp_path / "review" / "review.html").read_text()
    evaluate(run, model=model)
    assert "was not given the products&#x27; texts" in (tmp_path / "run" / "evaluation" / "report.html").read_text()


@pytest.mark.long
@pytest.mark.parametrize("limit", ["within", "taxonomy"])
def test_a_run_in_a_part_of_the_taxonomy(tmp_path: Path, garments: Taxonomy, small_model: str, limit: str) -> None:
    _, whole = run_of(tmp_path, small_model)
    for name in ("run", "catalog"):
        shutil.rmtree(tmp_path / name)
    most = whole[0]["category_path"]
    part = next(path for path in garments.leaves if path[0] != most[0])[:1]
    if limit == "within":
        run, rows = run_of(tmp_path, small_model, within=part)
    else:
        (tmp_path / "part.txt").write_text("\n".join(" > ".join(path) for path in garments.leaves if path[:1] == part))
        run, rows = run_of(tmp_path, small_model, taxonomy=str(tmp_path / "part.txt"))
    assert rows[0]["category_path"] != most
    found, notes = strips(small_model, run, rows)
    assert [one.explains for one in found] == [""] * len(rows)
    assert notes == []
    if limit == "taxonomy":
        (tmp_path / "part.txt").write_text(" > ".join(most))
        found, notes = strips(small_model, run, rows)
        assert found[0].explains == f"the strip explains {' > '.join(most)}, the model's answer about this picture"
        assert "is not at hand" in notes[0]
        (tmp_path / "part.txt").unlink()
        found, notes = strips(small_model, run, rows)
        assert found[0].explains
        assert "as the run's cannot be used" in notes[0]


@pytest.mark.long
def test_an_answer_above_its_leaf_is_explained_below(tmp_path: Path, small_model: str) -> None:
    run, rows = run_of(tmp_path, small_model)
    rows[0] |= {"category_path": rows[0]["category_path"][:1]}
    rows[1] |= {"category_path": None}
    rows[2] |= {"category_path": ["Another", "Path"]}
    found, _ = strips(small_model, run, rows)
    assert [bool(one.explains) for one in found] == [False, False, True] + [False] * (len(rows) - 3)
