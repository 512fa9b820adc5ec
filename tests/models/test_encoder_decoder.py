from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torchvision
from torch.nn.functional import adaptive_avg_pool2d

from atlas_ray.errors import ArtifactError, ConfigError
from atlas_ray.models.backbones.backbone import Backbone, fuse_batch_norm
from atlas_ray.models.decoders.attention import Attention, Regions
from atlas_ray.models.decoders.decoder import EncoderDecoderConfig
from atlas_ray.models.encoder_decoder import DecoderStep, EncoderDecoder
from atlas_ray.models.weights import load_backbone_weights


def small(backbone: str = "resnet18", size: int = 64, lstm_layers: int = 1) -> EncoderDecoder:
    torch.manual_seed(0)
    config = EncoderDecoderConfig(
        vocabulary_size=12,
        backbone=backbone,
        image_size_px=size,
        embedding_dim=8,
        attention_dim=24,
        decoder_dim=16,
        lstm_layers=lstm_layers,
    )
    return EncoderDecoder(config).eval()


@pytest.mark.parametrize(("side", "regions"), [(5, 81), (7, 49), (2, 4), (14, 196)])
def test_attention_equals_the_papers_pooled_grid(side: int, regions: int) -> None:
    torch.manual_seed(1)
    seen = Regions(side, 14)
    attention = Attention(encoder_dim=6, decoder_dim=5, attention_dim=7, regions=seen)
    assert len(seen.count) == regions
    features, hidden = torch.randn(3, 6, side, side), torch.randn(3, 2, 5)
    grid = attention.grid(features)
    context, weights = attention(grid, hidden)
    # the paper's way: pool to 14 x 14 first, then attend over all 196 cells
    pooled = adaptive_avg_pool2d(features, 14).flatten(2).transpose(1, 2)  # (batch, 196, encoder)
    joined = attention.encoder_att(pooled)[:, None] + attention.decoder_att(hidden)[:, :, None]
    alpha = attention.full_att(joined.relu()).squeeze(-1).softmax(-1)  # (batch, hypotheses, 196)
    torch.testing.assert_close(attention.regions.maps(weights).flatten(2), alpha)
    torch.testing.assert_close(context, alpha @ pooled)
    torch.testing.assert_close(grid.mean, pooled.mean(1))


@pytest.mark.long
@pytest.mark.parametrize("lstm_layers", [1, 3])
def test_teacher_forcing_and_steps_agree(lstm_layers: int) -> None:
    model = small(lstm_layers=lstm_layers)
    pictures = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    tokens = torch.tensor([[3, 4, 2], [5, 6, 7]])
    with torch.inference_mode():
        logits, weights = model(pictures, tokens)
        assert logits.shape == (2, 3, 12)
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3))
        step = DecoderStep(model, model.encode(pictures))
        state = step.start()
        for position, given in enumerate([[1, 1], [3, 5], [4, 6]]):
            log_p, state = step(torch.tensor(given)[:, None], state)
            torch.testing.assert_close(log_p[:, 0], logits[:, position].log_softmax(-1))
        maps = model.attention_maps(model.encode(pictures), tokens)
    assert maps.shape == (2, 3, 14, 14)
    torch.testing.assert_close(maps.sum((-1, -2)), torch.ones(2, 3))


def test_a_stacked_lstm_is_that_of_torch() -> None:
    decoder: Any = small(lstm_layers=2).decoder
    features, tokens = torch.randn(2, 512, 2, 2), torch.tensor([[1, 3], [4, 2]])
    whole = torch.nn.LSTM(decoder.decode_step.input_size, 16, num_layers=2, batch_first=True)
    for layer, cell in enumerate((decoder.decode_step, *decoder.stacked)):
        for name, values in cell.named_parameters():
            getattr(whole, f"{name}_l{layer}").data.copy_(values)
    with torch.inference_mode():
        grid = decoder.grid(features)
        state = decoder.start(grid)
        hidden, memory = ((tensor[:, 0].unflatten(1, (2, 16)).transpose(0, 1).contiguous()) for tensor in state)
        for position in range(2):
            top = hidden[-1][:, None]
            context, _ = decoder.attention(grid, top)
            gated = torch.sigmoid(decoder.f_beta(top)) * context
            read = torch.cat([decoder.embedding(tokens[:, position, None]), gated], -1)
            out, (hidden, memory) = whole(read, (hidden, memory))
            logits, state, _ = decoder.step(tokens[:, position, None], state, grid)
            torch.testing.assert_close(logits, decoder.fc(out))


@pytest.mark.long
@pytest.mark.parametrize("backbone", ["resnet18", "resnet34", "resnet50", "resnet101"])
def test_every_backbone_runs_in_bfloat16_and_stays_close(backbone: str) -> None:
    model = small(backbone)
    pictures = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    tokens = torch.tensor([[3, 4], [5, 6]])
    with torch.inference_mode():
        wanted = model(pictures, tokens)[0]
        got = model.to(torch.bfloat16).to(memory_format=torch.channels_last)(pictures, tokens)[0]
    assert got.dtype == torch.bfloat16
    assert (got.float().softmax(-1) - wanted.softmax(-1)).abs().max() < 0.05


@pytest.mark.long
def test_fused_normalization_changes_nothing() -> None:
    model = small("resnet50")
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    pictures = torch.randint(0, 256, (2, 3, 64, 64)).float()
    with torch.inference_mode():
        wanted = model.encoder(pictures)
    fuse_batch_norm(model.encoder)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in model.encoder.modules())
    with torch.inference_mode():
        torch.testing.assert_close(model.encoder(pictures), wanted, atol=1e-3, rtol=1e-3)


@pytest.mark.long
def test_backbone_weights_from_files(tmp_path: Path) -> None:
    state = torchvision.models.resnet18(weights=None).state_dict()
    safe, pth = str(tmp_path / "w.safetensors"), str(tmp_path / "w.pth")
    safetensors.torch.save_file(state, safe)
    torch.save(state, pth)
    for path in (safe, pth):
        backbone = Backbone("resnet18")
        load_backbone_weights(backbone, path)
        torch.testing.assert_close(backbone.state_dict()["layer4.1.conv2.weight"], state["layer4.1.conv2.weight"])
    with pytest.raises(ArtifactError, match="not the weights of a resnet34"):
        load_backbone_weights(Backbone("resnet34"), safe)


def test_a_pickle_is_not_executed(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (open, (str(tmp_path / "owned"), "w"))  # type: ignore[return-value]

    path = tmp_path / "evil.pth"
    torch.save({"conv1.weight": Evil()}, path)
    with pytest.raises(ArtifactError, match="not a state dict"):
        load_backbone_weights(Backbone("resnet18"), str(path))
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"backbone": "vgg"}, "backbone is 'vgg'; expected one of"),
        ({"image_size_px": 16}, "image_size_px is 16; expected 32 to"),
        ({"vocabulary_size": 2}, "vocabulary_size is 2"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"decoder_dim": 0}, "decoder_dim is 0"),
    ],
)
def test_impossible_shapes_are_refused(change: dict[str, object], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        EncoderDecoderConfig(**{"vocabulary_size": 10, **change})  # type: ignore[arg-type]
