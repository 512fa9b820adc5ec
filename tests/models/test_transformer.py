"""The transformer in the place of the LSTM: the same steps, the same searches."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, gelu, scaled_dot_product_attention

from atlas_ray.artifacts import load_artifact, save_artifact
from atlas_ray.decoding.beam import beam_search
from atlas_ray.decoding.exact import exact_search
from atlas_ray.decoding.tree import TrieTensors
from atlas_ray.errors import ConfigError
from atlas_ray.modalities.products import Products
from atlas_ray.models.decoders.attention import Regions
from atlas_ray.models.decoders.decoder import EncoderDecoderConfig
from atlas_ray.models.decoders.transformer import TransformerDecoder
from atlas_ray.models.encoder_decoder import DecoderStep, EncoderDecoder
from atlas_ray.prediction.paths import PathPredictor, PredictorConfig
from atlas_ray.taxonomy import Taxonomy, Vocabulary, compile_trie
from atlas_ray.taxonomy.vocabulary import START
from tests.models.tiny import tiny_encoder  # noqa: F401

PATHS = [("A", "B"), ("A", "C"), ("B", "A", "C"), ("B", "A", "D"), ("D", "E"), ("C",)]
TAXONOMY = Taxonomy(PATHS, name="t")
VOCABULARY = Vocabulary.of(TAXONOMY)
TREE = TrieTensors(compile_trie(TAXONOMY, VOCABULARY))


def small(normalization: str = "vocabulary", heads: int = 2) -> EncoderDecoder:
    torch.manual_seed(0)
    config = EncoderDecoderConfig(
        vocabulary_size=len(VOCABULARY),
        backbone="resnet18",
        image_size_px=64,
        pooled_size=5,
        decoder="transformer",
        decoder_dim=16,
        layers=2,
        heads=heads,
        normalization=normalization,
    )
    model = EncoderDecoder(config).eval()
    with torch.no_grad():  # an untrained decoder tells prefixes and pictures hardly apart
        for name, factor in (("embedding", 50), ("position", 50), ("fc", 4)):
            model.decoder.get_parameter(f"{name}.weight").mul_(factor)
    return model


def pictures(count: int = 3) -> Tensor:
    torch.manual_seed(1)
    brightness = torch.linspace(40, 256, count)[:, None, None, None]
    return (torch.rand(count, 3, 64, 64) * brightness).to(torch.uint8)


def reference(model: EncoderDecoder, images: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
    """A causal transformer over whole sequences and all cells of the pooled grid: logits, attention maps."""
    decoder: Any = model.decoder
    heads = model.config.heads

    def split(x: Tensor) -> Tensor:
        parts: Tensor = x.unflatten(-1, (heads, -1))
        return parts.transpose(1, 2)  # (batch, heads, length, dim / heads)

    pooled = adaptive_avg_pool2d(model.encoder(images), 5).flatten(2).transpose(1, 2)  # (batch, 25, encoder_dim)
    picture = decoder.picture(pooled)
    x = decoder.embedding(given) + decoder.position.weight[: given.shape[1]] + picture.mean(1, keepdim=True)
    for layer, memory in zip(decoder.layers, decoder.memory, strict=True):
        query, key, value = (split(part) for part in layer.prefix_in(layer.prefix_norm(x)).chunk(3, -1))
        seen = scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + layer.prefix_out(seen.transpose(1, 2).flatten(2))
        query = split(layer.picture_in(layer.picture_norm(x)))
        key, value = (split(part) for part in memory(decoder.region_norm(picture)).chunk(2, -1))
        x = x + layer.picture_out(scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))
        x = x + layer.narrow(gelu(layer.widen(layer.forward_norm(x))))
    weights: Tensor = (
        (query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5).softmax(-1).mean(1)
    )  # (batch, length, 25)
    logits: Tensor = decoder.fc(decoder.norm(x))
    return logits, weights.unflatten(-1, (5, 5))


@pytest.mark.usefixtures("tiny_encoder")
def test_its_steps_are_those_of_a_causal_transformer() -> None:
    model = small()
    tokens = torch.tensor([[3, 4, 2, 0], [4, 3, 5, 2], [5, 2, 0, 0]])
    given = torch.cat([torch.full((3, 1), START), tokens[:, :-1]], 1)
    with torch.inference_mode():
        grid = model.encode(pictures())
        logits, maps = reference(model, pictures(), given)
        torch.testing.assert_close(model.spell(grid, tokens)[0], logits, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(model.attention_maps(grid, tokens), maps, atol=1e-4, rtol=1e-4)
    assert maps.std() > 1e-3  # it looks somewhere


@pytest.mark.usefixtures("tiny_encoder")
def test_teacher_forcing_and_steps_agree() -> None:
    model = small()
    assert isinstance(model.decoder, TransformerDecoder)
    tokens = torch.tensor([[3, 4, 2, 0], [4, 3, 5, 2], [5, 2, 0, 0]])
    with torch.inference_mode():
        grid = model.encode(pictures())
        logits, weights = model.spell(grid, tokens)
        assert logits.shape == (3, 4, len(VOCABULARY))
        step = DecoderStep(model, grid)
        state = step.start()
        given = torch.cat([torch.full((3, 1), START), tokens[:, :-1]], 1)
        for position in range(4):
            log_p, state = step(given[:, position : position + 1], state)
            torch.testing.assert_close(log_p[:, 0], logits[:, position].log_softmax(-1))
        # one token of a path does not see those after it
        torch.testing.assert_close(model.spell(grid, tokens[:, :2])[0], logits[:, :2])
    assert isinstance(model.decoder.regions, Regions)
    assert weights.shape == (3, 4, len(model.decoder.regions.count))


@pytest.mark.usefixtures("tiny_encoder")
def test_hypotheses_do_not_see_each_other() -> None:
    model = small()
    with torch.inference_mode():
        grid = model.encode(pictures(1))
        step = DecoderStep(model, grid)
        _, state = step(torch.tensor([[START]]), step.start())
        both = tuple(part.expand(-1, 2, *part.shape[2:]) for part in state)
        together, after = step(torch.tensor([[3, 4]]), both)
        again, _ = step(torch.tensor([[5, 5]]), after)
        for column, token in enumerate((3, 4)):
            alone, own = step(torch.tensor([[token]]), state)
            torch.testing.assert_close(together[:, column], alone[:, 0])
            torch.testing.assert_close(again[:, column], step(torch.tensor([[5]]), own)[0][:, 0])
    # the same last token after another prefix, and another picture, are told apart
    assert (again[:, 0] - again[:, 1]).abs().max() > 1e-3
    with torch.inference_mode():
        logits, _ = model(pictures(2), torch.tensor([[3, 4], [3, 4]]))
    assert (logits[0] - logits[1]).abs().max() > 1e-3


@pytest.mark.usefixtures("tiny_encoder")
def test_attention_sums_to_one() -> None:
    model = small()
    tokens = torch.tensor([[3, 4, 2], [4, 3, 5], [5, 2, 0]])
    with torch.inference_mode():
        grid = model.encode(pictures())
        _, weights = model.spell(grid, tokens)
        maps = model.attention_maps(grid, tokens)
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 3))
    assert maps.shape == (3, 3, 5, 5)
    torch.testing.assert_close(maps.sum((2, 3)), torch.ones(3, 3))
    # cells of one region share its weight evenly
    regions = model.decoder.regions
    assert isinstance(regions, Regions)
    for region, count in enumerate(regions.count.tolist()):
        cells = maps.flatten(2)[:, :, regions.region == region]
        assert cells.shape[2] == count
        torch.testing.assert_close(cells, (weights[:, :, region] / count)[:, :, None].expand_as(cells))


def brute_force(model: EncoderDecoder, images: Tensor) -> Tensor:
    """log p(leaf) of each leaf over the whole vocabulary, spelled one by one: (batch, leaves)."""
    columns = []
    for path in PATHS:
        tokens = torch.tensor([VOCABULARY.encode(path)]).expand(len(images), -1)
        log_p = model(images, tokens)[0].log_softmax(-1)
        columns.append(log_p.gather(2, tokens[:, :, None]).sum((1, 2)))
    return torch.stack(columns, 1)


@pytest.mark.usefixtures("tiny_encoder")
@pytest.mark.parametrize("normalization", ["vocabulary", "taxonomy"])
def test_the_searches_agree_over_a_transformer(normalization: str) -> None:
    model = small(normalization)
    with torch.inference_mode():
        step = DecoderStep(model, model.encode(pictures()))
        assert step.normalized_by_taxonomy is (normalization == "taxonomy")
        exact = exact_search(step, TREE, top_k=len(PATHS))
        wide = beam_search(step, TREE, width=len(TREE.token), top_k=len(PATHS))
        truth = brute_force(model, pictures())
    assert wide.leaf.equal(exact.leaf)
    torch.testing.assert_close(wide.probability, exact.probability, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(wide.outside, exact.outside, atol=1e-5, rtol=0)
    torch.testing.assert_close(exact.probability.sum(1), torch.ones(3))
    if normalization == "vocabulary":
        torch.testing.assert_close(exact.probability, truth.softmax(1).gather(1, exact.leaf), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(exact.outside, 1 - truth.exp().sum(1), atol=1e-5, rtol=0)
    else:
        torch.testing.assert_close(exact.outside, torch.zeros(3), atol=1e-5, rtol=0)
        assert (exact.probability - truth.softmax(1).gather(1, exact.leaf)).abs().max() > 1e-3


def test_heads_have_to_share_the_width() -> None:
    with pytest.raises(ConfigError, match="decoder_dim is 16; expected a multiple of the 3 heads"):
        small(heads=3)


@pytest.mark.long
@pytest.mark.parametrize("normalization", ["vocabulary", "taxonomy"])
def test_an_artifact_keeps_the_decoder(normalization: str, tmp_path: Path) -> None:
    model = small(normalization)
    save_artifact(str(tmp_path), model, vocabulary=VOCABULARY, taxonomy=TAXONOMY, metrics={})
    artifact = load_artifact(str(tmp_path))
    assert isinstance(artifact.model, EncoderDecoder)
    assert artifact.model.config == model.config
    assert (artifact.model.config.decoder, artifact.model.config.normalization) == ("transformer", normalization)
    assert isinstance(artifact.model.decoder, TransformerDecoder)
    tokens = torch.tensor([[3, 4, 2]])
    with torch.inference_mode():
        torch.testing.assert_close(artifact.model(pictures(1), tokens)[0], model(pictures(1), tokens)[0])
        wanted = exact_search(DecoderStep(model, model.encode(pictures())), TREE, top_k=1)
    predictor = PathPredictor(artifact, PredictorConfig(precision="float32", decode_threads=1))
    table, maps = predictor.explain(Products(pictures()))
    assert [tuple(path) for path in table["category_path"].to_pylist()] == [
        TREE.trie.leaves[leaf] for leaf in wanted.leaf[:, 0].tolist()
    ]
    torch.testing.assert_close(
        torch.tensor(table["probability"].to_pylist()), wanted.probability[:, 0], atol=1e-3, rtol=1e-3
    )
    assert maps.shape == (3, 3, 5, 5)
