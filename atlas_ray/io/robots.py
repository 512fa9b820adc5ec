"""The rules of hosts' robots.txt files, read as RFC 9309 says."""

import asyncio
import codecs
import re
import time
from collections.abc import Awaitable, Callable

from protego import Protego
from yarl import URL

from atlas_ray.errors import FetchError, ItemError

FORBIDDEN_BY_ROBOTS = "forbidden_by_robots"
MAX_ROBOTS_BYTES = 512 * 1024
"""The number of bytes of a robots.txt that are read; rules below are ignored."""
MAX_FILES = 20_000
KEPT_S, FAILED_KEPT_S = 24 * 3600.0, 60.0
"""How long a robots.txt is cached, and how long a failure to read it."""
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),  # the first begins as that of UTF-16 does
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"), (codecs.BOM_UTF8, "utf-8-sig"),
)  # fmt: skip

VERSION = re.compile(r"(?<![^\r\n])([ \t]*user-?agent[ \t]*:[ \t]*[\w-]+)/[^\s#]*", re.IGNORECASE)

Read = Callable[[str], Awaitable[bytes | ItemError]]
"""A function that requests the robots.txt at a URL: its bytes, empty if there is none, or why it could not be read."""


def robots_text(content: bytes) -> str:
    """Return the text of a robots.txt: UTF-8, or what its byte order mark says.

    A file that is longer than what is read ends with its last whole line: half a rule is another rule. Of a robot's
    name the version is left out, for no robot is named with one.
    """
    encoding = next((name for mark, name in BYTE_ORDER_MARKS if content.startswith(mark)), "utf-8")
    text = content.decode(encoding, "replace")
    if len(content) >= MAX_ROBOTS_BYTES:
        text = text[: max(text.rfind("\n"), text.rfind("\r")) + 1]
    return VERSION.sub(r"\1", text)


class RobotsFiles:
    """The robots.txt of each host that is asked, read once; for one event loop."""

    def __init__(self, read: Read, *, agent: str, ignored: frozenset[str] = frozenset()) -> None:
        """Prepare; nothing is asked for yet.

        Args:
            read: Asks for a file, retries included.
            agent: How the client calls itself; the file's group of that name holds.
            ignored: `HOST` or `HOST:PORT` of those that are not asked.
        """
        self._read = read
        self._agent = agent
        self._ignored = {place.lower() for place in ignored}
        self._files: dict[str, asyncio.Task[tuple[Protego | ItemError, float]]] = {}

    async def check(self, url: URL) -> ItemError | None:
        """Return why a URL must not be requested, or None.

        Returns:
            `forbidden_by_robots`; or, if the file could not be read, the code of that failure: a host
            that answers 5xx, or does not answer, allows nothing for now.
        """
        if self._ignored & {(url.host or "").lower(), f"{url.host}:{url.port}".lower()}:
            return None
        origin = str(url.origin())
        file = self._files.pop(origin, None)
        if file is None or (file.done() and time.monotonic() > file.result()[1]):
            file = asyncio.ensure_future(self._rules(origin))
        self._files[origin] = file  # the one that was asked for last stands last
        if len(self._files) > MAX_FILES:
            del self._files[next(iter(self._files))]
        rules, _ = await asyncio.shield(file)  # others wait for it, too
        if isinstance(rules, ItemError):
            return FetchError(rules.code, f"the robots.txt of its host allows nothing for now: {rules.message}")
        if rules.can_fetch(str(url), self._agent):
            return None
        return FetchError(FORBIDDEN_BY_ROBOTS, f"{url!s:.200}: the robots.txt of its host forbids it")

    async def _rules(self, origin: str) -> tuple[Protego | ItemError, float]:
        content = await self._read(f"{origin}/robots.txt")
        if isinstance(content, ItemError):
            return content, time.monotonic() + FAILED_KEPT_S
        loop = asyncio.get_running_loop()
        rules = await loop.run_in_executor(None, Protego.parse, robots_text(content))
        return rules, time.monotonic() + KEPT_S
