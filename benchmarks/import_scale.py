"""Imports catalogues of growing size: rows a second, and the peak memory of the driver and of all other processes.

    python -m benchmarks.import_scale [--rows 100000 1000000 10000000] [--formats parquet csv] [--scratch FOLDER]

Each product has two pictures, a title, a description (200 characters in all), a price and a category of 1,000. The
command runs as a user runs it, so its time includes the start of Python, and of Ray where the source is large.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

BLOCK_ROWS = 100_000
WORDS = [
    "cotton",
    "linen",
    "silk",
    "shirt",
    "dress",
    "shoe",
    "blue",
    "red",
    "green",
    "soft",
    "light",
    "summer",
    "classic",
]


def block(start: int, rows: int, seed: int) -> pa.Table:
    """Return some rows of a shop's table."""
    draws = np.random.default_rng([seed, start])
    words = np.array(WORDS)[draws.integers(0, len(WORDS), (rows, 34))]
    numbers = np.arange(start, start + rows)
    leaves = draws.integers(0, 1000, rows)
    return pa.table(
        {
            "id": [f"sku-{number}" for number in numbers],
            "title": [" ".join(row[:6]) for row in words],
            "description": [" ".join(row[6:]) for row in words],
            "price": np.round(draws.uniform(1, 500, rows), 2),
            "category": [f"Top {leaf % 10} > Middle {leaf % 100} > Leaf {leaf}" for leaf in leaves],
            "image_1": [f"https://cdn.example/p/{number}_1.jpg" for number in numbers],
            "image_2": [f"https://cdn.example/p/{number}_2.jpg" for number in numbers],
        }
    )


def write(path: Path, rows: int, seed: int = 0) -> None:
    """Write a table of so many rows."""
    first = block(0, min(rows, BLOCK_ROWS), seed)
    if path.suffix == ".csv":
        writer = pa_csv.CSVWriter(str(path), first.schema)
    else:
        writer = pq.ParquetWriter(str(path), first.schema)
    with writer:
        for start in range(0, rows, BLOCK_ROWS):
            writer.write_table(block(start, min(BLOCK_ROWS, rows - start), seed))


class Memory(threading.Thread):
    """Looks at the memory of a process and of those that it started, until it ends."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.driver_mib, self.others_mib = pid, 0.0, 0.0

    def run(self) -> None:
        """Look once a second: a look at some dozens of processes takes tens of milliseconds."""
        while True:
            sizes = {pid: _own_mib(pid) for pid in _family(self.pid)}
            if not sizes:
                return
            self.driver_mib = max(self.driver_mib, sizes.pop(self.pid, 0.0))
            self.others_mib = max(self.others_mib, sum(sizes.values()))
            time.sleep(1)


def _family(pid: int) -> list[int]:
    """Return the processes of a session."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(entry) == pid or int(stat[3]) == pid or _started_by(int(entry), pid):
                found.append(int(entry))
    return found


def _started_by(pid: int, ancestor: int) -> bool:
    for _ in range(10):
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            return False
        if pid == ancestor:
            return True
        if pid <= 1:
            return False
    return False


def _own_mib(pid: int) -> float:
    """Return the memory that a process shares with no other, so that the object store is not counted often."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Private_", "Pss_Shmem"))) / 1024


def main() -> None:
    """Measure each format and size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000])
    parser.add_argument("--formats", nargs="+", default=["parquet", "csv"], choices=["parquet", "csv"])
    parser.add_argument("--scratch")
    options = parser.parse_args()
    print(f"{'format':8} {'rows':>10} {'MiB':>7} {'seconds':>8} {'rows/s':>8} {'driver MiB':>11} {'others MiB':>11}")
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        for kind in options.formats:
            for rows in options.rows:
                source, output = Path(scratch, f"shop.{kind}"), Path(scratch, "catalog")
                write(source, rows)
                command = [sys.executable, "-m", "atlas_ray", "import", str(source), "--output", str(output)]
                began = time.perf_counter()
                process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
                memory = Memory(process.pid)
                memory.start()
                _, errors = process.communicate()
                seconds = time.perf_counter() - began
                if process.returncode:
                    raise SystemExit(errors.decode()[-2000:])
                found = sum(pq.read_metadata(file).num_rows for file in (output / "products").glob("*.parquet"))
                assert found == rows, f"{found} products of {rows} rows"
                print(
                    f"{kind:8} {rows:10,} {source.stat().st_size / 2**20:7.0f} {seconds:8.1f} {rows / seconds:8,.0f} "
                    f"{memory.driver_mib:11,.0f} {memory.others_mib:11,.0f}",
                    flush=True,
                )
                shutil.rmtree(output)
                source.unlink()


if __name__ == "__main__":
    main()
