"""Crawls as processes of their own, and what they leave."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

FAST = {"--timeout-s": "2", "--retries": "1", "--backoff-s": "0.05"}


def start(folder: Path, store: str, *flags: str) -> "subprocess.Popen[str]":
    """Start the crawl of a store of the folder's `stores.yaml`, a fast one where the flags do not say otherwise."""
    usual = FAST | {"--job": str(folder / "job"), "--output": str(folder / "out")}
    command = [sys.executable, "-m", "atlas_ray.crawl.process", "--stores", str(folder / "stores.yaml")]
    command += ["--store", store, *flags]
    command += [part for flag, value in usual.items() if flag not in flags for part in (flag, value)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def end(process: "subprocess.Popen[str]") -> None:
    """Wait until a crawl has ended well."""
    try:
        _, log = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 0, log


def rows(folder: Path, table: str) -> list[dict[str, Any]]:
    """Read what a crawl has written: `products` or `quarantine`."""
    parts = sorted((folder / "out" / table).iterdir())
    return [json.loads(line) for part in parts for line in part.read_text().splitlines()]


def report(folder: Path) -> dict[str, Any]:
    """Read a crawl's report."""
    read: dict[str, Any] = json.loads((folder / "out" / "report.json").read_text())
    return read
