"""What is left where titles do not say it: heads over the vectors of pictures, titles and descriptions.

    python -m benchmarks.hard_titles --catalog CATALOG --work FOLDER [--pictures MODEL] [--texts ENCODER]

The titles of a catalogue are without the words of their path's names (`bare`), cut to three words (`short`), or left
out (`none`); or they are whole, and a third of the products, of every split, lacks one modality (`lacking`). Heads are
trained by `train head` over the vectors of each modality, and one over all of them joined. They are calibrated on the
split `val`, as `train head` does, and measured on the split `test`. The same call again goes on from FOLDER.
"""

import argparse
import shutil
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import torch

from atlas_ray.arrays import Array, matrix
from atlas_ray.artifacts import load_artifact
from atlas_ray.embedding.run import embed
from atlas_ray.embedding.settings import EmbedConfig
from atlas_ray.metrics.calibration import Reliability
from atlas_ray.modalities.texts import words_of
from atlas_ray.prediction.paths import PathPredictor
from atlas_ray.schemas import PRODUCTS, hash_fractions
from atlas_ray.training.head import train_head
from atlas_ray.training.settings import HeadTraining

LACKING = 1 / 3
"""The share of products that lack a modality."""
SHORT = 3
"""The words of a short title."""
REPLICATES = 10_000


def bare(title: str | None, path: list[str] | None) -> str:
    """Return a title without the words of its path's names, in the singular or the plural; `t shirt` is `Tshirts`."""
    named = {word.rstrip("s") for word in words_of(" ".join(path or ()), "title")}
    words = words_of(title, "title")
    there = [word.rstrip("s") in named for word in words]
    for at, (one, other) in enumerate(pairwise(words)):
        if f"{one}{other}".rstrip("s") in named:
            there[at : at + 2] = [True, True]
    return " ".join(word for word, named_so in zip(words, there, strict=True) if not named_so)


def short(title: str | None, _: list[str] | None) -> str:
    """Return the first words of a title."""
    return " ".join(words_of(title, "title")[:SHORT])


TITLES: dict[str, Callable[[str | None, list[str] | None], str | None]] = {
    "full": lambda title, _: title,
    "bare": bare,
    "short": short,
}


def with_titles(catalog: Path, output: Path, kind: str) -> str:
    """Copy a catalogue's products with other titles, unless it is there; return its folder."""
    if not (output / "taxonomy.json").exists():
        products = ds.dataset(pq.ParquetDataset(str(catalog / "products")).files).to_table().select(PRODUCTS.names)
        pairs = zip(products["title"].to_pylist(), products["category_path"].to_pylist(), strict=True)
        titles = pa.array([TITLES[kind](title, path) for title, path in pairs], pa.string())
        (output / "products").mkdir(parents=True, exist_ok=True)
        products = products.set_column(products.column_names.index("title"), "title", titles)
        pq.write_table(products, output / "products" / "0.parquet")
        shutil.copy(catalog / "taxonomy.json", output)
    return str(output)


def embedded(output: Path, **settings: Any) -> str:
    """Embed, unless it is done; return the run."""
    embed(EmbedConfig(output=str(output), max_quarantine_fraction=1.0, **settings))
    return str(output)


def without(run: str, output: Path, lacking: Array) -> str:
    """Copy an embedding run without the products whose ids are in an array, unless it is there."""
    if not (output / "run.json").exists():
        table = ds.dataset(f"{run}/embeddings").to_table()
        kept = ~np.isin(table["product_id"].to_numpy(zero_copy_only=False), lacking)
        (output / "embeddings").mkdir(parents=True, exist_ok=True)
        pq.write_table(table.filter(pa.array(kept)), output / "embeddings" / "0.parquet")
        shutil.copytree(f"{run}/encoder", output / "encoder", dirs_exist_ok=True)
        shutil.copy(f"{run}/run.json", output)
    return str(output)


