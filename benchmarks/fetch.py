"""Pictures a second of `atlas-ray fetch` from a web server on this machine, against img2dataset.

    python -m benchmarks.fetch --img2dataset PYTHON [--count 20000] [--pairs 3]

PYTHON is the interpreter of an environment with img2dataset. Both get the same URLs, as many
requests at a time, two processes, and store the files as they came; those of a pair run one after the
other against the same server, a process of its own. Wall times are those of the whole commands: of
`fetch` once with a Ray that it starts and ends itself, and once on a Ray that is up, as on a cluster.
`TMPDIR=/dev/shm` keeps the files in memory: a hundred thousand new ones can make a disk wait for minutes.
Then `fetch` runs once more with a tenth of the URLs broken in seven ways, and its account must name
each of them.
"""

import argparse
import asyncio
import io
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aiohttp import web
from PIL import Image

from tests.support.cluster import head
from tests.support.inputs import free_port, wait_for, write_catalog

CONCURRENCY, PROCESSES = 64, 2
MAX_BYTES = 1024 * 1024
BROKEN = ("dns", "timeout", "not_found", "forbidden", "too_large", "not_an_image", "forbidden_address")
IMG2DATASET = """
import sys
from img2dataset import download
urls, output, processes, threads = sys.argv[1:]
if __name__ == "__main__":
    download(url_list=urls, input_format="txt", output_folder=output, output_format="files",
             processes_count=int(processes), thread_count=int(threads), disable_all_reencoding=True,
             number_sample_per_shard=1000, timeout=30, retries=2)
"""


def serve(port: int) -> None:
    """Serve pictures from memory: random ones of about 8 kB, each number's bytes its own."""
    chance = random.Random(0)
    pictures = []
    for _ in range(64):
        stream = io.BytesIO()
        noise = Image.frombytes("RGB", (56, 56), chance.randbytes(56 * 56 * 3))
        noise.resize((224, 224), Image.Resampling.BICUBIC).save(stream, "JPEG")
        pictures.append(stream.getvalue())

    async def picture(request: web.Request) -> web.StreamResponse:
        number = int(request.match_info["number"])
        body = pictures[number % len(pictures)] + number.to_bytes(8)
        return web.Response(body=body, content_type="image/jpeg")

    async def broken(request: web.Request) -> web.StreamResponse:
        what = request.match_info["what"]
        if what == "timeout":
            await asyncio.sleep(3600)
        if what == "too_large":
            return web.Response(body=bytes(2 * MAX_BYTES), content_type="image/jpeg")
        if what == "not_an_image":
            return web.Response(text="<!DOCTYPE html>", content_type="text/html")
        return web.Response(status={"not_found": 404, "forbidden": 403}[what])

    app = web.Application()
    app.router.add_get("/ok/{number}.jpg", picture)
    app.router.add_get("/broken/{what}/{number}.jpg", broken)
    web.run_app(app, host="127.0.0.1", port=port, print=None, access_log=None)


@contextmanager
def server() -> Iterator[str]:
    """Run the server as a process of its own; yields HOST:PORT."""
    place = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "benchmarks.fetch", "--serve", place.rpartition(":")[2]]
    process = subprocess.Popen(command)
    try:
        wait_for(f"http://{place}/ok/0.jpg", process)
        yield place
    finally:
        process.kill()
        process.wait()


def fetch(
    scratch: str, name: str, urls: list[str], place: str, *flags: str, environment: dict[str, str] | None = None
) -> tuple[float, dict[str, dict[str, int]]]:
    """Run the command over URLs; return its wall seconds and its run.json."""
    write_catalog(f"{scratch}/{name}-catalog", urls)
    command = [sys.executable, "-m", "atlas_ray", "fetch", "--catalog", f"{scratch}/{name}-catalog"]
    command += ["--output", f"{scratch}/{name}", "--allow-private", place, "--workers", str(PROCESSES)]
    command += ["--concurrency", str(CONCURRENCY), "--per-host-concurrency", str(CONCURRENCY), "--per-host-rate", "0"]
    began = time.monotonic()
    subprocess.run([*command, *flags], check=True, stdout=subprocess.DEVNULL, env=environment)
    return time.monotonic() - began, json.loads(Path(scratch, name, "run.json").read_text())


