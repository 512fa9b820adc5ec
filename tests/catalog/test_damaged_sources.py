import pytest

from tests.support.damaged_tables import DAMAGES, outcomes


@pytest.mark.long
def test_imports_of_damaged_files_balance() -> None:
    """A short run of `benchmarks/fuzz_imports.py`: each account is right, and no untouched row is lost or changed."""
    found = list(outcomes(40, seed=7))
    assert [outcome for outcome in found if outcome.failure] == []
    assert sum(bool(outcome.refused) for outcome in found) <= 2
    assert sum(outcome.whole for outcome in found) > 1000
    assert [outcome for outcome in found if outcome.through != outcome.whole] == []
    assert len({outcome.damage for outcome in found}) > len(DAMAGES) / 2
