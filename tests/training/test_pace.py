"""Checkpoints by the clock."""

import pytest

from atlas_ray.training.pace import NOTICE_S, Pace


class Steps:
    """A training with steps of a given length."""

    def __init__(self, seconds: float, behind: float = 0.0) -> None:
        self.now, self.asked = 0.0, 0
        self.behind = behind
        self.leaves = False
        self.pace = Pace(seconds, self.agree, leaves=lambda: self.leaves, clock=lambda: self.now)

    def agree(self, seconds: float) -> float:
        self.asked += 1
        return seconds + self.behind

    def run(self, steps: int, seconds: float) -> list[float]:
        """Return the times at which it was time to save."""
        saved = []
        for _ in range(steps):
            self.now += seconds
            if self.pace.is_due():
                saved.append(self.now)
        return saved


@pytest.mark.parametrize("step_s", [0.01, 0.3, 7.0])
def test_it_saves_about_as_often_as_it_should_and_asks_seldom(step_s: float) -> None:
    training = Steps(600)
    steps = round(6000 / step_s)
    saved = training.run(steps, step_s)
    gaps = [now - before for before, now in zip([0.0, *saved], saved, strict=False)]
    assert len(saved) in (9, 10)
    assert all(600 <= gap <= 600 + 2 * step_s + 0.01 for gap in gaps)
    assert training.asked <= 60 * len(saved)


def test_a_slower_pace_is_late_by_the_steps_to_the_next_question_at_most() -> None:
    training = Steps(100)
    assert training.run(40, 1) == []
    (saved, *_) = training.run(100, 10)
    assert 100 <= saved <= 40 + 10 * 64


def test_all_workers_go_by_what_they_agree_on() -> None:
    assert Steps(100, behind=50.0).run(60, 1) == [50.0]


def test_every_step_or_none() -> None:
    assert len(Steps(1e-6).run(10, 1)) == 10
    assert Steps(0).run(10_000, 60) == []


def test_a_machine_that_is_about_to_leave_is_noticed_in_time_and_saved_for_once() -> None:
    training = Steps(600)
    training.run(100, 1)
    training.leaves = True
    (saved,) = training.run(300, 1)
    assert saved <= 100 + NOTICE_S + 1
    training.leaves = False
    training.run(100, 1)
    training.leaves = True
    assert len(training.run(100, 1)) == 1  # another machine


def test_without_checkpoints_nobody_is_asked() -> None:
    training = Steps(0)
    training.leaves = True
    assert training.run(1000, 1) == []
    assert training.asked == 0
