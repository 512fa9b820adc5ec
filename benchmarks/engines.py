"""Pictures a second through a picture encoder on each engine, in alternating rounds of one process.

    python -m benchmarks.engines [--model ARTIFACT] [--backbone resnet34] [--image-size-px 150] [--rounds 7]

A model from `atlas-ray optimize` brings its compiled encoder; how well it agrees was measured when it was made. Without
a model the encoder has random weights, on which the speed does not depend, and is compiled here.
"""

import argparse
import functools
import os
import statistics
import time
import warnings

import torch

from atlas_ray.artifacts import Network, add_compiled, load_network, new_encoder
from atlas_ray.artifacts.compiled import Compiled
from atlas_ray.models.backbones.backbone import fuse_batch_norm
from atlas_ray.models.encoder import EncoderConfig, EncoderNetwork
from atlas_ray.prediction.device import choose_dtype
from atlas_ray.prediction.engines import ENGINES, run_encoder

CPU = torch.device("cpu")


def random_encoder(backbone: str, size: int) -> Network:
    """Return an encoder with random weights, whose batch normalizations have seen some pictures."""
    torch.manual_seed(0)
    network = EncoderNetwork(EncoderConfig(backbone=backbone, image_size_px=size)).train()
    with torch.no_grad():
        network(torch.randint(0, 256, (8, 3, size, size), dtype=torch.uint8))
    return new_encoder(network.eval())


def add_compiled_flag(parser: argparse.ArgumentParser) -> None:
    """Add `--compiled`, which `compile_into` takes."""
    parser.add_argument(
        "--compiled", default="", metavar="ENGINE", help="what the model is compiled for, as openvino-int8"
    )


def compile_into(model: str, engine: str) -> None:
    """Add the encoder of a model, compiled for an engine over drawn pictures, to its folder; "" adds nothing."""
    form = ENGINES[engine].form if engine else None
    if form is None:
        return
    network = load_network(model)
    encoder = fuse_batch_norm(network.model.encoder).eval().requires_grad_(False)
    size = network.image_size_px
    files = form.make(encoder, torch.randint(0, 256, (64, 3, size, size), dtype=torch.uint8), ())
    add_compiled(model, "", engine, files, {"made_from": network.id})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--backbone", default="resnet34")
    parser.add_argument("--image-size-px", type=int, default=150)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--engines", default="torch,openvino,openvino-int8")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(os.cpu_count() or 1)
    network = load_network(options.model) if options.model else random_encoder(options.backbone, options.image_size_px)
    size, names = network.image_size_px, options.engines.split(",")
    encoder = fuse_batch_norm(network.model.encoder).eval().requires_grad_(False)
    pictures = torch.randint(0, 256, (options.batch_size, 3, size, size), dtype=torch.uint8)
    compiled: Compiled = network.compiled
    for name in names:
        form = ENGINES[name].form
        if form is not None and name not in compiled:
            files = form.make(encoder, pictures, ())
            compiled = {**compiled, name: functools.partial(dict, files)}
    dtype = choose_dtype("auto", CPU)
    encoder.to(dtype).to(memory_format=torch.channels_last)
    runs = {name: run_encoder(name, encoder, size, compiled) for name in names}
    rates: dict[str, list[float]] = {name: [] for name in names}
    with torch.inference_mode():
        for _ in range(options.rounds):
            for name, run in runs.items():
                run(pictures)
                started = time.perf_counter()
                for _ in range(3):
                    run(pictures)
                rates[name].append(3 * len(pictures) / (time.perf_counter() - started))
    base = statistics.median(rates[names[0]])
    print(f"{dtype}, {torch.backends.cpu.get_cpu_capability()}, batches of {len(pictures)} at {size} px")
    for name, found in rates.items():
        rate = statistics.median(found)
        print(f"{name:<14} {rate:7.1f} pictures/s  {rate / base:.2f} times {names[0]}")


if __name__ == "__main__":
    main()
