"""How a GPU is fed, tried on a CPU that is fed like one."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

from atlas_ray.artifacts import ZoomArtifact, load_artifact
from atlas_ray.modalities.pictures import decode_batch, decoding_pool
from atlas_ray.modalities.products import Products
from atlas_ray.models.zoom import ZoomConfig, ZoomNetwork
from atlas_ray.prediction.engines import ENGINES, Engine, run_encoder
from atlas_ray.prediction.engines.padding import Padded
from atlas_ray.prediction.feeding import FEEDING
from atlas_ray.prediction.paths import PathPredictor, PredictorConfig
from atlas_ray.prediction.zoom import ZoomPredictor
from benchmarks.feeding import divide
from tests.support.parts import picture

pytestmark = pytest.mark.usefixtures("one_thread")

UNPADDED, PADDED = FEEDING["cpu"], FEEDING["cuda"]
ODD = (7, 16, 1, 13, 3, 9, 15, 2)


@pytest.fixture
def fed_as_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Feed the CPU as a GPU is fed."""
    monkeypatch.setitem(FEEDING, "cpu", PADDED)
    searched = torch.backends.cudnn.benchmark
    yield
    torch.backends.cudnn.benchmark = searched


def small_filter() -> ZoomArtifact:
    torch.manual_seed(0)
    return ZoomArtifact(id="", model=ZoomNetwork(ZoomConfig(image_size_px=22)), metrics={})


class Shades(nn.Module):
    """A network of one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1), requires_grad=False)

    def forward(self, pictures: Tensor) -> Tensor:
        return pictures.float().mean((2, 3)) * self.weight


class Runs:
    """A network that gives each picture's mean, and knows the sizes of the batches that it ran."""

    def __init__(self, most: int = 1000) -> None:
        self.sizes: list[int] = []
        self._most = most

    def __call__(self, pictures: Tensor) -> Tensor:
        if len(pictures) > self._most:
            raise torch.OutOfMemoryError
        self.sizes.append(len(pictures))
        return pictures.float().mean((1, 2, 3))


def test_a_batch_is_padded_to_a_size_that_was_run_before() -> None:
    runs = Runs()
    padded = Padded(runs)
    pictures = torch.randint(0, 256, (100, 3, 2, 2), dtype=torch.uint8)
    for count in (100, 60, 49, 24, 100, 26):
        torch.testing.assert_close(padded(pictures[:count]), pictures[:count].float().mean((1, 2, 3)))
    assert runs.sizes == [100, 100, 49, 24, 100, 49]
    assert padded.sizes == [24, 49, 100]
    small = Padded(Runs(most=4))
    with pytest.raises(torch.OutOfMemoryError):
        small(pictures[:8])
    small(pictures[:4])
    assert small.sizes == [4]


@pytest.mark.parametrize("batch_size", [1, 2, 7, 32, 100, 256])
def test_every_batch_is_padded_after_the_halves_were_run(batch_size: int) -> None:
    runs = Runs()
    padded = Padded(runs)
    for count in (*PADDED.warm_sizes(batch_size), *range(1, batch_size + 1)):
        padded(torch.zeros((count, 3, 1, 1), dtype=torch.uint8))
    assert (PADDED.warm_sizes(batch_size)[0], PADDED.warm_sizes(batch_size)[-1]) == (batch_size, 1)
    assert set(runs.sizes) == set(PADDED.warm_sizes(batch_size))


@pytest.mark.long
@pytest.mark.parametrize("few_sizes", [True, False])
def test_no_odd_batch_is_compiled_for(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, few_sizes: bool
) -> None:
    counter = CompileCounter()

    def compiled(encoder: nn.Module, _: int) -> Callable[..., Any]:
        made: Callable[..., Any] = torch.compile(encoder, backend=counter, dynamic=False)
        return made

    monkeypatch.setitem(ENGINES, "counted", Engine(compiled, "counts what it compiles"))
    if few_sizes:
        request.getfixturevalue("fed_as_gpu")
    torch.compiler.reset()
    run = run_encoder("counted", Shades(), 8, {})
    warm = PADDED.warm_sizes(16)
    with torch.inference_mode():
        for count in (*warm, *ODD):
            run(torch.zeros((count, 3, 8, 8), dtype=torch.uint8))
    odd = set(ODD) - set(warm)
    assert counter.frame_count == len(warm) + (0 if few_sizes else min(len(odd), 3)), "PyTorch gives up at the eighth"


