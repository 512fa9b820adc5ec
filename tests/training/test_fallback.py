"""A policy that does not beat the models that it fuses."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from atlas_ray.artifacts import load_artifact
from atlas_ray.cli.main import main
from atlas_ray.errors import ConfigError
from atlas_ray.metrics.paired import sign_test
from atlas_ray.models.fusion.policy import FusionConfig, FusionNetwork, build_fusion
from atlas_ray.prediction.aggregate import label_nodes
from atlas_ray.taxonomy import Taxonomy
from atlas_ray.training import fusion
from atlas_ray.training.fallback import contests
from atlas_ray.training.fusion import train_fusion
from atlas_ray.training.packing import pack_outputs
from atlas_ray.training.run import train
from atlas_ray.training.settings import FusionTraining, TextTraining
from tests.support.parts import make_artifact
from tests.training.test_fusion import SMALL

LEAVES = 4


def network(policy: str = "mean", modalities: str = "picture+title", **fields: Any) -> FusionNetwork:
    return build_fusion(FusionConfig(modalities=modalities, outputs=LEAVES, policy=policy, **fields))


def said(right: np.ndarray[Any, Any], sure: float, label: np.ndarray[Any, Any]) -> torch.Tensor:
    """Log-probabilities of a model that has some products right, and is so sure of each answer."""
    answer = np.where(right, label, (label + 1) % LEAVES)
    probability = np.full((len(label), LEAVES), (1 - sure) / (LEAVES - 1))
    probability[np.arange(len(label)), answer] = sure
    return torch.tensor(probability, dtype=torch.float32).log()


def batch(models: list[torch.Tensor], there: np.ndarray[Any, Any], label: np.ndarray[Any, Any]) -> dict[str, Any]:
    rows = pack_outputs(torch.stack(models, 1), torch.tensor(there), None)
    return {"inputs": rows.numpy(), "label": label}


def drawn(count: int, *shares: float) -> tuple[np.ndarray[Any, Any], list[np.ndarray[Any, Any]]]:
    draws = np.random.default_rng(0)
    return draws.integers(0, LEAVES, count), [draws.random(count) < share for share in shares]


def test_a_sure_and_bad_model_does_not_spoil_a_good_one() -> None:
    label, (picture, title) = drawn(400, 0.5, 0.93)
    models = [said(picture, 0.99, label), said(title, 0.6, label)]
    (contest,) = contests(network(), [batch(models, np.ones((400, 2), bool), label)], held_out=True)
    assert (contest.model, contest.products, contest.kept) == ("title", 400, True)
    assert contest.model_right == pytest.approx(title.mean())
    assert contest.policy_right < 0.6
    assert contest.lost > 100 > contest.won


def test_any_leaf_below_a_label_is_right() -> None:
    taxonomy = Taxonomy([("A", "a"), ("A", "b"), ("B", "c"), ("B", "d")], name="two")
    leaf, (picture, title) = drawn(400, 0.5, 0.6)
    label = np.where(np.arange(400) % 2, leaf, LEAVES + leaf // 2)  # each other product is labelled A or B
    models = [said(picture, 0.9, leaf), said(title, 0.8, leaf)]
    (contest,) = contests(
        network(), [batch(models, np.ones((400, 2), bool), label)], held_out=True, nodes=label_nodes(taxonomy)
    )
    answer = np.where(title, leaf, (leaf + 1) % LEAVES)
    assert contest.model == "title"
    assert contest.model_right == np.where(label < LEAVES, answer == leaf, answer // 2 == leaf // 2).mean()


def test_ridge_is_fitted_on_leaves_and_judged_on_all_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    taxonomy = Taxonomy([("A", "a"), ("A", "b"), ("B", "c"), ("B", "d")], name="two")
    leaf, (picture, title) = drawn(200, 0.7, 0.8)
    label = np.where(np.arange(200) < 150, leaf, LEAVES + leaf // 2)  # the last 50 are labelled A or B
    models = [said(picture, 0.9, leaf), said(title, 0.8, leaf)]
    every = batch(models, np.ones((200, 2), bool), label)
    monkeypatch.setattr(fusion, "batches_of", lambda batches: batches)
    both, alone = network("ridge"), network("ridge")
    batches: Any = [every]
    fusion._solve(both, batches, 1.0)
    leaves: Any = [{name: column[:150] for name, column in every.items()}]
    fusion._solve(alone, leaves, 1.0)
    for name, tensor in both.state_dict().items():
        torch.testing.assert_close(tensor, alone.state_dict()[name])
    assert any(tensor.abs().max() > 0.1 for tensor in both.state_dict().values())
    found = fusion._accuracy(both, batches, taxonomy)
    answer = np.where(title, leaf, (leaf + 1) % LEAVES)
    assert found["title"] == np.where(label < LEAVES, answer == leaf, answer // 2 == leaf // 2).mean()
    assert found["fused"] > 0.7


def test_a_policy_that_wins_answers() -> None:
    label, (picture, title) = drawn(400, 0.9, 0.7)
    models = [said(picture, 0.6, label), said(title, np.nan, label)]
    sure = np.where(title, 0.9, 0.3)  # it knows when it is right
    models[1] = torch.cat([said(title[n : n + 1], sure[n], label[n : n + 1]) for n in range(400)])
    rows = batch(models, np.ones((400, 2), bool), label)
    (contest,) = contests(network(), [rows], held_out=True)
    assert (contest.model, contest.kept) == ("picture", False)
    assert contest.won > contest.lost == 0
    assert contest.policy_right > contest.model_right
    assert all(one.kept for one in contests(network(), [rows], held_out=False))


@pytest.mark.parametrize("count", [1, 3])
def test_few_products_show_nothing(count: int) -> None:
    label = np.zeros(count, np.int64)
    models = [said(np.zeros(count, bool), 0.5, label), said(np.ones(count, bool), 0.9, label)]
    models[0], models[1] = models[1], said(np.zeros(count, bool), 0.95, label)
    found = contests(network("max"), [batch(models, np.ones((count, 2), bool), label)], held_out=True)
    assert [one.kept for one in found] == [True]
    assert contests(network(), [], held_out=True) == []


def test_each_product_is_judged_by_the_best_model_that_it_has() -> None:
    label, (picture, title, description) = drawn(600, 0.4, 0.95, 0.7)
    models = [said(picture, 0.99, label), said(title, 0.5, label), said(description, 0.5, label)]
    there = np.ones((600, 3), bool)
    there[:200, 1] = False  # a third has no title
    there[:50, 2] = False  # and some of them a picture alone, where there is nothing to judge
    policy = network(modalities="picture+title+description")
    found = contests(policy, [batch(models, there, label)], held_out=True)
    assert [(one.model, one.products, one.kept) for one in found] == [
        ("title", 400, True), ("description", 150, True),
    ]  # fmt: skip
    kept = network(modalities="picture+title+description", fallback="title+description")
    answers = kept(torch.stack(models, 1), torch.tensor(there)).argmax(1).numpy()
    expected = [models[1 if row[1] else 2 if row[2] else 0][n].argmax().item() for n, row in enumerate(there)]
    assert answers.tolist() == expected


def test_labels_are_judged_by_how_many_are_wrong() -> None:
    """The picture names no label, and is one off; the title is right of nine in ten, and two off of the others."""
    has = torch.eye(LEAVES).bool()
    label, (title,) = drawn(200, 0.9)
    named = np.where(title, label, (label + 1) % LEAVES)
    models = [torch.full((200, LEAVES), -3.0), torch.where(has[torch.tensor(named)], 3.0, -3.0)]
    rows = batch(models, np.ones((200, 2), bool), has.numpy()[label])
    (contest,) = contests(network("max", target="labels"), [rows], held_out=True)
    assert (contest.model, contest.products, contest.won, contest.lost, contest.kept) == ("title", 200, 0, 0, True)
    assert contest.model_right == contest.policy_right == pytest.approx(title.mean())
    (contest,) = contests(network("mean", target="labels"), [rows], held_out=True)  # names nothing any more
    assert (contest.lost, contest.won) == (title.sum(), (~title).sum())
    assert contest.kept


def test_chance() -> None:
    assert sign_test(0, 0) == 1
    assert sign_test(1, 0) == 0.5
    assert sign_test(4, 0) == 1 / 16
    assert sign_test(2, 2) == 11 / 16
    assert sign_test(5, 5) > 0.5 > sign_test(10, 2)
    for won, lost in ((560, 500), (500, 560), (530, 530)):  # past 1,000 by the normal distribution
        exact = sign_test(won // 2, lost // 2)
        assert sign_test(won, lost) == pytest.approx(exact, abs=0.12)
    assert sign_test(60_000, 40_000) < 1e-9


@pytest.mark.parametrize("fallback", ["sound", "title+title", "title+", "description"])
def test_a_fallback_on_what_is_not_there(fallback: str) -> None:
    with pytest.raises(ConfigError, match="fallback is"):
        network(fallback=fallback)


@pytest.fixture(scope="module")
def models(local_ray: None, described: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A model of pictures that knows nothing, and one of titles."""
    folder = tmp_path_factory.mktemp("models")
    found = {name: str(folder / name) for name in ("picture", "title")}
    taxonomy = Taxonomy.from_json((Path(described) / "taxonomy.json").read_bytes(), source="the test")
    make_artifact(found["picture"], taxonomy)
    train(TextTraining(catalog=described, output=found["title"], field="title", **SMALL))
    return found


