"""The default precision against float32: speed, and whether the answers stay the same.

    python -m benchmarks.precision --model ARTIFACT --images FOLDER [--count 1500]

The model should be a trained one: among the near-equal paths of an untrained one any rounding
changes the order.
"""

import argparse
import os
import statistics
import time

import torch

from atlas_ray.artifacts import load_artifact
from atlas_ray.modalities.products import Products
from atlas_ray.prediction.paths import PathPredictor, PredictorConfig
from tests.support.inputs import pictures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--images", required=True)
    parser.add_argument("--count", type=int, default=1500)
    parser.add_argument("--batch-size", type=int, default=32)
    options = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    files = pictures(options.images, options.count, "")
    predictors = {
        name: PathPredictor(
            load_artifact(options.model), PredictorConfig(precision=name, batch_size=options.batch_size)
        )
        for name in ("float32", "auto")
    }
    print(f"default precision on this machine: {predictors['auto'].dtype}")
    decoded, _ = predictors["auto"].decode([file.read_bytes() for file in files])
    batches = decoded.split(options.batch_size)
    rates: dict[str, list[float]] = {name: [] for name in predictors}
    for _ in range(5):
        for name, predictor in predictors.items():
            predictor.infer(Products(batches[0]))
            started = time.perf_counter()
            for batch in batches[:10]:
                predictor.infer(Products(batch))
            rates[name].append(10 * options.batch_size / (time.perf_counter() - started))
    paths = {name: p.predict(Products(decoded))["category_path"].to_pylist() for name, p in predictors.items()}
    same = sum(a == b for a, b in zip(paths["float32"], paths["auto"], strict=True))
    slow, fast = (statistics.median(rates[name]) for name in predictors)
    print(f"float32 {slow:.1f} pictures/s, default {fast:.1f} pictures/s: {fast / slow:.2f}x")
    print(f"same top path: {same} of {len(files)} pictures, {same / len(files):.2%}")


if __name__ == "__main__":
    main()
