"""How good a head over stored vectors is, and how fast: embedding, training, and scoring from vectors alone.

    python -m benchmarks.head --catalog CATALOG --work FOLDER [--model package:efficientnet_lite0] [--copies 30]

Embeds the catalogue, trains a head with the defaults and scores from the vectors, each by its command; the same call
again measures anew. Then 20 new leaves are split off the largest ones, in a catalogue whose pictures are nowhere, and
the head is trained again from the vectors there were. At last it scores so many copies of the products, for a rate that
a start of seconds does not hide.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from atlas_ray.schemas import hash_fractions
from atlas_ray.taxonomy import Taxonomy, read_taxonomy

NEW_LEAVES = 20


def run(*command: str) -> float:
    """Run a command; return the seconds that it took."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "atlas_ray", *command], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    return time.perf_counter() - started


def account(folder: Path) -> dict[str, Any]:
    """Return what a run says of itself."""
    found: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return found


def copies_of(table: str, output: Path, copies: int) -> None:
    """Write a table of products several times, each time with other ids."""
    rows = ds.dataset(table).to_table()
    output.mkdir(parents=True)
    for number in range(copies):
        ids = pc.binary_join_element_wise(rows["product_id"], pa.scalar(str(number)), "-")
        pq.write_table(
            rows.set_column(rows.column_names.index("product_id"), "product_id", ids), output / f"{number:03d}.parquet"
        )


def split_off(catalog: str, output: Path, leaves: int) -> None:
    """Copy a catalogue with half of the products of its largest leaves in new ones, and no picture to be had."""
    rows = ds.dataset(pq.ParquetDataset(f"{catalog}/products").files).to_table()
    paths = rows["category_path"].to_pylist()
    largest = [path for path, _ in Counter(tuple(path) for path in paths if path).most_common(leaves)]
    half = np.array(hash_fractions(1, rows["product_id"].to_pylist())) < 0.5
    moved = {path: [*path[:-1], f"{path[-1]} II"] for path in largest}
    labels = [
        moved.get(tuple(path), path) if path and new else path for path, new in zip(paths, half.tolist(), strict=True)
    ]
    nowhere = [["nowhere.jpg"]] * len(rows)
    for name, column in (("category_path", labels), ("image_uris", nowhere)):
        at = rows.column_names.index(name)
        rows = rows.set_column(at, name, pa.array(column, rows.schema.field(name).type))
    (output / "products").mkdir(parents=True)
    pq.write_table(rows, output / "products" / "0.parquet")
    taxonomy = read_taxonomy(f"{catalog}/taxonomy.json")
    more = Taxonomy([*taxonomy.leaves, *map(tuple, moved.values())], name=taxonomy.name)
    (output / "taxonomy.json").write_text(more.to_json())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--catalog", required=True)
    parser.add_argument("--work", required=True, help="where vectors, models and runs go; what is there is deleted")
    parser.add_argument("--model", default="package:efficientnet_lite0", help="what makes the vectors")
    parser.add_argument("--copies", type=int, default=30)
    options = parser.parse_args()
    work = Path(options.work)
    shutil.rmtree(work, ignore_errors=True)
    vectors, model = str(work / "vectors"), str(work / "head")
    seconds = {
        "embed": run("embed", "--catalog", options.catalog, "--model", options.model, "--output", vectors),
        "train": run("train", "head", "--embeddings", vectors, "--output", model),
    }
    score = ("score", "--model", model, "--max-quarantine-fraction", "1")
    seconds["score"] = run(*score, "--catalog", options.catalog, "--embeddings", vectors, "--output", str(work / "run"))
    run("evaluate", "--run", str(work / "run"))
    metrics = json.loads((work / "run" / "evaluation" / "metrics.json").read_text())["test"]
    print(f"exact path {metrics['exact']:.4f}, expected calibration error {metrics['calibration_error']:.4f}")
    for name, took in seconds.items():
        print(f"{name}: {took:.0f} s")

    split_off(options.catalog, work / "split", NEW_LEAVES)
    where = ("--catalog", str(work / "split"), "--embeddings", vectors)
    again = str(work / "again")
    took_again = run("train", "head", *where, "--taxonomy", str(work / "split" / "taxonomy.json"), "--output", again)
    rescored = run("score", "--model", again, *where, "--output", str(work / "rescored"))
    answers = pq.read_table(work / "rescored" / "products", columns=["product_id", "category_path"])
    answered = {tuple(path) for path in answers["category_path"].to_pylist() if path}
    new = sum(path[-1].endswith(" II") for path in answered)
    # One that was asked for would be named by its row, and be in quarantine, for it is nowhere.
    named = pq.read_table(work / "rescored" / "predictions", columns=["image_uri"])["image_uri"]
    read = sum(map(bool, named.to_pylist())) + account(work / "rescored")["counts"]["quarantined"]
    print(f"{NEW_LEAVES} leaves split off: trained again in {took_again:.0f} s, scored in {rescored:.0f} s")
    print(f"{new} of the new leaves are answered; {read} pictures were asked for")

    large = work / "large"
    products = pq.ParquetDataset(f"{options.catalog}/products")
    copies_of(products.files[0].rpartition("/")[0], large / "catalog" / "products", options.copies)
    shutil.copy(Path(options.catalog) / "taxonomy.json", large / "catalog")
    copies_of(f"{vectors}/embeddings", large / "vectors" / "embeddings", options.copies)
    shutil.copytree(f"{vectors}/encoder", large / "vectors" / "encoder")
    shutil.copy(f"{vectors}/run.json", large / "vectors")
    places = ("--catalog", str(large / "catalog"), "--embeddings", str(large / "vectors"))
    whole = run(*score, *places, "--output", str(large / "run"))
    done = account(large / "run")
    count, took = done["counts"]["products"], done["seconds"]
    rates = {
        "in the stream": took["first_read_to_last_write"], "of the whole run": took["total"], "of the command": whole,
    }  # fmt: skip
    print(f"{count} products from vectors: " + ", ".join(f"{count / s:.0f}/s {name}" for name, s in rates.items()))


if __name__ == "__main__":
    main()