def test_a_fused_model_is_not_worse_than_its_members(
    models: dict[str, str], described: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--catalog", described, *(flag for name, uri in models.items() for flag in (f"--{name}", uri))]
    flags += ["--fit-split", "train", "--policy", "max"]
    assert main(["train", "fusion", *flags, "--output", str(tmp_path / "fused")]) == 0
    told = capsys.readouterr()
    assert "so the title's answer is kept wherever there is one" in told.out
    assert "0.0000 right" not in told.out
    assert "epoch" not in told.out + told.err
    fused = load_artifact(str(tmp_path / "fused"))
    assert isinstance(fused.model, FusionNetwork)
    assert fused.model.config.fallback == "title"
    (contest,) = fused.metrics["contests"]
    assert (contest["model"], contest["kept"]) == ("title", True)
    assert contest["policy_right"] <= contest["model_right"]
    assert fused.fitted is None  # the picture's model does not know what it was trained on


@pytest.mark.parametrize("policy", ["ridge", pytest.param("network", marks=pytest.mark.slow)])
def test_a_policy_that_memorizes_is_judged_by_products_held_out(
    models: dict[str, str], described: str, tmp_path: Path, policy: str
) -> None:
    done = train_fusion(
        FusionTraining(
            catalog=described,
            output=str(tmp_path / policy),
            **models,  # type: ignore[arg-type]
            fit_split="train",
            policy=policy,
            epochs=2,
            batch_size=8,
        )
    )
    accuracy = done.metrics["fit_accuracy"]
    assert done.metrics["judged_on"] == "held-out"
    assert accuracy["fused"] >= accuracy["title"] - 0.05  # but for products without a title
