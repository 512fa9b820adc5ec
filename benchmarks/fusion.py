"""What titles, descriptions and pictures reach alone and fused, on a catalogue's test split.

    python -m benchmarks.fusion --catalog CATALOG --picture MODEL --work FOLDER [--policies weighted,mean] [--pairs 3]

Trains the two text models and the policies with the commands and their defaults, each once: the same
call again goes on from FOLDER. Then it scores the test products alone; the same with a modality of a
third of them taken away; with a target precision; and, of the whole catalogue, with the fused model
and with the picture's in turn, for the speed.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from atlas_ray.models.fusion import POLICIES
from atlas_ray.schemas import IMAGES, PRODUCTS

FIELDS = ("title", "description")
MODALITIES = ("picture", *FIELDS)
TARGET = 0.98
REPLICATES = 10_000


def run(*command: str) -> None:
    done = subprocess.run([sys.executable, "-m", "atlas_ray", *command], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")


def score(catalog: str, model: str, output: Path, *flags: str) -> dict[str, dict[str, Any]]:
    """Score a catalogue; return its products by id."""
    run("score", "--catalog", catalog, "--model", model, "--output", str(output),
        "--max-quarantine-fraction", "1", *flags)  # fmt: skip
    columns = ["product_id", "category_path", "true_category_path", "decided_level"]
    return {row["product_id"]: row for row in ds.dataset(output / "products").to_table(columns=columns).to_pylist()}


def right(found: dict[str, dict[str, Any]], ids: list[str]) -> "np.ndarray[Any, np.dtype[np.bool_]]":
    return np.array([found[one]["category_path"] == found[one]["true_category_path"] for one in ids])


def difference(one: Any, other: Any) -> str:
    """Return the difference of two accuracies on the same products, with its 95% bootstrap interval."""
    drawn = np.random.default_rng(0).integers(0, len(one), (REPLICATES, len(one)))
    low, high = np.quantile((one[drawn].mean(1) - other[drawn].mean(1)), (0.025, 0.975))
    return f"{one.mean() - other.mean():+.4f} ({low:+.4f} to {high:+.4f})"


def write_test_catalog(catalog: str, output: Path, *, without: dict[str, str]) -> list[str]:
    """Write the test products as a catalogue; of those in `without`, leave out that modality. Return their ids."""
    products = ds.dataset(f"{catalog}/products").to_table(filter=ds.field("split") == "test").select(PRODUCTS.names)
    images = ds.dataset(f"{catalog}/images").to_table().select(IMAGES.names)
    images = images.filter(pc.is_in(images["product_id"], products["product_id"]))
    ids: list[str] = products["product_id"].to_pylist()
    gone = [without.get(one) for one in ids]
    for field in FIELDS:
        kept = pc.if_else(pa.array([what != field for what in gone]), products[field], pa.scalar(None, pa.string()))
        products = products.set_column(products.column_names.index(field), field, kept)
    unseen = pa.array([one for one, what in zip(ids, gone, strict=True) if what == "picture"], pa.string())
    images = images.filter(pc.invert(pc.is_in(images["product_id"], unseen)))
    for name, table in (("products", products), ("images", images)):
        (output / name).mkdir(parents=True, exist_ok=True)
        pq.write_table(table, output / name / "part.parquet")
    return ids


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--catalog", required=True)
    parser.add_argument("--picture", required=True, help="a trained picture model")
    parser.add_argument("--work", required=True, help="where models and runs stay")
    parser.add_argument("--policies", default=",".join(POLICIES), help="the first one is measured further")
    parser.add_argument("--pairs", type=int, default=1, help="of runs for the speed")
    options = parser.parse_args()
    work, catalog = Path(options.work), options.catalog
    models = {"picture": options.picture}
    for field in FIELDS:
        models[field] = str(work / field)
        run("train", "text", "--field", field, "--catalog", catalog, "--output", models[field])
    members = [flag for name, uri in models.items() for flag in (f"--{name}", uri)]
    policies = options.policies.split(",")
    for policy in policies:
        run(
            "train",
            "fusion",
            "--no-keep-best",
            "--policy",
            policy,
            "--catalog",
            catalog,
            *members,
            "--output",
            str(work / policy),
        )
    ids = write_test_catalog(catalog, work / "test", without={})
    found = {name: score(str(work / "test"), uri, work / f"run-{name}") for name, uri in models.items()}
    found |= {name: score(str(work / "test"), str(work / name), work / f"run-{name}") for name in policies}
    for name, products in found.items():
        print(f"{name}: exact path {right(products, ids).mean():.4f} of {len(ids)} products", flush=True)
    best = max(MODALITIES, key=lambda name: right(found[name], ids).mean())
    first = policies[0]
    print(f"{first} against {best}: {difference(right(found[first], ids), right(found[best], ids))}", flush=True)

    fused = str(work / "calibrated")  # a copy: calibration gives a model another id, and its runs go by that
    if not (work / "calibrated").exists():
        shutil.copytree(work / first, fused)
        run("calibrate", "--model", fused, "--catalog", catalog)
    sure = score(str(work / "test"), fused, work / "run-sure", "--target-precision", str(TARGET))
    run("evaluate", "--run", str(work / "run-sure"))
    metrics = json.loads((work / "run-sure" / "evaluation" / "metrics.json").read_text())["test"]
    levels = [sure[one]["decided_level"] for one in ids]
    print(
        f"calibrated: expected calibration error {metrics['calibration_error']:.4f}, by level "
        f"{', '.join(f'{error:.4f}' for error in metrics['level_calibration_errors'])}; target precision {TARGET}: "
        f"{metrics['precision']:.4f} of the answers, {metrics['answered']:.4f} answered, "
        f"decided levels {', '.join(f'{level}: {levels.count(level)}' for level in sorted(set(levels)))}",
        flush=True,
    )

    chosen = random.Random(0)
    without = {one: chosen.choice(MODALITIES) for one in chosen.sample(ids, len(ids) // 3)}
    write_test_catalog(catalog, work / "partial", without=without)
    partial = {name: score(str(work / "partial"), uri, work / f"partial-{name}") for name, uri in models.items()}
    all_fused = score(str(work / "partial"), fused, work / "partial-fused")
    print(f"a third of the products without one modality: fused {right(all_fused, ids).mean():.4f}")
    for name, products in partial.items():
        have = [one for one in ids if products[one]["category_path"] is not None]
        print(
            f"  on the {len(have)} that have a {name}: it {right(products, have).mean():.4f}, fused "
            f"{right(all_fused, have).mean():.4f}, {difference(right(all_fused, have), right(products, have))}",
            flush=True,
        )

    ratios = []
    for pair in range(options.pairs):
        rates = []
        for name, uri in (("picture", models["picture"]), ("fused", fused)):
            output = work / f"speed-{name}-{pair}"
            run("score", "--catalog", catalog, "--model", uri, "--output", str(output))
            account = json.loads((output / "run.json").read_text())
            rates.append(account["counts"]["scored"] / account["seconds"]["first_read_to_last_write"])
        ratios.append(rates[1] / rates[0])
        print(f"pictures/s: picture alone {rates[0]:.1f}, fused {rates[1]:.1f}, {ratios[-1]:.3f}", flush=True)
    print(f"median of {options.pairs}: {median(ratios):.3f}")


if __name__ == "__main__":
    main()
