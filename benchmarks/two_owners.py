"""Starts two commands on one output at the same moment, for each verb: one is refused, and the tables are whole.

    python -m benchmarks.two_owners [--verbs import score ...] [--count 20]

Both processes have imported what they need, and begin at the same moment. The refused one has to end with code 2 and
say who holds the output; the other one's tables are compared with those of a run that was alone. `demo` is left out by
default: it is made of the other verbs, and takes minutes. All commands use one Ray, so that none waits for its start.
"""

import argparse
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import ray

from atlas_ray.artifacts import save_zoom_artifact
from atlas_ray.demo.drawing import GARMENTS, draw_catalog
from atlas_ray.demo.shop import ShopProduct, draw_shop, serve_shop
from atlas_ray.models.zoom import ZoomConfig, ZoomNetwork
from atlas_ray.taxonomy import Taxonomy
from tests.support.inputs import random_model

RUNNER = """
import importlib, json, os, sys, traceback
import atlas_ray.cli.main
for name in ("catalog.importer", "scoring.run", "training.fusion", "training.tune", "migration.run", "crawl.run",
             "embedding.run", "zoom.filter", "duplicates.run", "zoom.training", "evaluation.review",
             "evaluation.paths", "evaluation.comparison", "catalog.selection", "catalog.corrections", "fetching.run"):
    importlib.import_module(f"atlas_ray.{name}")
from atlas_ray.cli.main import main

def run(arguments, file, gate):
    os.close(gate[1])
    said = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(said, 1); os.dup2(said, 2)
    os.read(gate[0], 1)  # ends with this process's last word, for both at the same moment
    code = 70
    try:
        code = main(arguments) or 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush(); sys.stderr.flush()
        os._exit(code)

for line in sys.stdin:
    order = json.loads(line)
    gate, children = os.pipe(), []
    for file in order["files"]:
        if not (child := os.fork()):
            run(order["arguments"], file, gate)
        children.append(child)
    os.close(gate[0]); os.close(gate[1])
    print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]), flush=True)
"""
"""Imports all once, and forks two processes for each line that it reads, which begin at the same moment."""
TRAINING = "--epochs 1 --batch-size 16 --backbone resnet18 --image-size-px 32 --weights none"
REFUSED = "is in use by"
NOT_COMPARED = ("checkpoints", "shop", "crawled_at", "asked_at")
"""Folders and columns that differ from run to run."""

VERBS: dict[str, str] = {
    "import": "import {shop}/products.jsonl --map product_id=id --map image_uris=image --map category_path=category "
    "--output {output}",
    "select": "select --catalog {catalog} --products {catalog}/products --output {output}",
    "relabel": "relabel --catalog {catalog} --corrections {scratch}/corrections.csv --output {output}",
    "review": "review --run {run} --output {output}",
    "evaluate": "evaluate --run {run} --output {output}",
    "migrate": "taxonomy migrate --catalog {catalog} --old {catalog}/taxonomy.json --new {scratch}/new.csv "
    "--output {output}",
    "compare": "compare {run} {run} --output {output}",
    "duplicates": "duplicates --catalog {catalog} --output {output}",
    "fetch": "fetch --catalog {urls} --output {output} --allow-private {place} --max-quarantine-fraction 1",
    "filter": "filter --catalog {catalog} --model {zoom} --output {output} --max-quarantine-fraction 1",
    "score": "score --catalog {catalog} --model {model} --output {output} --precision float32 "
    "--max-quarantine-fraction 1",
    "embed": "embed --catalog {catalog} --model {model} --output {output} --precision float32 "
    "--max-quarantine-fraction 1",
    "crawl": "crawl --stores {scratch}/stores.yaml --only demo --output {output} --allow-private {place} "
    "--per-host-rate 0",
    "train": f"train classifier --catalog {{catalog}} --output {{output}} {TRAINING}",
    "train text": "train text --field title --catalog {catalog} --output {output} --epochs 1 --batch-size 16 "
    "--min-count 1",
    "train zoom": "train zoom --catalog {catalog} --output {output} --pictures 200 --epochs 1",
    "tune": f"tune classifier --catalog {{catalog}} --output {{output}} --trials 1 {TRAINING}",
    "calibrate": "calibrate --model {output} --catalog {catalog} --split test",
    "demo": "demo --output {output}",
}
"""A command of each verb; `calibrate` writes into a model, which is copied to the output first."""


