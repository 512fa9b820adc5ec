"""The parts of `benchmarks.gpu_check`: each a function that yields figures as they are known.

All that is timed is the project's own: predictors, decoding, objectives and optimizer steps, a replica of the endpoint.
"""

import asyncio
import io
import itertools
import json
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from atlas_ray.artifacts import load_artifact, save_artifact
from atlas_ray.modalities.limits import DEFAULT_LIMITS
from atlas_ray.modalities.pictures import decode_batch
from atlas_ray.modalities.products import Products
from atlas_ray.models.decoders.decoder import EncoderDecoderConfig
from atlas_ray.models.encoder_decoder import EncoderDecoder
from atlas_ray.prediction.paths import PathPredictor, PredictorConfig
from atlas_ray.serving.decoder import Decoder
from atlas_ray.taxonomy import Taxonomy, Vocabulary, read_taxonomy
from atlas_ray.training.batches import Examples
from atlas_ray.training.objectives import build_objective
from atlas_ray.training.settings import EncoderDecoderTraining
from atlas_ray.training.step import OptimizerStep


@dataclass(frozen=True)
class Figure:
    """A number, and what was expected."""

    what: str
    value: float
    unit: str
    predicted: str
    """For one H200 with 16 cores."""


@dataclass(frozen=True)
class Machine:
    """What is measured, and in which sizes."""

    device: str
    small: bool
    scratch: str

    @property
    def size_px(self) -> int:
        """The side of the models' pictures."""
        return 32 if self.small else 150

    @property
    def batches(self) -> tuple[int, int]:
        """A small and a large batch."""
        return (2, 8) if self.small else (32, 256)

    @property
    def backbones(self) -> tuple[str, ...]:
        """The models that are measured."""
        return ("resnet18",) if self.small else ("resnet34", "resnet101")

    def pixels(self, count: int) -> Tensor:
        """Draw pixels of the models' size, (count, 3, size, size) uint8."""
        torch.manual_seed(0)
        return torch.randint(0, 256, (count, 3, self.size_px, self.size_px), dtype=torch.uint8)

    def model(self, backbone: str, taxonomy: Taxonomy) -> str:
        """Make a model with random weights, and return its folder."""
        uri = f"{self.scratch}/{backbone}-{taxonomy.id}"
        if not Path(uri).exists():
            torch.manual_seed(0)
            vocabulary = Vocabulary.of(taxonomy)
            widths: Any = dict.fromkeys(("embedding_dim", "attention_dim", "decoder_dim"), 16 if self.small else 512)
            config = EncoderDecoderConfig(
                vocabulary_size=len(vocabulary), backbone=backbone, image_size_px=self.size_px, **widths
            )
            save_artifact(uri, EncoderDecoder(config), vocabulary=vocabulary, taxonomy=taxonomy, metrics={})
        return uri

    def predictor(self, backbone: str, taxonomy: Taxonomy | None = None, **settings: Any) -> PathPredictor:
        """Make a model with random weights, as a scoring run loads it."""
        uri = self.model(backbone, taxonomy or read_taxonomy("atlas-52"))
        threads = 1 if self.small else 0
        return PathPredictor(
            load_artifact(uri), PredictorConfig(**{"device": self.device, "threads": threads, **settings})
        )

    def seconds(self, run: Callable[[], Any]) -> float:
        """Return the median seconds of a call, after two that warm up."""
        times = []
        for turn in range(4 if self.small else 12):
            self.wait()
            began = time.perf_counter()
            run()
            self.wait()
            if turn > 1:
                times.append(time.perf_counter() - began)
        return statistics.median(times)

    def wait(self) -> None:
        """Wait until the device has done what it was given."""
        if self.device == "cuda":
            torch.cuda.synchronize()


