"""Learning rates by step, and when a run ends before its last epoch."""

from itertools import pairwise
from typing import Any

import pytest
import torch

from atlas_ray.training.loop import is_better, stopped_early
from atlas_ray.training.schedule import Rate, apply_rate, rate_at
from atlas_ray.training.settings import ClassifierTraining
from atlas_ray.training.step import clip


def rates(steps_per_epoch: int, **settings: Any) -> list[Rate]:
    config = ClassifierTraining(catalog="shop", output="model", **settings)
    return [rate_at(config, step, steps_per_epoch) for step in range(config.epochs * steps_per_epoch)]


def check_cycle(cycle: list[Rate]) -> None:
    """Check the shape of one cycle, whose length is a multiple of 4."""
    factors = [rate.factor for rate in cycle]
    momenta = [rate.momentum or 0.0 for rate in cycle]
    peak = len(cycle) // 4
    assert factors[0] == pytest.approx(1 / 25)
    assert factors[peak] == max(factors) == pytest.approx(1.0)
    assert 0 < factors[-1] < 0.02
    assert all(before < after for before, after in pairwise(factors[: peak + 1]))
    assert all(before > after for before, after in pairwise(factors[peak:]))
    # momentum falls while the rate climbs, and climbs while it falls
    assert momenta[0] == pytest.approx(0.95)
    assert momenta[peak] == min(momenta) == pytest.approx(0.85)
    assert momenta[-1] == pytest.approx(0.95, abs=0.002)
    assert all(before > after for before, after in pairwise(momenta[: peak + 1]))
    assert all(before < after for before, after in pairwise(momenta[peak:]))


def test_one_cycle() -> None:
    cycle = rates(25, epochs=4, schedule="one-cycle")
    assert len(cycle) == 100
    check_cycle(cycle)
    assert cycle[-1].factor < 1e-3
    assert not any(rate.head_only for rate in cycle)
    # halfway up and halfway down a cosine
    halfway = rates(2, epochs=4, schedule="one-cycle")[1], rates(8, epochs=1, schedule="one-cycle")[5]
    assert halfway[0].factor == pytest.approx((1 / 25 + 1) / 2)
    assert halfway[1].factor == pytest.approx((1 + 1e-5) / 2)


def test_the_head_has_a_cycle_of_its_own() -> None:
    found = rates(20, epochs=5, head_epochs=1, schedule="one-cycle")
    assert [rate.head_only for rate in found] == [True] * 20 + [False] * 80
    check_cycle(found[:20])
    check_cycle(found[20:])


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"clip": 1e6}, [30.0, -40.0, 1.0]),
        ({"clip": 1e6, "clip_value": 5.0}, [5.0, -5.0, 1.0]),
        ({"clip": 5.0}, [30 / 50.01 * 5, -40 / 50.01 * 5, 5 / 50.01]),
        ({"clip": 51**0.5 / 2, "clip_value": 5.0}, [2.5, -2.5, 0.5]),
    ],
)
def test_gradients_are_cut_off_and_scaled_down(settings: dict[str, float], wanted: list[float]) -> None:
    weights = [torch.zeros(2, requires_grad=True), torch.zeros(1, requires_grad=True)]
    weights[0].grad, weights[1].grad = torch.tensor([30.0, -40.0]), torch.tensor([1.0])
    clip(weights, ClassifierTraining(catalog="shop", output="model", **settings))  # type: ignore[arg-type]
    found = torch.cat([one.grad for one in weights if one.grad is not None])
    torch.testing.assert_close(found, torch.tensor(wanted), rtol=1e-4, atol=1e-5)


def test_constant_rates() -> None:
    assert rates(3, epochs=3, head_epochs=1, schedule="constant") == [
        *[Rate(1.0, None, True)] * 3,
        *[Rate(1.0, None, False)] * 6,
    ]


@pytest.mark.parametrize("steps_per_epoch", [1, 2, 3])
def test_runs_of_a_few_steps_have_rates(steps_per_epoch: int) -> None:
    for settings in ({"epochs": 1}, {"epochs": 2, "head_epochs": 1}, {"epochs": 3, "head_epochs": 2}):
        found = rates(steps_per_epoch, schedule="one-cycle", **settings)
        assert all(0 < rate.factor <= 1 for rate in found)
        assert all(0.85 <= (rate.momentum or 0) <= 0.95 for rate in found)


def test_an_optimizer_takes_a_rate() -> None:
    groups = [
        {"params": [torch.zeros(2, requires_grad=True)], "lr": base, "base_lr": base, "betas": (0.9, 0.99)}
        for base in (1e-4, 3e-3)
    ]
    optimizer = torch.optim.AdamW(groups)
    for factor in (0.04, 0.5):  # the second one is not on top of the first
        apply_rate(optimizer, Rate(factor, 0.85, False))
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([1e-4 * factor, 3e-3 * factor])
        assert [group["betas"] for group in optimizer.param_groups] == [(0.85, 0.99)] * 2
    apply_rate(optimizer, Rate(1.0, None, False))
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([1e-4, 3e-3])
    assert [group["betas"] for group in optimizer.param_groups] == [(0.85, 0.99)] * 2


def history(*losses: float) -> list[dict[str, Any]]:
    return [{"epoch": epoch, "val_loss": loss, "val_examples": 9.0} for epoch, loss in enumerate(losses, 1)]


@pytest.mark.parametrize(
    ("losses", "patience", "stops"),
    [
        ((), 2, False),
        ((3.0, 2.0, 1.0), 2, False),
        ((3.0, 3.0), 2, False),
        ((3.0, 3.0, 3.1), 2, True),
        ((3.0, 3.05, 2.0, 2.0), 2, False),
        ((3.0, 2.95, 2.92), 2, True),  # falls by less than 0.1 are no progress
        ((3.0, 3.0, 3.0, 3.0), 0, False),
        ((float("nan"), float("nan")), 2, True),
    ],
)
def test_a_run_ends_where_the_validation_loss_makes_no_progress(
    losses: tuple[float, ...], patience: int, stops: bool
) -> None:
    assert stopped_early(history(*losses), patience, 0.1) is stops


def test_without_a_validation_split_a_run_goes_to_its_end() -> None:
    # `Worker.validate` gives 0.0 where there is no validation picture, epoch after epoch.
    blind = [{"epoch": epoch, "val_loss": 0.0, "val_examples": 0.0} for epoch in range(1, 10)]
    assert not stopped_early(blind, 3, 0.001)


def test_of_two_epochs_that_are_equally_right_the_one_of_less_loss_is_better() -> None:
    early, late = {"val_accuracy": 0.9, "val_loss": 0.8}, {"val_accuracy": 0.9, "val_loss": 0.5}
    assert is_better(late, early, "val_accuracy")
    assert not is_better(early, late, "val_accuracy")
    assert not is_better(early, early, "val_accuracy")
    assert is_better({"val_accuracy": 0.91, "val_loss": 2.0}, late, "val_accuracy")
