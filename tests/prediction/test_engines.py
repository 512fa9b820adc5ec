"""Compiled encoders: what an engine writes into an artifact and reads from it, and what it refuses."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from atlas_ray.artifacts import add_compiled, copy_artifact, load_artifact
from atlas_ray.artifacts.compiled import Files
from atlas_ray.errors import ArtifactError, ConfigError
from atlas_ray.models.backbones.backbone import fuse_batch_norm
from atlas_ray.models.encoder import EncoderConfig, EncoderNetwork
from atlas_ray.prediction.engines import ENGINES, choose_engine, run_encoder
from atlas_ray.prediction.engines.inductor import cache_folder
from atlas_ray.prediction.engines.openvino import load
from atlas_ray.prediction.paths import PathPredictor, PredictorConfig
from atlas_ray.taxonomy import Taxonomy
from tests.support.parts import make_fused, picture

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("one_thread")]

CPU = torch.device("cpu")
INT8 = "openvino-int8"
CONTENTS = [picture(number) for number in range(6)]


def encoder_of(uri: str) -> torch.nn.Module:
    encoder: torch.nn.Module = load_artifact(uri).model.encoder
    fuse_batch_norm(encoder)  # type: ignore[arg-type]
    return encoder.requires_grad_(False)


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8)


@pytest.fixture(scope="module")
def forms(small_model: str, pixels: torch.Tensor) -> dict[str, Files]:
    """The files of the small model's encoder for each engine that has a form."""
    encoder = encoder_of(small_model)
    return {name: engine.form.make(encoder, pixels, ()) for name, engine in ENGINES.items() if engine.form}