def drawn(count: int, width: int, height: int) -> list[bytes]:
    """Draw JPEGs whose files are about as large as photographs of their size."""
    files = []
    for _ in range(count):
        coarse = Image.merge("RGB", [Image.effect_noise((width // 6, height // 6), 60) for _ in range(3)])
        buffer = io.BytesIO()
        coarse.resize((width, height), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
        files.append(buffer.getvalue())
    return files


def answers(machine: Machine) -> Iterator[Figure]:
    """Compare answers of the device with those of the CPU in float32, and of batches of one size with another's."""
    count = 16 if machine.small else 256
    backbone = machine.backbones[0]
    products = Products(machine.pixels(count))
    right = machine.predictor(backbone, device="cpu", precision="float32").predict(products)
    paths, probability = right["category_path"].to_pylist(), right["probability"].to_numpy()
    for precision, batch_size, predicted in (
        ("float32", machine.batches[1], "below 0.001"),
        ("float32", machine.batches[1] - 1, "below 0.001"),
        ("auto", machine.batches[1], "below 0.05"),
    ):
        found = machine.predictor(backbone, precision=precision, batch_size=batch_size).predict(products)
        name = f"{backbone}, {precision}, batches of {batch_size} against float32 on the CPU"
        largest = float(np.abs(found["probability"].to_numpy() - probability).max())
        yield Figure(f"{name}: probability", largest, "largest", predicted)
        same = sum(map(tuple.__eq__, map(tuple, found["category_path"].to_pylist()), map(tuple, paths))) / count
        yield Figure(f"{name}: path", 100 * same, "% the same", "100" if precision == "float32" else "above 90")


def model(machine: Machine) -> Iterator[Figure]:
    """Time the encoder with exact search over 52 paths: pictures as the host has them to answers on the device."""
    small, large = machine.batches
    predicted = {
        ("resnet34", small): "15,500", ("resnet34", large): "45,000 - 60,000",
        ("resnet101", small): "10,000", ("resnet101", large): "14,000 - 16,000",
    }  # fmt: skip
    for backbone in machine.backbones:
        for batch in machine.batches:
            predictor = machine.predictor(backbone, batch_size=batch)
            products = Products(machine.pixels(batch))
            rate = batch / machine.seconds(lambda: predictor.infer(products))  # noqa: B023
            yield Figure(f"{backbone}, batch {batch}", rate, "pictures/s", predicted.get((backbone, batch), "-"))
    if machine.device == "cuda":
        for batch in machine.batches:
            predictor = machine.predictor(machine.backbones[0], batch_size=batch, engine="cuda-graph")
            products = Products(machine.pixels(batch))
            rate = batch / machine.seconds(lambda: predictor.infer(products))  # noqa: B023
            yield Figure(
                f"{machine.backbones[0]}, batch {batch}, CUDA graph", rate, "pictures/s",
                "25,000 - 40,000" if batch == small else "45,000 - 60,000",
            )  # fmt: skip
        predictor = machine.predictor(machine.backbones[0], batch_size=large, engine="compiled")
        products = Products(machine.pixels(large))
        began = time.perf_counter()
        predictor.infer(products)
        yield Figure("the first batch of `--engine compiled`", time.perf_counter() - began, "s", "30 - 60")
        rate = large / machine.seconds(lambda: predictor.infer(products))
        yield Figure(f"{machine.backbones[0]}, batch {large}, compiled", rate, "pictures/s", "1.1 - 1.3 times as many")


def predictor(machine: Machine) -> Iterator[Figure]:
    """Time one process of a scoring run, without Ray: from files to a table of answers, and the device's share."""
    side = 64 if machine.small else 500
    files = drawn(8 if machine.small else 256, side, side)
    contents: list[bytes | None] = [*files] * (1 if machine.small else 8)
    for batch, predicted in zip(machine.batches, ("2,500 - 3,700", "3,000 - 4,500"), strict=True):
        one = machine.predictor(machine.backbones[0], batch_size=batch)
        one(contents[: 2 * batch])
        one.decode_s, began = 0.0, time.perf_counter()
        table, refused = one(contents)
        seconds = time.perf_counter() - began
        assert len(table) == len(contents)
        assert not refused
        name = f"{machine.backbones[0]}, batch {batch}, {side} px files"
        yield Figure(name, len(contents) / seconds, "pictures/s", predicted)
        yield Figure(f"{name}: decoding", 100 * one.decode_s / seconds, "% of the time", "above 90")


class NotHereError(Exception):
    """What a part needs is not on this machine."""


def score(machine: Machine) -> Iterator[Figure]:
    """Time `atlas-ray score`, with pictures decoded by tasks and beside the model: it needs Ray."""
    try:
        import ray  # noqa: F401
    except ModuleNotFoundError:
        raise NotHereError("Ray is not installed") from None
    from tests.support.inputs import write_catalog  # which needs Ray, and what tests need

    rows, files, side = (24, 8, 64) if machine.small else (20_000, 500, 500)
    folder = Path(machine.scratch, "files")
    folder.mkdir()
    names = [str(folder / f"{number}.jpg") for number in range(files)]
    for name, data in zip(names, drawn(files, side, side), strict=True):
        Path(name).write_bytes(data)
    write_catalog(f"{machine.scratch}/catalog", [names[row % files] for row in range(rows)])
    model = machine.model(machine.backbones[-1], read_taxonomy("atlas-52"))
    for stage, predicted in (("stage", "8,000 - 10,000"), ("actor", "2,500 - 3,500")):
        output = f"{machine.scratch}/{stage}"
        command = [
            sys.executable, "-m", "atlas_ray", "score", f"--catalog={machine.scratch}/catalog", f"--model={model}",
            f"--output={output}", f"--device={machine.device}", f"--decode-stage={stage}", "--workers=1",
        ]  # fmt: skip
        began = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - began
        if done.returncode:
            raise RuntimeError((done.stderr.splitlines() or [f"score ended with {done.returncode}"])[-1])
        run = json.loads(Path(output, "run.json").read_text())
        assert run["counts"]["scored"] == rows
        name = f"{machine.backbones[-1]}, {side} px, --decode-stage {stage}"
        yield Figure(name, rows / run["seconds"]["first_read_to_last_write"], "pictures/s", predicted)
        yield Figure(f"{name}: the whole command", seconds, "s", "20 more than the stream")


def decode(machine: Machine) -> Iterator[Figure]:
    """Time decoding in threads of one process, and in processes of one thread each."""
    cores = len(os.sched_getaffinity(0))
    counts = [count for count in (1, 4, 8, 16) if count <= (2 if machine.small else cores)]
    shapes = [(64, 64)] if machine.small else [(500, 500), (1080, 1440)]
    for shape, most, in_one in zip(shapes, ("12,000", "3,900"), ("3,700", "2,100"), strict=False):
        files = drawn(16 if machine.small else 64, *shape)
        name = "x".join(map(str, shape)) + f" px, {statistics.mean(map(len, files)) / 1000:.0f} KB"
        # Processes before threads: to fork one that has threads is not safe.
        for count in counts:
            turns = [files * (1 if machine.small else 8)] * count
            with multiprocessing.get_context("fork").Pool(count) as pool:
                rates = pool.starmap(_decoded_per_s, zip(turns, itertools.repeat(machine.size_px)), chunksize=1)
            yield Figure(
                f"{name}: {count} processes", sum(rates), "pictures/s", f"{most} of 16" if count > 1 else "800"
            )
        for count in counts:
            with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as threads:
                batch = files * (1 if machine.small else 8)
                seconds = machine.seconds(lambda: decode_batch(batch, machine.size_px, pool=threads))  # noqa: B023
            yield Figure(f"{name}: {count} threads", len(batch) / seconds, "pictures/s", f"at most {in_one}")


def _decoded_per_s(files: Sequence[bytes], size_px: int) -> float:
    torch.set_num_threads(1)
    decode_batch(files[:8], size_px)
    began = time.perf_counter()
    decode_batch(files, size_px)
    return len(files) / (time.perf_counter() - began)


def copy(machine: Machine) -> Iterator[Figure]:
    """Time copies from the host to the device, from memory as it comes and from pinned memory."""
    for mib in (1, 2) if machine.small else (2, 16, 64):
        source = torch.empty(mib << 20, dtype=torch.uint8)
        target = torch.empty_like(source, device=machine.device)
        kinds = {"pageable": (source, "8")}
        if machine.device == "cuda":
            kinds["pinned"] = (source.pin_memory(), "50")
        for kind, (data, predicted) in kinds.items():
            seconds = machine.seconds(lambda: target.copy_(data, non_blocking=True))  # noqa: B023
            yield Figure(f"{mib} MiB, {kind}", source.numel() / seconds / 1e9, "GB/s", predicted)


def train(machine: Machine) -> Iterator[Figure]:
    """Time training steps on batches that are on the device, and the share of that with batches from the host."""
    predicted = {("resnet34", 128): "10,000", ("resnet101", 128): "3,500 - 5,000"}
    for backbone, batch in itertools.product(machine.backbones, (4,) if machine.small else (16, 128, 512)):
        config = EncoderDecoderTraining(
            catalog="-", output="-", backbone=backbone, image_size_px=machine.size_px, batch_size=batch, augment=True,
            hidden_dim=16 if machine.small else 512,
        )  # fmt: skip
        device = torch.device(machine.device)
        objective = build_objective(config, read_taxonomy("atlas-52"), device).train()
        step = OptimizerStep(objective, config, device)
        host = machine.pixels(batch), torch.randint(0, 52, (batch,)), torch.ones(batch)
        ready = Examples(*(part.to(device) for part in host))

        def from_host() -> None:
            step(objective, Examples(*(part.to(device, non_blocking=True) for part in host)))  # noqa: B023

        seconds = machine.seconds(lambda: step(objective, ready))  # noqa: B023
        name = f"{backbone}, batch {batch}"
        yield Figure(name, batch / seconds, "pictures/s", predicted.get((backbone, batch), "-"))
        yield Figure(f"{name}, from the host", 100 * seconds / machine.seconds(from_host), "% of that", "90 - 95")


def memory(machine: Machine) -> Iterator[Figure]:
    """Measure the most memory of a batch, and whether one that does not fit ends a run."""
    backbone, large = machine.backbones[0], machine.batches[1]
    products = Products(machine.pixels(large))
    if machine.device != "cuda":
        machine.predictor(backbone, batch_size=large).infer(products)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2  # KiB on Linux
        yield Figure(f"{backbone}, batch {large}: this process", peak, "GiB", "-")
        return
    used = 0
    for taxonomy, predicted in ((read_taxonomy("atlas-52"), "below 2"), (wide_taxonomy(), "5.4")):
        one = machine.predictor(backbone, taxonomy, batch_size=large, search="exact")
        torch.cuda.reset_peak_memory_stats()
        one.infer(products)
        used = torch.cuda.max_memory_allocated()
        inner = one.scope.tree.trie.inner_count
        yield Figure(f"{backbone}, batch {large}, exact search of {inner} nodes", used / 1024**3, "GiB", predicted)
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.7 * used / torch.cuda.get_device_properties(0).total_memory)
    answered = len(one.predict(products))
    yield Figure("the last one with 0.7 of that memory: halves", 100 * answered / large, "% answered", "100")


def wide_taxonomy() -> Taxonomy:
    """Make a taxonomy of as many inner nodes as are searched exactly."""
    counts = (15, 16, 4)
    steps = itertools.product(*(range(count) for count in counts))
    return Taxonomy([tuple(f"{level}-{place}" for level, place in enumerate(path)) for path in steps], name="wide")


def gateway(machine: Machine) -> Iterator[Figure]:
    """Time an answer of the endpoint without HTTP and Ray: a gateway's threads decode, the model's thread answers."""
    side = 64 if machine.small else 500
    batch = machine.batches[1]
    files = drawn(batch, side, side)
    one = machine.predictor(machine.backbones[0], batch_size=batch)
    decoder = Decoder(DEFAULT_LIMITS, patience_s=60)
    for count, predicted in ((1, "5"), (2, "6")) if machine.small else ((1, "5"), (8, "8"), (32, "24"), (128, "90")):

        async def ask(contents: list[bytes]) -> list[dict[str, Any]]:
            pixels: list[Any] = await decoder.decode(contents, machine.size_px, time.monotonic() + 60)
            products = Products(torch.from_numpy(np.stack(pixels)))
            rows: list[dict[str, Any]] = one.predict_within(products, [one.scope] * len(contents)).to_pylist()
            return rows

        seconds = machine.seconds(lambda: asyncio.run(ask(files[:count])))  # noqa: B023
        yield Figure(f"a request of {count} pictures of {side} px", 1000 * seconds, "ms", predicted)
