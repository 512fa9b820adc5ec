"""Pictures a second of `atlas-ray score` from S3, against the bare model on ready tensors.

    python -m benchmarks.score_throughput --backbone resnet101 [--images FOLDER] [--pairs 5]

Each pair runs the bare model (encoder and exact search, the same precision and batch, all cores) in
a process of its own, then the whole command over the same pictures on an S3 server (moto, a process
of its own). The server runs on the same cores and takes about 3 ms of one for each request, which
the bare model does not pay; so the share is also printed with the server's CPU seconds, spread over
the cores, taken out of the time. Printed too: the whole command's wall time, Ray's start included.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import boto3

from benchmarks.engines import add_compiled_flag, compile_into
from tests.support.inputs import pictures, random_model, s3_server, write_catalog


def bare(model: str, files: list[Path], batch_size: int) -> float:
    """Return pictures a second of the predictor's network and search on decoded pictures."""
    import torch

    from atlas_ray.artifacts import load_artifact
    from atlas_ray.modalities.products import Products
    from atlas_ray.prediction.paths import PathPredictor, PredictorConfig

    torch.set_num_threads(os.cpu_count() or 1)
    predictor = PathPredictor(load_artifact(model), PredictorConfig(batch_size=batch_size))
    decoded, _ = predictor.decode([file.read_bytes() for file in files])
    for batch in decoded[: 4 * batch_size].split(batch_size):
        predictor.infer(Products(batch))
    started = time.perf_counter()
    for batch in decoded.split(batch_size):
        predictor.infer(Products(batch))
    return len(files) / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="resnet101")
    parser.add_argument("--images", help="a folder of JPEG files; a sample is drawn where none is given")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--store", choices=("s3", "local"), default="s3", help="where the pictures lie")
    add_compiled_flag(parser)
    parser.add_argument("--bare", metavar="MODEL", help=argparse.SUPPRESS)
    parser.add_argument("score_flags", nargs="*", help="further flags of `atlas-ray score`, after --")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="atlas-ray-bench-") as scratch:
        files = pictures(options.images, options.count, f"{scratch}/shop")
        if options.bare:
            print(bare(options.bare, files, options.batch_size))
            return
        folder = str(files[0].parent)
        model = f"{scratch}/model"
        random_model(model, options.backbone)
        compile_into(model, options.compiled)
        with s3_server("shop") as server:
            uris = [str(file) for file in files]
            if options.store == "s3":
                client = boto3.client("s3")
                for file in files:
                    client.upload_file(str(file), "shop", f"images/{file.name}")
                uris = [f"s3://shop/images/{file.name}" for file in files]
            write_catalog("s3://shop/catalog", uris)
            shares, without = [], []
            for pair in range(options.pairs):
                command = [sys.executable, "-m", "benchmarks.score_throughput", "--images", folder, "--bare", model]
                command += ["--count", str(options.count), "--batch-size", str(options.batch_size)]
                alone = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                output = f"{scratch}/run{pair}"
                command = [sys.executable, "-m", "atlas_ray", "score", "--catalog", "s3://shop/catalog"]
                command += ["--model", model, "--output", output, "--batch-size", str(options.batch_size)]
                started, served = time.perf_counter(), server.cpu_s()
                subprocess.run([*command, *options.score_flags], check=True, stdout=subprocess.DEVNULL)
                wall, served = time.perf_counter() - started, server.cpu_s() - served
                run = json.loads(Path(output, "run.json").read_text())
                assert run["counts"]["scored"] == options.count, run["counts"]
                seconds = run["seconds"]["first_read_to_last_write"]
                rate = options.count / seconds
                shares.append(rate / alone)
                without.append(options.count / (seconds - served / (os.cpu_count() or 1)) / alone)
                print(
                    f"{options.backbone} pair {pair + 1}: bare {alone:.1f}/s, score {rate:.1f}/s, share "
                    f"{shares[-1]:.3f}, {without[-1]:.3f} without the server's {served:.1f} CPU seconds; "
                    f"whole command {wall:.1f} s",
                    flush=True,
                )
        print(
            f"{options.backbone}, {options.store}: median share {statistics.median(shares):.3f} of {len(shares)} "
            f"pairs; {statistics.median(without):.3f} with the server's CPU time taken out"
        )


if __name__ == "__main__":
    main()
