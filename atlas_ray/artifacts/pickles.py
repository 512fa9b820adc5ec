"""Pickles: files of `torch.save`, read without running what they hold.

`torch.load` on a file that holds whole modules runs any code that its author put in. Here the pickle
makes nothing but plain containers and inert records, and tensors are cut out of the file's own bytes.

Two formats are read. PyTorch 1.6 and later write a zip archive: FOLDER/data.pkl, and the numbers of
each storage in FOLDER/data/KEY, not compressed. Before it there were five pickles (magic number,
protocol, system, the object, storage keys), then for each key an int64 count and the raw numbers.
"""

import io
import math
import pickle
import pickletools
import struct
import zipfile
import zlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from atlas_ray.errors import ArtifactError
from atlas_ray.io import storage

MAX_BYTES = 4 << 30
"""Of a file; a ResNet-101 with a decoder and their optimizers takes 640 MB."""
MAX_OPCODES = 500_000
"""Of a pickle; that of a ResNet-101 with its optimizer has 84,000."""
MAX_TUPLE = 1000
"""Items of a tuple, those of the tuples in it included."""
MAX_DIMENSIONS = 8

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
DTYPES = {
    "torch.FloatStorage": torch.float32,
    "torch.DoubleStorage": torch.float64,
    "torch.HalfStorage": torch.float16,
    "torch.LongStorage": torch.int64,
}
TENSORS = ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor")
PARAMETERS = ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state")


class Record:
    """Stands for whatever the pickle names: what it would be made from, and nothing that runs.

    Attributes:
        path: The name, such as `collections.OrderedDict`.
        arguments: What it would be called with.
        state: What it would be restored from: of a module, its attributes.
        items: What it would hold as a dict.
        elements: What it would hold as a list.
    """

    path = ""
    arguments: tuple[Any, ...]
    state: Any
    items: dict[Any, Any]
    elements: list[Any]

    def __new__(cls, *arguments: Any) -> "Record":
        """Take note of a call."""
        record = super().__new__(cls)
        record.arguments, record.state, record.items, record.elements = arguments, None, {}, []
        return record

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items[key] = value

    def append(self, value: Any) -> None:
        """Take note of an element."""
        self.elements.append(value)

    def extend(self, values: Any) -> None:
        """Take note of elements."""
        self.elements.extend(values)


@dataclass(frozen=True)
class Storage:
    """A row of numbers in the file, as the pickle declares it."""

    key: str
    dtype: torch.dtype
    numel: int


@dataclass(frozen=True)
class PickledFile:
    """What a file holds: its records, and the numbers of its storages by key, (numel,) each."""

    uri: str
    root: Any
    numbers: dict[str, Tensor]

    def tensor(self, record: Any) -> Tensor:
        """Return the tensor or parameter that a record stands for; it shares memory with its storage.

        Raises:
            ArtifactError: for another record, and for a tensor that is not wholly inside its storage.
        """
        while isinstance(record, Record) and record.path in PARAMETERS and record.arguments:
            record = record.arguments[0]
        if not isinstance(record, Record) or record.path not in TENSORS or len(record.arguments) < 4:
            raise ArtifactError(f"{self.uri}: holds something else where a tensor belongs")
        place, offset, size, stride = record.arguments[:4]
        fits = isinstance(place, Storage) and isinstance(size, tuple) and isinstance(stride, tuple)
        if not fits or not len(size) == len(stride) <= MAX_DIMENSIONS:
            raise ArtifactError(f"{self.uri}: holds a tensor of unknown form")
        fits = all(type(number) is int and 0 <= number <= MAX_BYTES for number in (offset, *size, *stride))
        if fits:
            last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
            fits = 0 < math.prod(size) <= place.numel and last < place.numel
        if not fits:
            raise ArtifactError(f"{self.uri}: holds a tensor that is not inside its storage of {place.numel} numbers")
        return self.numbers[place.key].as_strided(size, stride, offset)


def read_pickled(uri: str) -> PickledFile:
    """Read a file of `torch.save`, up to `MAX_BYTES`, on the CPU.

    Raises:
        ArtifactError: for a file of another kind, or a damaged or hostile one.
    """
    stream = io.BytesIO()
    with storage.open_input(uri) as source:
        while stream.tell() <= MAX_BYTES and (chunk := source.read(1 << 24)):
            stream.write(chunk)
    if stream.tell() > MAX_BYTES:
        raise ArtifactError(f"{uri}: larger than the {MAX_BYTES:,} bytes that are read of a checkpoint")
    stream.seek(0)
    archived = stream.read(4) == b"PK\3\4"
    stream.seek(0)
    try:
        root, numbers = _read_zip(stream) if archived else _read_legacy(stream)
    except Exception as error:  # what a damaged pickle or archive raises is nowhere listed
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise ArtifactError(f"{uri}: not a whole file of torch.save, or one that is not read: {reason}") from error
    return PickledFile(uri, root, numbers)


