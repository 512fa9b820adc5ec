"""The lease: an output belongs to one command at a time.

`lease.json` in the output says whose it is. While the command works, a thread writes it anew every
`RENEW_S` seconds; when the command ends it is deleted. A command that was killed leaves its lease behind,
and the next one takes it over: at once if this machine can tell that the process has ended, or else when
it has watched the lease for `STALE_S` seconds without a change. No two clocks are ever compared.

Each step replaces the lease as it was read, or fails: of two that take over, one wins. A command that
finds another one's lease in the place of its own stops. Who only reads an output does not ask.
"""

import contextlib
import fcntl
import functools
import inspect
import json
import os
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime
from typing import Any, ParamSpec, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError, PreconditionError

from atlas_ray.errors import LeaseLostError, OutputError, RunError, UserError, tell
from atlas_ray.io import storage, stores
from atlas_ray.io.objects import await_stores
from atlas_ray.io.stores import is_object

LEASE = "lease.json"
RENEW_S = 10.0
STALE_S = 60.0
"""A lease of another machine that has not been renewed for this long is taken over."""
START_OUTAGE_S = 60.0
"""How long the stores that a command names may be down when it starts, if its settings do not say it."""
POLL_S = 1.0
"""The interval at which a waiting command looks at the lease again."""

P = ParamSpec("P")
R = TypeVar("R")
_held: ContextVar[frozenset[str]] = ContextVar("held", default=frozenset())
"""The outputs that this thread holds, since a command may use another one that leases the same output."""


def holding(verb: str, *where: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a function run only while its caller holds the output.

    Args:
        verb: What the function does, for others who want the output.
        where: The parameter that names the output, such as `output` or `config.output`; of several the first
            that is given.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def held(*args: P.args, **kwargs: P.kwargs) -> R:
            given = signature.bind(*args, **kwargs).arguments
            await_named_stores(given.values())
            values = (_attribute(given.get(path.partition(".")[0]), path.partition(".")[2]) for path in where)
            with hold(next((value for value in values if value), ""), verb):
                return function(*args, **kwargs)

        return held

    return decorate


def await_named_stores(arguments: Collection[Any]) -> None:
    """Wait until the stores answer that a command's arguments and their settings name, and say so meanwhile.

    Raises:
        OutageError: if one does not answer in the time that the settings give it.
    """
    await_stores(_paths(arguments), _outage_s(arguments), tell)


def _paths(arguments: Iterable[Any]) -> Iterator[str]:
    """Yield all texts among a function's arguments and the fields of its settings: whatever may name a store."""
    for value in arguments:
        if isinstance(value, str):
            yield value
        elif isinstance(value, list | tuple):
            yield from _paths(value)
        elif is_dataclass(value) and not isinstance(value, type):
            yield from _paths(getattr(value, one.name) for one in fields(value))


def _outage_s(arguments: Iterable[Any]) -> float:
    """Return how long the settings among a function's arguments let a store be away."""
    return float(next((value.outage_s for value in arguments if hasattr(value, "outage_s")), START_OUTAGE_S))


def _attribute(value: Any, name: str) -> Any:
    return getattr(value, name) if name else value


@contextlib.contextmanager
def hold(output: str, verb: str) -> Iterator[None]:
    """Own an output while the block runs; a local one is made, and is deleted if it stays empty.

    Within the block the same thread may hold the same output again.

    Args:
        output: Its URI.
        verb: What the block does, for others who want the output.

    Raises:
        OutputError: if another command owns it, naming it.
        StorageError: if the output cannot be written to.
        LeaseLostError: if another command took it over meanwhile; on the main thread the block ends early.
    """
    output = storage.absolute(output)
    if output in _held.get():
        yield
        return
    lease = _Lease(output, verb)
    lease.take()
    before = _held.set(_held.get() | {output})
    try:
        yield
    except BaseException as error:
        if lease.lost:
            raise LeaseLostError(lease.lost) from error
        raise
    finally:
        _held.reset(before)
        lease.release()
    if lease.lost:
        raise LeaseLostError(lease.lost)


@dataclass(frozen=True)
class _State:
    """The content of a lease file, and its version, which may be replaced."""

    content: bytes
    version: dict[str, str] | None = None

    @property
    def holder(self) -> dict[str, Any] | None:
        """Who wrote it; None if it was cut off in the middle."""
        try:
            document = json.loads(self.content)
        except ValueError:
            return None
        return document if isinstance(document, dict) and "process" in document else {}


class _LocalFile:
    """A file that is read and replaced under the kernel's lock, which a process that dies lets go of."""

    def __init__(self, output: str) -> None:
        folder = storage.locate(output).path
        self._path = os.path.join(folder, LEASE)
        self._made = []
        while not os.path.lexists(folder):
            self._made.append(folder)
            folder = os.path.dirname(folder)
        storage.make_folder(output)

    def read(self) -> _State | None:
        try:
            with self._locked(os.O_RDONLY, fcntl.LOCK_SH) as file:
                content = os.read(file, 65536)
        except FileNotFoundError:
            return None
        return _State(content) if content else None

    def replace(self, before: _State | None, content: bytes) -> _State | None:
        """Write the content if the file is unchanged; return the new state, or None if it does not."""
        with self._locked(os.O_RDWR | os.O_CREAT, fcntl.LOCK_EX) as file:
            if os.read(file, 65536) != (before.content if before else b""):
                return None
            try:
                os.pwrite(file, content, 0)
                os.ftruncate(file, len(content))
            except OSError:
                if before is None:
                    os.unlink(self._path)
                raise
        return _State(content)

    def delete(self, before: _State) -> None:
        """Delete the file if it is unchanged, and the folders that were made for it and are empty."""
        with contextlib.suppress(FileNotFoundError), self._locked(os.O_RDWR, fcntl.LOCK_EX) as file:
            if os.read(file, 65536) == before.content:
                os.unlink(self._path)
        with contextlib.suppress(OSError):
            for folder in self._made:
                os.rmdir(folder)

    @contextlib.contextmanager
    def _locked(self, mode: int, kind: int) -> Iterator[int]:
        while True:
            file = os.open(self._path, mode | os.O_CLOEXEC, 0o644)
            try:
                with contextlib.suppress(OSError):  # a filesystem without locks: then the steps are not atomic
                    fcntl.flock(file, kind)
                with contextlib.suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(file), os.stat(self._path)):
                        yield file
                        return
            finally:
                os.close(file)
            if not mode & os.O_CREAT:  # somebody deleted it between opening and locking
                raise FileNotFoundError(self._path)