@pytest.mark.long
@pytest.mark.usefixtures("fed_as_gpu")
def test_padded_and_unpadded_batches_have_equal_answers(
    small_model: str, test_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = json.loads((test_data / "myntra" / "catalog.json").read_text())["images"]
    files = [test_data / "myntra" / one["filename"] for one in catalog if one["split"] == "test"]
    pixels, refused = decode_batch([file.read_bytes() for file in files], 32, pool=decoding_pool())
    assert len(files) > 1500
    assert not refused
    config = PredictorConfig(precision="float32", batch_size=64)
    padded = PathPredictor(load_artifact(small_model), config)
    padded.warm_up()
    monkeypatch.setitem(FEEDING, "cpu", UNPADDED)
    plain = PathPredictor(load_artifact(small_model), config)
    batches = pixels.split(np.random.default_rng(0).multinomial(len(pixels), [1 / 47] * 47).tolist())
    assert {len(batch) for batch in batches} - set(PADDED.warm_sizes(64))
    for batch in batches:
        found, wanted = (made.predict(Products(batch)) for made in (padded, plain))
        assert found["category_path"].equals(wanted["category_path"])
        for name in ("probability", "outside_probability"):
            np.testing.assert_allclose(found[name].to_numpy(), wanted[name].to_numpy(), atol=1e-5)


@pytest.mark.long
@pytest.mark.usefixtures("fed_as_gpu")
def test_the_zoom_filter_is_padded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = small_filter()
    network = artifact.model.eval().requires_grad_(False)
    pictures = torch.randint(0, 256, (11, 3, 22, 22), dtype=torch.uint8)
    wanted = network(pictures).sigmoid().numpy()
    sizes: set[int] = set()

    def counted(encoder: nn.Module, _: int) -> Callable[[Tensor], Tensor]:
        def run(batch: Tensor) -> Tensor:
            sizes.add(len(batch))
            logits: Tensor = encoder(batch)
            return logits

        return run

    monkeypatch.setitem(ENGINES, "counted", Engine(counted, "counts the sizes"))
    predictor = ZoomPredictor(artifact, device="cpu", precision="float32", batch_size=8, engine="counted")
    predictor.warm_up()
    np.testing.assert_allclose(predictor(pictures), wanted, atol=1e-5)
    assert sizes == {8, 4, 2, 1}


@pytest.mark.long
@pytest.mark.usefixtures("fed_as_gpu")
def test_a_gpu_takes_larger_batches_and_searches_its_kernels(small_model: str) -> None:
    predictor = PathPredictor(load_artifact(small_model))
    assert (predictor.batch_size, torch.backends.cudnn.benchmark) == (256, True)
    assert PathPredictor(load_artifact(small_model), PredictorConfig(batch_size=8)).batch_size == 8
    assert ZoomPredictor(small_filter()).batch_size == 256


def test_the_time_of_a_device_is_divided() -> None:
    found = divide(0, 10, busy=[(2, 3), (5, 5.5)], call=[(1, 4), (4.5, 6)], decode=[(1, 2.5), (4.5, 5)])
    assert found == {"busy": 1.5, "start": 1, "end": 4, "blocks": 0.5, "decode": 1.5, "else": 1.5}


@pytest.mark.long
def test_a_cpu_is_fed_as_before(small_model: str) -> None:
    searched = torch.backends.cudnn.benchmark
    predictor = PathPredictor(load_artifact(small_model), PredictorConfig(device="cpu"))
    assert (predictor.batch_size, torch.backends.cudnn.benchmark) == (32, searched)
    assert ZoomPredictor(small_filter(), device="cpu").batch_size == 64


@pytest.mark.long
def test_pictures_for_a_gpu_are_decoded_into_locked_memory(small_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = PathPredictor(load_artifact(small_model), PredictorConfig(device="cpu"))
    locked: list[int] = []

    def pin_memory(pixels: Tensor) -> Tensor:
        locked.append(len(pixels))
        return pixels

    monkeypatch.setattr(Tensor, "pin_memory", pin_memory)
    contents = [picture(number) for number in range(3)]
    there, _ = made._decoded(contents)
    made.device = torch.device("cuda")
    pixels, _ = made._decoded(contents)
    assert torch.equal(pixels, there)
    assert locked == [3]
