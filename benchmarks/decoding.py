"""What decoding a picture and resizing it costs, in ways to do it: time of a core, two threads, and the answers.

    python -m benchmarks.decoding [--size-px 150] [--count 16] [--rounds 25]
    python -m benchmarks.decoding --images FOLDER [--count 1000] [--model ARTIFACT]

`project` is what every job does. Of the rounds the best counts, so that other work on the machine weighs less. The
pictures are drawn, as large in bytes as a shop's are. With `--images` the ways are compared on real ones instead: how
far the pixels are from those of a whole decoding, and how often a model gives the same answer; without a model, a
ResNet-18 with random weights its largest output.
"""

import argparse
import functools
import io
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import simplejpeg
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.dlpack import from_dlpack

from atlas_ray.artifacts import load_artifact
from atlas_ray.modalities.pictures import decode
from atlas_ray.modalities.products import Products
from atlas_ray.models.encoder import EncoderConfig, EncoderNetwork
from atlas_ray.prediction.paths import PathPredictor, PredictorConfig
from tests.support.inputs import pictures

Way = Callable[[bytes, int], Tensor]
"""Takes a file and a side to pixels, (3, side, side) uint8."""


def resized(pixels: Tensor, size_px: int) -> Tensor:
    return interpolate(pixels[None], (size_px, size_px), mode="bilinear", antialias=True)[0, :3]


def with_pillow(data: bytes, size_px: int, *, arrow: bool, margin: int) -> Tensor:
    """Decode with Pillow.

    Args:
        data: The file.
        size_px: The side of the result.
        arrow: Take the pixels where Pillow holds them, four bytes each, and not as a copy.
        margin: A JPEG is decoded at a fraction that leaves this many times the side; 0 for whole.
    """
    with Image.open(io.BytesIO(data)) as image:
        if margin:
            image.draft(None, (margin * size_px, margin * size_px))
        rgb: Image.Image = image if image.mode == "RGB" else image.convert("RGB")
        if arrow:
            pixels = from_dlpack(pa.array(rgb).flatten()).view(rgb.height, rgb.width, 4)
        else:
            pixels = torch.from_numpy(np.array(rgb))
    return resized(pixels.permute(2, 0, 1), size_px)


def with_simplejpeg(data: bytes, size_px: int, *, margin: int) -> Tensor:
    if not data.startswith(b"\xff\xd8"):
        return with_pillow(data, size_px, arrow=True, margin=margin)
    least = margin * size_px
    pixels = simplejpeg.decode_jpeg(data, min_height=least, min_width=least, min_factor=1)
    return resized(torch.from_numpy(pixels).permute(2, 0, 1), size_px)


def with_torchvision(data: bytes, size_px: int) -> Tensor:
    from torchvision.io import ImageReadMode, decode_image

    encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    return resized(decode_image(encoded, ImageReadMode.RGB), size_px)


def of_the_project(data: bytes, size_px: int) -> Tensor:
    return decode(data, size_px).pixels


WAYS: dict[str, Way] = {
    "whole": functools.partial(with_pillow, arrow=False, margin=0),
    "project": of_the_project,
    "Pillow, half": functools.partial(with_pillow, arrow=False, margin=2),
    "Arrow, half": functools.partial(with_pillow, arrow=True, margin=2),
    "Arrow, scaled": functools.partial(with_pillow, arrow=True, margin=1),
    "torchvision": with_torchvision,
    "simplejpeg, half": functools.partial(with_simplejpeg, margin=2),
    "simplejpeg, scaled": functools.partial(with_simplejpeg, margin=1),
}
"""The first is what the others are compared with. `half`: twice the side at least is decoded; `scaled`: once."""


