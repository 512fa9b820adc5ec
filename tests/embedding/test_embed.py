"""Embedding for real: a local Ray, a small model, an index on disk and in S3."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atlas_ray.artifacts import load_artifact
from atlas_ray.cli.main import main
from atlas_ray.embedding import run as embedding_run
from atlas_ray.embedding.combine import joined_vectors
from atlas_ray.embedding.index import INDEX, ProductIndex
from atlas_ray.embedding.indexing import build_index
from atlas_ray.embedding.run import embed
from atlas_ray.embedding.settings import EmbedConfig
from atlas_ray.errors import OutputError
from atlas_ray.io import storage
from atlas_ray.prediction.paths import PathPredictor, PredictorConfig
from atlas_ray.runs.run_record import RunReport
from atlas_ray.schemas import IMAGES, LABEL_ERRORS, PRODUCTS, embeddings, image_ids
from atlas_ray.taxonomy import Taxonomy
from tests.support.parts import make_artifact, make_fused, rows

pytestmark = pytest.mark.usefixtures("local_ray")
WIDTH = 512


def run(catalog: str, model: str, output: Path | str) -> RunReport:
    predictor = PredictorConfig(precision="float32", batch_size=16)
    return embed(EmbedConfig(catalog=catalog, model=model, output=str(output), predictor=predictor))


def vectors_of(folder: Path) -> dict[str, Any]:
    return {row["product_id"]: np.array(row["vector"], np.float32) for row in rows(folder, "embeddings")}


def ask(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert main(["similar", "--json", *arguments]) == 0
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


@pytest.fixture(scope="session")
def planted(catalog: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The drawn catalogue, with products more.

    `mislabelled` has the picture of the first labelled product and another label; `pair` has two
    pictures, one of which the images table names twice; `bare` has a title alone.
    """
    labelled = [row for row in rows(catalog, "products") if row["category_path"]]
    good = [row for row in labelled if row["product_id"] not in {one["product_id"] for one in broken(catalog)}]
    one, other = good[0], next(row for row in good if row["category_path"] != good[0]["category_path"])
    added = [
        {"product_id": "mislabelled", "category_path": other["category_path"], "image_uris": one["image_uris"]},
        {"product_id": "pair", "category_path": None, "image_uris": one["image_uris"] + other["image_uris"]},
        {"product_id": "bare", "category_path": None, "image_uris": [], "title": "red saree"},
    ]
    pictures = [(row["product_id"], uri) for row in added for uri in row["image_uris"]]
    pictures.append(pictures[-1])
    images = [
        {"image_id": number, "product_id": product, "image_uri": uri}
        for number, (product, uri) in zip(image_ids(*zip(*pictures, strict=True)).tolist(), pictures, strict=True)
    ]
    folder = tmp_path_factory.mktemp("planted") / "catalog"
    for name, schema, more in (("products", PRODUCTS, added), ("images", IMAGES, images)):
        shutil.copytree(Path(catalog) / name, folder / name)
        pq.write_table(pa.Table.from_pylist(more, schema), folder / name / "more.parquet")
    return str(folder)


def broken(catalog: str) -> list[dict[str, Any]]:
    return [row for row in rows(catalog, "products") if not (row["category_path"] and row["split"])]


