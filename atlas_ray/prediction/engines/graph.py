"""The check of an OpenVINO graph from anybody, before OpenVINO's own reader sees it.

Its files are an XML of operations and a file of their numbers. A graph is refused if it has an operation that encoders
do not need, one inside another, a loop, numbers outside their file, or numbers that are not finite.
"""

import math
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter

import numpy as np

from atlas_ray.errors import ArtifactError

MAX_GRAPH_BYTES, MAX_OPERATIONS = 64 * 1024**2, 50_000
"""The size of the largest XML, and the most operations."""
OPERATIONS = frozenset({
    "Abs", "Add", "AvgPool", "BatchNormInference", "Broadcast", "Ceiling", "Clamp", "Concat", "Const", "Convert",
    "ConvertLike", "Convolution", "Divide", "Elu", "Equal", "Erf", "Exp", "FakeQuantize", "Floor", "Gather", "Gelu",
    "Greater", "GroupConvolution", "GroupNormalization", "HSigmoid", "HSwish", "HardSigmoid", "Interpolate", "Less",
    "LogicalAnd", "LogicalNot", "MVN", "MatMul", "MaxPool", "Maximum", "Minimum", "Mish", "Multiply", "Negative",
    "PRelu", "Pad", "Parameter", "Power", "Range", "ReLU", "ReduceMax", "ReduceMean", "ReduceProd", "ReduceSum",
    "Reshape", "Result", "Roll", "ScaledDotProductAttention", "Select", "ShapeOf", "Sigmoid", "Slice", "SoftPlus",
    "Softmax", "SpaceToDepth", "Split", "Sqrt", "Squeeze", "StridedSlice", "Subtract", "Swish", "Tanh", "Tile",
    "Transpose", "Unsqueeze", "VariadicSplit",
})  # fmt: skip
"""The operations that are taken: none reads a file, has a state, loops, or comes from a library."""
WIDTHS = {"f64": 8, "i64": 8, "f32": 4, "i32": 4, "f16": 2, "i8": 1, "u8": 1, "boolean": 1}
"""The bytes of a number of each type."""
FLOATS = {"f64": np.float64, "f32": np.float32, "f16": np.float16}


def check_graph(graph: bytes, numbers: bytes) -> None:
    """Check a graph.

    Args:
        graph: The XML.
        numbers: The file of its numbers.

    Raises:
        ArtifactError: naming what is wrong.
    """
    try:
        for problem in _problems(graph, numbers):
            raise ArtifactError(f"a compiled encoder is refused: {problem}")
    except (ET.ParseError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise ArtifactError(f"a compiled encoder is damaged: {str(error)[:200] or type(error).__name__}") from None


def _problems(graph: bytes, numbers: bytes) -> Iterator[str]:
    if len(graph) > MAX_GRAPH_BYTES:
        yield f"its graph has {len(graph)} bytes; at most {MAX_GRAPH_BYTES} are read"
    text = graph.decode("utf-8")
    if "<!" in text:
        yield "its XML declares entities"
    root = ET.fromstring(text)
    layers = root.findall("./layers/layer")
    if not 0 < len(layers) <= MAX_OPERATIONS or text.count("<layer ") != len(layers):
        yield f"{len(layers)} of its {text.count('<layer ')} operations are at the top; expected 1 to 50,000, all there"
    follows: dict[str, set[str]] = {layer.attrib["id"]: set() for layer in layers}
    for layer in layers:
        kind = layer.attrib["type"]
        if kind not in OPERATIONS or not layer.attrib["version"].startswith("opset"):
            yield f"its operation {kind[:40]!r} of {layer.attrib['version'][:20]!r} is not one that encoders need"
        if kind == "Const":
            yield from _of_numbers(layer.find("data"), numbers)
    for edge in root.findall("./edges/edge"):
        if edge.attrib["from-layer"] not in follows:
            yield "a value comes from no operation"
        follows[edge.attrib["to-layer"]].add(edge.attrib["from-layer"])
    try:
        TopologicalSorter(follows).prepare()
    except CycleError:
        yield "it has a loop"


def _of_numbers(data: ET.Element | None, numbers: bytes) -> Iterator[str]:
    """Check where the numbers of an operation lie, and that they are finite."""
    if data is None:
        yield "numbers have no place"
        return
    kind, offset, size = data.attrib["element_type"], int(data.attrib["offset"]), int(data.attrib["size"])
    shape = [int(side) for side in data.attrib["shape"].split(",") if side.strip()]
    if kind not in WIDTHS:
        yield f"numbers of type {kind[:20]!r} are not read"
    elif min([offset, size, *shape]) < 0 or offset + size > len(numbers) or math.prod(shape) * WIDTHS[kind] != size:
        yield f"{size} bytes at {offset} are not the numbers of {shape[:8]} in a file of {len(numbers)}"
    elif kind in FLOATS and not np.isfinite(np.frombuffer(numbers, FLOATS[kind], math.prod(shape), offset)).all():
        yield "numbers are NaN or infinite"
