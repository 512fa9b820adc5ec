"""What a policy learns from, packed and unpacked."""

import pytest
import torch

from atlas_ray.models.fusion.policy import FusionConfig
from atlas_ray.training.packing import KEPT, pack_outputs, packed_width, unpack_outputs


@pytest.mark.parametrize("policy", ["weighted", "early"])
@pytest.mark.parametrize("outputs", [3, KEPT, KEPT + 1, 10_000])
def test_a_row_does_not_grow_with_the_taxonomy(outputs: int, policy: str) -> None:
    torch.manual_seed(outputs)
    features = torch.rand(5, 9) if policy == "early" else None
    shape = FusionConfig(
        modalities="picture+title", outputs=outputs, policy=policy, features="4+5" if policy == "early" else ""
    )
    scores = (3 * torch.randn(5, 2, outputs)).log_softmax(-1)
    present = torch.rand(5, 2) < 0.5
    rows = pack_outputs(scores, present, features)
    assert rows.shape == (5, packed_width(shape))
    assert rows.shape[1] <= 2 * (2 * KEPT + 2) + 9
    found, kept_features, there = unpack_outputs(rows, shape)
    assert there.equal(present)
    assert kept_features.equal(torch.zeros(5, 0) if features is None else features)
    kept = min(outputs, KEPT)
    largest, position = scores.topk(kept, 2)
    assert found.gather(2, position).equal(largest)
    others = torch.ones_like(scores, dtype=torch.bool).scatter(2, position, False)
    for row in range(5):
        for model in range(2):
            rest = scores[row, model][others[row, model]]
            mean = rest.mean().expand(len(rest)) if len(rest) else rest
            torch.testing.assert_close(found[row, model][others[row, model]], mean, rtol=1e-4, atol=1e-4)
