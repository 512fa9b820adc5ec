"""Members of fused models over a large taxonomy."""

from pathlib import Path

import pytest
import torch

from atlas_ray.artifacts import load_artifact
from atlas_ray.decoding.posterior import Posterior, spread
from atlas_ray.decoding.scope import Scope
from atlas_ray.decoding.searches import EXACT_NODE_BUDGET
from atlas_ray.models.encoder_decoder import DecoderStep
from atlas_ray.prediction.networks import build_single
from atlas_ray.taxonomy import Taxonomy
from tests.support.parts import make_artifact

SURE = 100
"""What makes an untrained model as sure as a trained one."""


@pytest.mark.long
def test_a_member_of_10000_leaves_keeps_to_the_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [(f"a{top}", f"b{middle}", f"c{leaf}") for top in range(20) for middle in range(25) for leaf in range(20)]
    taxonomy = Taxonomy(paths, name="large")
    make_artifact(str(tmp_path), taxonomy)
    artifact, cpu = load_artifact(str(tmp_path)), torch.device("cpu")
    with torch.no_grad():
        artifact.model.decoder.fc.weight.mul_(SURE)
    member = build_single(artifact, cpu, torch.float32)
    steps = []
    step = DecoderStep.__call__

    def counted(self: DecoderStep, tokens: torch.Tensor, *state: object) -> object:
        steps.append(tokens.shape[1])
        return step(self, tokens, *state)  # type: ignore[arg-type]

    monkeypatch.setattr(DecoderStep, "__call__", counted)
    encoded = torch.randn(3, 512, 1, 1)
    scopes = {search: Scope.of(taxonomy, artifact.vocabulary, cpu, search=search) for search in ("auto", "exact")}
    found = {}
    for search, most in (("auto", EXACT_NODE_BUDGET), ("exact", 521)):
        steps.clear()
        found[search] = member.log_posterior(encoded, scopes[search])
        assert found[search].shape == (3, 10_000)
        assert sum(steps) <= most
        torch.testing.assert_close(found[search].exp().sum(1), torch.ones(3), rtol=0, atol=1e-3)
    best = found["exact"].topk(5)
    torch.testing.assert_close(found["auto"].topk(5).values, best.values, rtol=0, atol=1e-2)
    assert found["auto"].topk(5).indices.equal(best.indices)
    assert scopes["auto"].search == "beam"


def test_what_is_not_found_shares_what_is_left() -> None:
    leaf = torch.tensor([[3, 0], [1, -1], [0, 1]])
    probability = torch.tensor([[0.5, 0.2], [0.7, 0.0], [0.75, 0.25]])
    found = spread(Posterior(leaf, probability, probability, torch.zeros(3)), 4).exp()
    wanted = torch.tensor([[0.2, 0.15, 0.15, 0.5], [0.1, 0.7, 0.1, 0.1], [0.75, 0.25, 0, 0]])
    torch.testing.assert_close(found, wanted)
