"""Checkpoints of the published layout, saved here by `torch.save`, against what they become."""

import io
import json
import os
import pickle
import random
import struct
import sys
import types
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from atlas_ray.artifacts import load_artifact, pickles
from atlas_ray.artifacts.atlas_checkpoint import RESNET_PARTS, _Networks, import_checkpoint
from atlas_ray.artifacts.pickles import MAGIC, PROTOCOL, read_pickled
from atlas_ray.errors import ArtifactError, StorageError
from atlas_ray.models.backbones import IMAGENET_MEAN, IMAGENET_STD
from atlas_ray.models.backbones.backbone import Backbone
from atlas_ray.taxonomy import Taxonomy, Vocabulary

SIZE_PX = 96
SAVED: dict[str, dict[str, Any]] = {
    "zip": {},
    "zip, protocol 4": {"pickle_protocol": 4},
    "legacy": {"_use_new_zipfile_serialization": False},
}


class Attention(nn.Module):
    def __init__(self, encoder_dim: int, decoder_dim: int, attention_dim: int) -> None:
        super().__init__()
        self.encoder_att = nn.Linear(encoder_dim, attention_dim)
        self.decoder_att = nn.Linear(decoder_dim, attention_dim)
        self.full_att = nn.Linear(attention_dim, 1)
        self.relu = nn.ReLU()
        self.softmax = nn.Softmax(dim=1)


class DecoderWithAttention(nn.Module):
    def __init__(self, attention_dim: int, embed_dim: int, decoder_dim: int, vocab_size: int) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.attention = Attention(512, decoder_dim, attention_dim)
        self.embedding = nn.Embedding(vocab_size, embed_dim)
        self.dropout = nn.Dropout(p=0.5)
        self.decode_step = nn.LSTMCell(embed_dim + 512, decoder_dim, bias=True)
        self.init_h = nn.Linear(512, decoder_dim)
        self.init_c = nn.Linear(512, decoder_dim)
        self.f_beta = nn.Linear(decoder_dim, 512)
        self.sigmoid = nn.Sigmoid()
        self.fc = nn.Linear(decoder_dim, vocab_size)


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enc_image_size = 14
        self.resnet = nn.Sequential(*list(torchvision.models.resnet18().children())[:-2])
        self.adaptive_pool = nn.AdaptiveAvgPool2d((14, 14))


for layout in (Attention, DecoderWithAttention, Encoder):
    layout.__module__ = "models"  # whence the published file takes them


@contextmanager
def models_there() -> Iterator[None]:
    """Have the module `models`, without which its classes can be neither pickled nor unpickled."""
    models = types.ModuleType("models")
    models.__file__ = __file__  # the older format stores the classes' source with them
    models.__dict__.update({layout.__name__: layout for layout in (Attention, DecoderWithAttention, Encoder)})
    sys.modules["models"] = models
    try:
        yield
    finally:
        del sys.modules["models"]


