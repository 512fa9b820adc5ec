"""An inference engine of your own, beside those of the package: `python examples/custom_engine.py MODEL PICTURE...`.

The engine here runs the encoder on a few pictures at a time, so that a large batch needs little memory. See
docs/extending/engine.md.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

import atlas_ray as ar
from atlas_ray.prediction.engines import ENGINES, Engine


def in_parts(encoder: nn.Module, image_size_px: int) -> Callable[[Tensor], Tensor]:
    """Run the encoder over 4 pictures at a time."""

    def run(pictures: Tensor) -> Tensor:
        return torch.cat([encoder(part) for part in pictures.split(4)])

    return run


ENGINES["parts"] = Engine(in_parts, "a few pictures at a time")


def main(model: str, *pictures: str) -> None:
    """Print the path of each picture as the engine of the package and this one give it."""
    contents = [Path(name).read_bytes() for name in pictures]
    for engine in ("torch", "parts"):
        predict = ar.PathPredictor(ar.load_artifact(model), ar.PredictorConfig(engine=engine, precision="float32"))
        answers, _ = predict(contents)
        for name, path in zip(pictures, answers["category_path"].to_pylist(), strict=True):
            print(f"{engine}\t{name}\t{' > '.join(path) if path else 'refused'}")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(f"usage: {sys.argv[0]} MODEL PICTURE...")
    main(*sys.argv[1:])
