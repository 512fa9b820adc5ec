"""OpenVINO, which runs an encoder on a CPU: converted in the run's precision, or in 8 bits."""

import contextlib
import copy
import functools
import importlib
import io
import math
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from atlas_ray.artifacts.compiled import Files
from atlas_ray.errors import ArtifactError, ConfigError
from atlas_ray.prediction.engines.graph import check_graph

GRAPH, NUMBERS = "xml", "bin"
"""The endings of a compiled encoder's files: its operations, and its weights."""
MAX_ELEMENTS = 2**30
"""The most numbers between two operations, a picture."""


def converted(encoder: nn.Module, image_size_px: int) -> Callable[[Tensor], Tensor]:
    """Convert the encoder; a model from `atlas-ray optimize` has it converted already."""
    return _run(_convert(encoder, image_size_px), encoder)


def unquantized(encoder: nn.Module, image_size_px: int) -> Callable[[Tensor], Tensor]:  # noqa: ARG001
    """Refuse an encoder that is not in 8 bits.

    Raises:
        ConfigError: always.
    """
    raise ConfigError(
        "engine 'openvino-int8': the model does not hold its encoder in 8 bits; make one that does with "
        "`atlas-ray optimize --model MODEL --catalog CATALOG --output ANOTHER`"
    )


def make(encoder: nn.Module, pictures: Tensor, kept: Collection[str]) -> Files:  # noqa: ARG001
    """Return the files of an encoder in its own precision."""
    return _files(_convert(encoder, pictures.shape[-1]))


def quantize(encoder: nn.Module, pictures: Tensor, kept: Collection[str]) -> Files:
    """Return the files of an encoder in 8 bits.

    Weights take one of 127 steps and not of 255, since a CPU without VNNI adds two products in 16 bits: the answers are
    the same on every CPU.

    Args:
        encoder: The encoder.
        pictures: Pictures to measure the range of each layer's input on, (count, 3, size, size) uint8.
        kept: Names of layers that keep their precision.
    """
    _core()
    model = _convert(encoder, pictures.shape[-1])
    nncf = _imported("nncf")
    nncf.set_log_level("ERROR")
    advanced = importlib.import_module("nncf.quantization.advanced_parameters")
    # A layer's operations are named after its path in the network.
    ignored = [rf"__module\.{name.replace('.', chr(92) + '.')}[./].*" for name in kept]
    # Its progress bars say nothing to a user.
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        quantized = nncf.quantize(
            model,
            nncf.Dataset([picture[None].numpy() for picture in pictures]),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(pictures),
            ignored_scope=nncf.IgnoredScope(patterns=ignored, validate=False),
            advanced_parameters=advanced.AdvancedQuantizationParameters(overflow_fix=advanced.OverflowFix.ENABLE),
        )
    return _files(quantized)


def load(files: Files, encoder: nn.Module, image_size_px: int) -> Callable[[Tensor], Tensor]:
    """Read a compiled encoder.

    Raises:
        ArtifactError: if it is not what `make` or `quantize` writes of this encoder.
    """
    if set(files) != {GRAPH, NUMBERS}:
        raise ArtifactError(f"a compiled encoder has files .{', .'.join(sorted(files))}; expected .{NUMBERS}, .{GRAPH}")
    check_graph(files[GRAPH], files[NUMBERS])
    try:
        model = _core().read_model(files[GRAPH], files[NUMBERS])
        _check_shapes(model, encoder, image_size_px)
        return _run(model, encoder)
    except RuntimeError as error:
        raise ArtifactError(f"a compiled encoder is damaged: {str(error).splitlines()[-1][:200]}") from None


def _check_shapes(model: Any, encoder: nn.Module, image_size_px: int) -> None:
    """Refuse a graph that takes or returns something else than the encoder, or has a huge value in between."""
    with torch.inference_mode():
        zeros = torch.zeros((1, 3, image_size_px, image_size_px), dtype=torch.uint8)
        grid = list(encoder(zeros).shape[1:])
    ends = [[list(end.partial_shape) for end in ends] for ends in (model.inputs, model.outputs)]
    shapes = [[[-1 if side.is_dynamic else side.get_length() for side in end] for end in one] for one in ends]
    if shapes != [[[-1, *zeros.shape[1:]]], [[-1, *grid]]]:
        raise ArtifactError(f"a compiled encoder is refused: it takes {shapes[0]} to {shapes[1]}, the model's {grid}")
    for operation in model.get_ops():
        for output in operation.outputs():
            sides = [1 if side.is_dynamic else side.get_length() for side in output.partial_shape]
            if math.prod(sides) > MAX_ELEMENTS:
                raise ArtifactError(f"a compiled encoder is refused: a value has the shape {sides}")


def _imported(name: str) -> Any:
    # It would send usage statistics; OpenVINO and NNCF do without it.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    return importlib.import_module(name)


@functools.cache
def _core() -> Any:
    """Return the one core of the process, with its plug-in for CPUs.

    The plug-in gives its thread a stack for signals, and takes it back when its core goes. With cores that go in
    another order than they came, the thread is left with a stack that is gone, and the next signal ends the process.
    So this one comes before those that NNCF makes, and stays.
    """
    core = _imported("openvino").Core()
    core.get_property("CPU", "FULL_DEVICE_NAME")  # loads the plug-in
    return core


def _convert(encoder: nn.Module, image_size_px: int) -> Any:
    openvino = _imported("openvino")
    plain = copy.deepcopy(encoder).float().cpu().eval()
    example = torch.zeros((2, 3, image_size_px, image_size_px), dtype=torch.uint8)
    with warnings.catch_warnings():  # of PyTorch's tracer, which the conversion uses
        warnings.simplefilter("ignore")
        shape = openvino.PartialShape([-1, 3, image_size_px, image_size_px])
        try:
            return openvino.convert_model(plain, example_input=example, input=[shape])
        except Exception as error:  # what a conversion raises is nowhere listed
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise ConfigError(f"OpenVINO cannot convert this encoder: {reason}; choose another engine") from error


def _files(model: Any) -> Files:
    openvino = _imported("openvino")
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder, f"encoder.{GRAPH}")
        openvino.save_model(model, graph, compress_to_fp16=False)
        return {GRAPH: graph.read_bytes(), NUMBERS: graph.with_suffix(f".{NUMBERS}").read_bytes()}


def _run(model: Any, encoder: nn.Module) -> Callable[[Tensor], Tensor]:
    """Compile a model for this CPU, with as many threads as PyTorch has here."""
    core = _core()
    dtype = next(encoder.parameters()).dtype
    halved = dtype == torch.bfloat16 and "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    settings = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,  # each process would take the same cores
        "INFERENCE_PRECISION_HINT": "bf16" if halved else "f32",
    }
    compiled = core.compile_model(model, "CPU", settings)
    requests = threading.local()

    def run(pictures: Tensor) -> Tensor:
        if not hasattr(requests, "own"):
            requests.own = compiled.create_infer_request()
        features = requests.own.infer([pictures.contiguous().numpy()], share_inputs=True)
        return torch.from_numpy(features[0]).to(dtype)

    return run