def original_logits(encoder: Encoder, decoder: DecoderWithAttention, picture: Tensor, given: list[int]) -> Tensor:
    """Run the network of the paper over one picture, (3, size, size) of 0 to 255; (steps, words)."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    normalized = ((picture / 255 - mean) / std)[None]
    cells = encoder.adaptive_pool(encoder.resnet(normalized)).permute(0, 2, 3, 1).flatten(1, 2)  # (1, 196, 512)
    hidden, memory = decoder.init_h(cells.mean(1)), decoder.init_c(cells.mean(1))
    attention, logits = decoder.attention, []
    for word in given:
        query = attention.decoder_att(hidden)[:, None]
        energy = attention.full_att((attention.encoder_att(cells) + query).relu()).squeeze(2)  # (1, 196)
        context = (cells * energy.softmax(1)[:, :, None]).sum(1)
        gated = decoder.f_beta(hidden).sigmoid() * context
        read = torch.cat([decoder.embedding(torch.tensor([word])), gated], dim=1)
        hidden, memory = decoder.decode_step(read, (hidden, memory))
        logits.append(decoder.fc(hidden)[0])
    return torch.stack(logits)


@dataclass
class Published:
    encoder: Encoder
    decoder: DecoderWithAttention
    words: dict[str, int]
    word_map: str
    files: dict[str, Path]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, garments: Taxonomy) -> Published:
    """The networks, not trained, saved in each format with an optimizer that has stepped."""
    folder = tmp_path_factory.mktemp("published")
    torch.manual_seed(5)
    names = [*{name: None for path in garments.nodes for name in path}, "a word of another catalogue", "<unk>"]
    random.Random(5).shuffle(names)
    words = {word: row for row, word in enumerate(["<pad>", *names, "<start>", "<end>"])}
    encoder, decoder = Encoder(), DecoderWithAttention(6, 8, 12, len(words))
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean, module.running_var = torch.randn_like(module.bias), torch.rand_like(module.bias) + 0.5
    optimizer = torch.optim.Adam(decoder.parameters(), lr=1e-3)
    sum(parameter.square().sum() for parameter in decoder.parameters()).backward()  # type: ignore[union-attr]
    optimizer.step()
    decoder.zero_grad()
    checkpoint = {
        "epoch": 3,
        "epochs_since_improvement": 0,
        "bleu-4": 0.5,
        "encoder": encoder.eval(),
        "decoder": decoder.eval(),
        "encoder_optimizer": None,
        "decoder_optimizer": optimizer,
    }
    files = {kind: folder / f"{kind}.pth.tar" for kind in SAVED}
    with models_there():
        for kind, options in SAVED.items():
            torch.save(checkpoint, files[kind], **options)
    assert zipfile.is_zipfile(files["zip"])
    assert b"def __init__(self, encoder_dim" in files["legacy"].read_bytes()
    word_map = folder / "WORDMAP_atlas.json"
    word_map.write_text(json.dumps(words))
    return Published(encoder, decoder, words, str(word_map), files)


@pytest.mark.long
@pytest.mark.parametrize("kind", SAVED)
def test_the_imported_model_gives_the_logits_of_the_published_one(
    published: Published, garments: Taxonomy, tmp_path: Path, kind: str
) -> None:
    source, output = str(published.files[kind]), str(tmp_path / "model")
    model_id = import_checkpoint(source, published.word_map, output, taxonomy=garments, image_size_px=SIZE_PX)
    artifact = load_artifact(output)
    assert artifact.id == model_id
    assert artifact.metrics == {"imported_from": source}
    vocabulary, config = artifact.vocabulary, artifact.model.config.to_dict()
    stated = ("backbone", "image_size_px", "pooled_size", "embedding_dim", "attention_dim", "decoder_dim")
    assert [config[name] for name in stated] == ["resnet18", SIZE_PX, 14, 8, 6, 12]
    assert len(vocabulary) == len(published.words) - 2
    picture = torch.randint(0, 256, (3, SIZE_PX, SIZE_PX), generator=torch.Generator().manual_seed(1)).float()
    rows = [published.words[token] for token in vocabulary.tokens]
    for path in garments.leaves[:2]:
        given = [published.words[name] for name in ("<start>", *path)]
        tokens = torch.tensor([[*vocabulary.encode(path), 2]])
        with torch.no_grad():
            theirs = original_logits(published.encoder, published.decoder, picture, given)  # (steps, words)
            ours = artifact.model(picture[None], tokens)[0][0]  # (steps, vocabulary)
        torch.testing.assert_close(ours, theirs[:, rows], rtol=1e-4, atol=1e-5)


@pytest.mark.long
def test_the_formats_give_one_model(published: Published, garments: Taxonomy, tmp_path: Path) -> None:
    ids = {
        import_checkpoint(str(file), published.word_map, str(tmp_path / kind), taxonomy=garments)
        for kind, file in published.files.items()
    }
    assert len(ids) == 1


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet101"])
def test_the_backbone_is_told_by_its_layers(name: str) -> None:
    with torch.device("meta"):
        tensors = {f"encoder.{key}": value for key, value in Backbone(name).state_dict().items()}
    assert _Networks("x", tensors, 14).backbone == name
    fewer = {key: value for key, value in tensors.items() if not key.startswith("encoder.layer3.1")}
    with pytest.raises(ArtifactError, match="blocks in layer3; expected one of resnet18"):
        assert _Networks("x", fewer, 14).backbone


def refused(file: str | Path, published: Published, taxonomy: Taxonomy, tmp_path: Path, word_map: str = "") -> str:
    """Import, see that it is refused and that nothing was written; return the message."""
    output = tmp_path / "refused"
    with pytest.raises(ArtifactError) as caught:
        import_checkpoint(str(file), word_map or published.word_map, str(output), taxonomy=taxonomy)
    assert not output.exists()
    message = str(caught.value)
    assert message.startswith((str(file), word_map or published.word_map))
    assert len(message.splitlines()) == 1
    return message


@pytest.mark.long
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda words: {k: v for k, v in words.items() if k != "<start>"},
            "it numbers 15 words, and the checkpoint has 16",
        ),
        (lambda words: {k + "!" * (k == "<start>"): v for k, v in words.items()}, "has no word for '<start>' (1 of"),
        (lambda words: {k: v + 1 for k, v in words.items()}, "does not fit the checkpoint"),
        (lambda words: dict.fromkeys(words, 0), "does not fit the checkpoint"),
        (lambda words: {k: str(v) for k, v in words.items()}, "not a word map; expected an object"),
        (lambda words: {k: v if v > 1 else bool(v) for k, v in words.items()}, "not a word map; expected an object"),
        (list, "not a word map; expected an object"),
    ],
)
def test_a_word_map_that_does_not_fit_is_refused(
    published: Published, garments: Taxonomy, tmp_path: Path, change: Callable[[Any], Any], reason: str
) -> None:
    changed = tmp_path / "changed.json"
    changed.write_text(json.dumps(change(published.words)))
    assert reason in refused(published.files["zip"], published, garments, tmp_path, str(changed))


@pytest.mark.long
@pytest.mark.parametrize("text", ["", "no JSON", "[" * 100_000, "\0"])
def test_a_word_map_that_is_no_json_is_refused(
    published: Published, garments: Taxonomy, tmp_path: Path, text: str
) -> None:
    changed = tmp_path / "changed.json"
    changed.write_text(text)
    assert "not a word map" in refused(published.files["zip"], published, garments, tmp_path, str(changed))


def test_all_missing_names_are_told(published: Published, tmp_path: Path) -> None:
    other = Taxonomy([("Pets", "Dogs"), ("Pets", "Fish")], name="other")
    message = refused(published.files["zip"], published, other, tmp_path)
    assert "has no word for 'Pets', 'Dogs', 'Fish' (3 of 6 tokens)" in message


@pytest.mark.long
def test_a_word_in_another_case_is_the_name_where_there_is_but_one(
    published: Published, garments: Taxonomy, tmp_path: Path
) -> None:
    name, other = garments.leaves[0][-1], "a word of another catalogue"
    expected = import_checkpoint(
        str(published.files["zip"]), published.word_map, str(tmp_path / "a"), taxonomy=garments
    )
    changed = tmp_path / "changed.json"

    def write(renamed: dict[str, str]) -> None:
        changed.write_text(json.dumps({renamed.get(word, word): row for word, row in published.words.items()}))

    for renamed in ({name: name.upper()}, {other: name.upper()}):  # beside the exact one, it does not count
        write(renamed)
        found = import_checkpoint(str(published.files["zip"]), str(changed), str(tmp_path / "b"), taxonomy=garments)
        assert found == expected
    write({name: name.upper(), other: name.lower()})
    assert f"no word for {name!r}" in refused(published.files["zip"], published, garments, tmp_path, str(changed))
    write({})
    twins = Taxonomy([("Men", "Shirts"), ("Men", "SHIRTS")], name="twins")
    write({garments.leaves[0][0]: "Men", name: "shirts"})
    assert "share one word" in refused(published.files["zip"], published, twins, tmp_path, str(changed))


def test_a_missing_file_is_told(published: Published, garments: Taxonomy, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no such file"):
        import_checkpoint(str(tmp_path / "x"), published.word_map, str(tmp_path / "m"), taxonomy=garments)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["zip", "legacy"])
@pytest.mark.parametrize("part", [0.0001, 0.5, 0.9, 1.0])
def test_a_file_cut_off_is_refused(
    published: Published, garments: Taxonomy, tmp_path: Path, kind: str, part: float
) -> None:
    whole = published.files[kind].read_bytes()
    cut = tmp_path / "cut.pth.tar"
    cut.write_bytes(whole[: int(len(whole) * part) - 1])
    assert "not a whole file of torch.save" in refused(cut, published, garments, tmp_path)


def test_a_changed_byte_in_an_archive_is_seen(published: Published, garments: Taxonomy, tmp_path: Path) -> None:
    data = bytearray(published.files["zip"].read_bytes())
    data[len(data) // 2] ^= 1
    changed = tmp_path / "changed.pth.tar"
    changed.write_bytes(data)
    assert "damaged" in refused(changed, published, garments, tmp_path)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK\3\4",
        b"a text\n",
        b"{}",
        b"\x89PNG\r\n\x1a\n" + bytes(1000),
        b"\x1f\x8b" + bytes(1000),
        pickle.dumps({"encoder": 1}),
        pickle.dumps(MAGIC) + pickle.dumps(PROTOCOL) + pickle.dumps([]) + pickle.dumps({}),
        bytes(5000),
    ],
)
def test_a_file_of_another_kind_is_refused(
    published: Published, garments: Taxonomy, tmp_path: Path, data: bytes
) -> None:
    file = tmp_path / "x.pth.tar"
    file.write_bytes(data)
    assert "not a whole file of torch.save" in refused(file, published, garments, tmp_path)


@pytest.mark.parametrize("kind", SAVED)
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([1], "no dict of names where one belongs"),
        ({}, "'encoder' is no module"),
        ({"encoder": torch.zeros(3), "decoder": nn.ReLU()}, "no dict of names where one belongs"),
        ({"encoder": nn.ReLU(), "decoder": nn.ReLU()}, "encoder.adaptive_pool gives no square grid"),
        (nn.Linear(2, 2).state_dict(), "'encoder' is no module"),
    ],
)
def test_another_layout_is_refused(
    published: Published, garments: Taxonomy, tmp_path: Path, kind: str, content: Any, reason: str
) -> None:
    file = tmp_path / "x.pth.tar"
    torch.save(content, file, **SAVED[kind])
    assert reason in refused(file, published, garments, tmp_path)


def save_networks(published: Published, change: Callable[[Any, Any], None], file: Path) -> None:
    """Save the published networks with a change."""
    modules: dict[str, Any] = {}
    for name, network in (("encoder", published.encoder), ("decoder", published.decoder)):
        modules[name] = nn.Module()
        modules[name].__dict__.update(network.__dict__)
        modules[name].__dict__["_modules"] = OrderedDict(network._modules)  # as PyTorch before 2.0
    change(modules["encoder"], modules["decoder"])
    with models_there():
        torch.save(modules, file)


def same(encoder: Any, decoder: Any) -> None: ...
def no_gate(encoder: Any, decoder: Any) -> None:
    del decoder.f_beta


def one_more(encoder: Any, decoder: Any) -> None:
    decoder.extra = nn.Linear(1, 1)


def whole_numbers(encoder: Any, decoder: Any) -> None:
    decoder.init_h = nn.Module()
    decoder.init_h.register_buffer("weight", torch.zeros(12, 512, dtype=torch.int64))
    decoder.init_h.register_buffer("bias", torch.zeros(12))


def other_shape(encoder: Any, decoder: Any) -> None:
    decoder.init_h = nn.Linear(512, 13)


def fewer_words_out(encoder: Any, decoder: Any) -> None:
    decoder.fc = nn.Linear(12, 3)


def oblong(encoder: Any, decoder: Any) -> None:
    encoder.adaptive_pool = nn.AdaptiveAvgPool2d((14, 7))


def no_matrix(encoder: Any, decoder: Any) -> None:
    decoder.embedding = nn.BatchNorm1d(3)


def in_itself(encoder: Any, decoder: Any) -> None:
    decoder._modules["again"] = decoder


def bfloat16(encoder: Any, decoder: Any) -> None:
    decoder.init_h = nn.Linear(512, 12, dtype=torch.bfloat16)


def no_numbers(encoder: Any, decoder: Any) -> None:
    decoder.fc = nn.Linear(12, len(decoder.fc.bias))
    with torch.no_grad():
        decoder.fc.weight[2, 5] = float("nan")


def too_large_for_single(encoder: Any, decoder: Any) -> None:
    decoder.init_h = nn.Linear(512, 12, dtype=torch.float64)
    with torch.no_grad():
        decoder.init_h.bias[0] = 1e300


def too_wide(encoder: Any, decoder: Any) -> None:
    decoder.embedding = nn.Embedding(len(decoder.fc.bias), 8193)


def of_double_and_half(encoder: Any, decoder: Any) -> None:
    decoder.init_h = nn.Linear(512, 12, dtype=torch.float64)
    decoder.f_beta = nn.Linear(12, 512, dtype=torch.float16)


def without_counters(encoder: Any, decoder: Any) -> None:
    norm = nn.BatchNorm2d(64)
    del norm._buffers["num_batches_tracked"]
    encoder.resnet = nn.Sequential(encoder.resnet[0], norm, *list(encoder.resnet)[2:])


@pytest.mark.long
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (no_gate, "decoder.f_beta.weight is missing"),
        (one_more, "it also holds 'decoder.extra.bias', 'decoder.extra.weight'"),
        (whole_numbers, "decoder.init_h.weight is (12, 512) of torch.int64; expected (12, 512)"),
        (other_shape, "decoder.init_h.weight is (13, 512) of torch.float32; expected (12, 512)"),
        (fewer_words_out, "decoder.fc.weight is (3, 12)"),
        (oblong, "encoder.adaptive_pool gives no square grid"),
        (no_matrix, "decoder.embedding.weight is missing or no matrix"),
        (in_itself, "is no module"),
        (bfloat16, "a storage of another dtype"),
        (no_numbers, "weights of decoder.fc.weight are NaN or infinite"),
        (too_large_for_single, "1 of the 12 weights of decoder.init_h.bias are NaN or infinite"),
        (too_wide, "embedding_dim is 8193; expected 1 to 8192"),
    ],
)
def test_other_networks_are_refused(
    published: Published, garments: Taxonomy, tmp_path: Path, change: Callable[[Any, Any], None], reason: str
) -> None:
    file = tmp_path / "x.pth.tar"
    save_networks(published, change, file)
    assert reason in refused(file, published, garments, tmp_path)


@pytest.mark.long
def test_other_precisions_and_files_before_batch_counters_are_read(
    published: Published, garments: Taxonomy, tmp_path: Path
) -> None:
    file = tmp_path / "x.pth.tar"
    for change in (same, of_double_and_half, without_counters):
        save_networks(published, change, file)
        import_checkpoint(str(file), published.word_map, str(tmp_path / "m"), taxonomy=garments)
        state = load_artifact(str(tmp_path / "m")).model.state_dict()
        assert all(tensor.dtype in (torch.float32, torch.int64) for tensor in state.values())


class Weapon:
    """Runs a shell command when it is unpickled as usual."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


