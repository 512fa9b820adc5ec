"""Training of the zoom filter: examples to an artifact and its report, in this process."""

import copy
import sys
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from atlas_ray.artifacts import ZoomArtifact, save_zoom_artifact
from atlas_ray.errors import NotFiniteError, OutputError
from atlas_ray.io import storage
from atlas_ray.io.lease import holding
from atlas_ray.metrics import MAX_LOSS
from atlas_ray.metrics.zoom import choose_threshold, threshold_interval
from atlas_ray.modalities.limits import PictureLimits
from atlas_ray.models.zoom import ZoomConfig, ZoomNetwork
from atlas_ray.prediction.device import choose_device, choose_dtype
from atlas_ray.prediction.zoom import ZoomPredictor
from atlas_ray.reports.zoom import zoom_scores
from atlas_ray.runtime.tables import write_quarantine
from atlas_ray.zoom.examples import Examples, read_examples
from atlas_ray.zoom.settings import ZoomTraining
from atlas_ray.zoom.sources import draw_candidates
from atlas_ray.zoom.svm import fit_baseline

EVEN = 0.5
"""The probability from which a picture is rather zoomed than normal."""


@dataclass(frozen=True)
class ZoomReport:
    """What a training left."""

    model_id: str
    output: str
    metrics: dict[str, Any]
    """What metrics.json holds."""


@holding("train zoom", "config.output")
def train_zoom(config: ZoomTraining) -> ZoomReport:
    """Train the zoom filter and its baseline; write the artifact and `quarantine/`.

    The network is that of the epoch with the least loss on the validation split, its threshold the smallest
    that reaches the target precision on pictures that were judged unseen. The scores are of the test split.

    Raises:
        OutputError: if the output holds a model or a catalogue.
        CatalogError: if the source cannot be read, or has too few pictures.
        NotFiniteError: if the training diverged.
    """
    output = storage.absolute(config.output)
    for taken in ("model.json", "products"):
        if storage.exists(storage.join(output, taken)):
            raise OutputError(f"{output} holds {taken}; name another folder with --output")
    device = choose_device(config.device)
    if config.threads:
        torch.set_num_threads(config.threads)
    candidates = draw_candidates(config)
    threads = config.threads or torch.get_num_threads()
    splits, unreadable = read_examples(
        candidates,
        config.image_size_px,
        seed=config.seed,
        threads=threads,
        limits=PictureLimits(min_side_px=config.min_side_px),
    )
    refused = candidates.refused + unreadable
    storage.delete_folder(storage.join(output, "quarantine"))  # of a run that was stopped
    write_quarantine(output, refused, "train")

    network, history = _fit(config, splits["train"], splits["val"], device)
    predictor = _predictor(config, network, device)
    val, test = splits["val"], splits["test"]
    pool = val if config.folds == 1 else Examples.joined([splits["train"], val])
    unseen = predictor(val.pixels) if config.folds == 1 else _judged_unseen(config, pool, device)
    threshold = choose_threshold(unseen, pool.zoomed, config.target_precision)
    low, high = threshold_interval(unseen, pool.zoomed, pool.product_ids, config.target_precision, seed=config.seed)
    print("fitting the baseline", file=sys.stderr, flush=True)
    baseline = fit_baseline(splits["train"], config.seed)
    probabilities = predictor(test.pixels)
    metrics = {
        "test": {
            # Each at its even decision, as the paper compares them, and the filter as it is used.
            "cnn": zoom_scores(test.zoomed, probabilities >= EVEN),
            "svm": zoom_scores(test.zoomed, baseline.find_zoomed(test)),
            "filter": zoom_scores(test.zoomed, probabilities >= threshold.value),
        },
        "threshold": threshold.value,
        "target_precision": config.target_precision,
        "threshold_interval": [low, high],
        "threshold_pictures": {"zoomed": int(pool.zoomed.sum()), "normal": int((~pool.zoomed).sum())},
        "unseen_precision": threshold.precision,
        "unseen_recall": threshold.recall,
        "svm_penalty": baseline.penalty,
        "pictures": {
            name: {"zoomed": int(part.zoomed.sum()), "normal": int((~part.zoomed).sum())}
            for name, part in splits.items()
        },
        "refused_pictures": len(refused),
        "history": history,
        "settings": config.to_dict(),
    }
    network.config = replace(network.config, threshold=threshold.value)
    return ZoomReport(save_zoom_artifact(output, network, metrics=metrics), output, metrics)


def _judged_unseen(config: ZoomTraining, examples: Examples, device: torch.device) -> NDArray[np.float32]:
    """Return the probability of being zoomed of each example, (count,), by a network that has not seen its product.

    A threshold that is chosen on the validation pictures alone hangs on a handful of them.
    """
    products, owner = np.unique(examples.product_ids, return_inverse=True)
    folds = min(config.folds, len(products))
    fold = (np.random.default_rng(config.seed).permutation(len(products)) % folds)[owner]  # (count,)
    probabilities = np.zeros(len(examples), np.float32)
    for number in range(folds):
        print(f"for the threshold: network {number + 1} of {folds}", file=sys.stderr, flush=True)
        held_out = examples.take(fold == number)
        network, _ = _fit(config, examples.take(fold != number), held_out, device)
        probabilities[fold == number] = _predictor(config, network, device)(held_out.pixels)
    return probabilities


