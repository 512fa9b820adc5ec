"""The lines of a long stream in a log."""

import pytest

from atlas_ray.runtime.progress import ProgressDisplay


@pytest.mark.parametrize(
    ("done", "more", "shown"), [(0, 7, "7/20"), (5, 7, "12/20"), (5, 15, "20/20"), (5, 40, "20/20"), (0, 21, "20/20")]
)
def test_what_is_done_twice_is_not_counted_beyond_the_whole(
    capsys: pytest.CaptureFixture[str], done: int, more: int, shown: str
) -> None:
    with ProgressDisplay("scoring", "pictures", total=20, done=done) as display:
        display.add({"scored": more - 1, "quarantined": 1})
    assert f"scoring: {shown} pictures" in capsys.readouterr().err
