"""What networks learn from, against sums written out path by path."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from atlas_ray.decoding.exact import exact_search
from atlas_ray.models.classifier import Classifier
from atlas_ray.models.encoder_decoder import DecoderStep
from atlas_ray.models.fusion.policy import FusionConfig
from atlas_ray.models.head import HeadConfig
from atlas_ray.taxonomy import CategoryPath, LabelSpace, Taxonomy, Vocabulary
from atlas_ray.taxonomy.vocabulary import END, PAD
from atlas_ray.training.objectives import ClassesObjective, EncoderDecoderObjective, LabelsObjective, build_objective
from atlas_ray.training.packing import pack_outputs
from atlas_ray.training.settings import (
    ClassifierTraining,
    EncoderDecoderTraining,
    FusionTraining,
    HeadTraining,
    ImageLabelsTraining,
)
from tests.models.tiny import tiny_encoder  # noqa: F401

pytestmark = pytest.mark.usefixtures("tiny_encoder")

# Paths of three depths, names at several places, and B > A > C with no choice after B.
PATHS: list[CategoryPath] = [("A", "B"), ("A", "C"), ("B", "A", "C"), ("D", "E"), ("D", "F"), ("C",)]
TAXONOMY = Taxonomy(PATHS, name="t")
VOCABULARY = Vocabulary.of(TAXONOMY)
EVERY = torch.arange(len(PATHS))
CPU = torch.device("cpu")
SMALL: dict[str, Any] = {
    "catalog": "shop", "output": "model", "backbone": "resnet18", "image_size_px": 64, "hidden_dim": 8,
}  # fmt: skip


def token(name: str) -> int:
    return VOCABULARY.encode((name,))[0]


def spelling(taxonomy: Taxonomy = TAXONOMY, **settings: Any) -> EncoderDecoderObjective:
    torch.manual_seed(0)
    config = EncoderDecoderTraining(**{**SMALL, "attention_regularization": 0.0, **settings})
    objective = build_objective(config, taxonomy, CPU).eval()
    assert isinstance(objective, EncoderDecoderObjective)
    with torch.no_grad():  # an untrained decoder is sure of nothing
        objective.network.decoder.get_parameter("fc.weight").mul_(8)
        objective.network.decoder.get_parameter("fc.bias").normal_()
    return objective


def classifying(taxonomy: Taxonomy = TAXONOMY, **settings: Any) -> ClassesObjective:
    torch.manual_seed(0)
    objective = build_objective(ClassifierTraining(**{**SMALL, **settings}), taxonomy, CPU).eval()
    assert isinstance(objective, ClassesObjective)
    assert isinstance(objective.network, Classifier)
    last = objective.network.head[-1]
    with torch.no_grad():
        last.weight.mul_(4)  # type: ignore[operator]
        last.bias.normal_()  # type: ignore[operator]
    return objective


def pictures(count: int = len(PATHS)) -> Tensor:
    torch.manual_seed(1)
    brightness = torch.linspace(40, 256, count)[:, None, None, None]
    return (torch.rand(count, 3, 64, 64) * brightness).to(torch.uint8)


def logits_of(objective: EncoderDecoderObjective, picture: Tensor, path: CategoryPath) -> Tensor:
    """The logits of a path's tokens and its <end>, alone and not padded: (steps, vocabulary)."""
    logits: Tensor = objective.network(picture[None], torch.tensor([[*VOCABULARY.encode(path), END]]))[0][0]
    return logits


def below(prefix: CategoryPath) -> list[int]:
    """The tokens that the taxonomy allows after a prefix."""
    return [token(path[-1]) for path in TAXONOMY.children.get(prefix, [])]


def by_hand(
    objective: EncoderDecoderObjective, normalization: str, share: float = 0.0, kind: str = "uniform"
) -> Tensor:
    """Each path's loss over its own picture, one token at a time; `share` of the target is smoothed."""
    losses = []
    for picture, path in zip(pictures(), PATHS, strict=True):
        terms = []
        for position, (logits, right) in enumerate(
            zip(logits_of(objective, picture, path), [*VOCABULARY.encode(path), END], strict=True)
        ):
            allowed = below(path[:position])
            if normalization == "taxonomy":
                if allowed:
                    where = torch.tensor(allowed.index(right))
                    terms.append(cross_entropy(logits[allowed], where, label_smoothing=share))
                continue
            if kind == "uniform":
                terms.append(cross_entropy(logits, torch.tensor(right), label_smoothing=share))
                continue
            target = torch.zeros(len(VOCABULARY))
            target[right] = 1.0
            if allowed:
                target[right] -= share
                target[allowed] += share / len(allowed)
            terms.append(cross_entropy(logits, target))
        losses.append(torch.stack(terms).mean())
    return torch.stack(losses)


