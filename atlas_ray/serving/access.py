"""Bearer tokens, kept as hashes, and the rate limit of each caller."""

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

TOKEN_LINE = re.compile(r"([A-Za-z0-9._-]{1,64}):([0-9a-f]{64})")
"""A token's name and SHA-256."""
RECHECK_S = 1.0
"""Seconds between checks whether the file of tokens has changed."""
GRACE_S = 60.0
"""Seconds for which tokens stay valid after their file became unreadable."""
logger = logging.getLogger(__name__)


def new_token(name: str) -> tuple[str, str]:
    """Make a token of 256 random bits.

    Returns:
        The token, and its line for the file of tokens: name and hash.

    Raises:
        ConfigError: if the name is invalid.
    """
    token = secrets.token_urlsafe(32)
    line = f"{name}:{_hash(token)}"
    if not TOKEN_LINE.fullmatch(line):
        raise ConfigError(f"token name {name!r}; expected letters, digits, dots, - and _, at most 64")
    return token, line


class TokenTable:
    """The valid tokens; those of a file are read again when it changes."""

    def __init__(self, tokens: str = "", file: str = "", *, strict: bool = True) -> None:
        """Read the tokens.

        Args:
            tokens: NAME:SHA256, separated by commas.
            file: A local file of the same, one on each line; empty lines and those that begin with # are ignored.
                Malformed lines are skipped on reload, so that a typo cannot keep a revoked token valid. If the
                file cannot be read any more, its tokens expire after a minute.
            strict: Refuse malformed lines at the start; if False they are skipped, as long as one line is valid.

        Raises:
            ConfigError: if a line is malformed, or the file cannot be read.
        """
        self._of_settings, mistakes = _parse(tokens.split(","), "tokens")
        self._file = file
        self._of_file: dict[str, str] = {}
        self._state = _state(file)
        self._checked_at = time.monotonic()
        self._gone_since: float | None = None
        if file:
            self._of_file, more = self._read()
            mistakes += more
        if mistakes and (strict or not (self._of_settings or self._of_file)):
            raise mistakes[0]
        _warn(mistakes)

    def name_of(self, token: str) -> str | None:
        """Return the name of a token, or None; all are compared, each in constant time."""
        self._reload()
        token_hash = _hash(token)
        owner = None
        for digest, name in (*self._of_settings.items(), *self._of_file.items()):
            if hmac.compare_digest(digest, token_hash):
                owner = name
        return owner

    def _reload(self) -> None:
        now = time.monotonic()
        if not self._file or now - self._checked_at < RECHECK_S:
            return
        self._checked_at = now
        state = _state(self._file)
        if state is not None and state == self._state:
            return
        try:
            self._of_file, mistakes = self._read()
        except ConfigError as error:
            mistakes = [error]
            self._state = None
            self._gone_since = now if self._gone_since is None else self._gone_since
            if now - self._gone_since > GRACE_S:  # a removed file revokes its tokens
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
    """Return the names by hash, and an error for each malformed line."""
    names = {}
    mistakes = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if text and not text.startswith("#"):
            match = TOKEN_LINE.fullmatch(text)
            if match is None:  # the line is not shown: it may hold a token
                mistakes.append(
                    ConfigError(f"{source}, entry {number}: expected NAME:SHA256, as `atlas-ray token NAME` prints it")
                )
            else:
                names[match[2]] = match[1]
    return names, mistakes


def _state(file: str) -> tuple[float, int, int] | None:
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_mtime, status.st_size, status.st_ino


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


@dataclass
class RateLimit:
    """A token bucket for each caller: a steady rate of requests, with a burst."""

    per_s: float
    """Requests per second for each caller; 0: any number."""
    burst: int
    """Requests that a caller may make at once."""
    _buckets: dict[str, tuple[float, float]] = field(default_factory=dict)

    def wait_s(self, caller: str) -> float:
        """Count one request of a caller; return 0 if it is allowed, else the seconds to wait."""
        if not self.per_s:
            return 0.0
        now = time.monotonic()
        left, at = self._buckets.get(caller, (float(self.burst), now))
        left = min(self.burst, left + (now - at) * self.per_s)
        allowed = left >= 1
        self._buckets[caller] = (left - allowed, now)
        return 0.0 if allowed else (1 - left) / self.per_s
