"""Scores catalogues of growing size without a picture: what the driver holds, and the seconds that are not the model's.

    python -m benchmarks.score_scale [--rows 100000 1000000] [--ten-million] [--batch-size 64] [--scratch FOLDER]

The catalogue's tables, planning, the stream on Ray, its checkpoint and sink, the shuffle and the audit are those of
`atlas-ray score`. Two stages are stubs: one gives bytes that are no picture, and fails for one in a hundred; the other
answers by the picture's id instead of asking a model. Every product has two pictures. Each size is scored twice:

1. `stream`: a process scores to the end of the stream and stops there. Then one committed file is taken back, as if
   the process had been killed before it.
2. `resume`: another process runs the same command: it finds out what is done, scores the rest, combines and audits.

Printed for each size: the peak memory of the driver and of all other processes, in MiB; the files of the run; and the
seconds of

- plan: from the command to the first picture of a new run, with a Ray that is up;
- resume: the same where all but one file is done;
- combine: the shuffle by product, with the audit of each product;
- account: the counts of `run.json`.

Then each figure as a line through the sizes, a + b * rows, and what it gives for 100,000,000 pictures; and what a block
of the stream costs the driver. 1,000,000 rows take some minutes and 0.5 GB of disk; 10,000,000 rows ten times that.
With `--rows 4000 44000 --batch-size 1` there are 20,000 blocks more that have next to nothing in them.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from atlas_ray.errors import FetchError
from atlas_ray.prediction.columns import COLUMNS
from atlas_ray.prediction.settings import PredictorConfig
from atlas_ray.runtime import pictures, workers
from atlas_ray.runtime.job import Job
from atlas_ray.runtime.outcomes import ERROR, KEYS, READ, with_errors
from atlas_ray.runtime.progress import tell_block
from atlas_ray.runtime.session import connect
from atlas_ray.schemas import IMAGES, PREDICTIONS, PRODUCTS, image_ids
from atlas_ray.scoring import run as scoring
from atlas_ray.scoring.outcomes import OUTCOMES
from atlas_ray.scoring.predict import PredictorSpec
from atlas_ray.scoring.settings import ScoreConfig
from atlas_ray.taxonomy import Taxonomy
from benchmarks.import_scale import Memory
from tests.support.inputs import random_model

TARGET = 100_000_000
FILE_ROWS = 100_000
"""Pictures of a file of the catalogue, about as many as an import writes."""
PICTURE = bytes(2**14)
"""What stands for the bytes of a picture: 16 KiB."""
PHASES = ("plan", "resume", "combine", "account")
CPU = "driver CPU s"
"""The processor time of the driver, from the first picture to the last one."""
FIGURES = ("stream MiB", "resume MiB", "others MiB", "files", CPU, *PHASES)


class StubFetch:
    """Stands for the stage that reads pictures: an error for one in a hundred, and `PICTURE` for the others.

    Ray Data holds a stage back by the bytes that wait for the next one.
    """

    def __init__(self, progress: Any, **_: Any) -> None:
        self._progress = progress

    def __call__(self, table: pa.Table) -> pa.Table:
        """Add the columns that `Fetch` adds."""
        started = time.time()
        ids = table["image_id"]
        hashes = pc.utf8_lpad(pc.cast(ids, pa.string()), 64, "0")
        out = table.append_column("sha256", hashes).append_column("etag", pc.utf8_slice_codeunits(hashes, 32))
        out = out.append_column("bytes", pa.array([PICTURE] * len(table), pa.large_binary()))
        failed = np.flatnonzero(ids.to_numpy() % 100 == 0)
        tell_block(self._progress, {}, fetch=(started, time.time()))
        return with_errors(out, "fetch", {int(row): FetchError("not_found", "a stub has no picture") for row in failed})


class StubPredict:
    """Stands for the model: an answer of five paths, by the picture's id."""

    def __init__(self, progress: Any, spec: PredictorSpec) -> None:
        self._progress = progress
        self._answers = _answers(Taxonomy.from_json(spec.taxonomy_json, source="the stub"))

    def __call__(self, table: pa.Table) -> pa.Table:
        """Turn a block into `OUTCOMES`."""
        started = time.time()
        row = pc.if_else(table["error_code"].is_null(), table["image_id"].to_numpy() % len(self._answers), None)
        answers = self._answers.take(row.combine_chunks() if isinstance(row, pa.ChunkedArray) else row)
        columns = {name: table[name] for name in (*KEYS, *READ.names, *ERROR.names)}
        columns |= {name: answers[name] for name in answers.column_names}
        for field in OUTCOMES:
            columns.setdefault(field.name, pa.nulls(len(table), field.type))
        failed = len(table) - table["error_code"].null_count
        counts = {"scored": len(table) - failed, "quarantined": failed}
        tell_block(self._progress, counts, predict=(started, time.time()))
        return pa.table(columns).select(OUTCOMES.names).cast(OUTCOMES)


