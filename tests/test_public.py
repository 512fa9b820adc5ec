"""The public Python interface: lazy, complete, and typed."""

import inspect
import subprocess
import sys

import pytest

import atlas_ray

pytestmark = pytest.mark.long


def test_every_public_name_is_there_and_documented() -> None:
    assert sorted(atlas_ray._HOME) == sorted(atlas_ray.__all__)
    for name in atlas_ray.__all__:
        found = getattr(atlas_ray, name)
        assert inspect.getdoc(found), name
        assert found.__name__ == name
    assert set(atlas_ray.__all__) <= set(dir(atlas_ray))


def test_an_unknown_name_is_named() -> None:
    with pytest.raises(AttributeError, match="no attribute 'scores'"):
        atlas_ray.scores  # noqa: B018


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import atlas_ray", ("numpy", "pyarrow", "ray", "torch")),
        ("from atlas_ray import Client", ("ray", "torch", "pyarrow")),
        ("from atlas_ray import read_taxonomy", ("ray", "torch")),
        ("from atlas_ray import PathPredictor, load_artifact", ("ray",)),
        ("import atlas_ray.catalog.importer, atlas_ray.catalog.selection", ("ray", "torch", "pandas")),
        ("import atlas_ray.prediction.engines", ("ray", "torch")),
    ],
)
def test_nothing_is_imported_that_is_not_used(code: str, absent: tuple[str, ...]) -> None:
    code = f"import sys\n{code}\nassert not {{*{absent}}} & sys.modules.keys(), sys.modules.keys() & {{*{absent}}}"
    subprocess.run([sys.executable, "-c", code], check=True)
