"""Where several workers train, and what their normalizations see."""

import pytest
import torch
from torch import nn

from atlas_ray.errors import ConfigError
from atlas_ray.models.classifier import Classifier, ClassifierConfig
from atlas_ray.training.data import block_rows
from atlas_ray.training.run import _of_a_gpu, share_advice, uses_gpus
from atlas_ray.training.settings import ClassifierTraining, TextTraining


def config(**values: object) -> ClassifierTraining:
    return ClassifierTraining(catalog="c", output="o", **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("workers", "device", "gpus", "expected"),
    [("1", "auto", 0, False), ("2", "auto", 2, True), ("2:8", "auto", 3, True), ("2", "cpu", 4, False)],
)
def test_workers_take_gpus_where_there_are_enough(
    workers: str, device: str, gpus: int, expected: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert uses_gpus(config(workers=workers, device=device), gpus) is expected
    assert capsys.readouterr().err == ""


def test_too_few_gpus_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert not uses_gpus(TextTraining(catalog="c", output="o", field="title", workers="4"), 3.0)
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "training on CPUs: 4 workers" in told
    assert "--workers 3" in told


def test_gpus_that_share_a_small_batch_are_told_what_they_want() -> None:
    advice = share_advice(config(workers="8", batch_size=128, encoder_lr=1e-4, decoder_lr=4e-4, schedule="constant"))
    assert advice is not None
    assert advice.startswith("each of 8 GPUs gets 16 pictures of a batch of 128")
    assert advice.endswith("--batch-size 1024 --encoder-lr 0.00028 --decoder-lr 0.0011 --schedule one-cycle")
    assert share_advice(config(workers="1:4", batch_size=256)) is None
    cycle = share_advice(config(workers="1:4", batch_size=64, schedule="one-cycle"))
    assert cycle is not None
    assert "--batch-size 512" in cycle
    assert "--schedule" not in cycle
    assert share_advice(config(workers="1")) is None
    assert share_advice(TextTraining(catalog="c", output="o", field="title", workers="8")) is None


def test_a_worker_with_a_gpu_keeps_cpus_where_there_are_enough() -> None:
    assert _of_a_gpu(32, 8) == {"GPU": 1, "CPU": 2}
    assert _of_a_gpu(31, 8) == {"GPU": 1}  # decoding would wait for them
    assert _of_a_gpu(0, 8) == {"GPU": 1}  # nodes that are yet to come


def test_blocks_follow_the_batch() -> None:
    assert [block_rows(size) for size in (2, 64, 256, 512, 1024, 65_536)] == [64, 64, 64, 128, 256, 256]


def test_normalizing_over_workers_needs_gpus() -> None:
    assert uses_gpus(config(workers="2", sync_batch_norm=True), 2)
    assert not uses_gpus(config(workers="1", sync_batch_norm=True), 0)  # one worker sees the whole batch
    for gpus, device in ((0, "auto"), (2, "cpu")):
        with pytest.raises(ConfigError, match="--sync-batch-norm is for workers on GPUs"):
            uses_gpus(config(workers="1:2", device=device, sync_batch_norm=True), gpus)


def test_a_network_that_normalizes_over_workers_has_the_weights_of_any_other() -> None:
    torch.manual_seed(0)
    shape = ClassifierConfig(classes=3, backbone="resnet18", image_size_px=32)
    plain, other = Classifier(shape), Classifier(shape)
    nn.SyncBatchNorm.convert_sync_batchnorm(other)
    assert not any(isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d) for part in other.modules())
    assert len(plain.encoder.layers_before_last(8)) == len(other.encoder.layers_before_last(8))
    plain.load_state_dict(other.state_dict())
    pictures = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    with torch.inference_mode():
        torch.testing.assert_close(plain.eval()(pictures), other.eval()(pictures))