def _answers(taxonomy: Taxonomy) -> pa.Table:
    """Return an answer for each leaf, with the columns that a model fills."""
    leaves = taxonomy.leaves
    rows = [
        {
            "category_path": leaf,
            "probability": 0.6,
            "level_probabilities": np.linspace(0.9, 0.6, len(leaf)).tolist(),
            "alternatives": [
                {"category_path": leaves[(at + step) % len(leaves)], "probability": 0.1} for step in range(1, 5)
            ],
            "outside_probability": 0.01,
        }
        for at, leaf in enumerate(leaves)
    ]
    names = pa.table({"model_id": ["stub"] * len(rows), "taxonomy_id": [taxonomy.id] * len(rows)})
    answers = pa.Table.from_pylist(rows, schema=pa.schema([PREDICTIONS.field(name) for name in COLUMNS]))
    return pa.table([*answers.columns, *names.columns], names=[*answers.column_names, *names.column_names])


def write_catalog(catalog: Path, rows: int) -> None:
    """Write a catalogue of so many pictures, two for each product."""
    for start in range(0, rows, FILE_ROWS):
        count = min(FILE_ROWS, rows - start)
        numbers = np.arange(start, start + count)
        owners = [f"sku-{number // 2}" for number in numbers]
        uris = [f"s3://shop/pictures/{number % 997:03d}/{number}.jpg" for number in numbers]
        images: dict[str, Any] = {"image_id": image_ids(owners, uris), "product_id": owners, "image_uri": uris}
        products: dict[str, Any] = {"product_id": list(dict.fromkeys(owners)), "image_uris": _pairs(uris)}
        for name, columns, schema in (("images", images, IMAGES), ("products", products, PRODUCTS)):
            (catalog / name).mkdir(parents=True, exist_ok=True)
            length = len(columns["product_id"])
            columns = {f.name: columns.get(f.name, pa.nulls(length, f.type)) for f in schema}
            pq.write_table(pa.table(columns, schema=schema), catalog / name / f"part-{start // FILE_ROWS:05d}.parquet")


def _pairs(uris: list[str]) -> list[list[str]]:
    return [uris[at : at + 2] for at in range(0, len(uris), 2)]


class Stopped(Exception):  # noqa: N818 - not an error
    """Ends the first process where its stream ends."""


def score(catalog: str, model: str, output: str, *, stop: bool, batch_size: int, **options: Any) -> dict[str, float]:
    """Score with the stubs in this process; return its seconds by phase.

    Args:
        catalog: What to score.
        model: A model; its taxonomy is all that is used of it.
        output: The run's folder.
        stop: Whether to stop where the stream ends.
        batch_size: Pictures that the model would take at once; a block has twice as many.
        options: Further settings of the run.
    """
    predictor = PredictorConfig(batch_size=batch_size, device="cpu")
    config = ScoreConfig(catalog=catalog, model=model, output=output, predictor=predictor, **options)
    real = Job.stream

    def stream(job: Job, *args: Any, **named: Any) -> None:
        began = time.process_time()
        real(job, *args, **named)
        job.seconds[CPU] = time.process_time() - began
        if stop:
            raise Stopped(job.seconds)

    connect()
    with (
        patch.object(pictures, "Fetch", StubFetch),
        patch.object(scoring, "Predict", StubPredict),
        patch.object(Job, "stream", stream),
        patch.object(workers, "LARGE_BLOCK_ROWS", 2 * batch_size),
    ):
        try:
            return dict(scoring.score(config).run["seconds"])
        except Stopped as stopped:
            return dict(stopped.args[0])