@pytest.mark.long
@pytest.mark.parametrize("decoder", ["lstm", "transformer"])
def test_the_loss_is_the_cross_entropy_of_each_paths_tokens(decoder: str) -> None:
    objective = spelling(decoder=decoder)
    with torch.inference_mode():
        found = objective(pictures(), EVERY)
        wanted = by_hand(objective, "vocabulary")
        # the same once more, with every step of each path in one call
        whole = torch.stack(
            [
                cross_entropy(logits_of(objective, picture, path), torch.tensor([*VOCABULARY.encode(path), END]))
                for picture, path in zip(pictures(), PATHS, strict=True)
            ]
        )
    assert found.shape == (len(PATHS),)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found, whole, atol=1e-4, rtol=1e-4)
    assert found.std() > 0.1


def test_what_stands_past_a_paths_end_costs_nothing() -> None:
    # The label C has one token and <end>; its two last steps are padding.
    objective = spelling()
    words = objective.network.decoder.get_parameter("embedding.weight")
    label = torch.tensor([PATHS.index(("C",))])
    with torch.inference_mode():
        before = objective(pictures(1), label)
        words[[END, PAD]] += 3.0  # read at those steps alone
        torch.testing.assert_close(objective(pictures(1), label), before)
        words[token("C")] += 3.0
        assert (objective(pictures(1), label) - before).abs() > 1e-4


@pytest.mark.long
@pytest.mark.parametrize("weight", [0.5, 2.0])
def test_attention_is_pulled_to_look_everywhere(weight: float) -> None:
    objective = spelling(attention_regularization=weight)
    with torch.inference_mode():
        found = objective(pictures(), EVERY) - by_hand(objective, "vocabulary")
        uneven = []
        for picture, path in zip(pictures(), PATHS, strict=True):
            tokens = torch.tensor([[*VOCABULARY.encode(path), END]])
            maps = objective.network.attention_maps(objective.network.encode(picture[None]), tokens)[0]
            uneven.append(((1 - maps.sum(0)) ** 2).mean())  # Show, Attend and Tell, equation 14
    torch.testing.assert_close(found, weight * torch.stack(uneven), atol=1e-4, rtol=1e-4)


@pytest.mark.long
def test_within_the_taxonomy_the_loss_is_over_what_may_follow() -> None:
    objective = spelling(normalization="taxonomy")
    with torch.inference_mode():
        found = objective(pictures(), EVERY)
        wanted = by_hand(objective, "taxonomy")
        plain = by_hand(objective, "vocabulary")
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    assert (found - plain).abs().min() > 1e-3


@pytest.mark.long
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("name", ["A", "B", "C", "D", "E", "F", "<pad>", "<start>", "<end>"])
def test_within_the_taxonomy_only_allowed_tokens_matter(name: str, smoothing: float) -> None:
    objective = spelling(normalization="taxonomy", label_smoothing=smoothing)
    bias = objective.network.decoder.get_parameter("fc.bias")
    raised = token(name)
    with torch.inference_mode():
        before = objective(pictures(), EVERY)
        bias[raised] += 2.0
        change = (objective(pictures(), EVERY) - before).abs()
    for path, moved in zip(PATHS, change.tolist(), strict=True):
        # where a token stands beside others, raising it alone shifts the choice between them
        choices = [below(path[:position]) for position in range(len(path))]
        matters = any(raised in allowed and len(allowed) > 1 for allowed in choices)
        assert (moved > 1e-4) is matters, path
        if not matters:
            assert moved < 1e-6, path


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_where_the_taxonomy_leaves_no_choice_nothing_is_lost(smoothing: float) -> None:
    objective = spelling(normalization="taxonomy", label_smoothing=smoothing)
    label, path = PATHS.index(("B", "A", "C")), ("B", "A", "C")
    with torch.inference_mode():
        found = objective(pictures(), EVERY)[label]
        root = below(())
        logits = logits_of(objective, pictures()[label], path)[0, root]
        first = cross_entropy(logits, torch.tensor(root.index(token("B"))), label_smoothing=smoothing)
    torch.testing.assert_close(found, first / 3, atol=1e-4, rtol=1e-4)  # the mean over three tokens, two of them free
    with torch.inference_mode():
        only = spelling(Taxonomy([("A", "B", "C")], name="only"), normalization="taxonomy", label_smoothing=smoothing)(
            pictures(2), torch.tensor([0, 0])
        )
    assert only.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("normalization", ["vocabulary", "taxonomy"])