class _InertUnpickler(pickle.Unpickler):
    """Makes plain containers and records; no name in the pickle is ever looked up."""

    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream)
        self.storages: dict[str, Storage] = {}
        self._stand_ins: dict[str, type[Record]] = {}

    def find_class(self, module: str, name: str, /) -> type[Record]:
        """Return the stand-in for a name: a class, as a pickle makes objects of nothing else."""
        path = f"{module}.{name}"
        if path not in self._stand_ins:
            self._stand_ins[path] = type("StandIn", (Record,), {"path": path})
        return self._stand_ins[path]

    def persistent_load(self, reference: Any) -> Any:
        """Take note of a storage; of a class with its source, as the older format has, return the class."""
        kind, *rest = reference if isinstance(reference, tuple) and reference else ("",)
        if kind == "module" and rest:
            return rest[0]
        if kind != "storage" or not 4 <= len(rest) <= 5 or any(part is not None for part in rest[4:]):
            raise ValueError("it refers to something else than a whole storage")
        named, key, _, numel = rest[:4]
        dtype = DTYPES.get(str(getattr(named, "path", "")))
        if dtype is None or not isinstance(key, str) or type(numel) is not int or not 0 <= numel <= MAX_BYTES:
            raise ValueError("it declares a storage of another dtype, or a size beyond any")
        found = Storage(key, dtype, numel)
        if self.storages.setdefault(key, found) != found:
            raise ValueError("it declares a storage twice, differently")
        return found


def _unpickle(stream: io.BytesIO) -> tuple[Any, dict[str, Storage]]:
    """Read one pickle, and leave the stream behind it."""
    _check_opcodes(stream)
    unpickler = _InertUnpickler(stream)
    return unpickler.load(), unpickler.storages


def _check_opcodes(stream: io.BytesIO) -> None:
    """Refuse a pickle that hurts the unpickler itself, although nothing in it is called.

    The unpickler would allocate as much as the largest memo index says, and the hash of a tuple of
    tuples of tuples overflows the stack or never ends. So the pickle is followed first with, in the
    place of each value, how many items its hash visits; 0 is a mark.
    """
    start, memo, stack = stream.tell(), dict[Any, int](), list[int]()
    for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        name, before, taken = opcode.name, opcode.stack_before, list[int]()
        if pickletools.markobject in before:
            before = before[: before.index(pickletools.markobject)]
            while visited := stack.pop():
                taken.append(visited)
        taken += [stack.pop() for _ in before]
        visited = 0 if name == "MARK" else 1
        if name.startswith("TUPLE"):
            visited += sum(taken)
        elif name in ("MEMOIZE", "DUP"):
            visited = taken[0]
        elif name.endswith("GET"):
            visited = memo[argument]
        stack += [visited] * len(opcode.stack_after)
        index: Any = argument if name.endswith("PUT") else len(memo)
        if name.endswith("PUT") or name == "MEMOIZE":
            memo[index] = stack[-1]
        # EXT takes real classes from a registry, without asking find_class.
        if max(count, index) > MAX_OPCODES or visited > MAX_TUPLE or name.startswith("EXT"):
            raise ValueError("its pickle nests or numbers values as none of torch.save does")
    stream.seek(start)


def _read_legacy(stream: io.BytesIO) -> tuple[Any, dict[str, Tensor]]:
    """Read the older format."""
    if _unpickle(stream)[0] != MAGIC or _unpickle(stream)[0] != PROTOCOL:
        raise ValueError("it does not start as one does")
    if _unpickle(stream)[0]["little_endian"] is not True:
        raise ValueError("its numbers are big-endian")
    root, storages = _unpickle(stream)
    keys, _ = _unpickle(stream)
    data, position, numbers = stream.getbuffer(), stream.tell(), dict[str, Tensor]()
    for key in keys:
        if not isinstance(key, str) or key not in storages:
            raise ValueError("it has numbers for a storage that it does not declare")
        (count,) = struct.unpack_from("<q", data, position)
        start, declared = position + 8, storages[key]
        position = start + declared.numel * declared.dtype.itemsize
        if count != declared.numel or position > len(data):
            raise ValueError("a storage is cut off, or not as long as declared")
        numbers[key] = _copy(data, start, declared)
    if numbers.keys() != storages.keys():
        raise ValueError("it has no numbers for a storage")
    return root, numbers


def _read_zip(stream: io.BytesIO) -> tuple[Any, dict[str, Tensor]]:
    """Read the format of PyTorch 1.6."""
    data = stream.getbuffer()
    with zipfile.ZipFile(stream) as archive:
        members = {member.filename: member for member in archive.infolist()}
    if sum(member.file_size for member in members.values()) > len(data):
        raise ValueError("the archive is compressed, or its members overlap")
    folder = next((name for name in members if name.endswith("/data.pkl")), "/").removesuffix("data.pkl")

    def place(name: str) -> tuple[int, int]:
        member = members.get(folder + name)
        if member is None:
            raise ValueError(f"the archive has no {name[:40]!r}")
        lengths = struct.unpack_from("<HH", data, member.header_offset + 26)  # of its name and its extra field
        start = member.header_offset + 30 + sum(lengths)
        end = start + member.file_size
        if member.compress_type != zipfile.ZIP_STORED or zlib.crc32(data[start:end]) != member.CRC:
            raise ValueError(f"{name[:40]!r} in the archive is compressed or damaged")
        return start, end

    if folder + "byteorder" in members and bytes(data[slice(*place("byteorder"))]) != b"little":
        raise ValueError("its numbers are big-endian")
    root, storages = _unpickle(io.BytesIO(data[slice(*place("data.pkl"))]))
    numbers = {}
    for key, declared in storages.items():
        start, end = place(f"data/{key}")
        if end - start != declared.numel * declared.dtype.itemsize:
            raise ValueError("a storage is not as long as declared")
        numbers[key] = _copy(data, start, declared)
    return root, numbers


def _copy(data: memoryview, start: int, declared: Storage) -> Tensor:
    """Return a storage's numbers, (numel,), copied as bytes, since the older format aligns nothing."""
    if not declared.numel:
        return torch.empty(0, dtype=declared.dtype)
    count = declared.numel * declared.dtype.itemsize
    return torch.frombuffer(data, dtype=torch.uint8, count=count, offset=start).clone().view(declared.dtype)
