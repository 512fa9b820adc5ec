"""Pictures a second that the reading stage of a stream brings from a store that takes its time.

    python -m benchmarks.feeding [--pictures 20000] [--delay-ms 40] [--kib 50] [--threads 32 64]

A server of its own process answers each GET after the delay with a picture of that size, as S3 does. The stage is that
of `score`, on a Ray of its own; what it brings is counted and dropped. The rate is from the first read to the last.
Printed besides: requests in flight as the server sees them, the median and the least of ten looks a second in the
middle half of the run.

    python -m benchmarks.feeding --device-ms 1 [--pictures 20000] [--side-px 500]

The stages of `embed` from local files to a stub of a device, which takes batches of 256 in so many milliseconds and is
fed as a GPU is. Printed: the share of the time from the stream's start to its end in which the stub is busy, what it
waits for in the rest, and the rate beside that of the same threads that only decode.
"""

import argparse
import asyncio
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import torch
from aiohttp import web
from numpy.typing import NDArray
from torch import Tensor

from atlas_ray.formats.tables import open_table
from atlas_ray.io import storage
from atlas_ray.modalities import PICTURE
from atlas_ray.modalities.pictures import decode_batch, decoding_pool
from atlas_ray.modalities.products import Products
from atlas_ray.prediction.feeding import FEEDING
from atlas_ray.prediction.networks import Encoder
from atlas_ray.prediction.settings import PredictorConfig
from atlas_ray.prediction.vectors import Embedder
from atlas_ray.runtime.pictures import ask_model, stream_pictures
from atlas_ray.runtime.progress import ProgressDisplay
from atlas_ray.runtime.session import connect
from atlas_ray.runtime.settings import ReadConfig
from atlas_ray.runtime.workers import WorkerPlan, plan_workers
from atlas_ray.schemas import IMAGES
from benchmarks.decoding import drawn
from tests.support.inputs import free_port, wait_for, write_catalog


def serve(port: int, delay_s: float, size: int) -> None:
    """Answer GETs after a delay; `/flight` tells how many were being answered, in looks ten times a second."""
    body = os.urandom(size)
    running, looks = 0, list[int]()

    async def picture(_: web.Request) -> web.Response:
        nonlocal running
        running += 1
        try:
            await asyncio.sleep(delay_s)
        finally:
            running -= 1
        return web.Response(body=body, headers={"ETag": '"0"', "Last-Modified": "Mon, 02 Jan 2023 00:00:00 GMT"})

    async def flight(_: web.Request) -> web.Response:
        found, looks[:] = list(looks), []
        return web.json_response(found)

    async def look(_: web.Application) -> None:
        async def forever() -> None:
            while True:
                looks.append(running)
                await asyncio.sleep(0.1)

        tasks.append(asyncio.create_task(forever()))

    tasks = list[asyncio.Task[None]]()
    app = web.Application()
    app.add_routes([web.get("/flight", flight), web.get("/{key:.*}", picture)])
    app.on_startup.append(look)
    web.run_app(app, host="127.0.0.1", port=port, print=None, access_log=None)


def measure(catalog: str, threads: int, pictures: int) -> float:
    """Read all pictures of a catalogue; return the pictures a second."""
    config = ReadConfig(fetch_threads=threads)
    images = open_table(storage.join(catalog, "images"), IMAGES, needed=("image_id",))
    with ProgressDisplay("reading", "pictures", total=pictures) as display:
        plan = plan_workers(device="cpu", workers=0, threads=0)
        stream = stream_pictures(images, display.actor, plan, config, block_rows=plan.block_rows(32, pictures))
        times, counts = list[float](), list[int]()
        blocks: Any = stream.iter_batches(batch_size=None, batch_format="pyarrow")
        for block in blocks:
            times.append(time.perf_counter())
            counts.append(len(block) - block["bytes"].null_count)
    found = sum(counts)
    assert found == pictures, f"{pictures - found} pictures were not read"
    return (found - counts[0]) / (times[-1] - times[0])


