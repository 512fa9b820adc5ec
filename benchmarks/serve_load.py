"""What the endpoint holds: pictures a second and latency under load, and what happens under more of it.

    python -m benchmarks.serve_load throughput [--images FOLDER] [--seconds 30] [--precision float32] [SERVE FLAGS]
    python -m benchmarks.serve_load overload   [--images FOLDER] [--seconds 60] [--precision float32] [SERVE FLAGS]

`throughput`: 32 clients that each ask again as soon as they are answered, JPEG in and JSON out, with
one and with eight pictures a request; against the bare model at its best batch (network and search
on ready tensors, all cores), measured before and after in a process of its own, and against a plain
FastAPI server that takes a picture at a time (`benchmarks/plain_server.py`). The clients run on the
same cores; their CPU seconds are printed.

`overload`: the endpoint's capacity is measured as above, with one picture a request; then requests
are sent at twice that rate, whether or not they are answered.

With `--compiled ENGINE` all of them run the model on that engine.

The model is an untrained encoder-decoder on a ResNet-34 at 150 px, whose speed is a trained one's.
Flags that are not this program's go to `atlas-ray serve`.
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from benchmarks.engines import add_compiled_flag, compile_into
from tests.support.endpoint import endpoint
from tests.support.inputs import free_port, pictures, random_model, wait_for

CLIENTS = 32
BATCHES = (8, 16, 32)


@dataclass
class Measured:
    """What clients saw."""

    seconds: float = 0.0
    pictures: int = 0
    latencies_ms: list[float] = field(default_factory=list)
    """Of the answers with 200."""
    outcomes: Counter[str] = field(default_factory=Counter)
    client_cpu_s: float = 0.0

    @property
    def rate(self) -> float:
        """Pictures answered a second."""
        return self.pictures / self.seconds

    def percentile_ms(self, percent: int) -> float:
        """Return a percentile of the latency."""
        return statistics.quantiles(self.latencies_ms, n=100, method="inclusive")[percent - 1]

    def __str__(self) -> str:
        outcomes = ", ".join(f"{count} x {name}" for name, count in self.outcomes.most_common())
        return (
            f"{self.rate:.1f}/s, p50 {self.percentile_ms(50):.0f} ms, p99 {self.percentile_ms(99):.0f} ms, "
            f"clients {self.client_cpu_s:.1f} CPU s of {self.seconds:.0f} s; {outcomes}"
        )


class Clients:
    """Requests to one server."""

    def __init__(self, url: str, contents: Sequence[bytes], count: int) -> None:
        self._url = f"{url}/v1/categorize"
        self._bodies = []
        for start in range(0, len(contents) - count + 1, count):
            # Encoded once: what a form costs its writer is not what is measured.
            parts = [
                b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n' + content + b"\r\n"
                for content in contents[start : start + count]
            ]
            self._bodies.append(b"".join(parts) + b"--x--\r\n")
        self._count = count
        self._next = 0

    async def _ask(self, session: aiohttp.ClientSession, into: Measured) -> None:
        self._next += 1
        body = self._bodies[self._next % len(self._bodies)]
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        started = time.perf_counter()
        try:
            async with session.post(self._url, data=body, headers=headers) as answer:
                await answer.read()
                status = str(answer.status)
        except aiohttp.ClientError as error:
            status = type(error).__name__
        into.outcomes[status] += 1
        if status == "200":
            into.latencies_ms.append(1000 * (time.perf_counter() - started))
            into.pictures += self._count

    async def closed(self, seconds: float) -> Measured:
        """Let each client ask again as soon as it is answered."""
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            warm = Measured()
            await asyncio.gather(*(self._ask(session, warm) for _ in range(2 * CLIENTS)))
            found = Measured()
            started, cpu = time.perf_counter(), time.process_time()

            async def client() -> None:
                while time.perf_counter() - started < seconds:
                    await self._ask(session, found)

            await asyncio.gather(*(client() for _ in range(CLIENTS)))
            found.seconds, found.client_cpu_s = time.perf_counter() - started, time.process_time() - cpu
        return found

    async def open(self, rate: float, seconds: float) -> Measured:
        """Send requests at a rate, whether or not those before were answered."""
        found = Measured()
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            started, cpu = time.perf_counter(), time.process_time()
            sent: set[asyncio.Task[None]] = set()
            for number in range(int(rate * seconds)):
                await asyncio.sleep(max(0.0, started + number / rate - time.perf_counter()))
                sent.add(asyncio.create_task(self._ask(session, found)))
            await asyncio.gather(*sent)
            found.seconds, found.client_cpu_s = time.perf_counter() - started, time.process_time() - cpu
        return found


def bare(model: str, files: list[Path], precision: str) -> float:
    """Return pictures a second of network and search at the best batch."""
    import torch

    from atlas_ray.artifacts import load_artifact
    from atlas_ray.modalities.products import Products
    from atlas_ray.prediction.paths import PathPredictor, PredictorConfig

    torch.set_num_threads(os.cpu_count() or 1)
    predictor = PathPredictor(load_artifact(model), PredictorConfig(precision=precision))
    decoded, _ = predictor.decode([file.read_bytes() for file in files])
    best = 0.0
    for size in BATCHES:
        batches = decoded.split(size)
        for batch in batches[:4]:
            predictor.infer(Products(batch))
        started = time.perf_counter()
        for batch in batches:
            predictor.infer(Products(batch))
        best = max(best, len(decoded) / (time.perf_counter() - started))
    return best


@contextmanager
def plain_server(model: str, precision: str) -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.plain_server", f"--model={model}", f"--port={port}"]
    command.append(f"--precision={precision}")
    process = subprocess.Popen(command)
    try:
        wait_for(f"http://127.0.0.1:{port}/", process, 60)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def memory_mib() -> float:
    """Return the resident memory of all replicas and proxies on this machine."""
    total = 0.0
    for entry in Path("/proc").iterdir():
        try:
            if (entry / "cmdline").read_bytes().startswith((b"ray::ServeReplica", b"ray::Proxy")):
                total += int((entry / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
        except OSError:
            continue
    return total


def throughput(model: str, files: list[Path], seconds: float, precision: str, flags: list[str]) -> None:
    contents = [file.read_bytes() for file in files]
    command = [
        sys.executable,
        "-m",
        "benchmarks.serve_load",
        "bare",
        "--model",
        model,
        "--images",
        str(files[0].parent),
        f"--precision={precision}",
    ]

    def bare_rate() -> float:
        done = subprocess.run([*command, "--count", str(len(files))], capture_output=True, text=True, check=True)
        return float(done.stdout.split()[-1])

    rates = [bare_rate()]
    with plain_server(model, precision) as url:
        plain = asyncio.run(Clients(url, contents, 1).closed(seconds))
    found = {}
    with endpoint(f"--model={model}", "--allow-anonymous", f"--precision={precision}", *flags) as running:
        for count in (1, 8):
            found[count] = asyncio.run(Clients(running.url, contents, count).closed(seconds))
    rates.append(bare_rate())
    best = statistics.mean(rates)
    print(f"bare model, best batch: {rates[0]:.1f} and {rates[1]:.1f}/s")
    print(f"plain server, one picture a request: {plain}")
    for count, one in found.items():
        print(f"endpoint, {count} a request: {one}: {one.rate / best:.3f} of the bare model")
    ratio = found[1].rate / plain.rate
    print(f"endpoint against the plain server: {ratio:.2f} of its pictures/s, ", end="")
    print(f"p99 {found[1].percentile_ms(99) / plain.percentile_ms(99):.2f} of its")


def overload(model: str, files: list[Path], seconds: float, precision: str, flags: list[str]) -> None:
    contents = [file.read_bytes() for file in files]
    with endpoint(f"--model={model}", "--allow-anonymous", f"--precision={precision}", *flags) as running:
        clients = Clients(running.url, contents, 1)
        capacity = asyncio.run(clients.closed(seconds / 3))
        print(f"capacity: {capacity}")
        before = memory_mib()
        over = asyncio.run(clients.open(2 * capacity.rate, seconds))
        print(f"twice that: {over}; p99 {over.percentile_ms(99) / capacity.percentile_ms(99):.2f} of that at capacity")
        after = memory_mib()
        print(f"memory of replicas and proxy: {before:.0f} MiB before, {after:.0f} MiB after")
        again = asyncio.run(clients.closed(seconds / 6))
        print(f"after it: {again}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("throughput", "overload", "bare"))
    parser.add_argument("--images", help="a folder of JPEG files; a sample is drawn where none is given")
    parser.add_argument("--count", type=int, default=512)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--precision", default="auto", help="of all models: auto, float32 or bfloat16")
    add_compiled_flag(parser)
    parser.add_argument("--model", help=argparse.SUPPRESS)
    options, flags = parser.parse_known_args()
    with tempfile.TemporaryDirectory(prefix="atlas-ray-bench-") as scratch:
        files = pictures(options.images, options.count, f"{scratch}/shop")
        if options.what == "bare":
            print(bare(options.model, files, options.precision))
            return
        model = f"{scratch}/model"
        random_model(model, "resnet34")
        compile_into(model, options.compiled)
        measure = throughput if options.what == "throughput" else overload
        measure(model, files, options.seconds, options.precision, flags)


if __name__ == "__main__":
    main()
