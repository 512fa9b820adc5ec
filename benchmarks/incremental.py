"""A scoring run of a catalogue of which 1% has changed, with `--previous` and without.

    python -m benchmarks.incremental [--count 20000] [--backbone resnet34] [--size 150] [--repeats 3]

Pictures of 32 px are drawn, and the model is a random one that scales them to `--size`. The whole catalogue is scored;
one picture in a hundred is drawn anew; then all of it is scored again, and so is what changed. The share is of the
streams' times: from the first read to the last write, and for the run with `--previous` its comparison with the earlier
run besides. Ray's start and the loading of the model are in the time of the whole command alone. The tables of both
runs are compared, probabilities to 1e-3.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from atlas_ray.io.etags import SETTLED_S
from tests.support.inputs import random_model, write_catalog

SIDE_PX = 32


def draw(path: Path, rng: np.random.Generator) -> None:
    """Draw a picture of coarse noise, which JPEG leaves different from any other."""
    coarse = Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8))
    coarse.resize((SIDE_PX, SIDE_PX)).save(path, "JPEG", quality=85)


def score(scratch: str, name: str, *flags: str) -> tuple[dict[str, Any], float]:
    """Run the command; return its account, and its time in seconds."""
    command = [sys.executable, "-m", "atlas_ray", "score", "--catalog", f"{scratch}/catalog"]
    command += ["--model", f"{scratch}/model", "--output", f"{scratch}/{name}", *flags]
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - started
    account: dict[str, Any] = json.loads(Path(scratch, name, "run.json").read_text())
    counts = account["counts"]
    assert counts["input"] == counts["scored"] + counts["carried"] + counts["filtered"] + counts["quarantined"], counts
    return account, seconds


def stream_s(account: dict[str, Any]) -> float:
    """Return what grows with the catalogue before its products are combined."""
    seconds = account["seconds"]
    return float(seconds.get("compare", 0.0) + seconds.get("first_read_to_last_write", 0.0))


def differences(scratch: str, one: str, other: str) -> int:
    """Count the rows of two runs' tables that differ."""
    found = 0
    for name, key in (("predictions", "image_id"), ("products", "product_id")):
        tables = [pq.read_table(f"{scratch}/{run}/{name}").sort_by(key) for run in (one, other)]
        assert len(tables[0]) == len(tables[1]), name
        for column in (key, "category_path"):
            pairs = zip(*(table[column].to_pylist() for table in tables), strict=True)
            found += sum(first != second for first, second in pairs)
        probability = [table["probability"].to_numpy() for table in tables]
        found += int((np.abs(probability[0] - probability[1]) > 1e-3).sum())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--backbone", default="resnet34")
    parser.add_argument("--size", type=int, default=150)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--trust", default="etag")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(prefix="atlas-ray-bench-") as scratch:
        files = [Path(scratch, "pictures", f"{number % 100:02d}", f"{number}.jpg") for number in range(options.count)]
        for file in files:
            file.parent.mkdir(parents=True, exist_ok=True)
            draw(file, rng)
        write_catalog(f"{scratch}/catalog", [str(file) for file in files])
        random_model(f"{scratch}/model", options.backbone, image_size_px=options.size)
        time.sleep(SETTLED_S)
        score(scratch, "first")
        for file in files[::100]:
            draw(file, rng)
        time.sleep(SETTLED_S)
        account, whole_s = score(scratch, "whole")
        full_s = stream_s(account)
        print(f"all of {options.count}: stream {full_s:.1f} s, whole command {whole_s:.1f} s", flush=True)
        shares, walls = [], []
        for repeat in range(options.repeats):
            flags = ["--previous", f"{scratch}/first", "--trust", options.trust]
            account, seconds = score(scratch, f"changed{repeat}", *flags)
            shares.append(stream_s(account) / full_s)
            walls.append(seconds)
            counts = account["counts"]
            print(
                f"with --previous: {counts['carried']} carried, {counts['scored']} scored; comparison "
                f"{account['seconds']['compare']:.2f} s, stream {stream_s(account):.2f} s in all, share "
                f"{shares[-1]:.3f}; whole command {seconds:.1f} s; "
                f"{differences(scratch, f'changed{repeat}', 'whole')} rows differ",
                flush=True,
            )
        print(f"median share {statistics.median(shares):.3f}; whole command {statistics.median(walls) / whole_s:.3f}")


if __name__ == "__main__":
    main()
