"""A backbone of your own, trained on a catalogue: `python examples/custom_backbone.py CATALOG OUTPUT`.

Ray's workers are processes of their own, so each of them adds the entry when it starts. See docs/extending/backbone.md.
"""

import os
import sys
from pathlib import Path

from torch import nn

import atlas_ray as ar
from atlas_ray.models.backbones import BACKBONES, BackboneSpec


def layers(name: str) -> dict[str, nn.Module]:
    """Build the layers: patches of 16 pixels, mixed twice."""
    return {
        "patches": nn.Conv2d(3, 32, 16, 16),
        "mix1": nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), nn.GELU()),
        "mix2": nn.Sequential(nn.Conv2d(32, 64, 1), nn.GELU()),
    }


def register() -> None:
    """Add the backbone; every process that uses it calls this."""
    BACKBONES["patches"] = BackboneSpec(
        layers="custom_backbone:layers",
        features=64,
        stride=16,
        partial_cells=False,
        blocks=(("patches",), ("mix1",), ("mix2",)),
    )


def main(catalog: str, output: str) -> None:
    """Train a classifier with the backbone for two epochs and print its accuracy."""
    import ray

    here = str(Path(__file__).resolve().parent)
    path = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH", ""))))
    ray.init(
        runtime_env={
            "env_vars": {"PYTHONPATH": path},
            "worker_process_setup_hook": "custom_backbone.register",
        }
    )
    register()
    settings = ar.ClassifierTraining(
        catalog=catalog, output=output, backbone="patches", image_size_px=64, hidden_dim=64, epochs=2, batch_size=16
    )
    report = ar.train(settings)
    print(f"model {report.model_id}: accuracy {report.metrics['val_accuracy']:.3f} on the split val")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(f"usage: {sys.argv[0]} CATALOG OUTPUT")
    main(*sys.argv[1:])
