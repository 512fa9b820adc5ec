"""Pictures a second of training: through Ray against a bare loop, two workers against one, bfloat16 against float32.

    python -m benchmarks.train_throughput loop      [--images FOLDER] [--pairs 3]
    python -m benchmarks.train_throughput workers   [--images FOLDER]
    python -m benchmarks.train_throughput precision --catalog CATALOG [--epochs 3] [--pairs 3]

`loop`: one Ray Train worker from JPEG bytes to the optimizer step, against a plain PyTorch loop of the
same classifier, batch and precision over ready tensors in memory, on the same cores; and once more
with `--cache`. `workers`: two
workers on two cores against one on one core (`taskset`). `precision`: a catalogue's pictures trained
on for the same steps in both, with a seed for each pair. The first epoch of a run, in which PyTorch
warms up, is left out.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import nn

from atlas_ray.io import storage
from atlas_ray.modalities.pictures import decode_batch
from atlas_ray.prediction.device import choose_dtype
from atlas_ray.schemas import PRODUCTS
from atlas_ray.taxonomy import read_taxonomy
from atlas_ray.training.objectives import build_objective
from atlas_ray.training.settings import ClassifierTraining
from atlas_ray.training.step import parameter_groups
from tests.support.inputs import pictures


def write_labelled(folder: str, files: list[str]) -> None:
    """Write a catalogue whose pictures go around the 52 Atlas paths; the last 64 are for validation."""
    taxonomy = read_taxonomy("atlas-52")
    columns: dict[str, Any] = {name: pa.nulls(len(files), PRODUCTS.field(name).type) for name in PRODUCTS.names}
    columns |= {
        "product_id": [f"P{number}" for number in range(len(files))],
        "image_uris": [[file] for file in files],
        "category_path": [list(taxonomy.leaves[number % 52]) for number in range(len(files))],
        "split": ["train"] * (len(files) - 64) + ["val"] * 64,
    }
    storage.make_folder(f"{folder}/products")
    pq.write_table(pa.table(columns, schema=PRODUCTS), f"{folder}/products/part-00000.parquet")
    storage.write_bytes(f"{folder}/taxonomy.json", taxonomy.to_json().encode())


def through_ray(catalog: str, flags: list[str], prefix: list[str] | None = None) -> list[dict[str, Any]]:
    """Train with the command; return its history."""
    with tempfile.TemporaryDirectory(prefix="atlas-ray-bench-") as output:
        command = [*(prefix or []), sys.executable, "-m", "atlas_ray", "train", "classifier", "--catalog", catalog]
        done = subprocess.run([*command, "--output", f"{output}/model", *flags], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr)
        history: list[dict[str, Any]] = pq.read_table(f"{output}/model/history.parquet").to_pylist()
        return history


def rate(history: list[dict[str, Any]]) -> float:
    return statistics.mean(float(epoch["examples_per_s"]) for epoch in history[1:])


def plain_loop(files: list[str], config: ClassifierTraining, steps: int) -> float:
    """Return pictures a second of a loop over ready tensors in this process."""
    torch.set_num_threads(os.cpu_count() or 1)
    torch.manual_seed(0)
    contents = []
    for file in files[: 8 * config.batch_size]:
        with open(file, "rb") as stream:
            contents.append(stream.read())
    pixels, _ = decode_batch(contents, config.image_size_px)
    batches = pixels.split(config.batch_size)
    labels = torch.randint(0, 52, (config.batch_size,))
    device = torch.device("cpu")
    objective = build_objective(config, read_taxonomy("atlas-52"), device)
    objective.train()
    optimizer = torch.optim.AdamW(parameter_groups(objective, config), fused=True)
    amp = choose_dtype(config.precision, device) == torch.bfloat16
    started = 0.0
    for step in range(steps + 3):
        if step == 3:
            started = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=amp):
            loss = objective(batches[step % len(batches)], labels).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(objective.parameters(), config.clip)
        optimizer.step()
    return steps * config.batch_size / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("loop", "workers", "precision", "plain"))
    parser.add_argument("--images", help="a folder of JPEG files; a sample is drawn where none is given")
    parser.add_argument("--catalog", help="a labelled catalogue, for precision")
    parser.add_argument("--backbone", default="resnet34")
    parser.add_argument("--image-size-px", type=int, default=150)
    parser.add_argument("--count", type=int, default=1984)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--pairs", type=int, default=3)
    options = parser.parse_args()
    sizes = {name: getattr(options, name) for name in ("backbone", "image_size_px", "batch_size")}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in sizes.items()]
    flags += [f"--epochs={options.epochs}", "--patience=0"]
    if options.what == "precision":
        accuracies: dict[str, list[float]] = {"float32": [], "bfloat16": []}
        rates: dict[str, list[float]] = {name: [] for name in accuracies}
        for seed in range(options.pairs):
            for name in accuracies:
                history = through_ray(options.catalog, [*flags, f"--precision={name}", "--augment", f"--seed={seed}"])
                rates[name].append(rate(history))
                accuracies[name].append(float(history[-1]["val_accuracy"]))
                print(f"seed {seed}, {name}: {rates[name][-1]:.1f} pictures/s, {accuracies[name][-1]:.4f}", flush=True)
        speed = [new / old for old, new in zip(*rates.values(), strict=True)]
        means = [statistics.mean(found) for found in accuracies.values()]
        print(f"bfloat16: median {statistics.median(speed):.2f}x; validation accuracy {means[0]:.4f} -> {means[1]:.4f}")
        return
    with tempfile.TemporaryDirectory(prefix="atlas-ray-bench-") as scratch:
        files = [str(file) for file in pictures(options.images, options.count, f"{scratch}/shop")]
        if options.what == "plain":
            config = ClassifierTraining(catalog="-", output="-", **sizes)
            print(plain_loop(files, config, max(8, options.count // options.batch_size)))
            return
        write_labelled(f"{scratch}/catalog", files)
        if options.what == "workers":
            one = rate(through_ray(f"{scratch}/catalog", flags, ["taskset", "-c", "0"]))
            two = rate(through_ray(f"{scratch}/catalog", [*flags, "--workers=2"], ["taskset", "-c", "0,1"]))
            print(f"one worker on one core {one:.1f}/s, two on two {two:.1f}/s: {two / one:.2f}x")
            return
        ways: dict[str, list[str]] = {"through Ray": [], "with --cache": ["--cache"]}
        shares: dict[str, list[float]] = {way: [] for way in ways}
        for pair in range(options.pairs):
            command = [sys.executable, "-m", "benchmarks.train_throughput", "plain", f"--count={options.count}"]
            command += ["--images", os.path.dirname(files[0]), *flags[: len(sizes)]]
            alone = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            for way, more in ways.items():
                trained = rate(through_ray(f"{scratch}/catalog", [*flags, *more]))
                shares[way].append(trained / alone)
                print(
                    f"round {pair + 1}: plain loop {alone:.1f}/s, {way} {trained:.1f}/s, {shares[way][-1]:.3f}",
                    flush=True,
                )
        for way, found in shares.items():
            print(f"{options.backbone}, {way}: median share {statistics.median(found):.3f} of {len(found)} rounds")


if __name__ == "__main__":
    main()
