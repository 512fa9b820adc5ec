"""The engines, which run a picture encoder from pictures to a grid of features.

An engine may have a compiled form of an encoder: files in the artifact, written by `atlas-ray optimize`, from which no
process has to make it again at its start. Importing this imports no torch.
"""

import importlib.util
import pkgutil
from collections import ChainMap
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from atlas_ray.errors import ConfigError
from atlas_ray.prediction.feeding import feeding_of

if TYPE_CHECKING:
    import torch
    from torch import nn

    from atlas_ray.artifacts.compiled import Compiled

Run = Callable[[Any], Any]
"""Takes pictures, (batch, 3, size, size) uint8 on the encoder's device, to a grid (batch, features, rows, columns)."""
AUTO, PLAIN = "auto", "torch"


@dataclass(frozen=True)
class Form:
    """The compiled form of encoders for an engine."""

    make: Callable[[Any, Any, Collection[str]], Mapping[str, bytes]]
    """Takes an encoder in float32, some of its pictures (count, 3, size, size) uint8, and the names of its layers that
    keep their precision; returns the files by their endings."""
    load: Callable[[Mapping[str, bytes], Any, int], Run]
    """Takes the files, the encoder in its dtype on its device, and the side of its pictures. The files may come from
    anybody: they are checked, and nothing in them is executed."""


@dataclass(frozen=True)
class Engine:
    """A way to run an encoder."""

    prepare: Callable[[Any, int], Run]
    """Takes an encoder in its dtype on its device, and the side of its pictures in pixels; returns what runs it.

    A package that only this engine needs is imported here; the extra that brings it is in `errors.EXTRA_OF`."""
    summary: str
    """What it does, for the help of `--engine`."""
    device: str = ""
    """The only type of device that it runs on; "" if any will do."""
    package: str = ""
    """A Python package that it needs; "" if there is none."""
    form: Form | None = None
    """Its compiled form, if it has one."""


def _lazily(name: str) -> Callable[..., Any]:
    """Return a function of a module of this package that is imported when it is called."""

    def call(*arguments: Any) -> Any:
        return pkgutil.resolve_name(f"{__name__}.{name}")(*arguments)

    return call


ENGINES: dict[str, Engine] = {
    PLAIN: Engine(_lazily("pytorch:as_it_is"), "PyTorch, an operation at a time"),
    "cuda-graph": Engine(
        _lazily("cuda_graph:captured"), "PyTorch on a GPU, all operations of a batch launched at once", device="cuda"
    ),
    "compiled": Engine(_lazily("inductor:compiled"), "PyTorch's compiler, which takes a minute once a machine"),
    "openvino": Engine(
        _lazily("openvino:converted"),
        "OpenVINO on a CPU, in the run's precision",
        device="cpu",
        package="openvino",
        form=Form(_lazily("openvino:make"), _lazily("openvino:load")),
    ),
    "openvino-int8": Engine(
        _lazily("openvino:unquantized"),
        "OpenVINO on a CPU in 8 bits, for a model from `atlas-ray optimize`",
        device="cpu",
        package="openvino",
        form=Form(_lazily("openvino:quantize"), _lazily("openvino:load")),
    ),
}
"""The engines, from the slowest to the fastest."""
ENGINE_CHOICES: Mapping[str, Any] = ChainMap[str, Any]({AUTO: None}, ENGINES)
"""The values of `--engine`, those of engines that are added later among them."""
ENGINE_HELP = "; ".join(
    [
        *(f"{name}: {engine.summary}" for name, engine in ENGINES.items()),
        f"{AUTO}: the fastest that the model holds and this machine can run, else {PLAIN}",
    ]
)


def choose_engine(wanted: str, device: "torch.device", compiled: Collection[str]) -> str:
    """Return the engine of a name; of `auto` the last of `ENGINES` that there is a form for and that can run here.

    Raises:
        ConfigError: if the engine does not run on the device.
    """
    if wanted != AUTO:
        if ENGINES[wanted].device not in ("", device.type):
            raise ConfigError(
                f"engine {wanted!r} runs on a {ENGINES[wanted].device}, and the model is to run on {device}; "
                f"choose another with --engine, or --device {ENGINES[wanted].device}"
            )
        return wanted
    usable = [PLAIN]
    for name, engine in ENGINES.items():
        installed = not engine.package or importlib.util.find_spec(engine.package) is not None
        if name in compiled and engine.form and engine.device in ("", device.type) and installed:
            usable.append(name)
    return usable[-1]


def run_encoder(wanted: str, encoder: "nn.Module", image_size_px: int, compiled: "Compiled") -> Run:
    """Return what runs an encoder on an engine, batches of any size.

    Args:
        wanted: One of `ENGINE_CHOICES`.
        encoder: The encoder, in its dtype on its device.
        image_size_px: The side of its pictures.
        compiled: Its compiled forms.

    Raises:
        ConfigError: if the engine does not run on the device, or needs a form that there is none of.
        ArtifactError: if a form is damaged, or is not of this encoder.
    """
    device = next(encoder.parameters()).device
    name = choose_engine(wanted, device, compiled)
    engine = ENGINES[name]
    if engine.form and name in compiled:
        run = engine.form.load(compiled[name](), encoder, image_size_px)
    else:
        run = engine.prepare(encoder, image_size_px)
    if not feeding_of(device.type).few_sizes:
        return run
    import torch

    from atlas_ray.prediction.engines.padding import Padded

    torch.backends.cudnn.benchmark = True
    return Padded(run)