class Tested:
    """The labelled products of the split `test`, and what models answer for them."""

    def __init__(self, catalog: Path) -> None:
        table = ds.dataset(pq.ParquetDataset(str(catalog / "products")).files).to_table()
        table = table.filter((ds.field("split") == "test") & ds.field("category_path").is_valid())
        self.ids, self.truth = table["product_id"].to_pylist(), table["category_path"].to_pylist()
        self.place = {product: row for row, product in enumerate(self.ids)}

    @torch.inference_mode()
    def ask(self, model: str, runs: list[str]) -> tuple[Array, Array, Array]:
        """Ask a head; return which products it answers, and whether each is right and how sure, (products,) each."""
        parts = []
        for run in runs:
            table = ds.dataset(f"{run}/embeddings").to_table()
            rows = np.array([self.place.get(product, -1) for product in table["product_id"].to_pylist()])
            vectors = matrix(table["vector"])
            part = np.zeros((len(self.ids), vectors.shape[1]), np.float32)
            part[rows[rows >= 0]] = vectors[rows >= 0]
            parts.append(part)
        joined = np.concatenate(parts, 1)
        found = PathPredictor(load_artifact(model)).predict_vectors(torch.tensor(joined))
        right = [path == true for path, true in zip(found["category_path"].to_pylist(), self.truth, strict=True)]
        there = np.asarray(joined.any(1))
        return there, np.array(right) & there, found["probability"].to_numpy()


def difference(one: Array, other: Array) -> str:
    """Return the difference of two accuracies on the same products, with its 95% bootstrap interval."""
    drawn = np.random.default_rng(0).integers(0, len(one), (REPLICATES, len(one)))
    low, high = np.quantile(one[drawn].mean(1) - other[drawn].mean(1), (0.025, 0.975))
    return f"{one.mean() - other.mean():+.4f} ({low:+.4f} to {high:+.4f})"


def compare(name: str, tested: Tested, runs: Mapping[str, str], work: Path, hidden_dim: int) -> None:
    """Train a head over each run and one over all, and print how good they are."""
    answers = {}
    for head, some in [*((key, [run]) for key, run in runs.items()), ("joined", list(runs.values()))]:
        model = str(work / "heads" / f"{head}-{'+'.join(Path(run).name for run in some)}-{hidden_dim}")
        train_head(HeadTraining(embeddings=",".join(some), output=model, hidden_dim=hidden_dim))
        answers[head] = there, right, probability = tested.ask(model, some)
        reliability = Reliability()
        reliability.add(probability[there], right[there])
        print(
            f"{name}, {head}: exact path {right.sum() / len(right):.4f} of all, {right[there].mean():.4f} of the "
            f"{there.sum()} that it answers; expected calibration error {reliability.expected_error:.4f}",
            flush=True,
        )
    joined = answers["joined"][1]
    for head in runs:
        there, right, _ = answers[head]
        print(f"{name}, where {head} answers: joined against it {difference(joined[there], right[there])}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--catalog", required=True)
    parser.add_argument("--work", required=True, help="where catalogues, vectors and heads stay")
    parser.add_argument("--pictures", default="package:efficientnet_lite0", help="what makes vectors of pictures")
    parser.add_argument("--texts", default="package:minilm", help="sentence encoder")
    parser.add_argument("--hidden-dim", type=int, default=0, help="of the heads")
    parser.add_argument("--only", default="bare,short,none,lacking", help="some of these")
    options = parser.parse_args()
    work, catalog = Path(options.work).resolve(), Path(options.catalog).resolve()
    tested, cases = Tested(catalog), options.only.split(",")

    others = {
        "picture": embedded(work / "pictures", catalog=str(catalog), model=options.pictures),
        "description": embedded(
            work / "descriptions", catalog=str(catalog), encoder=options.texts, modality="description"
        ),
    }
    titles = {
        kind: embedded(
            work / f"titles-{kind}", catalog=with_titles(catalog, work / f"catalog-{kind}", kind), encoder=options.texts
        )
        for kind in ("full", "bare", "short")
        if kind in (*cases, "full")
    }
    for case in cases:
        if case in titles:
            compare(case, tested, {**others, "title": titles[case]}, work, options.hidden_dim)
        if case == "none":
            compare(case, tested, others, work, options.hidden_dim)
        if case == "lacking":
            ids = ds.dataset(pq.ParquetDataset(str(catalog / "products")).files).to_table(["product_id"])
            names = np.array(ids["product_id"].to_pylist(), dtype=object)
            runs = {**others, "title": titles["full"]}
            drawn = np.array(hash_fractions(0, names.tolist()))
            lost = np.where(drawn < LACKING, (drawn / LACKING * len(runs)).astype(int), -1)
            parts = {
                key: without(run, work / f"lacking-{Path(run).name}", names[lost == number])
                for number, (key, run) in enumerate(runs.items())
            }
            compare(case, tested, parts, work, options.hidden_dim)


if __name__ == "__main__":
    main()