class _Object:
    """An object that is replaced by its version: a generation, or an entity tag."""

    def __init__(self, output: str) -> None:
        self._bucket = stores.open_bucket(output, timeout_s=10.0, retries=4)
        self._key = f"{stores.split_folder(output)[2]}/{LEASE}".lstrip("/")

    def read(self) -> _State | None:
        try:
            found = obstore.get(self._bucket, self._key)
            return _State(bytes(found.bytes()), _version(found.meta))
        except FileNotFoundError:
            return None

    def replace(self, before: _State | None, content: bytes) -> _State | None:
        """Write the content if the object is unchanged; return the new state, or None if it has changed."""
        mode: Any = before.version if before else "create"
        try:
            written = obstore.put(self._bucket, self._key, content, mode=mode, use_multipart=False)
            return _State(content, _version(written))
        except (AlreadyExistsError, PreconditionError):
            # A request that was done, but whose answer got lost, is asked again by the client and refused.
            found = self.read()
            return found if found and found.content == content else None

    def delete(self, before: _State) -> None:
        """Delete the object if it is unchanged; stores have no such request in one step."""
        found = self.read()
        if found and found.content == before.content:
            obstore.delete(self._bucket, self._key)


def _version(meta: Any) -> dict[str, str]:
    """Return what a store tells one content of an object from another by."""
    return {name: meta[name] for name in ("e_tag", "version") if meta[name]}