def fetch_twice(scratch: str, name: str, urls: list[str], place: str) -> tuple[float, float]:
    """Run the command with a Ray of its own and on one that is up; return the wall seconds of both."""
    token = Path(scratch, "token")
    token.write_text("0123456789abcdef" * 4)
    with head(token, cpus=PROCESSES) as cluster:
        there_s, run = fetch(scratch, f"{name}-there", urls, place, environment=cluster.driving)
        assert run["counts"]["stored"] == run["counts"]["images"] == len(urls), run["counts"]
    alone_s, run = fetch(scratch, f"{name}-alone", urls, place)
    assert run["counts"]["stored"] == run["counts"]["images"] == len(urls), run["counts"]
    return alone_s, there_s


def img2dataset(python: str, scratch: str, name: str, urls: list[str]) -> float:
    """Run img2dataset over URLs; return its wall seconds."""
    Path(scratch, f"{name}.txt").write_text("\n".join(urls))
    Path(scratch, f"{name}.py").write_text(IMG2DATASET)
    command = [python, f"{scratch}/{name}.py", f"{scratch}/{name}.txt", f"{scratch}/{name}"]
    command += [str(PROCESSES), str(CONCURRENCY // PROCESSES)]
    began = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wall_s = time.monotonic() - began
    stored = sum(1 for _ in Path(scratch, name).rglob("*.jpg"))
    if stored != len(urls):
        raise SystemExit(f"img2dataset stored {stored} of {len(urls)} pictures")
    return wall_s


def break_some(urls: list[str], place: str) -> tuple[list[str], Counter[str]]:
    """Break a tenth of the URLs, in seven ways in turn; return them and what must be found."""
    wanted = Counter[str]()
    for number in range(0, len(urls), 10):
        what = BROKEN[number // 10 % len(BROKEN)]
        wanted[what] += 1
        urls[number] = {
            "dns": f"http://gone-{number}.invalid/a.jpg",
            "forbidden_address": f"http://169.254.169.254/{number}.jpg",
        }.get(what, f"http://{place}/broken/{what}/{number}.jpg")
    return urls, wanted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--img2dataset", metavar="PYTHON", help="an interpreter that has img2dataset")
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--serve", type=int, metavar="PORT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return
    shares: dict[str, list[float]] = {"alone": [], "on a Ray that is up": []}
    with tempfile.TemporaryDirectory(prefix="atlas-ray-bench-") as scratch, server() as place:
        urls = [f"http://{place}/ok/{number}.jpg" for number in range(options.count)]
        for pair in range(options.pairs):
            walls_s = dict(zip(shares, fetch_twice(scratch, f"fetch{pair}", urls, place), strict=True))
            line = f"pair {pair + 1}: fetch " + ", ".join(
                f"{name} {options.count / wall_s:.0f}/s" for name, wall_s in walls_s.items()
            )
            if options.img2dataset:
                other_s = img2dataset(options.img2dataset, scratch, f"other{pair}", urls)
                line += f", img2dataset {options.count / other_s:.0f}/s"
                for name, wall_s in walls_s.items():
                    shares[name].append(other_s / wall_s)
            print(line, flush=True)
        for name, share in shares.items():
            if share:
                each = ", ".join(f"{times:.2f}" for times in share)
                print(f"{name}: {statistics.median(share):.2f} times as fast as img2dataset, the median of {each}")
        urls, wanted = break_some(urls, place)
        flags = ("--timeout-s", "5", "--attempts", "2", "--max-bytes", str(MAX_BYTES), "--max-quarantine-fraction", "1")
        wall_s, run = fetch(scratch, "broken", urls, place, *flags)
        assert run["quarantined_by_code"] == dict(wanted), (run["quarantined_by_code"], wanted)
        assert run["counts"]["stored"] == options.count - wanted.total(), run["counts"]
        print(f"a tenth broken: {options.count / wall_s:.0f}/s; every one accounted for: {dict(wanted)}")


if __name__ == "__main__":
    main()