class Rebuilt:
    """Pickles as a call of anything, with a state."""

    def __init__(self, *reduced: Any) -> None:
        self.reduced = reduced

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced


@pytest.mark.long
@pytest.mark.parametrize("kind", SAVED)
@pytest.mark.parametrize("place", ["instead", "encoder", "parameter", "key", "first pickle", "state", "eval"])
def test_no_code_of_a_file_runs(
    published: Published, garments: Taxonomy, tmp_path: Path, kind: str, place: str
) -> None:
    marker, file = tmp_path / "marker", tmp_path / "x.pth.tar"
    weapon: Any = Weapon(f"touch {marker}")
    if place == "eval":
        weapon = Rebuilt(eval, (f"open({str(marker)!r}, 'w')",))
    elif place == "state":
        weapon = Rebuilt(OrderedDict, (), weapon)
    pickle.loads(pickle.dumps(weapon)) if place != "state" else pickle.loads(pickle.dumps(weapon.reduced[2]))
    assert marker.exists()  # so the weapon is a real one
    marker.unlink()
    content: Any = {"encoder": published.encoder.adaptive_pool, "decoder": nn.ReLU(), "epoch": weapon}
    if place == "instead":
        content = weapon
    elif place == "encoder":
        content["encoder"] = weapon
    elif place == "parameter":
        content["decoder"] = nn.ReLU()
        content["decoder"].__dict__["_parameters"] = {"weight": weapon}
    elif place == "key":
        content = {weapon: 1}
    torch.save(content, file, **SAVED[kind])
    if place == "first pickle":
        file.write_bytes(pickle.dumps(weapon, protocol=2) + file.read_bytes())
    refused(file, published, garments, tmp_path)
    assert not marker.exists()


