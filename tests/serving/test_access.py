import hashlib
import os
import time
from pathlib import Path

import pytest

from atlas_ray.errors import ConfigError
from atlas_ray.serving import access
from atlas_ray.serving.access import RateLimit, TokenTable, new_token


def test_tokens_are_kept_as_hashes() -> None:
    token, line = new_token("anna")
    assert token not in line
    assert line == f"anna:{hashlib.sha256(token.encode()).hexdigest()}"
    assert len(token) >= 43  # 256 bits
    other, second = new_token("bot-2")
    table = TokenTable(f"{line}, {second}")
    assert (table.name_of(token), table.name_of(other)) == ("anna", "bot-2")
    assert table.name_of(token[:-1]) is table.name_of("") is table.name_of("\udcff") is None
    assert table.name_of(line.partition(":")[2]) is None  # the hash is no token


def test_a_file_of_tokens_is_read_again_when_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "RECHECK_S", 0.0)
    (first, line), (second, other) = new_token("a"), new_token("b")
    file = tmp_path / "tokens"
    file.write_text(f"# who may ask\n\n{line}\n")
    table = TokenTable(file=str(file))
    assert (table.name_of(first), table.name_of(second)) == ("a", None)
    replacement = tmp_path / "next"
    replacement.write_text(f"{line}\n{other}\n")
    os.replace(replacement, file)
    assert (table.name_of(first), table.name_of(second)) == ("a", "b")
    file.write_text(f"{other}\n")
    assert (table.name_of(first), table.name_of(second)) == (None, "b")


def test_a_mistake_in_the_file_keeps_nobody_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A library that an earlier test of this process used may have changed which loggers say something.
    said: list[str] = []
    monkeypatch.setattr(access.logger, "warning", lambda form, *values: said.append(form % values))
    monkeypatch.setattr(access, "RECHECK_S", 0.0)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    (first, line), (second, other) = new_token("a"), new_token("b")
    file = tmp_path / "tokens"
    file.write_text(f"{line}\n{other}\n")
    table = TokenTable(file=str(file))
    file.write_text(f"{other}\nhalf a li")  # a token is taken out, and another line is none
    assert (table.name_of(first), table.name_of(second)) == (None, "b")
    assert len(said) == 1
    assert "entry 2: expected NAME:SHA256" in said[0]
    assert "half" not in said[0]
    now += 10 * access.GRACE_S  # nobody asked for long
    away = file.rename(tmp_path / "away")
    assert table.name_of(second) == "b"  # it may be about to come back
    now += access.GRACE_S - 1
    assert table.name_of(second) == "b"
    now += 2
    assert table.name_of(second) is None
    away.rename(file)  # the same one
    assert table.name_of(second) == "b"


def test_a_gateway_that_starts_beside_a_mistake_lets_the_others_in(tmp_path: Path) -> None:
    token, line = new_token("a")
    file = tmp_path / "tokens"
    file.write_text(f"half a li\n{line}\n")
    with pytest.raises(ConfigError, match="entry 1"):
        TokenTable(file=str(file))
    assert TokenTable(file=str(file), strict=False).name_of(token) == "a"
    file.write_text("half a li\n")
    with pytest.raises(ConfigError, match="entry 1"):  # nobody could ask
        TokenTable(file=str(file), strict=False)


def test_mistakes_do_not_show_a_token(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tokens, entry 1: expected NAME:SHA256") as error:
        TokenTable("anna:s3cret")
    assert "s3cret" not in str(error.value)
    with pytest.raises(ConfigError, match="cannot be read"):
        TokenTable(file=str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="token name 'a b'"):
        new_token("a b")


def test_a_bucket_of_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    limit = RateLimit(per_s=2.0, burst=3)
    assert [limit.wait_s("a") for _ in range(4)] == [0, 0, 0, 0.5]
    assert limit.wait_s("b") == 0
    now += 0.5
    assert [limit.wait_s("a"), limit.wait_s("a")] == [0, 0.5]
    now += 1000
    assert [limit.wait_s("a") > 0 for _ in range(4)] == [False, False, False, True]
    assert not any(RateLimit(per_s=0, burst=1).wait_s("a") for _ in range(100))
