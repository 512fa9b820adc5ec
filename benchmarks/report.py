"""How long the report of an evaluation takes, how much memory, and how large its page is.

    python -m benchmarks.report --run RUN [--products 55848] [--model MODEL]

The products of a scoring run are repeated under other ids, as many as asked for; 55,848 are the test
products of the late-fusion paper. `atlas-ray evaluate` runs as a process of its own.
"""

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from atlas_ray.schemas import CATEGORIZED


def repeat_products(run: str, output: Path, count: int) -> None:
    """Write a run of `count` labelled products, those of another one again and again."""
    place = ds.field("true_category_path").is_valid()
    table = ds.dataset(f"{run}/products", schema=CATEGORIZED).to_table(filter=place)
    (output / "products").mkdir(parents=True)
    with pq.ParquetWriter(output / "products" / "all.parquet", CATEGORIZED) as writer:
        for turn in range(-(-count // len(table))):
            part = table.slice(0, min(len(table), count - turn * len(table)))
            ids = pa.array([f"{name}-{turn}" for name in part["product_id"].to_pylist()], pa.string())
            split = pa.repeat(pa.scalar("test"), len(part))
            part = part.set_column(0, CATEGORIZED.field("product_id"), ids)
            writer.write_table(part.set_column(CATEGORIZED.get_field_index("split"), "split", split).cast(CATEGORIZED))
    shutil.copy(f"{run}/run.json", output / "run.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True, help="a finished scoring run with labels")
    parser.add_argument("--products", type=int, default=55_848)
    parser.add_argument("--model", help="its model, for attention maps and new paths")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="atlas-ray-bench-") as scratch:
        run = Path(scratch) / "run"
        repeat_products(options.run, run, options.products)
        model = ["--model", options.model] if options.model else []
        began = time.monotonic()
        subprocess.run(
            [sys.executable, "-m", "atlas_ray", "evaluate", "--run", str(run), *model],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        seconds = time.monotonic() - began
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024  # KiB on Linux
        page = (run / "evaluation" / "report.html").stat().st_size / 1e6
    print(f"{options.products} products: {seconds:.1f} s, {peak:.0f} MiB at most, a page of {page:.2f} MB")


if __name__ == "__main__":
    main()