@pytest.fixture(scope="session")
def embedded(planted: str, small_model: str, tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> Path:
    output = tmp_path_factory.mktemp("embedded") / "a folder"
    run(planted, small_model, output)
    return output


def test_every_product_has_a_vector_or_a_reason(embedded: Path, planted: str, small_model: str) -> None:
    found, quarantine = rows(embedded, "embeddings"), rows(embedded, "quarantine")
    account = json.loads((embedded / "run.json").read_text())
    assert account["counts"] == {"input": 121, "embedded": 115, "quarantined": 6, "products": 114}
    assert sorted(row["error_code"] for row in quarantine) == [
        "empty", "not_found", "nothing_to_go_by", "too_many_pixels", "truncated", "unsupported_format",
    ]  # fmt: skip
    products = {row["product_id"]: row for row in rows(planted, "products")}
    assert {row["product_id"] for row in found} | {row["product_id"] for row in quarantine} == products.keys()
    assert all(pq.read_schema(file).equals(embeddings(WIDTH)) for file in (embedded / "embeddings").iterdir())
    model_id = load_artifact(small_model).id
    for row in found:
        assert row["category_path"] == products[row["product_id"]]["category_path"]
        assert row["split"] == products[row["product_id"]]["split"]
        assert row["model_id"] == model_id
        assert np.linalg.norm(row["vector"]) == pytest.approx(1, abs=1e-5)
    assert sorted(path.name for path in embedded.iterdir()) == [
        "embed.json", "embeddings", "encoder", "index", "quarantine", "run.json",
    ]  # fmt: skip


def test_several_pictures_are_their_mean(embedded: Path, planted: str, small_model: str) -> None:
    pair = next(row for row in rows(planted, "products") if row["product_id"] == "pair")
    predictor = PathPredictor(load_artifact(small_model), PredictorConfig(precision="float32"))
    each, refused = predictor.embed([Path(uri).read_bytes() for uri in pair["image_uris"]])
    assert refused == {}
    assert np.linalg.norm(each, axis=1) == pytest.approx([1, 1], abs=1e-5)
    mean = each.mean(0)
    assert vectors_of(embedded)["pair"] == pytest.approx(mean / np.linalg.norm(mean), abs=1e-5)


def test_the_command_leaves_a_finished_run_alone(
    embedded: Path, planted: str, small_model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {file: file.stat().st_mtime_ns for file in embedded.rglob("*")}
    command = ["embed", "--catalog", planted, "--model", small_model, "--output", str(embedded)]
    assert main([*command, "--precision", "float32"]) == 0
    assert "holds this run, finished; nothing to do" in capsys.readouterr().out
    assert main([*command, "--precision", "float32", "--max-quarantine-fraction", "0.01"]) == 3
    assert {file: file.stat().st_mtime_ns for file in embedded.rglob("*")} == before


def test_other_models_catalogues_and_folders_are_refused(
    embedded: Path, planted: str, catalog: str, small_model: str, garments: Taxonomy, tmp_path: Path
) -> None:
    make_artifact(str(tmp_path / "other"), garments, seed=9)
    with pytest.raises(OutputError, match="holds a run with model_id = "):
        run(planted, str(tmp_path / "other"), embedded)
    with pytest.raises(OutputError, match="holds a run with catalog = "):
        run(catalog, small_model, embedded)
    with pytest.raises(OutputError, match="holds a model or a catalogue"):
        run(planted, small_model, planted)
    (tmp_path / "run" / "quarantine").mkdir(parents=True)
    with pytest.raises(OutputError, match="holds quarantine of another origin"):
        run(planted, small_model, tmp_path / "run")


def test_the_nearest_product_is_another_one(
    embedded: Path, small_model: str, planted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    vectors = vectors_of(embedded)
    found = ask(capsys, "--embeddings", str(embedded), "--product-id", "mislabelled", "--k", "5")
    one = next(row for row in rows(planted, "products") if row["product_id"] == found[0]["product_id"])
    assert found[0] == {
        "product_id": one["product_id"],
        "similarity": pytest.approx(1, abs=1e-5),
        "category_path": one["category_path"],
    }
    closeness = {name: float(vector @ vectors["mislabelled"]) for name, vector in vectors.items()}
    del closeness["mislabelled"]
    nearest = sorted(closeness.values(), reverse=True)[:5]
    assert [row["similarity"] for row in found] == pytest.approx(nearest, abs=1e-5)
    assert all(closeness[row["product_id"]] == pytest.approx(row["similarity"], abs=1e-5) for row in found)
    picture = ask(capsys, "--embeddings", str(embedded), "--image", one["image_uris"][0], "--model", small_model)
    assert {picture[0]["product_id"], picture[1]["product_id"]} == {"mislabelled", one["product_id"]}
    assert len(picture) == 10
    assert main(["similar", "--embeddings", str(embedded), "--product-id", "mislabelled"]) == 0
    assert " > ".join(one["category_path"]) in capsys.readouterr().out


def test_grouping_the_products_finds_the_same(embedded: Path, tmp_path: Path) -> None:
    shutil.copytree(embedded / "embeddings", tmp_path / "embeddings")
    grouped = build_index(str(tmp_path), WIDTH, exact_rows=50)
    assert {index.index_type for index in grouped._table.list_indices()} == {"IvfFlat", "BTree"}
    exact = ProductIndex.open(str(embedded))
    vectors = vectors_of(embedded)
    queries = np.stack(list(vectors.values()))
    for index in (exact, ProductIndex.open(str(tmp_path))):
        closest = index.nearest(queries, 3)["similarity"].to_numpy().reshape(-1, 3)
        assert closest == pytest.approx(np.sort(queries @ queries.T, axis=1)[:, :-4:-1], abs=1e-5)
        assert index.vector("pair") == pytest.approx(vectors["pair"], abs=1e-6)
        assert index.vector("it's not there\\") is None


def test_a_picture_under_two_labels_is_a_likely_error(
    embedded: Path, planted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = {row["product_id"]: row["category_path"] for row in rows(embedded, "embeddings") if row["category_path"]}
    vectors = vectors_of(embedded)
    names = sorted(mine)
    closeness = {(a, b): float(vectors[a] @ vectors[b]) for a in names for b in names if a < b and mine[a] != mine[b]}
    least = sorted(closeness.values())[-8] - 1e-6
    asked = ["--embeddings", str(embedded), "--label-errors", "--k", "200"]
    flags = [*asked, "--min-similarity", str(least)]
    found = ask(capsys, *flags)
    table = pq.read_table(embedded / "label_errors.parquet")
    assert table.schema.equals(LABEL_ERRORS)
    assert table.to_pylist() == found
    assert {(row["product_id"], row["other_product_id"]) for row in found} == {
        pair for pair, similarity in closeness.items() if similarity >= least
    }
    for row in found:
        pair = row["product_id"], row["other_product_id"]
        assert row["similarity"] == pytest.approx(closeness[pair], abs=1e-5)
        assert (row["category_path"], row["other_category_path"]) == (mine[pair[0]], mine[pair[1]])
    assert [row["similarity"] for row in found] == sorted((row["similarity"] for row in found), reverse=True)
    assert "mislabelled" in (found[0]["product_id"], found[0]["other_product_id"])
    assert ask(capsys, *flags, "--limit", "3") == found[:3]
    assert main(["similar", *asked, "--min-similarity", "1"]) == 0
    assert "pairs have different labels; all in" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--product-id", "it's"], """has no vector of a product "it's": it is not in the catalogue"""),
        (["--product-id", "bare"], "or all of it is in quarantine"),
        (["--embeddings", "nothing", "--product-id", "bare"], "nothing is no finished embedding run"),
        (["--image", "nothing.jpg", "--model", "{model}"], "--image nothing.jpg: not_found"),
        (["--image", "{model}/model.json", "--model", "{model}"], "not_an_image"),
        (["--image", "http://127.0.0.1/a.jpg", "--model", "{model}"], "unsupported_uri"),
        (["--image", "nothing.jpg"], "--image nothing.jpg: not_found"),
        (["--title", "red", "--model", "{model}"], "reads picture; it makes nothing of a title"),
        (["--image", "nothing.jpg", "--model", "{other}"], "was made with"),
        (["--product-id", "bare", "--label-errors"], "expected one question"),
        ([], "expected one question"),
        (["--product-id", "bare", "--k", "0"], "k is 0; expected 1 to 1000"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    flags: list[str],
    reason: str,
    embedded: Path,
    small_model: str,
    garments: Taxonomy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    if "{other}" in flags:
        make_artifact(str(tmp_path / "other"), garments, seed=9)
    told = [flag.format(model=small_model, other=tmp_path / "other") for flag in flags]
    place = [] if "--embeddings" in told else ["--embeddings", str(embedded)]
    assert main(["similar", *place, *told]) == 2
    error = capsys.readouterr().err
    assert reason in error
    assert error.count("\n") == 1


def test_a_fused_model_compares_what_products_have(
    planted: str, garments: Taxonomy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = make_fused(tmp_path, garments)
    widths = load_artifact(model).feature_widths
    report = run(planted, model, tmp_path / "run")
    assert report.counts["products"] == len(rows(planted, "products")) - report.counts["quarantined"]
    assert sum(report.run["without_picture_by_code"].values()) == len(
        [row for row in rows(tmp_path / "run", "embeddings") if row["picture_error"]]
    )
    vectors = vectors_of(tmp_path / "run")
    assert not vectors["bare"][: widths[0]].any()
    assert vectors["bare"].any()
    (found, *_) = ask(
        capsys, "--embeddings", str(tmp_path / "run"), "--title", "red saree", "--model", model, "--k", "1"
    )
    assert found["product_id"] == "bare"
    assert found["similarity"] == pytest.approx(1, abs=1e-3)


def test_modalities_weigh_the_same() -> None:
    widths, generator = (5, 3, 2), np.random.default_rng(0)
    one, other = generator.random((2, sum(widths)), np.float32)
    parts = [np.split(side, np.cumsum(widths)[:-1]) for side in (one, other)]
    each = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(*parts, strict=True)]
    joined = joined_vectors(np.stack([one, other]), widths)
    assert joined[0] @ joined[1] == pytest.approx(np.mean(each), abs=1e-6)
    other[:5] = 0  # without the first
    joined = joined_vectors(np.stack([one, other]), widths)
    assert joined[0] @ joined[1] == pytest.approx(sum(each[1:]) / np.sqrt(3 * 2), abs=1e-6)


@pytest.mark.slow  # of the stops, every run has scoring's
def test_a_stopped_run_goes_on_in_s3(
    planted: str, small_model: str, embedded: Path, s3: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    output = f"{s3}/embed/run"
    with monkeypatch.context() as stopped:
        stopped.setattr(embedding_run, "build_index", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(planted, small_model, output)
    report = run(planted, small_model, output)
    assert report.run["resumed_from"] == report.counts["input"] == 121
    assert any(path.startswith(f"{INDEX}/") for path, _ in storage.walk(output))
    there, here = (
        ask(capsys, "--embeddings", folder, "--product-id", "pair", "--k", "3") for folder in (output, str(embedded))
    )
    assert [row["product_id"] for row in there] == [row["product_id"] for row in here]
    assert len(ask(capsys, "--embeddings", output, "--label-errors")) > 0
    assert storage.exists(f"{output}/label_errors.parquet")