@pytest.mark.parametrize("kind", ["uniform", "tree"])
def test_smoothing_shares_the_target(normalization: str, kind: str) -> None:
    objective = spelling(normalization=normalization, label_smoothing=0.3, smoothing=kind)
    with torch.inference_mode():
        found = objective(pictures(), EVERY)
        wanted = by_hand(objective, normalization, 0.3, kind)
        plain = by_hand(objective, normalization)
        evaluated, _ = objective.evaluate(pictures(), EVERY)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    assert (found - plain).abs().max() > 1e-2
    torch.testing.assert_close(evaluated, plain, atol=1e-4, rtol=1e-4)  # validation is not smoothed


@pytest.mark.long
@pytest.mark.parametrize("normalization", ["vocabulary", "taxonomy"])
@pytest.mark.parametrize("kind", ["uniform", "tree"])
@pytest.mark.parametrize("decoder", ["lstm", "transformer"])
def test_every_loss_can_be_learned_from(normalization: str, kind: str, decoder: str) -> None:
    objective = spelling(
        normalization=normalization, label_smoothing=0.1, smoothing=kind, decoder=decoder, attention_regularization=1.0
    )
    objective(pictures(), EVERY).sum().backward()
    encoder, rest = objective.parts()
    for part in (encoder, rest):
        gradients = [parameter.grad for parameter in part.parameters() if parameter.grad is not None]
        assert all(bool(gradient.isfinite().all()) for gradient in gradients)
        assert max(float(gradient.abs().max()) for gradient in gradients) > 1e-6
    assert len([*encoder.parameters(), *rest.parameters()]) == len(list(objective.parameters()))


@pytest.mark.long
@pytest.mark.parametrize("normalization", ["vocabulary", "taxonomy"])
@pytest.mark.parametrize("decoder", ["lstm", "transformer"])
def test_evaluation_answers_what_an_exact_search_finds(normalization: str, decoder: str) -> None:
    objective = spelling(normalization=normalization, decoder=decoder, attention_regularization=3.0)
    images, labels = pictures(8), torch.arange(8) % len(PATHS)
    with torch.inference_mode():
        losses, leaf = objective.evaluate(images, labels)
        step = DecoderStep(objective.network, objective.network.encode(images))
        searched = exact_search(step, objective.tree, top_k=1).leaf[:, 0]
        likelihood = torch.zeros(len(images), len(PATHS))
        for column, path in enumerate(PATHS):
            tokens = torch.tensor([VOCABULARY.encode(path)] * len(images))
            logits, _ = objective.network(images, tokens)
            for position, name in enumerate(path):
                over = below(path[:position]) if normalization == "taxonomy" else list(range(len(VOCABULARY)))
                likelihood[:, column] += logits[:, position, token(name)] - logits[:, position, over].logsumexp(1)
        plain = objective(images, labels)
    assert leaf.equal(searched)
    assert leaf.equal(likelihood.argmax(1))
    assert (losses < plain).all()  # without the attention's regularization