def _predictor(config: ZoomTraining, network: ZoomNetwork, device: torch.device) -> ZoomPredictor:
    artifact = ZoomArtifact(id="", model=copy.deepcopy(network), metrics={})  # what is saved stays as it is
    return ZoomPredictor(artifact, device=str(device), precision=config.precision)


def _fit(
    config: ZoomTraining, train: Examples, val: Examples, device: torch.device
) -> tuple[ZoomNetwork, list[dict[str, float]]]:
    """Return the network of the best epoch, calibrated, and the metrics of each."""
    torch.manual_seed(config.seed)
    network = ZoomNetwork(ZoomConfig(image_size_px=config.image_size_px)).to(device)
    network.to(memory_format=torch.channels_last)
    dtype = choose_dtype(config.precision, device)
    autocast = torch.autocast(device.type, dtype, enabled=dtype == torch.bfloat16)
    # Keras' RMSprop, which the paper uses: its mean forgets faster than PyTorch's default.
    optimizer = torch.optim.RMSprop(network.parameters(), config.learning_rate, alpha=0.9, eps=1e-7)
    truth = torch.from_numpy(train.zoomed).float()  # (count,)
    history: list[dict[str, float]] = []
    best = network.state_dict()
    for epoch in range(1, config.epochs + 1):
        started, total = time.monotonic(), 0.0
        network.train()
        for chosen in torch.randperm(len(train)).split(config.batch_size):
            pictures = _mirror(train.pixels[chosen].to(device))
            with autocast:
                logits = network(pictures)
            loss = binary_cross_entropy_with_logits(logits, truth[chosen].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(chosen)
        seconds = time.monotonic() - started
        with autocast:
            val_loss, val_accuracy = _measure(network, val, config.batch_size, device)
        for name, value in (("loss", total / len(train)), ("validation loss", val_loss)):
            if not value < MAX_LOSS:  # NaN is less than nothing
                raise NotFiniteError(
                    f"the training diverged: the {name} is {value:.3g} in epoch {epoch}, with --learning-rate "
                    f"{config.learning_rate:g} --precision {config.precision}; no model is written. Train with a lower "
                    "learning rate" + ("" if config.precision == "float32" else ", or with --precision float32")
                )
        history.append(
            {"epoch": epoch, "train_loss": total / len(train), "val_loss": val_loss, "val_accuracy": val_accuracy}
        )
        print(
            f"epoch {epoch} of {config.epochs}: loss {total / len(train):.4f}, validation loss {val_loss:.4f}, "
            f"accuracy {val_accuracy:.4f}, {len(train) / seconds:.0f} pictures/s, "
            f"{seconds * (config.epochs - epoch):.0f} s left",
            file=sys.stderr,
            flush=True,
        )
        if val_loss <= min(row["val_loss"] for row in history):
            best = copy.deepcopy(network.state_dict())
    network.load_state_dict(best)
    with autocast:
        logits = _logits(network, val, config.batch_size, device).numpy()
    _calibrate(network, logits, val.zoomed)
    return network, history


def _calibrate(network: ZoomNetwork, logits: NDArray[np.float32], zoomed: NDArray[np.bool_]) -> None:
    """Scale and shift a network's logits so that its probabilities can be trusted (Platt 1999).

    Epochs, and networks, lean to the one side or the other, and one threshold would not fit them all. What is
    no better than chance stays as it is.

    Args:
        network: Its last layer is changed.
        logits: (count,) of pictures that it has not learned from.
        zoomed: (count,) what is true.
    """
    if zoomed.all() or not zoomed.any():
        return
    fitted = LogisticRegression().fit(logits[:, None], zoomed)
    scale, shift = float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
    if scale > 0:
        last = network.head[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.weight.mul_(scale)
            last.bias.mul_(scale).add_(shift)


def _mirror(pictures: torch.Tensor) -> torch.Tensor:
    """Mirror each picture half of the time, (batch, 3, size, size)."""
    chosen = torch.rand(len(pictures), 1, 1, 1, device=pictures.device) < 0.5
    return torch.where(chosen, pictures.flip(3), pictures)


@torch.inference_mode()
def _measure(network: nn.Module, examples: Examples, batch_size: int, device: torch.device) -> tuple[float, float]:
    """Return loss and accuracy."""
    logits = _logits(network, examples, batch_size, device)
    truth = torch.from_numpy(examples.zoomed)
    loss = binary_cross_entropy_with_logits(logits, truth.float())
    return float(loss), float(((logits > 0) == truth).float().mean())


@torch.inference_mode()
def _logits(network: nn.Module, examples: Examples, batch_size: int, device: torch.device) -> Tensor:
    """Return the logit of being zoomed of each example, (count,)."""
    network.eval()
    return torch.cat([network(batch.to(device)).cpu() for batch in examples.pixels.split(batch_size)])
