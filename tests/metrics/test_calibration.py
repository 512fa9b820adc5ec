import numpy as np
import pytest
from scipy.special import log_softmax

from atlas_ray.metrics.calibration import Reliability, doubt_of, fit_temperature, tempered


def test_bins_by_hand() -> None:
    found = Reliability(bins=4)
    found.add(np.array([0.1, 0.3, 0.4, 1.0]), np.array([False, True, False, True]))
    found.add(np.array([0.9]), np.array([False]))  # answers may come in parts
    assert [(one.low, one.high, one.count, one.accuracy) for one in found.bins] == [
        (0.0, 0.25, 1, 0.0), (0.25, 0.5, 2, 0.5), (0.75, 1.0, 2, 0.5)
    ]  # fmt: skip
    assert [one.probability for one in found.bins] == pytest.approx([0.1, 0.35, 0.95])
    assert found.expected_error == pytest.approx((0.1 + 2 * 0.15 + 2 * 0.45) / 5)
    assert Reliability().bins == []
    assert Reliability().expected_error == 0


@pytest.mark.parametrize("true", [0.5, 1.0, 3.0])
def test_the_temperature_that_was_put_in_is_found(true: float) -> None:
    """Labels are drawn from the posterior; a model that says it at another temperature is brought back."""
    rng = np.random.default_rng(0)
    log_p = log_softmax(rng.normal(size=(20_000, 6)) * 2, axis=1)
    label = (rng.random((len(log_p), 1)) > np.exp(log_p).cumsum(1)).sum(1)
    said = log_softmax(log_p * true, axis=1)
    assert fit_temperature(said, label) == pytest.approx(true, rel=0.05)
    before, after = Reliability(), Reliability()
    for found, temperature in ((before, 1.0), (after, true)):
        p = tempered(said, temperature)
        found.add(p.max(1), p.argmax(1) == label)
    assert after.expected_error < 0.01
    assert true == 1 or before.expected_error > 3 * after.expected_error


def test_what_was_not_found_says_nothing() -> None:
    log_p = np.log(np.array([[0.8, 0.2], [0.8, 0.2], [0.8, 0.2]]))
    log_p[2] = [0, -np.inf]
    assert fit_temperature(log_p, np.array([-1, -1, -1])) == 1
    some = fit_temperature(log_p, np.array([0, 1, -1]))
    assert some == pytest.approx(fit_temperature(log_p[:2], np.array([0, 1])))


def test_pictures_of_a_product_are_calibrated_together() -> None:
    """Of four pictures a product, each unsure alone, the mean is surer than any temperature of one picture says."""
    rng = np.random.default_rng(0)
    products, pictures, leaves = 4000, 4, 5
    label = rng.integers(leaves, size=products)
    shared = rng.normal(size=(products, 1, leaves))  # what all pictures of a product have in common
    noise = shared + rng.normal(size=(products, pictures, leaves)) * 0.5
    log_p = log_softmax(noise + 2.0 * np.eye(leaves)[label][:, None], axis=2).reshape(-1, leaves)
    product = np.repeat(np.arange(products), pictures)
    errors = {}
    for name, owner in (("picture", None), ("product", product)):
        p = tempered(log_p, fit_temperature(log_p, label[product], owner)).reshape(products, pictures, leaves).mean(1)
        found = Reliability()
        found.add(p.max(1), p.argmax(1) == label)
        errors[name] = found.expected_error
    assert errors["product"] < 0.4 * errors["picture"]


def test_a_product_says_something_where_one_of_its_pictures_does() -> None:
    log_p = np.log(np.array([[0.7, 0.3], [0.6, 0.4], [0.2, 0.8]]))
    one = fit_temperature(log_p, np.array([0, -1, 1]), np.array([0, 0, 1]))
    assert one != 1
    none = fit_temperature(log_p, np.array([-1, -1, 1]), np.array([0, 0, 1]))
    assert none == pytest.approx(fit_temperature(log_p[2:], np.array([1])), rel=0.01)


def test_where_every_answer_is_right_the_temperature_is_doubted() -> None:
    sure = np.log(np.array([[0.7, 0.3], [0.6, 0.4]]))
    temperature = fit_temperature(sure, np.array([0, 0]))
    doubt = doubt_of((temperature,), right=2, answers=2)
    assert doubt is not None
    assert "every answer of these 2 products is right" in doubt
    assert "at the edge of its range, 0.05 to 20" in doubt


@pytest.mark.parametrize(
    ("temperatures", "right", "answers", "said"),
    [
        ((1.2, 1.2), 39, 40, None),
        ((0.06, 0.3), 29, 30, None),
        ((1.2, 1.2), 40, 40, "every answer of these 40 products"),
        ((1.2, 1.2), 9, 10, "10 products say little: 30 or more tell something"),
        ((0.05, 0.5), 9, 40, "the edge of its range"),
        ((1.0, 19.99), 3, 40, "the edge of its range"),
    ],
)
def test_what_is_determined_is_not_doubted(
    temperatures: tuple[float, ...], right: int, answers: int, said: str | None
) -> None:
    doubt = doubt_of(temperatures, right=right, answers=answers)
    assert (doubt is None) if said is None else (said in str(doubt))


@pytest.mark.parametrize("answers", [100, 1500, 50_000])
def test_what_chance_alone_makes_of_right_probabilities(answers: int) -> None:
    chance = np.random.default_rng(answers)
    errors, expected = [], []
    for _ in range(30):
        probability = chance.beta(4, 1, answers)
        reliability = Reliability()
        reliability.add(probability, chance.random(answers) < probability)
        errors.append(reliability.expected_error)
        expected.append(reliability.error_by_chance)
    assert np.mean(expected) == pytest.approx(np.mean(errors), rel=0.1)
    assert Reliability().error_by_chance == 0