def drawn(side_px: int, kind: str, seed: int) -> bytes:
    """Return a square picture of a product on white; its detail falls off as that of photographs does."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(side_px)[:, None], np.fft.rfftfreq(side_px)[None])
    frequency[0, 0] = 1
    layers = [np.fft.irfft2(np.fft.rfft2(rng.standard_normal((side_px, side_px))) / frequency**1.5) for _ in range(3)]
    light, red, blue = (layer / layer.std() for layer in layers)
    pixels = np.stack([light + 0.3 * red, light - 0.1 * red - 0.1 * blue, light + 0.3 * blue], -1) * 50 + 150
    edge = side_px // 5
    pixels[:edge] = pixels[-edge:] = pixels[:, :edge] = pixels[:, -edge:] = 255
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, kind, quality=85)
    return buffer.getvalue()


def measure(way: Way, files: Sequence[bytes], size_px: int, pools: Sequence[ThreadPoolExecutor]) -> list[float]:
    """Return the seconds of a core that the files take, and for each pool the seconds that pass."""

    def one(data: bytes) -> None:
        way(data, size_px)

    started = time.process_time()
    found: list[float] = []
    for pool in pools:
        at = time.perf_counter()
        for _ in pool.map(one, files):
            pass
        if not found:
            found.append(time.process_time() - started)
        found.append(time.perf_counter() - at)
    return found


def costs(ways: dict[str, Way], size_px: int, count: int, rounds: int) -> None:
    pools = [ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) for threads in (1, 2)]
    for kind, side_px in (("JPEG", 224), ("JPEG", 500), ("JPEG", 1000), ("PNG", 224), ("PNG", 500), ("PNG", 1000)):
        files = [drawn(side_px, kind, seed) for seed in range(8)]
        files = [files[number % len(files)] for number in range(count)]
        found: dict[str, list[list[float]]] = {name: [] for name in ways}
        for turn in range(rounds + 1):
            for name, way in ways.items():
                times = measure(way, files, size_px, pools)
                if turn:
                    found[name].append(times)
        print(f"{kind} of {side_px} px, {statistics.mean(map(len, files)) / 1024:.0f} KiB, to {size_px} px")
        for name, rows in found.items():
            core, alone, both = (min(column) / count * 1e6 for column in zip(*rows, strict=True))
            print(
                f"  {name:20} {core:7.0f} us of a core; {alone:7.0f} with one thread, {both:7.0f} with two: "
                f"{alone / both:.2f}"
            )


def answers(ways: dict[str, Way], files: Sequence[bytes], model: str | None) -> None:
    infer: Callable[[Tensor], Tensor]
    if model:
        predictor = PathPredictor(load_artifact(model), PredictorConfig(precision="float32", device="cpu"))
        size_px = predictor.image_size_px
        infer = lambda pixels: predictor.infer(Products(pixels)).leaf[:, 0]  # noqa: E731
    else:
        torch.manual_seed(0)
        size_px = 150
        network = EncoderNetwork(EncoderConfig(backbone="resnet18", image_size_px=size_px)).eval()
        infer = lambda pixels: network(pixels).mean((2, 3)).argmax(1)  # noqa: E731
    kept: Tensor | None = None
    first: Tensor | None = None
    for name, way in ways.items():
        pixels = torch.stack([way(data, size_px) for data in files])
        with torch.inference_mode():
            found = torch.cat([infer(part) for part in pixels.split(32)])
        if kept is None or first is None:
            kept, first = pixels, found
        off = (pixels.int() - kept.int()).abs()
        same = int((found == first).sum())
        print(
            f"{name:20} pixels off by {off.float().mean():.3f} in the mean, {int(off.max())} at most; "
            f"{same} of {len(files)} answers the same, {same / len(files):.2%}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size-px", type=int, default=150)
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--images")
    parser.add_argument("--model")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.images:
        files = [file.read_bytes() for file in pictures(options.images, options.count, "")]
        answers(WAYS, files, options.model)
    else:
        costs(WAYS, options.size_px, options.count, options.rounds)


if __name__ == "__main__":
    main()
