"""Settings: from a dataclass to flags, a file's fields, and the refusal of what is out of range."""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import atlas_ray
from atlas_ray.errors import ConfigError, OutputError, StorageError
from atlas_ray.settings import (
    COMMAND_LINE,
    Settings,
    add_flags,
    build_settings,
    flags_given,
    pin_settings,
    read_settings,
    setting,
)
from atlas_ray.training.settings import (
    ClassifierTraining,
    EncoderDecoderTraining,
    FusionTraining,
    ImageLabelsTraining,
    TextTraining,
)

CONFIGS = Path(atlas_ray.__file__).parents[1] / "configs"


@dataclass(frozen=True, kw_only=True)
class Oven(Settings):
    name: str = setting("what it is called")
    heat: float = setting("100% is all it can", 0.5, low=0, high=1)
    racks: int = setting("how many", 2, low=1, high=9)
    mode: str = setting("where heat comes from", "bake", choices=("bake", "grill"))
    fan: bool = setting("blow", False)
    note: str | None = setting("what to remember", None)


def flags(*arguments: str, skip: tuple[str, ...] = ()) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    add_flags(parser, Oven, skip)
    return flags_given(parser.parse_args(arguments), Oven)


def test_only_the_flags_that_were_given_come_out() -> None:
    assert flags() == {}
    assert flags("--name", "aga", "--heat", "1e-4", "--racks", "3", "--fan", "--note", "hot") == {
        "name": "aga", "heat": 1e-4, "racks": 3, "fan": True, "note": "hot",
    }  # fmt: skip
    assert flags("--no-fan") == {"fan": False}


def test_other_options_are_not_settings() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--fresh", action="store_true")
    add_flags(parser, Oven)
    assert flags_given(parser.parse_args(["--fresh", "--mode", "grill"]), Oven) == {"mode": "grill"}


def test_the_help_tells_texts_choices_and_defaults() -> None:
    parser = argparse.ArgumentParser(prog="oven")
    add_flags(parser, Oven)
    text = " ".join(parser.format_help().split())
    assert "100% is all it can (default: 0.5)" in text
    assert "--mode bake|grill where heat comes from (default: bake)" in text
    assert "what to remember" in text
    assert "default: None" not in text