def take_back(output: Path) -> None:
    """Take the last file of a stream back, as if the process had been killed before it."""
    last = max((output / "checkpoint").glob("*.parquet"))
    for file in output.glob(f"*/{last.name}"):
        file.unlink()


def _run(arguments: list[str]) -> tuple[dict[str, float], Memory]:
    """Run `score` in a process of its own; return its seconds and the memory that it took."""
    paths = [os.getcwd(), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [sys.executable, "-m", "benchmarks.score_scale", "--once", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
    memory = Memory(process.pid)
    memory.start()
    out, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"the scoring process ended with {process.returncode}")
    seconds: dict[str, float] = json.loads(out.splitlines()[-1])
    return seconds, memory


def measure(rows: int, model: str, scratch: Path, batch_size: int) -> dict[str, float]:
    """Score a catalogue of one size twice; return `FIGURES`."""
    catalog, output = scratch / "catalog", scratch / "run"
    write_catalog(catalog, rows)
    arguments = [str(catalog), model, str(output), str(batch_size)]
    first, streaming = _run([*arguments, "stop"])
    take_back(output)
    second, resuming = _run([*arguments, "finish"])
    counts = json.loads((output / "run.json").read_text())["counts"]
    assert counts["input"] == rows == counts["scored"] + counts["quarantined"], f"{counts} of {rows} rows"
    files = sum(1 for file in output.rglob("*.parquet"))
    shutil.rmtree(catalog)
    shutil.rmtree(output)
    phases = {"plan": first["plan"], "resume": second["plan"], **{name: second[name] for name in PHASES[2:]}}
    memories = (streaming.driver_mib, resuming.driver_mib, max(streaming.others_mib, resuming.others_mib))
    print(f"{rows:,} rows: the stream took {first['stream']:.0f} s", file=sys.stderr)
    return dict(zip(FIGURES, (*memories, files, first[CPU]), strict=False)) | phases


def extrapolated(figures: Mapping[int, Mapping[str, float]], name: str) -> tuple[float, float, float]:
    """Fit a figure by a line; return where it starts, what a million rows add, and its value for `TARGET` rows."""
    sizes = np.array(list(figures))
    slope, start = np.polyfit(sizes / 1e6, [figures[size][name] for size in figures], 1)
    return float(start), float(slope), float(start + slope * TARGET / 1e6)


def main() -> None:
    """Measure each size and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000], help="numbers of pictures")
    parser.add_argument("--ten-million", action="store_true", help="measure 10,000,000 pictures, too")
    parser.add_argument("--batch-size", type=int, default=64, help="pictures a batch; a block has two of them")
    parser.add_argument("--scratch", help="folder for the catalogues and runs; a temporary one by default")
    parser.add_argument("--once", nargs=5, help=argparse.SUPPRESS)  # a process of its own: see `_run`
    options = parser.parse_args()
    if options.once:
        catalog, model, output, batch_size, what = options.once
        print(json.dumps(score(catalog, model, output, batch_size=int(batch_size), stop=what == "stop")))
        return
    figures = {}
    print(f"{'rows':>12}" + "".join(f"{name:>13}" for name in FIGURES))
    with tempfile.TemporaryDirectory(prefix="atlas-ray-bench-", dir=options.scratch) as scratch:
        random_model(f"{scratch}/model", "resnet18", image_size_px=32, dim=16)
        for rows in [*options.rows, *([10_000_000] if options.ten_million else [])]:
            figures[rows] = measure(rows, f"{scratch}/model", Path(scratch), options.batch_size)
            print(f"{rows:12,}" + "".join(f"{figures[rows][name]:13,.1f}" for name in FIGURES), flush=True)
    if len(figures) > 1:
        for at, title in enumerate(("a", "b, a million", f"{TARGET:,}")):
            print(f"{title:>12}" + "".join(f"{extrapolated(figures, name)[at]:13,.1f}" for name in FIGURES))
        blocks = 1e6 / (2 * options.batch_size)
        cpu_s, mib = (extrapolated(figures, name)[1] / blocks for name in (CPU, "stream MiB"))
        print(
            f"a block of {2 * options.batch_size}: {cpu_s * 1000:.2f} ms of the driver, {mib * 1024:.2f} KiB of memory"
        )


if __name__ == "__main__":
    main()
