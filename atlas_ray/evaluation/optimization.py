"""A trained model made faster: its picture encoder compiled for an engine, and compared with float32."""

import difflib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from atlas_ray.artifacts import Artifact, Network, ZoomArtifact, add_compiled, copy_artifact, load_network
from atlas_ray.artifacts.compiled import Files
from atlas_ray.artifacts.kinds import VECTOR_KINDS, ZOOM_KIND
from atlas_ray.errors import ArtifactError, CatalogError, ConfigError, OutputError
from atlas_ray.io import storage
from atlas_ray.io.lease import holding
from atlas_ray.modalities import PICTURE, texts_of
from atlas_ray.modalities.pictures import decode_batch, decoding_pool
from atlas_ray.modalities.products import Products
from atlas_ray.models.backbones.backbone import fuse_batch_norm
from atlas_ray.prediction.device import choose_dtype
from atlas_ray.prediction.engines import ENGINES, PLAIN
from atlas_ray.prediction.labels import LabelPredictor
from atlas_ray.prediction.networks import build_encoder
from atlas_ray.prediction.paths import PathPredictor, PredictorConfig
from atlas_ray.prediction.sensitivity import sensitive_layers
from atlas_ray.prediction.zoom import ZoomPredictor
from atlas_ray.runtime.joined import forget_inputs
from atlas_ray.runtime.labelled import stream_labelled
from atlas_ray.runtime.progress import ProgressDisplay
from atlas_ray.settings import Settings, setting

MAX_PICTURES = 5_000
"""Largest number of pictures that the agreement is measured on; the share of 99.5% is then known to 0.2%."""
TRIED, NAMED = 32, 5
"""Number of pictures that layers are tried on, and of layers that a refusal names."""
BATCH, CPU = 32, torch.device("cpu")
Answer = Callable[[Products], Tensor]
"""Takes a batch of products to their answers: the number of the path, (batch,); which labels each has, (batch, N) bool;
whether its picture is zoomed, (batch,) bool; or its vector, (batch, width) float32."""
OPTIMIZED_KINDS = (*VECTOR_KINDS, ZOOM_KIND)


@dataclass(frozen=True, kw_only=True)
class OptimizeConfig(Settings):
    """What to compile, for which engine, and how well it has to agree."""

    model: str = setting("folder of the model, which stays as it is")
    catalog: str = setting("a catalogue with labelled products in the splits train and val")
    output: str = setting("folder of the new model")
    engine: str = setting("engine whose compiled encoder the new model holds", "openvino-int8", choices=ENGINES)
    min_agreement: float = setting(
        "refuse a model whose answers are those of float32 for a smaller share of the pictures", 0.995, low=0, high=1
    )
    keep: str = setting("layers of the encoder that keep their precision, with all in them", "", several=True)
    split: str = setting(
        "split of the pictures that the agreement is measured on", "val", choices=("val", "test", "train")
    )
    pictures: int = setting("training pictures that ranges of numbers are measured on", 300, low=1, high=10_000)


@dataclass(frozen=True)
class Optimized:
    """The outcome."""

    model_id: str
    """The content id of the new model."""
    agreement: float
    """The share of pictures whose answer is that of float32: the path, all labels, or whether it is zoomed. Of a bare
    encoder the mean cosine of its vectors."""
    pictures: int
    speed: float
    """The pictures a second that the new model answers for on this machine's CPU."""
    float32_speed: float
    """The same of the model in float32."""


@holding("optimize", "config.output")
def optimize(config: OptimizeConfig) -> Optimized:
    """Write a copy of a model that holds its picture encoder compiled for an engine.

    Its temperature and all else stay; the content id is another one, since its answers may be.

    Raises:
        ArtifactError: if the model looks at no picture, or its answers agree too seldom; nothing is written then.
        CatalogError: if a split has no labelled product with a picture.
        ConfigError: if the engine has no compiled form or cannot run this encoder, or there is no such layer to keep.
        OutputError: if the output holds a model already.
    """
    form = ENGINES[config.engine].form
    if form is None:
        forms = ", ".join(name for name, engine in ENGINES.items() if engine.form)
        raise ConfigError(f"the engine {config.engine!r} has nothing to store in a model; expected one of {forms}")
    model, output = storage.absolute(config.model), storage.absolute(config.output)
    if storage.exists(storage.join(output, "model.json")):
        raise OutputError(f"{output} holds a model; name a new folder with --output")
    network = load_network(model, OPTIMIZED_KINDS)
    if PICTURE not in network.modalities:
        raise ArtifactError(f"{model}: looks at no picture; engines run picture encoders alone")
    encoder, kept = _encoder(network), tuple(filter(None, config.keep.split(",")))
    _check_kept(encoder, kept)
    try:
        seen = torch.cat([part.pixels for part in _pictures(config, network, "train", config.pictures)])
        files = form.make(encoder, seen, kept)
        found = _compare(model, config.engine, files, _pictures(config, network, config.split, MAX_PICTURES))
    finally:
        forget_inputs(output)
    if found.agreement < config.min_agreement:
        worst = [name for name in sensitive_layers(encoder, seen[:TRIED], NAMED + len(kept)) if name not in kept]
        raise ArtifactError(
            f"{model}: on the engine {config.engine} {found.agreement:.4f} of {found.pictures} answers are those of "
            f"float32, and --min-agreement is {config.min_agreement}; keep the precision of the layers that lose most: "
            f"--keep {','.join((*kept, *worst[:NAMED]))}"
        )
    about = {
        "made_from": network.id, "agreement": found.agreement, "compared": found.pictures, "split": config.split,
        "ranges_from": len(seen), "kept": list(kept),
    }  # fmt: skip
    copy_artifact(model, output)
    member = PICTURE if network.members else ""
    return replace(found, model_id=add_compiled(output, member, config.engine, files, about))