SIZE_PX, DISTINCT = 150, 200
"""What pictures are decoded to, and how many different ones the catalogue repeats."""
Spans = list[tuple[float, float]]


class StubEncoder(Encoder):
    """A network on a device that takes its time, without the cores."""

    modalities, image_size_px, features = (PICTURE,), SIZE_PX, 1

    def __init__(self, batch_s: float) -> None:
        self._picture_s = batch_s / FEEDING["cuda"].batch_size
        self.busy: Spans = []

    def encode(self, products: Products) -> Tensor:
        """Be busy."""
        began = time.time()
        time.sleep(self._picture_s * len(products))
        self.busy.append((began, time.time()))
        return torch.ones((len(products), 1))


class TimedEmbedder(Embedder):
    """What embeds, and tells when it decoded."""

    def __init__(self, encoder: StubEncoder) -> None:
        from atlas_ray.prediction import feeding  # the process's own, and not what came with this class

        feeding.FEEDING["cpu"] = feeding.FEEDING["cuda"]
        network: Any = SimpleNamespace(id="stub", feature_widths=(1,))
        super().__init__(network, PredictorConfig(device="cpu"), build=lambda *_: encoder)
        self.decoded: Spans = []

    def decode(self, contents: Sequence[bytes]) -> Any:
        """Decode, as every embedder does."""
        began = time.time()
        found = super().decode(contents)
        self.decoded.append((began, time.time()))
        return found


