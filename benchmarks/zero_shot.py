"""What titles alone tell before there is a label, and with few: a model of names, and heads that start from it.

    python -m benchmarks.zero_shot --catalog CATALOG --work FOLDER [--encoder package:minilm] [--labels 1 5]

Makes the model without labels, embeds the titles, and trains a head over it with so many labels of each path in the
split `train`, with all of them, and without the model of names. No label of the split `val` is used but with all
labels. The figures are of the split `test`, from the stored vectors.
"""

import argparse
import shutil
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import torch

from atlas_ray.artifacts import load_artifact
from atlas_ray.embedding.run import embed
from atlas_ray.embedding.settings import EmbedConfig
from atlas_ray.metrics.calibration import Reliability
from atlas_ray.prediction.paths import PathPredictor
from atlas_ray.training.head import train_head
from atlas_ray.training.settings import HeadTraining
from atlas_ray.training.zero_shot import ZeroShotTraining, train_zero_shot


def few(catalog: Path, output: Path, labels: int) -> str:
    """Copy a catalogue's products with so many labels of each path in the split `train`, and no other label."""
    table = ds.dataset(str(products_of(catalog))).to_table()
    order = np.random.default_rng(0).permutation(len(table))
    seen = Counter[tuple[str, ...]]()
    kept = np.zeros(len(table), bool)
    paths, splits = table["category_path"].to_pylist(), table["split"].to_pylist()
    for row in order:
        path = tuple(paths[row] or ())
        if path and splits[row] == "train" and seen[path] < labels:
            seen[path] += 1
            kept[row] = True
    null = pa.array(
        [path if keep else None for path, keep in zip(paths, kept, strict=True)], table["category_path"].type
    )
    output.mkdir(parents=True)
    (output / "products").mkdir()
    place = table.column_names.index("category_path")
    pq.write_table(table.set_column(place, "category_path", null), output / "products" / "0.parquet")
    shutil.copy(catalog / "taxonomy.json", output)
    print(f"{labels} labels a path: {kept.sum()} in all, of {len(seen)} paths")
    return str(output)


def products_of(catalog: Path) -> Path:
    """Return the folder of a catalogue's products."""
    return Path(pq.ParquetDataset(str(catalog / "products")).files[0]).parent


def tell_figures(name: str, model: str, vectors: str) -> None:
    """Print how often a model is right about the split `test`."""
    table = ds.dataset(f"{vectors}/embeddings").to_table()
    table = table.filter((ds.field("split") == "test") & ds.field("category_path").is_valid())
    flat = table["vector"].combine_chunks().flatten().to_numpy()
    started = time.perf_counter()
    found = PathPredictor(load_artifact(model)).predict_vectors(torch.tensor(flat.reshape(len(table), -1)))
    took = time.perf_counter() - started
    truth = table["category_path"].to_pylist()
    first = np.array([path == true for path, true in zip(found["category_path"].to_pylist(), truth, strict=True)])
    others = [[one["category_path"] for one in row] for row in found["alternatives"].to_pylist()]
    five = first | np.array([true in listed[:4] for true, listed in zip(truth, others, strict=True)])
    levels = max(map(len, truth))
    pairs = list(zip(found["category_path"].to_pylist(), truth, strict=True))
    right = [np.mean([path[:level] == true[:level] for path, true in pairs]) for level in range(1, levels + 1)]
    reliability = Reliability()
    reliability.add(found["probability"].to_numpy(), first)
    print(
        f"{name}: exact path {first.mean():.4f}, in the first five {five.mean():.4f}, levels "
        f"{', '.join(f'{value:.3f}' for value in right)}; expected calibration error {reliability.expected_error:.3f} "
        f"({len(table)} products, {took:.1f} s)",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--catalog", required=True)
    parser.add_argument("--work", required=True, help="where vectors and models go; what is there is deleted")
    parser.add_argument("--encoder", default="package:minilm", help="sentence encoder")
    parser.add_argument("--labels", type=int, nargs="*", default=[1, 5])
    options = parser.parse_args()
    work, catalog = Path(options.work), Path(options.catalog).resolve()
    shutil.rmtree(work, ignore_errors=True)
    zero, vectors = str(work / "zero-shot"), str(work / "vectors")
    seconds = {}
    started = time.perf_counter()
    train_zero_shot(ZeroShotTraining(encoder=options.encoder, taxonomy=str(catalog / "taxonomy.json"), output=zero))
    seconds["zero-shot"] = time.perf_counter() - started
    embed(EmbedConfig(catalog=str(catalog), encoder=options.encoder, output=vectors, max_quarantine_fraction=1.0))
    seconds["embed"] = time.perf_counter() - started - seconds["zero-shot"]
    tell_figures("no label", zero, vectors)
    catalogs = {f"{count} labels a path": few(catalog, work / f"catalog-{count}", count) for count in options.labels}
    catalogs["all labels"] = str(catalog)
    for name, labelled in catalogs.items():
        for prior in (zero, None):
            started = time.perf_counter()
            model = str(work / f"{name.replace(' ', '-')}{'' if prior else '-alone'}")
            train_head(HeadTraining(embeddings=vectors, catalog=labelled, prior=prior, output=model))
            seconds[Path(model).name] = time.perf_counter() - started
            tell_figures(name if prior else f"{name}, without the names", model, vectors)
    for name, took in seconds.items():
        print(f"{name}: {took:.0f} s")


if __name__ == "__main__":
    main()