class Bench:
    """What the commands work on."""

    def __init__(self, scratch: str) -> None:
        self.places = {name: f"{scratch}/{name}" for name in ("shop", "catalog", "run", "urls", "zoom", "model")}
        self.places |= {"scratch": scratch, "place": ""}
        self.runner = subprocess.Popen(
            [sys.executable, "-c", RUNNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        taxonomy = Taxonomy(GARMENTS, name="garments")
        draw_catalog(self.places["shop"], products_a_leaf=12, unlabelled_a_leaf=2)
        random_model(self.places["model"], "resnet18", image_size_px=32, dim=32, taxonomy=taxonomy)
        save_zoom_artifact(self.places["zoom"], ZoomNetwork(ZoomConfig(image_size_px=100)), metrics={})
        self.alone("import", self.places["catalog"])
        self.alone("score", self.places["run"])
        products = pq.read_table(f"{self.places['catalog']}/products").to_pylist()
        path = " > ".join(next(iter(GARMENTS)))
        lines = [f"{row['product_id']},{path}" for row in products[:5]]
        Path(scratch, "corrections.csv").write_text("product_id,corrected_category_path\n" + "\n".join(lines) + "\n")
        levels = [",".join([*names[:-1], f"New {names[-1]}"]) for names in GARMENTS]
        Path(scratch, "new.csv").write_text("level_1,level_2,level_3\n" + "\n".join(levels) + "\n")

    def command(self, verb: str, output: str) -> list[str]:
        """Return a verb's arguments."""
        return VERBS[verb].format(output=output, **self.places).split()

    def alone(self, verb: str, output: str) -> None:
        """Run a verb with nobody else there."""
        self._prepare(verb, output)
        command = [sys.executable, "-m", "atlas_ray", *self.command(verb, output)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{verb} alone ended with {done.returncode}: {done.stderr[-2000:]}"

    def together(self, verb: str, output: str) -> tuple[list[int], list[str]]:
        """Run a verb twice at once; return the exit codes and what was said."""
        self._prepare(verb, output)
        files = [f"{self.places['scratch']}/said-{number}.txt" for number in range(2)]
        assert self.runner.stdin is not None
        assert self.runner.stdout is not None
        self.runner.stdin.write(json.dumps({"arguments": self.command(verb, output), "files": files}) + "\n")
        self.runner.stdin.flush()
        codes = json.loads(self.runner.stdout.readline())
        return codes, [Path(file).read_text(errors="replace") for file in files]

    def _prepare(self, verb: str, output: str) -> None:
        if verb == "calibrate":
            random_model(output, "resnet18", image_size_px=32, dim=32, taxonomy=Taxonomy(GARMENTS, name="garments"))


def tables(output: str) -> dict[str, list[str]]:
    """Return the rows of each table below an output, in an order of their own, without what differs from run to run."""
    found: dict[str, list[str]] = {}
    for file in sorted(Path(output).rglob("*.parquet")):
        folder = str(file.parent.relative_to(output))
        if not any(part in NOT_COMPARED for part in Path(folder).parts):
            rows = pq.read_table(file).to_pylist()
            found.setdefault(folder, []).extend(_plain(row, output) for row in rows)
    return {folder: sorted(rows) for folder, rows in found.items()}


def _plain(row: dict[str, Any], output: str) -> str:
    def plain(value: Any) -> Any:
        if isinstance(value, float):
            return f"{value:.3f}"
        if isinstance(value, dict):
            return {name: plain(one) for name, one in value.items()}
        if isinstance(value, list):
            return [plain(one) for one in value]
        return value

    kept = {name: plain(value) for name, value in row.items() if name not in NOT_COMPARED and name != "image_id"}
    return json.dumps(kept, default=str, sort_keys=True).replace(output, "OUTPUT")


def race(bench: Bench, verb: str, wanted: dict[str, list[str]], output: str) -> str:
    """Let two commands of a verb race; return what was wrong, or "" where all was right."""
    codes, said = bench.together(verb, output)
    if sorted(codes) != [0, 2]:
        return f"exit codes {codes}; {said[0][-300:]} | {said[1][-300:]}"
    refusal = said[codes.index(2)].strip()
    if not re.fullmatch(rf"atlas-ray .*: .* {REFUSED} `.*`, process \d+ on \S+, since \S+; .*", refusal):
        return f"refused with {refusal[-500:]!r}"
    if left := [str(path) for path in Path(output).rglob("*") if path.name == "lease.json" or "partial" in path.name]:
        return f"left behind: {left}"
    if not verb.startswith(("train", "tune", "calibrate")) and tables(output) != wanted:
        return "the tables are not those of a run that was alone"
    return ""


def main() -> None:
    """Race each verb with itself, and end with 1 where something was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--verbs", nargs="+", default=[verb for verb in VERBS if verb != "demo"], choices=VERBS)
    parser.add_argument("--count", type=int, default=20)
    options = parser.parse_args()
    wrong = 0
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
    with tempfile.TemporaryDirectory(prefix="atlas-ray-bench-", ignore_cleanup_errors=True) as scratch:
        os.makedirs(f"{scratch}/pages")
        bench = Bench(scratch)
        draw_shop(f"{scratch}/pages", _products(bench))
        with serve_shop(f"{scratch}/pages") as served:
            bench.places["place"] = served.place
            served.write_stores(f"{scratch}/stores.yaml")
            _make_urls(bench)
            for verb in options.verbs:
                began, first = time.monotonic(), f"{scratch}/alone"
                bench.alone(verb, first)
                wanted = tables(first)
                reasons = []
                for number in range(options.count):
                    output = f"{scratch}/race"
                    if reason := race(bench, verb, wanted, output):
                        reasons.append(f"{number + 1}: {reason}")
                    _forget(output)
                _forget(first)
                wrong += len(reasons)
                right = options.count - len(reasons)
                print(f"{verb}: {right} of {options.count} right, {time.monotonic() - began:.0f} s", flush=True)
                for reason in reasons:
                    print(f"  {reason}", flush=True)
        bench.runner.kill()
    sys.exit(1 if wrong else 0)


def _products(bench: Bench) -> list[ShopProduct]:
    files = sorted(Path(bench.places["shop"], "images").glob("*.jpg"))
    paths = list(GARMENTS)
    pictures = [file.read_bytes() for file in files if file.stat().st_size > 1000][:24]
    return [
        ShopProduct(
            title=f"Product {number}", description="A thing.", price=9.5, breadcrumb=paths[number % len(paths)],
            picture=picture, close_ups=(),
        )
        for number, picture in enumerate(pictures)
    ]  # fmt: skip


def _make_urls(bench: Bench) -> None:
    """Collect the shop's products without their pictures, for `fetch`."""
    scratch = bench.places["scratch"]
    command = bench.command("crawl", f"{scratch}/collected")
    done = subprocess.run(
        [sys.executable, "-m", "atlas_ray", *command, "--no-pictures"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    bench.places["urls"] = f"{scratch}/collected/urls"


def _forget(output: str) -> None:

    shutil.rmtree(output, ignore_errors=True)


if __name__ == "__main__":
    main()