@pytest.mark.parametrize("arguments", [("--racks", "2.5"), ("--heat", "warm"), ("--door", "open")])
def test_flags_of_another_type_or_name_end_the_command(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        flags(*arguments)
    assert arguments[0] in capsys.readouterr().err


def test_a_skipped_field_has_no_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        flags("--racks", "3", skip=("racks",))
    assert "--racks" in capsys.readouterr().err


def test_a_file_becomes_settings(tmp_path: Path) -> None:
    file = tmp_path / "oven.yaml"
    file.write_text("name: aga  # the blue one\nheat: 1e-4\nracks: 3\nfan: true\nnote: null\n")
    values = read_settings(str(file))
    assert values["heat"] == "1e-4"  # what YAML 1.1 makes of it
    assert build_settings(Oven, values, str(file)) == Oven(name="aga", heat=0.0001, racks=3, fan=True)


def test_an_empty_file_sets_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("# nothing yet\n")
    assert read_settings(str(tmp_path / "empty.yaml")) == {}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"- name\n- heat\n", "holds a list; expected lines of `name: value`"),
        (b"name", "holds a str"),
        (b"3", "holds a int"),
        (b"name: [aga", "not YAML"),
        (b"name: \xff\xfe", "not YAML"),
        (b"name: !!python/object/apply:os.getcwd []", "not YAML"),
        # Values that look like a date or a number, and that YAML's own reader stumbles over.
        (b"name: 2024-13-45", "not YAML"),
        (b"name: 0x_", "not YAML"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    file = tmp_path / "oven.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=reason) as raised:
        read_settings(str(file))
    assert str(raised.value).startswith(str(file))
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"none\.yaml"):
        read_settings(str(tmp_path / "none.yaml"))


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"name": "aga", "raks": 3}, r"^oven.yaml: no field 'raks'; did you mean 'racks'\?$"),
        ({"name": "aga", "zzz": 3}, "no field 'zzz'; the fields are name, heat, racks, mode, fan, note$"),
        ({"name": "aga", 7: 3}, "no field 7;"),
        ({"racks": 3}, "^oven.yaml: name is missing$"),
        ({}, "name is missing"),
    ],
)
def test_unknown_and_missing_fields_are_named(values: dict[Any, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        build_settings(Oven, values, "oven.yaml")


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("heat", 1.5, "heat is 1.5; expected 0 to 1"),
        ("heat", -0.1, "heat is -0.1; expected 0 to 1"),
        ("heat", float("nan"), "heat is nan; expected 0 to 1"),
        ("heat", "nan", "heat is nan; expected 0 to 1"),
        ("heat", float("inf"), "heat is inf; expected 0 to 1"),
        ("heat", "hot", "heat is 'hot'; expected a number"),
        ("heat", True, "heat is True; expected a number"),
        ("heat", None, "heat is None; expected a number"),
        ("heat", [0.5], r"heat is \[0.5\]; expected a number"),
        ("racks", 0, "racks is 0; expected 1 to 9"),
        ("racks", 10, "racks is 10; expected 1 to 9"),
        ("racks", True, "racks is True; expected a whole number"),
        ("racks", 2.0, "racks is 2.0; expected a whole number"),
        ("racks", "2", "racks is '2'; expected a whole number"),
        ("mode", "fry", "mode is 'fry'; expected one of bake, grill"),
        ("mode", 1, "mode is 1; expected a text"),
        ("fan", 1, "fan is 1; expected true or false"),
        ("fan", "yes", "fan is 'yes'; expected true or false"),
        ("note", 5, "note is 5; expected a text"),
        ("name", None, "name is None; expected a text"),
    ],
)
def test_values_of_another_type_or_range_are_refused(field: str, value: object, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        build_settings(Oven, {"name": "aga", field: value}, "oven.yaml")


@dataclass(frozen=True, kw_only=True)
class Kitchen(Settings):
    """Settings whose names are words of sentences, too."""

    size: int = setting("of it", 3, low=1, high=9)
    max_size: int = setting("of any", 5, low=1, high=9)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size > self.max_size:
            raise ConfigError(f"size is {self.size}, over max_size, a size that no kitchen has; see --no-max_size")


@pytest.mark.parametrize(
    ("of_file", "of_flags", "reason"),
    [
        ({"size": 7}, {}, "kitchen.yaml: size is 7, over max_size, a size that no kitchen has; see --no-max_size"),
        ({"size": 7}, {"max_size": 6}, "kitchen.yaml: size is 7, over --max-size, a size that no"),
        ({}, {"size": 7}, "--size is 7, over max_size, a size that no kitchen has"),
        ({"max_size": 0}, {}, "kitchen.yaml: max_size is 0; expected 1 to 9"),
        ({}, {"max_size": 0}, "--max-size is 0; expected 1 to 9"),
        ({"max_size": 0}, {"max_size": 2, "size": 3}, "--size is 3, over --max-size, a size that"),
    ],
)
def test_messages_name_what_was_given(of_file: dict[str, int], of_flags: dict[str, int], reason: str) -> None:
    with pytest.raises(ConfigError) as error:
        build_settings(Kitchen, of_file, "kitchen.yaml", flags=of_flags)
    assert str(error.value).startswith(reason)


def test_on_the_command_line_all_are_flags() -> None:
    with pytest.raises(ConfigError, match=r"^--size is 7, over --max-size, a size that no kitchen has"):
        build_settings(Kitchen, {"size": 7}, COMMAND_LINE)
    with pytest.raises(ConfigError, match=r"^--name is missing$"):
        build_settings(Oven, {"racks": 3}, COMMAND_LINE)


@pytest.mark.parametrize(
    ("field", "value"), [("heat", 0), ("heat", 1), ("racks", 1), ("racks", 9), ("note", None), ("note", "")]
)
def test_the_ends_of_a_range_are_allowed(field: str, value: object) -> None:
    assert getattr(build_settings(Oven, {"name": "aga", field: value}, "x"), field) == value


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "oven.yaml"
    file.write_text("name: aga\nheat: 0.25\nracks: 3\nfan: true\n")
    chosen = flags("--racks", "5", "--no-fan")
    settings = build_settings(Oven, read_settings(str(file)), str(file), flags=chosen)
    assert settings == Oven(name="aga", heat=0.25, racks=5, fan=False)


def test_settings_are_held(tmp_path: Path) -> None:
    output = str(tmp_path / "run")
    pin_settings(output, "run.json", {"name": "a", "racks": 2, "parts": ("x", "y"), "note": None})
    file = tmp_path / "run" / "run.json"
    before = file.read_bytes()
    assert json.loads(before) == {"name": "a", "racks": 2, "parts": ["x", "y"], "note": None}
    pin_settings(output, "run.json", {"name": "a", "racks": 2, "parts": ("x", "y"), "note": None})
    pin_settings(output, "run.json", {"racks": 2})  # those that are not named may differ
    with pytest.raises(OutputError, match="holds a run with racks = 2, this one has 3; use a new folder"):
        pin_settings(output, "run.json", {"name": "a", "racks": 3})
    with pytest.raises(OutputError, match="holds a run with fan = None, this one has True"):
        pin_settings(output, "run.json", {"fan": True})
    assert file.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b'{"racks": 2', b'["racks"]', b"\xff\xfe", b"null"])