@pytest.fixture(scope="module")
def optimized(small_model: str, forms: dict[str, Files], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The small model with all of them."""
    uri = str(tmp_path_factory.mktemp("optimized"))
    copy_artifact(small_model, uri)
    for name, files in forms.items():
        add_compiled(uri, "", name, files, {"agreement": 1.0})
    return uri


def answers(uri: str, engine: str) -> list[list[str]]:
    table, refused = PathPredictor(load_artifact(uri), PredictorConfig(engine=engine, precision="float32"))(CONTENTS)
    assert refused == {}
    found: list[list[str]] = table["category_path"].to_pylist()
    return found


def test_every_engine_gives_the_features_of_torch(small_model: str, optimized: str, pixels: torch.Tensor) -> None:
    encoder, compiled = encoder_of(small_model), load_artifact(optimized).compiled
    assert compiled.keys() == {"openvino", INT8}
    with torch.inference_mode():
        wanted = encoder(pixels)
        for name, off in (("openvino", 1e-4), (INT8, 0.1)):
            run = run_encoder(name, encoder, 32, compiled)
            for count in (6, 1, 3):  # of any batch
                found = run(pixels[:count])
                assert found.shape == wanted[:count].shape
                assert (found - wanted[:count]).norm() < off * wanted[:count].norm()


@pytest.mark.parametrize("backbone", ["efficientnet_lite0", "timm/test_vit", "timm/test_convnext", "timm/test_resnet"])
def test_every_kind_of_backbone_is_converted(backbone: str, pixels: torch.Tensor) -> None:
    torch.manual_seed(0)
    encoder = fuse_batch_norm(EncoderNetwork(EncoderConfig(backbone=backbone, image_size_px=64)).encoder)
    encoder.eval().requires_grad_(False)
    pictures = torch.nn.functional.interpolate(pixels, (64, 64))
    form = ENGINES["openvino"].form
    assert form is not None
    run = form.load(form.make(encoder, pictures, ()), encoder, 64)
    wanted = encoder(pictures)
    assert (run(pictures) - wanted).norm() < 5e-3 * wanted.norm()  # GELU is approximated


def test_auto_takes_the_fastest_that_there_is(
    optimized: str, small_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = load_artifact(optimized).compiled
    assert choose_engine("auto", CPU, compiled) == INT8
    assert (
        choose_engine("auto", CPU, {"openvino": compiled["openvino"], "of-another-version": compiled[INT8]})
        == "openvino"
    )
    assert choose_engine("auto", CPU, load_artifact(small_model).compiled) == "torch"
    assert choose_engine("auto", torch.device("cuda"), compiled) == "torch"
    with pytest.raises(ConfigError, match="engine 'openvino' runs on a cpu, and the model is to run on cuda"):
        choose_engine("openvino", torch.device("cuda"), compiled)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert choose_engine("auto", CPU, compiled) == "torch"


def test_a_model_that_holds_no_form_is_told_what_to_do(small_model: str) -> None:
    with pytest.raises(ConfigError, match="atlas-ray optimize"):
        answers(small_model, INT8)


def test_a_compiled_encoder_belongs_to_the_id(small_model: str, optimized: str, tmp_path: Path) -> None:
    before, after = load_artifact(small_model), load_artifact(optimized)
    assert before.id != after.id
    copy = str(tmp_path / "copy")
    assert copy_artifact(optimized, copy) == after.id
    assert answers(copy, "auto") == answers(optimized, INT8)
    (tmp_path / "copy" / f"encoder-{INT8}.bin").write_bytes(b"other")
    with pytest.raises(ArtifactError, match=r"encoder-openvino-int8\.bin is damaged: its sha256"):
        answers(copy, "auto")
    assert answers(copy, "torch") == answers(small_model, "torch")  # the other engines need it not
    document = json.loads((tmp_path / "copy" / "model.json").read_text())
    document["compiled"] = {"../weights": {"files": {"xml": "0"}}}
    (tmp_path / "copy" / "model.json").write_text(json.dumps(document))
    with pytest.raises(ArtifactError, match=r"model\.json (is damaged|was changed)"):
        load_artifact(copy)


def test_a_member_of_a_fused_model_keeps_its_form(forms: dict[str, Files], garments: Taxonomy, tmp_path: Path) -> None:
    uri = make_fused(tmp_path, garments)
    before = load_artifact(uri).id
    assert add_compiled(uri, "picture", INT8, forms[INT8], {}) != before
    fused = load_artifact(uri)
    assert fused.members["picture"].compiled.keys() == {INT8}
    assert len(answers(uri, "auto")) == len(CONTENTS)


Damage = Callable[[str], str]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda graph: graph.replace('type="ReLU"', 'type="ReadValue"', 1), "'ReadValue' of 'opset1' is not one"),
        (lambda graph: graph.replace('version="opset1"', 'version="extension"', 1), "of 'extension' is not one"),
        (lambda graph: "<!DOCTYPE x [<!ENTITY a 'b'>]>" + graph, "its XML declares entities"),
        (lambda graph: graph.replace("<edges>", "<body><layers><layer /></layers></body><edges>"), "all there"),
        (lambda graph: re.sub(r'offset="\d+"', 'offset="99999999999"', graph, count=1), "are not the numbers of"),
        (lambda graph: re.sub(r'offset="\d+"', 'offset="-4"', graph, count=1), "are not the numbers of"),
        (lambda graph: re.sub(r'(<edge from-layer=")\d+', r"\g<1>777777", graph, count=1), "from no operation"),
        (lambda graph: graph.replace("?,3,32,32", "?,3,64,64"), "it takes|damaged"),
        (lambda graph: graph[: len(graph) // 2], "damaged"),
        (lambda graph: re.sub(r'strides="\d, \d"', 'strides="0, 0"', graph, count=1), "damaged"),
    ],
)
def test_a_hostile_graph_is_refused(damage: Damage, reason: str, small_model: str, forms: dict[str, Files]) -> None:
    files = dict(forms[INT8])
    graph = files["xml"].decode()
    assert damage(graph) != graph
    with pytest.raises(ArtifactError, match=reason):
        load(files | {"xml": damage(graph).encode()}, encoder_of(small_model), 32)


def test_numbers_that_are_not_finite_are_refused(small_model: str, forms: dict[str, Files]) -> None:
    files = dict(forms["openvino"])
    with pytest.raises(ArtifactError, match="numbers are NaN or infinite"):
        load(files | {"bin": b"\xff" * len(files["bin"])}, encoder_of(small_model), 32)
    with pytest.raises(ArtifactError, match=r"has files \.so; expected \.bin, \.xml"):
        load({"so": b"\x7fELF"}, encoder_of(small_model), 32)
    with pytest.raises(ArtifactError, match="it takes"):
        load(files, encoder_of(small_model), 64)


def test_machine_code_is_run_from_nobody_elses_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATLAS_RAY_CACHE", str(tmp_path))
    assert cache_folder().stat().st_mode & 0o777 == 0o700
    cache_folder().chmod(0o770)
    with pytest.raises(ConfigError, match="others may write to it"):
        cache_folder()


def test_openvino_sends_no_statistics() -> None:
    code = (
        "from atlas_ray.prediction.engines.openvino import _core, _imported; import sys; _core(); _imported('nncf')\n"
    )
    code += "import openvino.tools.ovc\nassert sys.modules['openvino_telemetry'] is None"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def test_a_signal_finds_its_stack(small_model: str) -> None:
    """A process whose compiled encoders go in the order in which they came still ends as it is told."""
    code = f"""
import gc, os, signal
from atlas_ray.artifacts import load_artifact
from atlas_ray.prediction.engines import run_encoder

encoder = load_artifact({small_model!r}).model.encoder.requires_grad_(False)
first = run_encoder("openvino", encoder, 32, {{}})
second = run_encoder("openvino", encoder, 32, {{}})
del first
gc.collect()
del second
gc.collect()
signal.signal(signal.SIGTERM, lambda number, frame: os._exit(7))
os.kill(os.getpid(), signal.SIGTERM)
"""
    done = subprocess.run([sys.executable, "-X", "faulthandler", "-W", "ignore", "-c", code], capture_output=True)
    assert done.returncode == 7, done.stderr.decode()
