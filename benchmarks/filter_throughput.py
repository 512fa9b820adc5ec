"""Pictures a second of `atlas-ray filter`, against a loop in one process over the same files and cores.

    python -m benchmarks.filter_throughput [--images FOLDER] [--count 6000] [--pairs 3] [--score BACKBONE] [-- FLAGS]

The loop reads, decodes (with a thread a core) and runs the network batch by batch, as one would
without Ray; the filter's rate is from its first read to its last write. The weights are random: the
network's speed does not depend on them. With --score it is the rate of `score --zoom-model` with a model of that
backbone, beside the same loop. FLAGS are further ones of the command: `--workers 1` makes it one process for all
cores, as on a machine with one GPU.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from atlas_ray.artifacts import load_zoom_artifact, save_zoom_artifact
from atlas_ray.modalities.pictures import decode_batch
from atlas_ray.models.zoom import ZoomConfig, ZoomNetwork
from atlas_ray.prediction.zoom import ZoomPredictor
from tests.support.inputs import pictures, random_model, write_catalog


def plain_loop(model: str, files: list[Path], batch_size: int) -> float:
    """Return pictures a second of a loop in this process."""
    cores = os.cpu_count() or 1
    torch.set_num_threads(cores)
    predictor = ZoomPredictor(load_zoom_artifact(model), batch_size=batch_size)
    batches = [files[start : start + batch_size] for start in range(0, len(files), batch_size)]
    with ThreadPoolExecutor(cores) as pool:
        started = 0.0
        for number, batch in enumerate([batches[0], *batches]):
            if number == 1:  # the first one warms up
                started = time.perf_counter()
            decoded, _ = decode_batch([file.read_bytes() for file in batch], predictor.image_size_px, pool=pool)
            predictor(decoded)
        return len(files) / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", help="a folder of JPEG files; a sample is drawn where none is given")
    parser.add_argument("--count", type=int, default=6000)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--score", metavar="BACKBONE", help="measure `score --zoom-model` with such a model")
    parser.add_argument("--plain", metavar="MODEL", help=argparse.SUPPRESS)
    parser.add_argument("flags", nargs="*", help="further flags of the command, after --")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="atlas-ray-bench-") as scratch:
        files = pictures(options.images, options.count, f"{scratch}/shop")
        if options.plain:
            print(plain_loop(options.plain, files, options.batch_size))
            return
        model, catalog = f"{scratch}/model", f"{scratch}/catalog"
        save_zoom_artifact(model, ZoomNetwork(ZoomConfig()), metrics={})
        write_catalog(catalog, [str(file) for file in files])
        measured = ["filter", "--model", model]
        if options.score:
            random_model(f"{scratch}/scoring", options.score)
            # Nothing is held to be zoomed, so that every picture goes through both models.
            measured = ["score", "--model", f"{scratch}/scoring", "--zoom-model", model, "--zoom-threshold", "1"]
        shares = []
        for pair in range(options.pairs):
            command = [sys.executable, "-m", "benchmarks.filter_throughput", "--images", str(files[0].parent)]
            command += ["--plain", model, "--count", str(options.count), "--batch-size", str(options.batch_size)]
            alone = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            output = f"{scratch}/run{pair}"
            command = [sys.executable, "-m", "atlas_ray", *measured, "--catalog", catalog, "--output", output]
            command += ["--batch-size", str(options.batch_size), *options.flags]
            started = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            wall = time.perf_counter() - started
            run = json.loads(Path(output, "run.json").read_text())
            assert run["counts"]["input"] == options.count, run["counts"]
            rate = options.count / run["seconds"]["first_read_to_last_write"]
            shares.append(rate / alone)
            print(
                f"pair {pair + 1}: loop {alone:.1f}/s, {measured[0]} {rate:.1f}/s, share {shares[-1]:.3f}; "
                f"whole command {wall:.1f} s",
                flush=True,
            )
        print(f"median share {statistics.median(shares):.3f} of {len(shares)} pairs")


if __name__ == "__main__":
    main()
