"""The policies, against sums written out."""

from itertools import pairwise
from typing import Any

import pytest
import torch

from atlas_ray.errors import ConfigError
from atlas_ray.models.fusion import POLICIES, ridge
from atlas_ray.models.fusion.policy import FusionConfig, build_fusion
from atlas_ray.taxonomy.labels import TARGETS

NAMES = "picture+title+description"
LEAVES = 4


def policy(kind: str, **settings: Any) -> Any:
    torch.manual_seed(0)
    shape: dict[str, Any] = {"modalities": NAMES, "outputs": LEAVES, "policy": kind}
    shape |= {"features": "2+3+1"} if kind == "early" else {}
    return build_fusion(FusionConfig(**{**shape, **settings})).eval()


def random_scores(count: int = 3) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(count, 3, LEAVES).log_softmax(-1)


def test_max_mean_and_weights() -> None:
    log_p = random_scores()
    present = torch.tensor([[True, True, True], [True, False, True], [False, True, True]])
    found = {kind: policy(kind)(log_p, present).softmax(-1) for kind in ("max", "mean")}
    weighted = policy("weighted")
    with torch.no_grad():
        weighted.weights.copy_(torch.rand(8, 3))
    found["weighted"] = weighted(log_p, present).softmax(-1)
    for row in range(3):
        models = [m for m in range(3) if present[row, m]]
        p = log_p[row, models].exp()
        bits = sum(2**m for m in models)
        product = torch.stack([p[i] ** weighted.weights[bits, m].detach() for i, m in enumerate(models)]).prod(0)
        for kind, wanted in (("max", p.max(0).values), ("mean", p.mean(0)), ("weighted", product)):
            torch.testing.assert_close(found[kind][row], wanted / wanted.sum())


@pytest.mark.parametrize(
    ("names", "settings", "activations"),
    [
        (NAMES, {}, ["Sigmoid", "Tanh"]),
        ("picture+title", {}, ["Sigmoid", "Sigmoid"]),
        (NAMES, {"layers": 1}, ["Tanh"]),
        ("title+description", {"layers": 3, "activation": "relu"}, ["ReLU", "ReLU", "ReLU"]),
    ],
)
def test_the_layers_of_a_network(names: str, settings: dict[str, Any], activations: list[str]) -> None:
    layers = list(policy("network", modalities=names, hidden_dim=7, second_dim=5, **settings).network)
    assert [type(layer).__name__ for layer in layers[1::2]] == activations
    count = len(names.split("+"))
    widths = [count * LEAVES + count, 7, *[5] * (len(activations) - 1), LEAVES]
    assert [(layer.in_features, layer.out_features) for layer in layers[::2]] == list(pairwise(widths))


def test_max_and_mean_of_labels() -> None:
    odds = 3 * random_scores()
    present = torch.tensor([[True, True, True], [True, False, True], [False, True, True]])
    found = {kind: policy(kind, target="labels")(odds, present).sigmoid() for kind in ("max", "mean")}
    for row in range(3):
        p = odds[row, present[row]].sigmoid()
        torch.testing.assert_close(found["max"][row], p.max(0).values)
        torch.testing.assert_close(found["mean"][row], p.mean(0))


def test_ridge_of_labels_gives_probabilities() -> None:
    odds, present = random_scores(), torch.ones(3, 3, dtype=torch.bool)
    model = policy("ridge", target="labels")
    linear = model.ridge(torch.cat([odds.sigmoid().flatten(1), torch.ones(3, 3)], 1))
    torch.testing.assert_close(model(odds, present).sigmoid(), linear.clamp(1e-6, 1 - 1e-6))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", POLICIES)
def test_one_modality_alone_is_taken_at_its_word(kind: str, target: str) -> None:
    scores = random_scores()
    present = torch.eye(3, dtype=torch.bool)
    found = policy(kind, target=target)(scores, present, torch.randn(3, 6))
    found = found.log_softmax(-1) if target == "path" else found
    torch.testing.assert_close(found, torch.stack([scores[m, m] for m in range(3)]))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", POLICIES)
def test_what_is_missing_does_not_matter(kind: str, target: str) -> None:
    present = torch.tensor([[True, False, True]] * 2)
    log_p, features = random_scores(2), torch.zeros(2, 6)
    log_p[1, [0, 2]] = log_p[0, [0, 2]]  # the second product differs in the title alone, which neither has
    found = policy(kind, target=target)(log_p, present, features)
    torch.testing.assert_close(found[0], found[1])
    assert found.isfinite().all()


def test_the_papers_networks() -> None:
    three = policy("network").network
    assert [type(layer).__name__ for layer in three] == ["Linear", "Sigmoid", "Linear", "Tanh", "Linear"]
    two = policy("network", modalities="title+picture").network
    assert [type(layer).__name__ for layer in two] == ["Linear", "Sigmoid", "Linear", "Sigmoid", "Linear"]
    assert [two[0].out_features, two[2].out_features, two[4].out_features] == [200, 150, LEAVES]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"modalities": "title+title"}, "modalities is 'title\\+title'; expected some of picture\\+title"),
        ({"modalities": "sound"}, "modalities is 'sound'"),
        ({"policy": "early"}, "features is ''; expected 3 widths"),
        ({"policy": "mean", "features": "2+2+2"}, "expected 0 widths"),
        ({"policy": "early", "features": "2+x+3"}, "features is '2\\+x\\+3'"),
        ({"policy": "vote"}, "policy is 'vote'; expected one of max, mean"),
    ],
)
def test_shapes_that_are_none_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FusionConfig(**{"modalities": NAMES, "outputs": LEAVES, "policy": "mean", **settings})


@pytest.mark.parametrize("target", TARGETS)
def test_a_ridge_of_many_outputs_sees_each_output_alone(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ridge, "MAX_WIDTH", 3 * LEAVES)
    model = policy("ridge", target=target)
    torch.manual_seed(2)
    scores, truth = torch.randn(200, 3, LEAVES).log_softmax(-1), torch.rand(200, LEAVES) < 0.3
    present = torch.rand(200, 3) < 0.7
    model.solve([(scores[:120], present[:120], truth[:120]), (scores[120:], present[120:], truth[120:])], 0.5)
    p = scores.sigmoid() if target == "labels" else scores.exp()
    answers = []
    for leaf in range(LEAVES):
        x, y = [], []
        for subset in ([0, 1], [0, 2], [1, 2], [0, 1, 2]):
            has = torch.tensor([float(m in subset) for m in range(3)])
            for row in range(200):
                if present[row, subset].all():
                    x.append(torch.cat([p[row, :, leaf] * has, has, torch.ones(1)]))
                    y.append(truth[row, leaf].float())
        design = torch.stack(x).double()
        weights = torch.linalg.solve(
            design.T @ design + 0.5 * torch.eye(7, dtype=torch.float64), design.T @ torch.stack(y).double()
        )
        answers.append(torch.cat([p[:, :, leaf] * present, present, torch.ones(200, 1)], 1).double() @ weights)
    wanted = torch.stack(answers, 1).float().clamp(1e-6, 1 - 1e-6 if target == "labels" else None)
    several = present.sum(1) > 1
    found = model(scores, present)
    torch.testing.assert_close((found.sigmoid() if target == "labels" else found.exp())[several], wanted[several])


def test_a_ridge_of_many_outputs_is_small() -> None:
    model = policy("ridge", outputs=10_600)
    assert sum(weights.numel() for weights in model.parameters()) == 10_600 * 7
