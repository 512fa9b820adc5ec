"""Who may ask, and how often: bearer tokens kept as hashes, and a bucket of requests for each."""

import hashlib
import hmac
import logging
import os
import re
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from atlas_ray.errors import ConfigError

LINE = re.compile(r"([A-Za-z0-9._-]{1,64}):([0-9a-f]{64})")
LOOK_EVERY_S = 1.0
GRACE_S = 60.0
"""For so long the tokens of a file that cannot be read any more are still known."""
logger = logging.getLogger(__name__)


def new_token(name: str) -> tuple[str, str]:
    """Make a token of 256 random bits.

    Returns:
        The token, and the line that lets the endpoint know it: its name and hash.

    Raises:
        ConfigError: for a name that is none.
    """
    token = secrets.token_urlsafe(32)
    line = f"{name}:{_hash(token)}"
    if not LINE.fullmatch(line):
        raise ConfigError(f"token name {name!r}; expected letters, digits, dots, - and _, at most 64")
    return token, line


class TokenTable:
    """The tokens that are known, by name; those of a file are read again when it changes."""

    def __init__(self, tokens: str = "", file: str = "", *, strict: bool = True) -> None:
        """Read the tokens.

        Args:
            tokens: NAME:SHA256, separated by commas.
            file: A local file of the same, a line each; empty lines and those with # are left out.
                When it is read again, a line that is none is passed over, so that a mistake beside it
                keeps nobody's token alive; without the file its tokens end after a minute.
            strict: Refuse a line that is none; else it is passed over at first, too, if there is another.

        Raises:
            ConfigError: for a line that is none, or a file that cannot be read.
        """
        self._given, mistakes = _parse(tokens.split(","), "tokens")
        self._file = file
        self._of_file: dict[str, str] = {}
        self._state = _state(file)
        self._looked_at = time.monotonic()
        self._gone_since: float | None = None
        if file:
            self._of_file, more = self._read()
            mistakes += more
        if mistakes and (strict or not (self._given or self._of_file)):
            raise mistakes[0]
        _warn(mistakes)

    def name_of(self, token: str) -> str | None:
        """Return whose token it is, or None. All are compared, each in the same time."""
        self._look_again()
        wanted = _hash(token)
        found = None
        for digest, name in (*self._given.items(), *self._of_file.items()):
            if hmac.compare_digest(digest, wanted):
                found = name
        return found

    def _look_again(self) -> None:
        now = time.monotonic()
        if not self._file or now - self._looked_at < LOOK_EVERY_S:
            return
        self._looked_at = now
        state = _state(self._file)
        if state is not None and state == self._state:
            return
        try:
            self._of_file, mistakes = self._read()
        except ConfigError as error:
            mistakes = [error]
            self._state = None
            self._gone_since = now if self._gone_since is None else self._gone_since
            if now - self._gone_since > GRACE_S:  # a file that is gone says that nobody may ask
                self._of_file = {}
        else:
            self._state, self._gone_since = state, None
        _warn(mistakes)

    def _read(self) -> tuple[dict[str, str], list[ConfigError]]:
        try:
            with open(self._file, encoding="utf-8") as stream:
                return _parse(stream, self._file)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"the file of tokens {self._file!r} cannot be read: {error}") from None


def _warn(mistakes: Iterable[ConfigError]) -> None:
    for mistake in mistakes:
        logger.warning("%s", mistake)


def _parse(lines: Iterable[str], source: str) -> tuple[dict[str, str], list[ConfigError]]:
    """Return the names by hash, and what is wrong with the lines that have none."""
    found = {}
    mistakes = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if text and not text.startswith("#"):
            match = LINE.fullmatch(text)
            if match is None:  # the line is not shown: it may hold a token
                mistakes.append(
                    ConfigError(f"{source}, entry {number}: expected NAME:SHA256, as `atlas-ray token NAME` prints it")
                )
            else:
                found[match[2]] = match[1]
    return found, mistakes


def _state(file: str) -> tuple[float, int, int] | None:
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_mtime, found.st_size, found.st_ino


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


@dataclass
class RateLimit:
    """Requests a second for each caller, with some at once: a bucket that fills steadily."""

    per_s: float
    """0: any number."""
    burst: int
    _buckets: dict[str, tuple[float, float]] = field(default_factory=dict)

    def wait_s(self, caller: str) -> float:
        """Take one request out of a caller's bucket; return 0, or the seconds until there is one."""
        if not self.per_s:
            return 0.0
        now = time.monotonic()
        left, at = self._buckets.get(caller, (float(self.burst), now))
        left = min(self.burst, left + (now - at) * self.per_s)
        allowed = left >= 1
        self._buckets[caller] = (left - allowed, now)
        return 0.0 if allowed else (1 - left) / self.per_s