class StubStage:
    """The stage with the model; it returns when it was called, when it decoded, and when its device was busy."""

    def __init__(self, batch_s: float) -> None:
        self._encoder = StubEncoder(batch_s)
        self._embedder = TimedEmbedder(self._encoder)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Embed a block."""
        began = time.time()
        vectors, refused = self._embedder.embed(table["bytes"].to_pylist())
        assert not refused
        parts = {"call": [(began, time.time())], "decode": self._embedder.decoded, "busy": self._encoder.busy}
        rows = [(name, *span, len(vectors)) for name, spans in parts.items() for span in spans]
        self._embedder.decoded, self._encoder.busy = [], []
        return pa.table(dict(zip(("name", "began", "ended", "pictures"), zip(*rows, strict=True), strict=True)))


@dataclass(frozen=True, kw_only=True)
class StubPlan(WorkerPlan):
    """One process with a device, which Ray does not know of."""

    @property
    def actor_options(self) -> dict[str, Any]:
        """Return that it reserves nothing."""
        return {"num_cpus": 0}


def divide(began: float, ended: float, *, busy: Spans, call: Spans, decode: Spans) -> dict[str, float]:
    """Divide the time of a run by what its device does, or waits for; return the seconds of each.

    Args:
        began: When the run began.
        ended: When it ended.
        busy: When the device was busy.
        call: When the stage had a block.
        decode: When pictures were decoded.
    """
    edges = np.unique([began, ended, *itertools.chain(*busy, *call, *decode)])
    middle, length = (edges[:-1] + edges[1:]) / 2, np.diff(edges)

    def inside(spans: Spans) -> NDArray[np.bool_]:
        first, last = np.sort(np.array(spans), axis=0).T
        found: NDArray[np.bool_] = np.searchsorted(first, middle) > np.searchsorted(last, middle)
        return found

    conditions = {
        "busy": inside(busy),
        "start": middle < min(first for first, _ in call),
        "end": middle > max(last for _, last in call),
        "blocks": ~inside(call),
        "decode": inside(decode),
        "else": np.ones(len(middle), bool),
    }
    which = np.argmax(np.stack(list(conditions.values())), axis=0)
    return {name: float(length[which == number].sum()) for number, name in enumerate(conditions)}


def feed_device(scratch: str, options: argparse.Namespace) -> None:
    """Measure how busy a stub of a device is."""
    files = [drawn(options.side_px, "JPEG", number) for number in range(DISTINCT)]
    pool, at = decoding_pool(), time.perf_counter()
    for _ in range(4):
        decode_batch(files, SIZE_PX, pool=pool)
    alone = 4 * DISTINCT / (time.perf_counter() - at)
    for number, content in enumerate(files):
        Path(scratch, f"{number}.jpg").write_bytes(content)
    write_catalog(f"{scratch}/catalog", [f"{scratch}/{n % DISTINCT}.jpg" for n in range(options.pictures)])
    connect()
    images = open_table(storage.join(f"{scratch}/catalog", "images"), IMAGES, needed=("image_id",))
    spans: dict[str, Spans] = {"busy": [], "call": [], "decode": []}
    with ProgressDisplay("feeding", "pictures", total=options.pictures) as display:
        planned = replace(plan_workers(device="cpu", workers=1, threads=0), gpus=1)
        plan = StubPlan(**vars(planned))
        stream = stream_pictures(
            images, display.actor, plan, ReadConfig(), block_rows=plan.block_rows(None, options.pictures)
        )
        began = time.time()
        for row in ask_model(stream, plan, StubStage, options.device_ms / 1000).iter_rows():
            spans[row["name"]].append((row["began"], row["ended"]))
        ended = time.time()
    ray.shutdown()
    found = divide(began, ended, **spans)
    total, idle = ended - began, ended - began - found["busy"]
    between = total - found["start"] - found["end"]
    rate = options.pictures / between
    names = {"decode": "decoding", "blocks": "blocks", "start": "the start", "end": "the end", "else": "none of these"}
    waits = ", ".join(f"{found[name] / idle:.1%} for {what}" for name, what in names.items())
    print(
        f"{options.pictures} pictures of {options.side_px} px in {total:.1f} s; {options.device_ms:g} ms a batch\n"
        f"device busy {found['busy'] / total:.2%}, from the first block to the last {found['busy'] / between:.2%}\n"
        f"idle {idle:.1f} s: {waits}\n"
        f"{rate:.0f} pictures/s from the first block to the last, {rate / alone:.3f} of what the threads alone decode"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=20_000)
    parser.add_argument("--delay-ms", type=float, default=40.0)
    parser.add_argument("--kib", type=int, default=50)
    parser.add_argument("--threads", type=int, nargs="+", default=[64])
    parser.add_argument("--device-ms", type=float, help="feed a stub of a device that takes a batch in this time")
    parser.add_argument("--side-px", type=int, default=500, help="side of the pictures for it")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.delay_ms / 1000, options.kib << 10)
        return
    if options.device_ms is not None:
        with tempfile.TemporaryDirectory(prefix="atlas-ray-bench-") as scratch:
            feed_device(scratch, options)
        return
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    os.environ |= {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_REGION": "eu-west-1",
    }
    command = [sys.executable, "-m", "benchmarks.feeding", "--serve", str(port)]
    server = subprocess.Popen([*command, "--delay-ms", str(options.delay_ms), "--kib", str(options.kib)])

    def looks() -> list[int]:
        with urllib.request.urlopen(f"{url}/flight") as answer:
            return list(json.load(answer))

    try:
        wait_for(f"{url}/flight", server)
        with tempfile.TemporaryDirectory(prefix="atlas-ray-bench-") as scratch:
            write_catalog(f"{scratch}/catalog", [f"s3://shop/{n}.jpg" for n in range(options.pictures)])
            connect()
            for threads in options.threads:
                looks()
                rate = measure(f"{scratch}/catalog", threads, options.pictures)
                flight = [one for one in looks() if one]
                middle = flight[len(flight) // 4 : -(len(flight) // 4) or None]
                print(
                    f"{threads} threads a process: {rate:.0f} pictures/s; requests in flight: median "
                    f"{statistics.median(middle):.0f}, least {min(middle)}",
                    flush=True,
                )
            ray.shutdown()
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
