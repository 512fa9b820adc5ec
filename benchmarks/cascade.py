"""What a cascade costs and saves: exact path, pictures read and time, with and without it, on a test split.

    python -m benchmarks.cascade --catalog CATALOG --model FUSED --work FOLDER [--precisions 0.98,0.99] [--rounds 1]

A copy of the fused model is calibrated on the catalogue's split `val`. Then the test products are scored with all
pictures, and with a cascade of each precision, in turn for as many rounds as asked for.
"""

import argparse
import json
import shutil
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.fusion import REPLICATES, difference, right, run, score, write_test_catalog


def interval(correct: Any) -> str:
    """Return an accuracy with its 95% bootstrap interval."""
    drawn = np.random.default_rng(0).integers(0, len(correct), (REPLICATES, len(correct)))
    low, high = np.quantile(correct[drawn].mean(1), (0.025, 0.975))
    return f"{correct.mean():.4f} ({low:.4f} to {high:.4f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--catalog", required=True)
    parser.add_argument("--model", required=True, help="a fused model of pictures and texts")
    parser.add_argument("--work", required=True, help="where the copy of the model and the runs stay")
    parser.add_argument("--precisions", default="0.98", help="what the texts alone have to reach, joined by commas")
    parser.add_argument("--rounds", type=int, default=1, help="of runs for the times, of which the median is printed")
    options = parser.parse_args()
    work, model = Path(options.work), Path(options.work) / "calibrated"
    if not model.exists():
        shutil.copytree(options.model, model)
        run("calibrate", "--model", str(model), "--catalog", options.catalog)
    ids = write_test_catalog(options.catalog, work / "test", without={})
    ways: dict[str, tuple[str, ...]] = {"all pictures": ()}
    ways |= {f"cascade {one}": ("--cascade", one) for one in options.precisions.split(",")}
    found: dict[str, dict[str, dict[str, Any]]] = {}
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in ways}
    for turn in range(options.rounds):
        for name, flags in ways.items():
            output = work / f"{name.replace(' ', '-')}-{turn}"
            found[name] = score(str(work / "test"), str(model), output, *flags)
            runs[name].append(json.loads((output / "run.json").read_text()))
    whole = right(found["all pictures"], ids)
    for name, accounts in runs.items():
        correct, cascade = right(found[name], ids), accounts[0]["cascade"]
        names = ("total", "first_read_to_last_write")
        total, stream = (median(account["seconds"][part] for account in accounts) for part in names)
        print(f"{name}: exact path {interval(correct)} of {len(ids)} products; {total:.1f} s, {stream:.1f} s of stream")
        if cascade:
            print(
                f"  against all pictures {difference(correct, whole)}; {cascade['share_read']:.3f} of the pictures "
                f"read; threshold {cascade['threshold']:.4f}, by calibration risk {cascade['risk']:.4f} at coverage "
                f"{cascade['coverage']:.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
