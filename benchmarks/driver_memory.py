"""Memory of the driver while 100,000 pictures are scored by a very small model.

    python -m benchmarks.driver_memory [--count 100000]

The pictures are a few hundred drawn ones, repeated; each stands under an id of its own. Printed:
the driver's resident memory when 10% are done, its largest value after that, and the growth.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from atlas_ray.runtime.checkpoint import rows_done
from tests.support.inputs import pictures, random_model, write_catalog


def resident_mib(pid: int) -> float:
    """Return the resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="atlas-ray-bench-") as scratch:
        files = pictures(None, 400, f"{scratch}/shop")
        uris = [str(files[number % len(files)]) for number in range(options.count)]
        write_catalog(f"{scratch}/catalog", uris)
        random_model(f"{scratch}/model", "resnet18", image_size_px=32, dim=16)
        command = [sys.executable, "-m", "atlas_ray", "score", "--catalog", f"{scratch}/catalog"]
        command += ["--model", f"{scratch}/model", "--output", f"{scratch}/run", "--batch-size", "128"]
        driver = subprocess.Popen(command)
        baseline, largest = 0.0, 0.0
        started = time.monotonic()
        while driver.poll() is None:
            time.sleep(1)
            try:
                memory = resident_mib(driver.pid)
            except (FileNotFoundError, ProcessLookupError):
                break
            if not baseline and rows_done(f"{scratch}/run") >= options.count // 10:
                baseline = memory
                print(f"{time.monotonic() - started:.0f} s: 10% done, driver at {memory:.0f} MiB", flush=True)
            if baseline:
                largest = max(largest, memory)
        if driver.wait() != 0:
            raise SystemExit(f"score ended with {driver.returncode}")
        print(f"{options.count} pictures in {time.monotonic() - started:.0f} s")
        print(
            f"driver: {baseline:.0f} MiB after the first 10%, at most {largest:.0f} MiB: +{largest - baseline:.0f} MiB"
        )


if __name__ == "__main__":
    main()