@pytest.mark.parametrize(
    ("share", "kind"), [(0.0, "uniform"), (0.3, "uniform"), (0.3, "tree")], ids=["plain", "uniform", "tree"]
)
def test_a_classifiers_loss(share: float, kind: str) -> None:
    objective = classifying(label_smoothing=share, smoothing=kind)
    with torch.inference_mode():
        logits = objective.network(pictures())
        found = objective(pictures(), EVERY)
        evaluated, leaf = objective.evaluate(pictures(), EVERY)
    if kind == "uniform":
        wanted = cross_entropy(logits, EVERY, reduction="none", label_smoothing=share)
    else:
        target = torch.zeros(len(PATHS), len(PATHS))
        for label, path in enumerate(PATHS):
            near = torch.zeros(len(PATHS))
            for other, another in enumerate(PATHS):
                shared = 0
                while shared < min(len(path), len(another)) and path[shared] == another[shared]:
                    shared += 1
                near[other] = 0.0 if other == label else 4.0**shared
            target[label] = share * near / near.sum()
            target[label, label] = 1 - share
        # A > B: A > C counts four times as much as each of the four others
        torch.testing.assert_close(target[0], torch.tensor([0.7, 0.15, 0.0375, 0.0375, 0.0375, 0.0375]))
        wanted = cross_entropy(logits, target, reduction="none")
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    plain = cross_entropy(logits, EVERY, reduction="none")
    torch.testing.assert_close(evaluated, plain, atol=1e-4, rtol=1e-4)
    assert leaf.equal(logits.argmax(1))
    assert share == 0 or (found - plain).abs().max() > 1e-2


ABOVE = [path for path in TAXONOMY.label_positions if path not in TAXONOMY.leaf_set]