def _encoder(network: Network) -> nn.Module:
    """Return what an engine runs of a network, which is changed as every predictor changes it."""
    if isinstance(network, ZoomArtifact):
        return network.model.eval().requires_grad_(False)
    encoder = network.members.get(PICTURE, network).model.encoder
    return fuse_batch_norm(encoder).eval().requires_grad_(False)


def _check_kept(encoder: nn.Module, kept: Sequence[str]) -> None:
    names = [name for name, _ in encoder.named_modules() if name]
    for name in kept:
        if name not in names:
            close = ", ".join(difflib.get_close_matches(name, names, 3) or names[:5])
            raise ConfigError(f"--keep names {name!r}, and the encoder has no such layer; it has {close}, ...")


class _Decoded:
    """An actor that decodes the pictures of blocks; one that cannot be read is left out."""

    def __init__(self, texts: Sequence[str], size_px: int, threads: int) -> None:  # noqa: ARG002
        self._texts, self._size_px = texts, size_px

    def __call__(self, table: pa.Table) -> pa.Table:
        """Return `pixels` and the texts."""
        contents = [content or b"" for content in table["bytes"].to_pylist()]
        pixels, refused = decode_batch(contents, self._size_px, pool=decoding_pool())
        buffers = [None, pa.py_buffer(pixels.numpy())]
        flat = pa.FixedSizeBinaryArray.from_buffers(pa.binary(3 * self._size_px**2), len(contents), buffers)
        good = pa.array(np.delete(np.arange(len(contents)), sorted(refused)))
        return table.select(self._texts).append_column("pixels", flat).take(good)


def _pictures(config: OptimizeConfig, network: Network, split: str, count: int) -> Iterator[Products]:
    """Yield the first labelled products of a split that have a picture, in batches, a picture each.

    Raises:
        CatalogError: if there are none.
    """
    size, texts = network.image_size_px, texts_of(network.modalities)
    with ProgressDisplay(f"reading pictures of the split {split!r}", "pictures") as display:
        stream, _ = stream_labelled(
            storage.absolute(config.catalog), storage.absolute(config.output), split, network.modalities, _Decoded,
            (texts, size), display=display,
        )  # fmt: skip
        yielded = False
        table: pa.Table
        for table in stream.limit(count).iter_batches(batch_size=BATCH, batch_format="pyarrow"):
            column = pa.chunked_array(table["pixels"]).combine_chunks()
            pixels = np.frombuffer(column.buffers()[1], np.uint8)[column.offset * 3 * size**2 :][
                : len(column) * 3 * size**2
            ]
            shaped = torch.from_numpy(pixels.copy()).view(-1, 3, size, size)
            yield Products(shaped, {name: table[name].to_pylist() for name in texts})
            yielded = True
    if not yielded:
        raise CatalogError(
            f"{config.catalog}: no labelled product of the split {split!r} has a picture that can be read"
        )


def _compare(model: str, engine: str, files: Files, batches: Iterable[Products]) -> Optimized:
    """Answer for pictures in float32 and with a compiled encoder."""
    ways: tuple[tuple[str, Files], ...] = ((PLAIN, {}), (engine, files))
    exact, fast = (_answering(load_network(model, OPTIMIZED_KINDS), *way) for way in ways)
    agreed, pictures, seconds = 0.0, 0, [0.0, 0.0]
    for products in batches:
        found = []
        for place, answer in enumerate((exact, fast)):
            started = time.perf_counter()
            found.append(answer(products))
            seconds[place] += time.perf_counter() - started
        agreed += _agreement(*found)
        pictures += len(products)
    return Optimized("", agreed / pictures, pictures, pictures / seconds[1], pictures / seconds[0])


def _agreement(one: Tensor, other: Tensor) -> float:
    """Return how many answers are the same; of vectors the sum of their cosines."""
    if one.is_floating_point():
        return float(cosine_similarity(one, other).sum())
    return float((one == other).view(len(one), -1).all(1).sum())


def _answering(network: Network, engine: str, files: Files) -> Answer:
    """Return what answers with a network on an engine, on the CPU: in float32, or with the compiled encoder."""
    precision = "auto" if files else "float32"
    part = network.members.get(PICTURE, network)
    part = replace(part, compiled={engine: lambda: files} if files else {})
    network = replace(network, members={**network.members, PICTURE: part}) if network.members else part
    if isinstance(network, ZoomArtifact):
        zoom = ZoomPredictor(network, precision=precision, engine=engine, device="cpu", batch_size=BATCH)
        return lambda products: torch.from_numpy(zoom(products.pixels) >= zoom.threshold)
    config = PredictorConfig(precision=precision, engine=engine, device="cpu", batch_size=BATCH)
    if isinstance(network, Artifact) and network.labels:
        labels, thresholds = LabelPredictor(network, config), torch.tensor(network.thresholds)
        return lambda products: labels.infer(products).sigmoid() >= thresholds
    if isinstance(network, Artifact):
        paths = PathPredictor(network, config)
        return lambda products: paths.infer(products).leaf[:, 0]
    encoder = build_encoder(network, CPU, choose_dtype(precision, CPU), engine)
    return torch.inference_mode()(encoder.vectors)
