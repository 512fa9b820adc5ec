"""What a scoring run that goes on after a stop does before its first picture, with thousands of committed files on S3.

    python -m benchmarks.resume [--files 5000] [--rows 100]

The files are those of a stream: the ids of its checkpoint, and the rows of a table. The S3 server (moto, a process of
its own) runs on the same cores, and takes some milliseconds of one for each request: its share is printed, too. Timed
are `reopen`, which puts the output into the state of its last commit, and `committed_ids`, which reads by tasks what is
done.
"""

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from atlas_ray.io import storage
from atlas_ray.runtime.checkpoint import CHECKPOINT, committed_ids, reopen
from atlas_ray.runtime.session import connect
from atlas_ray.schemas import QUARANTINE
from tests.support.inputs import s3_server

OUTPUT = "s3://shop/run"
FOLDER = "quarantine"


def write_file(number: int, rows: int) -> None:
    """Write what a write task commits."""
    ids = pa.array(range(number * rows, (number + 1) * rows), pa.int64())
    columns = {
        field.name: pa.nulls(rows, field.type) if field.nullable else pa.array([""] * rows) for field in QUARANTINE
    }
    columns["image_id"] = ids
    name = f"stream_{number:06d}.parquet"
    storage.write_table(storage.join(OUTPUT, FOLDER, name), pa.table(columns, schema=QUARANTINE))
    storage.write_table(storage.join(OUTPUT, CHECKPOINT, name), pa.table({"image_id": ids}))


def main() -> None:
    """Write the files, and time each step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--rows", type=int, default=100, help="pictures in a file")
    options = parser.parse_args()
    with s3_server("shop") as server:
        connect()
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda number: write_file(number, options.rows), range(options.files)))

        def step(title: str, do: Callable[[], Any]) -> Any:
            began, served = time.perf_counter(), server.cpu_s()
            found = do()
            seconds = time.perf_counter() - began
            print(f"{title}: {seconds:.1f} s, of them {server.cpu_s() - served:.1f} CPU s of the server", flush=True)
            return found

        step("reopen", lambda: reopen(OUTPUT, [FOLDER], retry_failed=False))
        done = step("committed_ids", lambda: committed_ids(OUTPUT))
        assert done.count == options.files * options.rows, done.count


if __name__ == "__main__":
    main()