@pytest.mark.parametrize(("share", "kind"), [(0.0, "uniform"), (0.3, "uniform"), (0.3, "tree")])
def test_a_label_above_the_leaf_has_the_probability_of_the_leaves_below(
    share: float, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loss and gradient against sums written out in float64; leaves in the same batch lose what they did."""
    objective = classifying(label_smoothing=share, smoothing=kind)
    listed = [*PATHS, *ABOVE]
    labels = torch.tensor([TAXONOMY.label_positions[path] for path in listed])
    assert ABOVE == [("A",), ("B",), ("B", "A"), ("D",)]
    torch.manual_seed(2)
    logits = torch.randn(len(listed), len(PATHS), requires_grad=True)
    monkeypatch.setattr(objective, "logits", lambda inputs: inputs)
    found = objective(logits, labels)
    found.sum().backward()
    exact = logits.detach().double().requires_grad_()
    losses = []
    for row, label in zip(exact, listed, strict=True):
        p = row.exp() / row.exp().sum()
        below = torch.tensor([path[: len(label)] == label for path in PATHS])
        near = torch.tensor(
            [0.0 if own else 4.0 ** _shared(label, path) for own, path in zip(below, PATHS, strict=True)]
        )
        other = -p.log().mean() if kind == "uniform" else -(p.log() * near / near.sum()).sum()
        losses.append(-(1 - share) * p[below].sum().log() + share * other)
    torch.stack(losses).sum().backward()
    torch.testing.assert_close(found, torch.stack(losses).float(), atol=1e-5, rtol=1e-5)
    assert exact.grad is not None
    torch.testing.assert_close(logits.grad, exact.grad.float(), atol=1e-6, rtol=1e-5)
    objective.labels_above = False
    leaves = torch.arange(len(PATHS))
    torch.testing.assert_close(objective(logits[: len(PATHS)], leaves), found[: len(PATHS)], atol=0, rtol=0)


def _shared(one: CategoryPath, other: CategoryPath) -> int:
    return next(
        (level for level in range(min(len(one), len(other))) if one[level] != other[level]), min(len(one), len(other))
    )


def test_any_leaf_below_a_label_is_right() -> None:
    objective = classifying()
    label = torch.tensor([TAXONOMY.label_positions["A",], TAXONOMY.label_positions["B", "A"]])
    answers = torch.tensor([PATHS.index(("A", "C")), PATHS.index(("D", "E"))])
    assert objective.count(answers, label).tolist() == [
        [True, True, False, False, True, False, False],  # right; it has one level
        [False, False, False, False, True, True, False],
    ]
    sums = objective.count(answers, label).sum(0).tolist()
    assert objective.figures(sums, 2) == {
        "val_accuracy": 0.5, "val_accuracy_level_1": 0.5, "val_accuracy_level_2": 0.0, "val_accuracy_level_3": 0.0,
    }  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("normalization", ["vocabulary", "taxonomy"])
def test_of_a_label_above_the_leaf_the_prefix_is_spelled(normalization: str) -> None:
    objective = spelling(normalization=normalization)
    labels = torch.tensor([TAXONOMY.label_positions[path] for path in ABOVE])
    with torch.inference_mode():
        found = objective(pictures(len(ABOVE)), labels)
        for picture, path, loss in zip(pictures(len(ABOVE)), ABOVE, found, strict=True):
            logits = logits_of(objective, picture, path)
            terms = []
            for position, name in enumerate(path):  # and no <end>
                over = below(path[:position]) if normalization == "taxonomy" else list(range(len(VOCABULARY)))
                terms.append(logits[position, over].logsumexp(0) - logits[position, token(name)])
            torch.testing.assert_close(loss, torch.stack(terms).mean(), atol=1e-4, rtol=1e-4)


@pytest.mark.long
def test_labels_above_the_leaf_teach_what_they_say() -> None:
    """Of 16 leaves in 4 groups a head learns more from few leaves and many groups than from those leaves alone."""
    taxonomy = Taxonomy([(f"g{n // 4}", f"l{n}") for n in range(16)], name="groups")
    random = torch.Generator().manual_seed(0)
    centres = torch.randn(4, 1, 16, generator=random) * 0.8 + torch.randn(4, 4, 16, generator=random) * 0.8

    def drawn(count: int) -> tuple[Tensor, Tensor]:
        leaf = torch.randint(16, (count,), generator=random)
        return centres.flatten(0, 1)[leaf] + torch.randn(count, 16, generator=random) * 1.2, leaf

    (few, few_leaves), (many, many_leaves), (held_out, truth) = drawn(64), drawn(640), drawn(1000)
    groups = torch.tensor([taxonomy.label_positions[taxonomy.leaves[leaf][:1]] for leaf in many_leaves])
    shape = HeadConfig(modalities="picture", features="16", encoder_id="e", outputs=16, hidden_dim=0, dropout=0.0)
    config = HeadTraining(embeddings="v", output="m", label_smoothing=0.1)

    def accuracy(inputs: Tensor, labels: Tensor) -> float:
        torch.manual_seed(0)
        objective = build_objective(config, taxonomy, CPU, shape=shape)
        optimizer = torch.optim.AdamW(objective.parameters(), 0.05, weight_decay=0.1)
        for _ in range(60):
            optimizer.zero_grad()
            objective(inputs, labels).mean().backward()
            optimizer.step()
        return float((objective.eval().evaluate(held_out, truth)[1] == truth).double().mean())

    alone = accuracy(few, few_leaves)
    both = accuracy(torch.cat([few, many]), torch.cat([few_leaves, groups]))
    assert both > alone + 0.05, (alone, both)


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_the_loss_of_labels(share: float) -> None:
    torch.manual_seed(0)
    names = ("A", "A > C", "B > A", "D", "F")  # the other labels are too rare
    has = [["A"], ["A", "A > C"], ["B > A", "A > C"], ["D"], ["D", "F"], []]
    target = torch.tensor([[float(name in mine) for name in names] for mine in has])
    config = ImageLabelsTraining(**{**SMALL, "label_smoothing": share})
    objective = build_objective(config, TAXONOMY, CPU, space=LabelSpace(TAXONOMY, names)).eval()
    assert isinstance(objective, LabelsObjective)
    with torch.inference_mode():
        objective.network.head[-1].bias.normal_(std=3)
        p: Tensor = objective.network(pictures()).sigmoid()
        loss, (plain, named) = objective(pictures(), target > 0), objective.evaluate(pictures(), target > 0)
    assert p.shape == (len(PATHS), len(names))

    def entropy(wanted: Tensor) -> Tensor:
        return -(wanted * p.log() + (1 - wanted) * (1 - p).log()).mean(1)

    torch.testing.assert_close(loss, entropy(target * (1 - share) + share / 2), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(plain, entropy(target), atol=1e-4, rtol=1e-4)
    assert named.equal(p > 0.5)
    counts = objective.count(named, target > 0)
    for row, (guess, mine) in enumerate(zip(named.tolist(), has, strict=True)):
        mentioned = {name for name, said in zip(names, guess, strict=True) if said}
        assert counts[row].tolist() == [len(mentioned & {*mine}), len(mentioned - {*mine}), len({*mine} - mentioned)]
    right, wrong, missed = counts.sum(0).tolist()
    assert objective.figures([right, wrong, missed], 6)["val_micro_f1"] == 2 * right / (2 * right + wrong + missed)


@pytest.mark.parametrize("kind", ["uniform", "tree"])
def test_a_classifier_of_one_class_loses_nothing(kind: str) -> None:
    objective = classifying(Taxonomy([("A", "B")], name="only"), label_smoothing=0.2, smoothing=kind)
    with torch.inference_mode():
        assert objective(pictures(2), torch.tensor([0, 0])).tolist() == [0.0, 0.0]


@pytest.mark.long
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"normalization": "taxonomy"},
        {"normalization": "taxonomy", "label_smoothing": 0.2, "smoothing": "tree"},
        {"label_smoothing": 0.2, "smoothing": "tree"},
        {"decoder": "transformer", "label_smoothing": 0.2},
    ],
)
def test_a_batch_is_its_pictures_one_by_one(settings: dict[str, Any]) -> None:
    check_one_by_one(spelling(attention_regularization=1.0, **settings))


@pytest.mark.parametrize("settings", [{}, {"label_smoothing": 0.2}, {"label_smoothing": 0.2, "smoothing": "tree"}])
def test_a_classifiers_batch_is_its_pictures_one_by_one(settings: dict[str, Any]) -> None:
    check_one_by_one(classifying(**settings))


def check_one_by_one(objective: EncoderDecoderObjective | ClassesObjective) -> None:
    images, labels = pictures(9), torch.tensor([5, 0, 2, 2, 3, 1, 4, 5, 0])
    with torch.inference_mode():
        together = objective(images, labels)
        losses, leaf = objective.evaluate(images, labels)
        for row in range(len(images)):
            one = slice(row, row + 1)
            torch.testing.assert_close(objective(images[one], labels[one]), together[one], atol=1e-4, rtol=1e-4)
            loss, own = objective.evaluate(images[one], labels[one])
            torch.testing.assert_close(loss, losses[one], atol=1e-4, rtol=1e-4)
            assert own.equal(leaf[one])
    assert together.std() > 0.01


@pytest.mark.parametrize("policy", ["network", "weighted", "early"])
@pytest.mark.parametrize("share", [0.0, 0.4])
def test_a_policy_learns_without_modalities(policy: str, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it learns, each modality is left out at random, but never so that fewer than two are left."""
    outputs, products = len(TAXONOMY.leaves), 4000
    shape = FusionConfig(
        modalities="picture+title+description",
        outputs=outputs,
        policy=policy,
        features="2+3+4" if policy == "early" else "",
    )
    config = FusionTraining(
        catalog="c", output="o", picture="p", title="t", description="d", policy=policy, modality_dropout=share
    )
    objective = build_objective(config, TAXONOMY, CPU, shape=shape)
    log_p = torch.randn(products, 3, outputs).log_softmax(-1)
    there = torch.ones(products, 3, dtype=torch.bool)
    there[: products // 2, 2] = False  # half have no description
    features = torch.ones(products, 9) if policy == "early" else None
    rows = pack_outputs(log_p, there, features)
    seen: list[tuple[Tensor, Tensor]] = []

    def network(_: Tensor, now: Tensor, kept: Tensor) -> Tensor:
        seen.append((now, kept))
        return torch.zeros(products, outputs)

    monkeypatch.setattr(objective.network, "forward", network)
    objective.train()
    objective(rows, torch.zeros(products, dtype=torch.int64))
    objective.eval()
    objective(rows, torch.zeros(products, dtype=torch.int64))
    (now, kept), (all_there, _) = seen
    assert all_there.equal(there)  # in the evaluation nothing is left out
    assert not (now & ~there).any()
    assert now.sum(1).min() == 2  # one alone would be no question
    three = now[products // 2 :]
    # Of three, all stay or one goes: two or three gone would leave too little, and all stay.
    wanted = 3 * share * (1 - share) ** 2
    assert (three.sum(1) < 3).float().mean() == pytest.approx(wanted, abs=0.03)
    if features is not None:
        assert kept.equal(now.repeat_interleave(torch.tensor([2, 3, 4]), 1).float())
