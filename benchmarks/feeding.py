"""Pictures a second that the reading stage of a stream brings from a store that takes its time.

    python -m benchmarks.feeding [--pictures 20000] [--delay-ms 40] [--kib 50] [--threads 32 64]

A server of its own process answers each GET after the delay with a picture of that size, as S3 does. The stage is that
of `score`, on a Ray of its own; what it brings is counted and dropped. The rate is from the first read to the last.
Printed besides: requests in flight as the server sees them, the median and the least of ten looks a second in the
middle half of the run.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from typing import Any

import ray
from aiohttp import web

from atlas_ray.formats.tables import open_table
from atlas_ray.io import storage
from atlas_ray.runtime.pictures import stream_pictures
from atlas_ray.runtime.progress import ProgressDisplay
from atlas_ray.runtime.session import connect
from atlas_ray.runtime.settings import ReadConfig
from atlas_ray.runtime.workers import plan_workers
from atlas_ray.schemas import IMAGES
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=20_000)
    parser.add_argument("--delay-ms", type=float, default=40.0)
    parser.add_argument("--kib", type=int, default=50)
    parser.add_argument("--threads", type=int, nargs="+", default=[64])
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.delay_ms / 1000, options.kib << 10)
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