class Declared:
    """A storage, as a pickle declares it."""

    def __init__(self, *reference: Any) -> None:
        self.reference = reference

    def __repr__(self) -> str:
        return f"{self.reference}"  # names the tests: their names must not change from run to run


def write_file(path: Path, content: Any, numbers: dict[str, bytes], zipped: bool) -> Path:
    """Write a file as `torch.save` does, of any declared storages; `numbers` are those of each key."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            return value.reference if isinstance(value, Declared) else None

    stream = io.BytesIO()
    if zipped:
        Pickler(stream, 2).dump(content)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x/data.pkl", stream.getvalue())
            for key, data in numbers.items():
                archive.writestr(f"x/data/{key}", data)
        return path
    for value in (MAGIC, PROTOCOL, {"little_endian": True}):
        pickle.dump(value, stream, 2)
    Pickler(stream, 2).dump(content)
    pickle.dump(list(numbers), stream, 2)
    for data in numbers.values():
        stream.write(struct.pack("<q", len(data) // 4) + data)
    path.write_bytes(stream.getvalue())
    return path


def module(**parameters: Any) -> types.SimpleNamespace:
    return types.SimpleNamespace(_parameters=parameters, _buffers=OrderedDict(), _modules=OrderedDict())


def tensor(place: Any, offset: Any, size: Any, stride: Any) -> Rebuilt:
    return Rebuilt(torch._utils._rebuild_tensor_v2, (place, offset, size, stride, False, OrderedDict()))


NUMBERS = {"0": struct.pack("<6f", *range(6))}
STORED = Declared("storage", torch.FloatStorage, "0", "cuda:0", 6)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_tensor_is_the_view_that_it_says(tmp_path: Path, zipped: bool) -> None:
    content = [tensor(STORED, 1, (2, 2), (1, 3)), tensor(STORED, 4, (), ()), tensor(STORED, 0, (6,), (1,))]
    content.append(Rebuilt(torch._utils._rebuild_parameter, (content[0], True, OrderedDict())))
    file = read_pickled(str(write_file(tmp_path / "x", content, NUMBERS, zipped)))
    found = [file.tensor(record).tolist() for record in file.root]
    assert found == [[[1.0, 4.0], [2.0, 5.0]], 4.0, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0], [[1.0, 4.0], [2.0, 5.0]]]


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "view",
    [
        (STORED, 0, (7,), (1,)),
        (STORED, 1, (6,), (1,)),
        (STORED, -1, (2,), (1,)),
        (STORED, 5, (2,), (-1,)),
        (STORED, 0, (2, 3), (4, 1)),
        (STORED, 0, (1 << 20, 1 << 20), (0, 0)),
        (STORED, 0, (1 << 62, 1 << 62), (0, 0)),
        (STORED, 1 << 62, (1,), (1,)),
        (STORED, 0, (1,), (1 << 70,)),
        (STORED, 0, (1 << 70, 0), (1, 1)),
        (STORED, 0, (0,), (1,)),
        (STORED, 0, (2, 3), (1,)),
        (STORED, 0, (1,) * 100, (1,) * 100),
        (STORED, 0, [2], [1]),
        (STORED, 0, ("2",), (1,)),
        (STORED, 0, (True,), (1,)),
        (STORED, 0.0, (2,), (1,)),
        (STORED, None, (2,), (1,)),
        ("storage", 0, (2,), (1,)),
        (b"raw", 0, (2,), (1,)),
        (Declared("storage", torch.FloatStorage, "0", "cpu", 7), 0, (2,), (1,)),
        (Declared("storage", torch.DoubleStorage, "0", "cpu", 6), 0, (2,), (1,)),
        (Declared("storage", torch.FloatStorage, "0", "cpu", 1 << 30), 0, (2,), (1,)),
        (Declared("storage", torch.FloatStorage, "0", "cpu", 1 << 62), 0, (2,), (1,)),
        (Declared("storage", torch.FloatStorage, "0", "cpu", -6), 0, (2,), (1,)),
        (Declared("storage", torch.FloatStorage, "0", "cpu", "6"), 0, (2,), (1,)),
        (Declared("storage", torch.FloatStorage, 0, "cpu", 6), 0, (2,), (1,)),
        (Declared("storage", torch.FloatStorage, "1", "cpu", 6), 0, (2,), (1,)),
        (Declared("storage", torch.FloatStorage, "../data.pkl", "cpu", 6), 0, (2,), (1,)),
        (Declared("storage", torch.BoolStorage, "0", "cpu", 24), 0, (2,), (1,)),
        (Declared("storage", os.system, "0", "cpu", 6), 0, (2,), (1,)),
        (Declared("storage", "torch.FloatStorage", "0", "cpu", 6), 0, (2,), (1,)),
        (Declared("storage", torch.FloatStorage, "0", "cpu", 6, ("1", 3, 3)), 0, (2,), (1,)),
        (Declared("storage", torch.FloatStorage), 0, (2,), (1,)),
        (Declared("module"), 0, (2,), (1,)),
        (Declared("something"), 0, (2,), (1,)),
        (Declared(), 0, (2,), (1,)),
    ],
    ids=str,
)
def test_a_tensor_outside_its_storage_is_refused(
    published: Published, garments: Taxonomy, tmp_path: Path, view: tuple[Any, ...], zipped: bool
) -> None:
    content = {"encoder": module(weight=tensor(*view)), "decoder": module()}
    refused(write_file(tmp_path / "x", content, NUMBERS, zipped), published, garments, tmp_path)


@pytest.mark.long
def test_no_deep_value_is_compared_or_shown(published: Published, garments: Taxonomy, tmp_path: Path) -> None:
    """Either would end in a RecursionError."""
    deep = b"\x80\4" + b"]" * 50_000 + b"a" * 49_999
    twice = b"(" + deep[2:] + deep[2:] + b"t"  # output_size
    pool = b"ctypes\nSimpleNamespace\n)R}(X\x0b\0\0\0_parameters}X\x08\0\0\0_buffers}X\x08\0\0\0_modules}"
    encoder = pool + b"X\x0d\0\0\0adaptive_pool" + pool + b"X\x0b\0\0\0output_size" + twice + b"ubsub"
    decoder = pool + b"ub"
    content = b"\x80\4}(X\7\0\0\0encoder" + encoder + b"X\7\0\0\0decoder" + decoder + b"u."
    file = tmp_path / "x"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x/data.pkl", content)
    assert "encoder.adaptive_pool gives no square grid" in refused(file, published, garments, tmp_path)
    head = b"".join(pickle.dumps(value, 2) for value in (MAGIC, PROTOCOL, {"little_endian": True}, {}))
    file.write_bytes(head + b"\x80\4](" + b"(" * 50_000 + b"\x91" * 50_000 + b"e." + bytes(100))
    assert "for a storage that it does not declare" in refused(file, published, garments, tmp_path)


def test_a_storage_declared_twice_is_refused(published: Published, garments: Taxonomy, tmp_path: Path) -> None:
    other = Declared("storage", torch.FloatStorage, "0", "cpu", 5)
    file = write_file(tmp_path / "x", [STORED, other], NUMBERS, zipped=True)
    assert "twice, differently" in refused(file, published, garments, tmp_path)


def test_numbers_of_the_other_byte_order_are_refused(published: Published, garments: Taxonomy, tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(b"".join(pickle.dumps(value, 2) for value in (MAGIC, PROTOCOL, {"little_endian": False})))
    assert "its numbers are big-endian" in refused(file, published, garments, tmp_path)
    write_file(file, {}, {}, zipped=True)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("x/byteorder", b"big")
    assert "its numbers are big-endian" in refused(file, published, garments, tmp_path)


def test_a_file_above_the_limit_is_refused(
    published: Published, garments: Taxonomy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pickles, "MAX_BYTES", 1_000_000)
    assert "larger than the 1,000,000 bytes" in refused(published.files["zip"], published, garments, tmp_path)


def test_an_archive_that_grows_is_refused(published: Published, garments: Taxonomy, tmp_path: Path) -> None:
    file = tmp_path / "bomb.pth.tar"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", bytes(100_000_000))
    assert "the archive is compressed" in refused(file, published, garments, tmp_path)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", random.Random(0).randbytes(100))
    assert "'data.pkl' in the archive is compressed" in refused(file, published, garments, tmp_path)


GLOBAL = b"cbuiltins\nlist\nq\0"
HOSTILE = {
    "a deep tuple as a key": b"}" + b")" + b"\x85" * 500_000 + b"Ns.",
    "a wide tuple as a key": b"})" + b"2\x86" * 64 + b"Ns.",
    "a wide tuple by memo as a key": b"})q\1" + b"0h\1h\1\x86q\1" * 64 + b"Ns.",
    "a wide tuple in a frozen set": b"\x80\4()" + b"2\x86" * 64 + b"\x91.",
    "a large memo index": b"Nr\xff\xff\xff\xff.",
    "a large memo index in text": b"Np4294967295\n.",
    "more bytes than there are": b"\x80\5\x96" + (1 << 40).to_bytes(8, "little") + b".",
    "a longer frame than there is": b"\x80\4\x95" + (1 << 40).to_bytes(8, "little") + b"N.",
    "an extension": b"\x82\1.",
    "an empty stack": b"\x85.",
    "no mark": b"Nt.",
    "a number without end": b"I" + b"9" * 100_000 + b"\n.",
    "an object of no class": b"N)\x81.",
    "a call of nothing": b"N)R.",
    "a state for a class": GLOBAL + b"}b.",
    "items for a class": GLOBAL + b"NNs.",
    "a name for a number": b"K\1K\2\x93.",
    "a reference in text": b"Pabc\n.",
    "too many instructions": b"N0" * 260_000 + b"N.",
    "a list as a key": b"}]Ns.",
    "a record in a record": GLOBAL + b"N" + b"q\1" + b"0h\0h\1\x85Rq\1" * 80_000 + b".",
    "a list in a list": b"]" + b"q\1]h\1aq\1" * 90_000 + b".",
}


@pytest.mark.long
@pytest.mark.parametrize("name", HOSTILE)
def test_a_pickle_that_would_hurt_the_reader_is_refused(
    published: Published, garments: Taxonomy, tmp_path: Path, name: str
) -> None:
    file = tmp_path / "x.pth.tar"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x/data.pkl", HOSTILE[name])
    refused(file, published, garments, tmp_path)
    file.write_bytes(HOSTILE[name])
    refused(file, published, garments, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("zipped", [True, False])
def test_any_damage_is_an_error_of_the_user(
    published: Published, garments: Taxonomy, tmp_path: Path, zipped: bool
) -> None:
    content = {"encoder": module(weight=tensor(STORED, 1, (2, 2), (1, 2))), "decoder": module(), "epoch": [1.5, {}]}
    whole = write_file(tmp_path / "whole", content, NUMBERS, zipped).read_bytes()
    chance = random.Random(7)
    for _ in range(1500):
        data = bytearray(whole)
        for _ in range(chance.choice((1, 1, 2, 8))):
            data[chance.randrange(len(data))] = chance.randrange(256)
        damaged = tmp_path / "damaged"
        damaged.write_bytes(data)
        refused(damaged, published, garments, tmp_path)


def test_the_parts_of_the_resnet_stand_in_torchvisions_order() -> None:
    names = [name for name, _ in torchvision.models.resnet18().named_children()]
    assert tuple(names[:-2]) == RESNET_PARTS


def test_the_vocabulary_starts_as_the_checkpoint_does_not(published: Published, garments: Taxonomy) -> None:
    """Else the test of the logits would not see rows that were left where they are."""
    rows = [published.words[token] for token in Vocabulary.of(garments).tokens]
    assert rows != sorted(rows)
