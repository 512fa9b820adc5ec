"""Heads over the vectors of several modalities, where products lack some: joined against each alone.

    python -m benchmarks.joined_vectors --embeddings PICTURES TITLES --work FOLDER [--lacking 0.333]

Takes one of their modalities from so many products, in every split, at random; trains a head over each run of `embed`,
and one over all of them; and measures all on the split `test`. A head says nothing of a product without its modality.
"""

import argparse
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import torch

from atlas_ray.arrays import Array, matrix
from atlas_ray.artifacts import load_artifact
from atlas_ray.prediction.paths import PathPredictor
from atlas_ray.schemas import hash_fractions
from atlas_ray.training.head import train_head
from atlas_ray.training.settings import HeadTraining


def without(run: str, output: Path, lacking: Array) -> str:
    """Copy an embedding run without the products whose ids are in an array."""
    table = ds.dataset(f"{run}/embeddings").to_table()
    kept = ~np.isin(table["product_id"].to_numpy(zero_copy_only=False), lacking)
    (output / "embeddings").mkdir(parents=True)
    pq.write_table(table.filter(pa.array(kept)), output / "embeddings" / "0.parquet")
    shutil.copytree(f"{run}/encoder", output / "encoder")
    shutil.copy(f"{run}/run.json", output)
    return str(output)


def right_about(model: str, runs: list[str], products: Array, truth: list[list[str]]) -> tuple[Array, Array]:
    """Return which products a head has an answer for, and which of its answers are right, (products,) bool each."""
    parts, there = [], np.zeros(len(products), bool)
    place = {product: row for row, product in enumerate(products)}
    for run in runs:
        table = ds.dataset(f"{run}/embeddings").to_table()
        rows = np.array([place.get(product, -1) for product in table["product_id"].to_pylist()])
        vectors = matrix(table["vector"])
        part = np.zeros((len(products), vectors.shape[1]), np.float32)
        part[rows[rows >= 0]] = vectors[rows >= 0]
        there |= part.any(1)
        parts.append(part)
    found = PathPredictor(load_artifact(model)).predict_vectors(torch.tensor(np.concatenate(parts, 1)))
    right = [path == true for path, true in zip(found["category_path"].to_pylist(), truth, strict=True)]
    return there, np.array(right) & there


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--embeddings", nargs="+", required=True, help="outputs of embed, each of another modality")
    parser.add_argument("--work", required=True, help="where models go; what is there is deleted")
    parser.add_argument("--lacking", type=float, default=1 / 3, help="share of the products that lack one modality")
    options = parser.parse_args()
    work = Path(options.work)
    shutil.rmtree(work, ignore_errors=True)
    whole = ds.dataset(f"{options.embeddings[0]}/embeddings").to_table(["product_id", "category_path", "split"])
    ids = whole["product_id"].to_numpy(zero_copy_only=False)
    drawn = hash_fractions(0, ids.tolist())
    lacks = np.where(drawn < options.lacking, (drawn / options.lacking * len(options.embeddings)).astype(int), -1)
    runs = [
        without(run, work / f"part-{number}", ids[lacks == number]) for number, run in enumerate(options.embeddings)
    ]
    test = whole.filter((ds.field("split") == "test") & ds.field("category_path").is_valid())
    products, truth = test["product_id"].to_numpy(zero_copy_only=False), test["category_path"].to_pylist()
    answers = {}
    for name, some in [*((Path(run).name, [run]) for run in runs), ("joined", runs)]:
        model = str(work / f"head-{name}")
        train_head(HeadTraining(embeddings=",".join(some), output=model))
        modalities = "+".join(load_artifact(model).modalities)
        answers[modalities] = right_about(model, some, products, truth)
    everywhere, joined = answers[modalities]
    print(f"{len(products)} products, {(lacks[np.isin(ids, products)] >= 0).mean():.3f} of them lack a modality")
    print(f"{modalities}: exact path {joined.sum() / len(products):.4f} of all products")
    for name, (there, right) in answers.items():
        print(
            f"{name}: {right.sum() / len(products):.4f} of all, {right[there].mean():.4f} of the {there.sum()} that it "
            f"answers; joined there {joined[there].mean():.4f}"
        )
    assert everywhere.all()


if __name__ == "__main__":
    main()
