"""The forecast of `atlas-ray score --plan` against the run that follows.

    python -m benchmarks.plan [--pictures 20000] [--backbone resnet34] [--size 150] [--repeats 1]

Pictures of 32 px are drawn, and the model is a random one that scales them to `--size`. Each repeat plans, runs the
same command, and prints forecast and run: what `seconds.total` in `run.json` is, its stream and what comes after it.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.incremental import draw
from tests.support.inputs import random_model, write_catalog


def command(scratch: str, output: str, *flags: str) -> str:
    """Run `score`, and return what it printed."""
    words = [
        sys.executable,
        "-m",
        "atlas_ray",
        "score",
        "--catalog",
        f"{scratch}/catalog",
        "--model",
        f"{scratch}/model",
    ]
    done = subprocess.run([*words, "--output", output, *flags], check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=20_000)
    parser.add_argument("--backbone", default="resnet34")
    parser.add_argument("--size", type=int, default=150)
    parser.add_argument("--repeats", type=int, default=1)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(prefix="atlas-ray-bench-") as scratch:
        files = [
            Path(scratch, "pictures", f"{number % 100:02d}", f"{number}.jpg") for number in range(options.pictures)
        ]
        for file in files:
            file.parent.mkdir(parents=True, exist_ok=True)
            draw(file, rng)
        write_catalog(f"{scratch}/catalog", [str(file) for file in files])
        random_model(f"{scratch}/model", options.backbone, image_size_px=options.size)
        ratios = []
        for repeat in range(options.repeats):
            output = f"{scratch}/run{repeat}"
            plan: dict[str, Any] = json.loads(command(scratch, output, "--plan", "--json"))
            assert not Path(output).exists()
            command(scratch, output)
            run = json.loads(Path(output, "run.json").read_text())["seconds"]
            forecast = plan["seconds"]
            after = run["total"] - run["stream"]
            ratios.append(forecast["total"] / run["total"])
            print(
                f"{options.pictures} pictures, {plan['tried']} tried: forecast {forecast['total']:.1f} s (start "
                f"{forecast['start']:.1f}, stream {forecast['stream']:.1f}, tables {forecast['tables']:.1f}), run "
                f"{run['total']:.1f} s (start and stream {run['stream']:.1f}, after it {after:.1f}); ratio "
                f"{ratios[-1]:.3f}; {plan['pictures_per_s']:.0f} pictures/s forecast, "
                f"{options.pictures / run['first_read_to_last_write']:.0f} from first read to last write",
                flush=True,
            )
        print(f"median ratio {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main()
