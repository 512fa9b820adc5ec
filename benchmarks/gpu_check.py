"""What one GPU does here, beside what was predicted of it: copies, decoding, the model, training, answers, memory.

    python -m benchmarks.gpu_check [--device cuda] [--only NAME NAME] [--results gpu_check.jsonl]
    python -m benchmarks.gpu_check --device cpu --small      # whether it runs: small pictures, small models

Under eight minutes. Each part is a process of its own with a time limit, and each figure is in the results file as soon
as it is known: what fails or takes too long costs its own part. Nothing is downloaded: models have random weights,
pictures are drawn. Without Ray the part `score` is skipped. Clocks and settings of the GPU are left as they are.

The predictions are for one H200 with 16 cores and pictures of 500 px: arithmetic from assumed rates of the GPU and from
times on CPUs. None of them was measured on a GPU.
"""

import argparse
import json
import multiprocessing
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks import gpu_parts


@dataclass(frozen=True)
class Part:
    """Something that is measured."""

    measure: Callable[[gpu_parts.Machine], Iterator[gpu_parts.Figure]]
    limit_s: int


PARTS: dict[str, Part] = {
    "answers": Part(gpu_parts.answers, 45),
    "model": Part(gpu_parts.model, 90),
    "predictor": Part(gpu_parts.predictor, 50),
    "decode": Part(gpu_parts.decode, 50),
    "score": Part(gpu_parts.score, 90),
    "copy": Part(gpu_parts.copy, 15),
    "train": Part(gpu_parts.train, 70),
    "memory": Part(gpu_parts.memory, 30),
    "gateway": Part(gpu_parts.gateway, 35),
}
"""The parts, those that matter most first: 475 seconds at most."""


def write(results: Path, line: dict[str, Any]) -> None:
    """Add a line to the results, and to what is seen."""
    with results.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    if "value" in line:
        value = f"{line['value']:,.4g}" if line["value"] < 1000 else f"{line['value']:,.0f}"
        print(f"{line['part']:10} {line['what']:58} {value:>12} {line['unit']:14} {line['predicted']}", flush=True)
    for why in ("failed", "skipped"):
        if why in line:
            print(f"{line['part']:10} {why}: {line[why]}", flush=True)


def measure(name: str, machine: gpu_parts.Machine, results: Path) -> None:
    """Measure a part, in a process of its own; exit with 1 if it fails."""
    os.setsid()  # what it starts ends with it
    if machine.small:
        torch.set_num_threads(1)
    try:
        for figure in PARTS[name].measure(machine):
            write(results, {"part": name, **asdict(figure)})
    except gpu_parts.NotHereError as error:
        write(results, {"part": name, "skipped": str(error)})
    except Exception as error:  # whatever a driver, a compiler or a device says: it belongs into the results
        write(results, {"part": name, "failed": f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"})
        sys.exit(1)


def run(name: str, machine: gpu_parts.Machine, results: Path) -> bool:
    """Start a part and wait for it, no longer than its limit; return whether it came to its end."""
    part = PARTS[name]
    # Forked, so that PyTorch is imported once. This process has used no device and no thread of PyTorch.
    process = multiprocessing.get_context("fork").Process(target=measure, args=(name, machine, results))
    process.start()
    process.join(part.limit_s)
    if process.is_alive() and process.pid is not None:
        os.killpg(process.pid, signal.SIGKILL)
        process.join()
        write(results, {"part": name, "failed": f"stopped after {part.limit_s} s"})
    elif process.exitcode not in (0, 1):
        write(results, {"part": name, "failed": f"ended with {process.exitcode}"})
    return process.exitcode == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--small", action="store_true", help="small pictures and models, and few of them")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--results", type=Path, default=Path("gpu_check.jsonl"), help="file that lines are added to")
    options = parser.parse_args()
    began = time.monotonic()
    about: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"), "device": options.device, "small": options.small,
        "python": platform.python_version(), "torch": torch.__version__, "cuda": torch.version.cuda,
        "machine": platform.machine(), "cores": os.cpu_count(),
    }  # fmt: skip
    write(options.results, about)
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    print(f"{'part':10} {'what':58} {'measured':>12} {'':14} predicted for one H200 with 16 cores")
    with tempfile.TemporaryDirectory(prefix="atlas-ray-bench-") as scratch:
        machine = gpu_parts.Machine(options.device, options.small, scratch)
        ended = [run(name, machine, options.results) for name in options.only]
    lines = [json.loads(line) for line in options.results.read_text(encoding="utf-8").splitlines()]
    counts = [sum(key in line for line in lines) for key in ("value", "failed")]
    print(f"{counts[0]} figures, {counts[1]} failures in {time.monotonic() - began:.0f} s: {options.results}")
    return 0 if all(ended) else 1


if __name__ == "__main__":
    sys.exit(main())