def test_a_damaged_file_of_held_settings_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "run.json"
    file.write_bytes(content)
    with pytest.raises(OutputError, match=r"run\.json is damaged"):
        pin_settings(str(tmp_path), "run.json", {"racks": 2})
    assert file.read_bytes() == content


RECIPES: dict[str, type[Any]] = {
    "atlas-encoder-decoder.yaml": EncoderDecoderTraining,
    "atlas-classifier.yaml": ClassifierTraining,
    "late-fusion-image.yaml": ImageLabelsTraining,
    "late-fusion-title.yaml": TextTraining,
    "late-fusion-description.yaml": TextTraining,
    "late-fusion-fusion.yaml": FusionTraining,
}


def test_every_recipe_is_tested() -> None:
    assert {path.name for path in CONFIGS.iterdir()} == RECIPES.keys()


@pytest.mark.parametrize("name", RECIPES)
def test_the_recipes_build(name: str) -> None:
    file, kind = read_settings(str(CONFIGS / name)), RECIPES[name]
    models = {"picture": "a", "title": "b"} if kind is FusionTraining else {}
    config = build_settings(kind, {**file, **models, "catalog": "shop", "output": "model"}, name)
    assert {field: getattr(config, field) for field in file} == file  # numbers are numbers, not text
    if config.of_pictures:
        assert config.weights == "imagenet"
    if name.startswith("atlas"):
        assert config.encoder_lr == 0.0001
    else:  # AdamW without decay is Adam; no norm of gradients is bounded; a rate is that of all steps
        assert (config.weight_decay, config.clip, config.clip_value, config.schedule) == (0.0, 1e6, 0.0, "constant")
        assert config.label_smoothing == 0.0
    with pytest.raises(ConfigError, match=f"{name}: catalog is missing"):
        build_settings(kind, file | models, name)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            {"batch_size": 16, "workers": "4", "accumulate": 3},
            "which 4 workers cannot share in 3 parts",
        ),
        ({"batch_size": 16, "workers": "1:16"}, "which 16 workers cannot share"),
        ({"epochs": 3, "head_epochs": 3}, "head_epochs is 3, of 3 epochs in all"),
        ({"workers": "two"}, "workers is 'two'; expected a number, or MIN:MAX"),
        ({"workers": "4:2"}, "workers is '4:2'"),
        ({"workers": "0"}, "workers is '0'"),
        ({"decoder": "transformer", "hidden_dim": 30, "heads": 4}, "hidden_dim is 30; expected a multiple of the 4"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        EncoderDecoderTraining(catalog="shop", output="model", **change)


@pytest.mark.parametrize(("workers", "expected"), [("1", (1, 1)), ("3", (3, 3)), ("2:5", (2, 5))])
def test_workers_are_a_number_or_a_range(workers: str, expected: tuple[int, int]) -> None:
    assert ClassifierTraining(catalog="shop", output="model", workers=workers).worker_range == expected
