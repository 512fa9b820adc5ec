"""What each taxonomy-aware option of training changes, per level and on the tail, against the plain recipe.

    python -m benchmarks.training_options --catalog CATALOG [--epochs 10] [--only plain,weights] [TRAIN FLAGS]

Every option trains an encoder-decoder with the same seed for the same steps, scores the catalogue and
is measured on its test split. The tail is the test products whose path has under 20 training
products. Flags that are not this program's go to `atlas-ray train encoder-decoder`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from typing import Any

import pyarrow.dataset as ds
import pyarrow.parquet as pq

TAIL_BELOW = 20  # training products
OPTIONS = {
    "plain": [],
    "taxonomy": ["--normalization=taxonomy"],
    "smoothing": ["--label-smoothing=0.1"],
    "tree": ["--label-smoothing=0.1", "--smoothing=tree"],
    "weights": ["--balance=weights"],
    "sampling": ["--balance=sampling"],
}


def count_training_products(catalog: str) -> Counter[tuple[str, ...]]:
    table = ds.dataset(f"{catalog}/products").to_table(columns=["category_path"], filter=ds.field("split") == "train")
    return Counter(tuple(path) for path in table["category_path"].to_pylist() if path)


def measure(catalog: str, flags: list[str], tail: set[tuple[str, ...]]) -> dict[str, Any]:
    """Train, score and evaluate with the commands; return the test split's figures."""
    with tempfile.TemporaryDirectory(prefix="atlas-ray-bench-") as scratch:
        model, run = f"{scratch}/model", f"{scratch}/run"
        for command in (
            ["train", "encoder-decoder", "--catalog", catalog, "--output", model, *flags],
            ["score", "--catalog", catalog, "--model", model, "--output", run],
            ["evaluate", "--run", run],
        ):
            done = subprocess.run([sys.executable, "-m", "atlas_ray", *command], capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(done.stderr)
        with open(f"{run}/evaluation/metrics.json", encoding="utf-8") as file:
            figures: dict[str, Any] = json.load(file)["test"]
        rows = pq.read_table(f"{run}/evaluation/paths.parquet").to_pylist()
        rows = [row for row in rows if row["split"] == "test" and tuple(row["category_path"]) in tail]
        products = sum(row["support"] for row in rows)
        right = sum(row["recall"] * row["support"] for row in rows if row["support"])
        return {**figures, "tail_products": products, "tail_accuracy": right / products if products else float("nan")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--catalog", required=True)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--only", default=",".join(OPTIONS), help="names of options, with commas")
    options, train_flags = parser.parse_known_args()
    counts = count_training_products(options.catalog)
    paths = {tuple(p) for p in ds.dataset(f"{options.catalog}/products").to_table()["category_path"].to_pylist() if p}
    tail = {path for path in paths if counts[path] < TAIL_BELOW}
    for name in options.only.split(","):
        figures = measure(options.catalog, [f"--epochs={options.epochs}", *train_flags, *OPTIONS[name]], tail)
        levels = ", ".join(f"{value:.4f}" for value in figures["levels"])
        print(
            f"{name}: exact path {figures['exact']:.4f}, levels {levels}, macro F1 {figures['macro_f1']:.4f}, "
            f"tail {figures['tail_accuracy']:.4f} of {figures['tail_products']} products",
            flush=True,
        )


if __name__ == "__main__":
    main()
