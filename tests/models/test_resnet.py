import subprocess
import sys

import pytest
import torch
import torchvision
from torch import nn

from atlas_ray.models.backbones import BACKBONES
from atlas_ray.models.backbones.resnet import BLOCKS, layers

pytestmark = pytest.mark.long


@pytest.mark.parametrize("name", BLOCKS)
def test_a_network_is_torchvisions(name: str) -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.get_model(name, weights=None)
    ours = nn.Sequential(layers(name))
    state = {key: value for key, value in theirs.state_dict().items() if not key.startswith("fc.")}
    assert ours.state_dict().keys() == state.keys()
    for key, value in ours.state_dict().items():
        assert value.shape == state[key].shape
        if value.numel() > 10_000:  # drawn from the same distribution
            assert float(value.std()) == pytest.approx(float(state[key].std()), rel=0.05)
    ours.load_state_dict(state)
    theirs_cut = nn.Sequential(*list(theirs.children())[:-2])
    pictures = torch.randn(2, 3, 96, 64)
    for mode in (True, False):
        for network in (ours, theirs_cut):
            network.train(mode).zero_grad()
        found, wanted = ours(pictures), theirs_cut(pictures)
        assert found.shape == (2, BACKBONES[name].features, 3, 2)
        torch.testing.assert_close(found, wanted)
        found.sum().backward()
        wanted.sum().backward()
        gradients = {key: value.grad for key, value in ours.named_parameters()}
        for key, value in theirs.named_parameters():
            if not key.startswith("fc."):
                torch.testing.assert_close(gradients[key], value.grad)


def test_models_need_no_torchvision() -> None:
    code = """
import sys
from atlas_ray.artifacts import load_artifact
from atlas_ray.models.classifier import Classifier
print(sorted(name for name in sys.modules if name in ("torchvision", "torch._dynamo")))
"""
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"
