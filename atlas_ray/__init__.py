"""Put every product of a catalogue into its place in a taxonomy, at any scale, on Ray.

The names in `__all__` are the Python interface. Each is imported when it is first used, so that `import atlas_ray`
costs nothing and a program that only asks an endpoint never imports PyTorch or Ray.
"""

import importlib
from typing import TYPE_CHECKING, Any

from atlas_ray.version import __version__ as __version__

if TYPE_CHECKING:
    from atlas_ray.artifacts import load_artifact
    from atlas_ray.catalog.importer import ImportConfig, import_catalog
    from atlas_ray.client import Client
    from atlas_ray.evaluation.paths import evaluate
    from atlas_ray.prediction.paths import PathPredictor, PredictorConfig
    from atlas_ray.scoring.run import score
    from atlas_ray.scoring.settings import ScoreConfig
    from atlas_ray.taxonomy import Taxonomy, read_taxonomy
    from atlas_ray.training.run import train
    from atlas_ray.training.settings import ClassifierTraining, EncoderDecoderTraining, TextTraining

__all__ = [
    "ClassifierTraining",
    "Client",
    "EncoderDecoderTraining",
    "ImportConfig",
    "PathPredictor",
    "PredictorConfig",
    "ScoreConfig",
    "Taxonomy",
    "TextTraining",
    "evaluate",
    "import_catalog",
    "load_artifact",
    "read_taxonomy",
    "score",
    "train",
]
_MODULES = {
    "artifacts": ("load_artifact",),
    "catalog.importer": ("ImportConfig", "import_catalog"),
    "client": ("Client",),
    "evaluation.paths": ("evaluate",),
    "prediction.paths": ("PathPredictor", "PredictorConfig"),
    "scoring.run": ("score",),
    "scoring.settings": ("ScoreConfig",),
    "taxonomy": ("Taxonomy", "read_taxonomy"),
    "training.run": ("train",),
    "training.settings": ("ClassifierTraining", "EncoderDecoderTraining", "TextTraining"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a public name from its module (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names, imported or not."""
    return sorted({*globals(), *__all__})