class _Lease:
    """One command's ownership of an output."""

    lost = ""
    """A sentence that names the command that has taken the output over."""

    def __init__(self, output: str, verb: str) -> None:
        self._output = output
        with storage.named(output):
            self._file = _Object(output) if is_object(output) else _LocalFile(output)
        self._me = {
            "verb": verb,
            "host": socket.gethostname(),
            "process": os.getpid(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": _machine(),
            "process_started": _process_started(os.getpid()),
            "lease": uuid.uuid4().hex,
        }
        self._renewals = 0
        self._mine: _State | None = None
        self._ended = threading.Event()
        self._on_main = threading.current_thread() is threading.main_thread()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    def take(self) -> None:
        """Write the lease, also over a stale one; wait as long as it takes to tell whether it is stale.

        Raises:
            OutputError: if another command has the output.
        """
        with storage.named(storage.join(self._output, LEASE)):
            watched: bytes | None = None
            began = 0.0
            while True:
                current = self._file.read()
                if current is None or _is_gone(current.holder):
                    self._mine = self._file.replace(current, self._content())
                elif watched is None and current.holder and current.holder.get("machine") != _machine():
                    watched, began = current.content, time.monotonic()
                    print(f"{self._refusal(current)}: waiting up to {STALE_S:.0f} s for a sign of it", file=sys.stderr)
                elif current.content != watched:
                    raise OutputError(self._refusal(current) + ("; wait for it, or end it" if current.holder else ""))
                elif time.monotonic() - began >= STALE_S:
                    self._mine = self._file.replace(current, self._content())
                if self._mine is not None:
                    break
                if current is not None and not _is_gone(current.holder):
                    time.sleep(POLL_S)
        self._thread.start()

    def release(self) -> None:
        """Let go of the output; what cannot be deleted now is stale, and no error."""
        self._ended.set()
        self._thread.join(timeout=30)
        if self._mine is not None and not self.lost:
            with contextlib.suppress(UserError, RunError), storage.named(self._output):
                self._file.delete(self._mine)

    def _keep(self) -> None:
        """Renew the lease until it ends, or until somebody else has it."""
        while not self._ended.wait(RENEW_S):
            # Storage that is away says nothing of the lease.
            with contextlib.suppress(UserError, RunError), storage.named(self._output):
                self._renewals += 1
                renewed = self._file.replace(self._mine, self._content())
                if renewed is None and (current := self._file.read()) is not None:
                    if (current.holder or {}).get("lease") == self._me["lease"]:  # written, though the answer got lost
                        self._mine = current
                        continue
                    self.lost = f"{self._refusal(current)}, which has taken it over from this command"
                    self._interrupt()
                    return
                self._mine = renewed  # None: it was deleted, and is written anew next time

    def _interrupt(self) -> None:
        """End the block as Ctrl-C would."""
        if self._on_main:
            ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            main = threading.main_thread().ident
            signal.pthread_kill(main or 0, signal.SIGTERM if ignored else signal.SIGINT)

    def _content(self) -> bytes:
        return json.dumps(self._me | {"renewals": self._renewals}).encode()

    def _refusal(self, found: _State) -> str:
        holder = found.holder
        if not holder:
            return f"{self._output}: its {LEASE} is none of atlas-ray's; name another folder, or delete that file"
        return (
            f"{self._output} is in use by `{holder.get('verb')}`, process {holder['process']} on "
            f"{holder.get('host')}, since {holder.get('since')}"
        )


def _is_gone(holder: dict[str, Any] | None) -> bool:
    """Tell whether this machine knows that a holder has ended."""
    if holder is None:
        return True
    if not holder or holder.get("machine") != _machine():
        return False
    return bool(_process_started(int(holder["process"])) != holder.get("process_started"))


@functools.cache
def _machine() -> str:
    """Return what tells apart machines, their boots, and the containers whose processes have numbers of their own."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError), open("/proc/sys/kernel/random/boot_id", encoding="ascii") as stream:
        parts.append(stream.read().strip())
    with contextlib.suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def _process_started(process: int) -> str | None:
    """Return what tells a process from a later one of its number, on Linux its start; None if there is none."""
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8", errors="replace") as stream:
            state, *fields = stream.read().rpartition(")")[2].split()
        return None if state in "ZX" else fields[18]
    except OSError:
        pass
    if os.path.exists("/proc/self/stat"):
        return None
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "unknown"
