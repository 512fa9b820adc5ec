"""Columns as any program writes them, read as the types of `atlas_ray.schemas`.

Polars writes views and large lists, pandas dictionaries, whole numbers with gaps as floats, and a type of nothing
where a column is empty; databases write decimals. All of them say the same, and are read as the same. A value
that does not say what its column is for (a price "on request") is read as null; `unreadable` tells them apart from
those that were missing before.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from atlas_ray.arrays import list_offsets
from atlas_ray.formats.values import MAX_PRICE, clean_name, split_name

WHOLE_FLOATS = 2**53
"""The first whole number from which a float no longer tells neighbours apart."""


Read = Callable[[pa.Array, pa.DataType], pa.Array]


def kind_of(source: pa.DataType) -> str:
    """Return the kind of a type: what its values say, whatever their width and layout."""
    for kind, is_of in KINDS.items():
        if any(check(source) for check in is_of):
            return kind
    return str(source)


def plain(array: pa.Array) -> pa.Array:
    """Return an array without a layout that only saves room: a dictionary, or an extension's name for a type."""
    while True:
        if isinstance(array, pa.ExtensionArray):
            array = array.storage
        elif pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        else:
            return array


def plain_type(source: pa.DataType) -> pa.DataType:
    """Return the type of a column that the contract does not name, without the layout of the program that wrote it."""
    source = _inner(source)
    kind = kind_of(source)
    if kind == "text":
        return pa.string()
    if kind == "list":
        return pa.list_(plain_type(source.value_type))
    if kind == "struct":
        return pa.struct([(field.name, plain_type(field.type)) for field in source])
    if kind == "map":
        return pa.map_(plain_type(source.key_type), plain_type(source.item_type))
    return source


def fits(source: pa.DataType, target: pa.DataType) -> bool:
    """Tell whether every value of a type can be read as another one; False if some may become null.

    Raises:
        TypeError: if none can.
    """
    source = _inner(source)
    kinds = (kind_of(source), kind_of(target))
    if source == target or kinds[0] == "null":
        return True
    if kinds == ("list", "list"):
        children = [(source.value_type, target.value_type)]
    elif kinds == ("map", "map"):
        children = [(source.key_type, target.key_type), (source.item_type, target.item_type)]
    elif kinds == ("struct", "struct"):
        there = {field.name: field.type for field in source}
        children = [(there[field.name], field.type) for field in target if field.name in there]
    elif kinds == ("int", "int"):
        narrow, wide = (np.iinfo(one.to_pandas_dtype()) for one in (source, target))
        return bool(wide.min <= narrow.min and narrow.max <= wide.max)
    elif kinds in READABLE:
        return kinds in EXACT
    else:
        raise TypeError(f"{source} does not say {target}")
    if not all(fits(one, other) for one, other in children):
        raise TypeError(f"{source} does not say {target}")
    return True


def cast(array: pa.Array, target: pa.DataType) -> pa.Array:
    """Read an array as a type that it `fits`; what cannot be read is null."""
    array = plain(array)
    kinds = (kind_of(array.type), kind_of(target))
    if kinds[0] == "null":
        return pa.nulls(len(array), target)
    if array.type == target and (kinds[1] not in ("float", "list") or _is_whole(array)):
        return array
    if kinds == ("list", "list") and not pa.types.is_fixed_size_list(target):
        return _list(array, target)
    if kinds == ("struct", "struct"):
        names = [field.name for field in array.type]
        children = [
            cast(pc.struct_field(array, [field.name]), field.type)
            if field.name in names
            else pa.nulls(len(array), field.type)
            for field in target
        ]
        return pa.StructArray.from_arrays(children, fields=list(target), mask=array.is_null())
    return READABLE.get(kinds, _same)(array, target)


def cast_path(array: pa.Array, target: pa.DataType) -> pa.Array:
    """Read category paths: one without a name, or with one missing, is none."""
    array = plain(array)
    paths = cast(array, target)
    if kind_of(array.type) != "list":
        return paths
    paths = _with_clean_names(paths)
    lengths = pc.list_value_length(paths)
    good = pc.and_(pc.greater(lengths, 0), pc.equal(lengths, pc.list_value_length(array)))
    return pc.if_else(good, paths, None)


def _with_clean_names(paths: pa.ListArray) -> pa.ListArray:
    """Return paths whose names are written as everywhere else: NFC, no space at their ends."""
    names = paths.values.dictionary_encode()
    written = names.dictionary.to_pylist()
    cleaned = [clean_name(name) for name in written]
    if cleaned == written:
        return paths
    values = pa.array(cleaned, paths.type.value_type).take(names.indices)
    offsets = pa.array(paths.offsets.to_numpy())  # those of a slice take no mask
    return pa.ListArray.from_arrays(offsets, values, type=paths.type, mask=paths.is_null())


def cast_split(array: pa.Array, target: pa.DataType) -> pa.Array:
    """Read the sides of a split, whatever a program calls them."""
    texts = cast(array, target).dictionary_encode()
    return pa.array([split_name(text) for text in texts.dictionary.to_pylist()], target).take(texts.indices)


def cast_price(array: pa.Array, target: pa.DataType) -> pa.Array:
    """Read prices: a negative number, an infinite or an absurd one is none, as in a table of text."""
    prices = cast(array, target)
    return pc.if_else(pc.and_(pc.greater_equal(prices, 0), pc.less(prices, MAX_PRICE)), prices, None)


def unreadable(array: pa.Array, target: pa.DataType, read: Read = cast) -> pa.Array:
    """Return which values are there and cannot be read as a type, bool."""
    array = plain(array)
    filled = array.is_valid()
    kind = kind_of(array.type)
    if kind == "text":
        filled = pc.and_(filled, pc.not_equal(pc.utf8_trim_whitespace(array), "").fill_null(False))
    if kind == "float":
        filled = pc.and_(filled, pc.invert(pc.is_nan(array.cast(pa.float64()))).fill_null(False))
    if kind == "list":
        filled = pc.and_(filled, pc.greater(pc.list_value_length(array), 0).fill_null(False))
    return pc.and_(filled, read(array, target).is_null())


def _inner(source: pa.DataType) -> pa.DataType:
    while True:
        if isinstance(source, pa.BaseExtensionType):
            source = source.storage_type
        elif pa.types.is_dictionary(source):
            source = source.value_type
        else:
            return source


def _is_whole(array: pa.Array) -> bool:
    """Tell whether lists lack no entry, as far as that is quickly told."""
    return (
        pa.types.is_list(array.type) and not pa.types.is_nested(array.type.value_type) and not array.values.null_count
    )


def _list(array: pa.Array, target: pa.DataType) -> pa.Array:
    """Read lists of any layout; an entry that is missing or cannot be read drops out."""
    values = cast(array.flatten(), target.value_type)
    lengths = pc.list_value_length(array).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    if values.null_count:
        owner = np.repeat(np.arange(len(array)), lengths)[values.is_valid().to_numpy(zero_copy_only=False)]
        lengths, values = np.bincount(owner, minlength=len(array)), values.drop_null()
    return pa.ListArray.from_arrays(list_offsets(lengths), values, type=target, mask=array.is_null())


def _same(array: pa.Array, target: pa.DataType) -> pa.Array:
    return array.cast(target)


def _float(array: pa.Array, target: pa.DataType) -> pa.Array:
    """Read numbers; NaN is how some programs write that there is none."""
    if pa.types.is_decimal(array.type):
        array = array.cast(pa.string())  # the direct way is not exact: 3.01 would be 3.0100000000000002
    wide = array.cast(pa.float64(), safe=False)
    return pc.if_else(pc.is_nan(wide), None, wide).cast(target)


def _utf8(array: pa.Array, target: pa.DataType) -> pa.Array:
    """Read bytes that a program did not mark as text."""
    try:
        return array.cast(target)
    except pa.ArrowInvalid:
        return pa.array([_decoded(value) for value in array.to_pylist()], target)


def _decoded(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None


def _whole(array: pa.Array, target: pa.DataType) -> pa.Array:
    """Read whole numbers that were written as floats (pandas does, if some are missing), decimals or others."""
    kind = kind_of(array.type)
    if kind == "int":
        try:
            return array.cast(target)
        except pa.ArrowInvalid:
            pass
    if kind == "decimal":
        whole = pc.trunc(array)
        array = pc.if_else(pc.equal(whole, array), whole, None).cast(pa.decimal256(76, 0), safe=False)
    elif kind == "float":
        values = array.cast(pa.float64()).to_numpy(zero_copy_only=False)
        with np.errstate(invalid="ignore"):
            good = (np.floor(values) == values) & (np.abs(values) <= WHOLE_FLOATS)
        array = pa.array(np.where(good, values, 0).astype(np.int64), mask=~good)
    if kind_of(target) == "text":
        return array.cast(target)
    limits = np.iinfo(target.to_pandas_dtype())
    text = array.cast(pa.string()).dictionary_encode()
    numbers = [int(value) for value in text.dictionary.to_pylist()]
    fitting = [number if limits.min <= number <= limits.max else None for number in numbers]
    return pa.array(fitting, target).take(text.indices)


def _time(array: pa.Array, target: pa.DataType) -> pa.Array:
    """Read moments of any unit; those without a zone are UTC."""
    if not pa.types.is_timestamp(array.type):
        return array.cast(pa.timestamp("ms")).cast(target)
    if array.type.unit in ("s", "ms"):  # a finer unit reaches less far
        reach = 2**63 // (10**6 if array.type.unit == "s" else 10**3) - 1
        ticks = array.cast(pa.int64())
        array = pc.if_else(pc.and_(pc.greater(ticks, -reach), pc.less(ticks, reach)), array, None)
    return array.cast(pa.timestamp(array.type.unit, tz="UTC")).cast(target, safe=False)


def _parsed(array: pa.Array, target: pa.DataType) -> pa.Array:
    """Read what texts say, each different one once."""
    texts = array.cast(pa.string()).dictionary_encode()
    parse = PARSERS[kind_of(target)]
    return cast(pa.array([parse(text) for text in texts.dictionary.to_pylist()]).take(texts.indices), target)


def _price_in(text: str) -> float | None:
    from atlas_ray.formats.prices import parse_price  # not needed where numbers are numbers

    return parse_price(text)


def _number_in(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _moment_in(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)


PARSERS: dict[str, Callable[[str], Any]] = {"float": _price_in, "int": _number_in, "time": _moment_in}

KINDS: dict[str, tuple[Callable[[pa.DataType], bool], ...]] = {
    "null": (pa.types.is_null,),
    "text": (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view),
    "binary": (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view),
    "bool": (pa.types.is_boolean,),
    "int": (pa.types.is_integer,),
    "float": (pa.types.is_floating,),
    "decimal": (pa.types.is_decimal,),
    "time": (pa.types.is_timestamp, pa.types.is_date),
    "list": (
        pa.types.is_list,
        pa.types.is_large_list,
        pa.types.is_fixed_size_list,
        pa.types.is_list_view,
        pa.types.is_large_list_view,
    ),
    "struct": (pa.types.is_struct,),
    "map": (pa.types.is_map,),
}

EXACT: dict[tuple[str, str], Read] = {
    ("text", "text"): _same,
    ("int", "text"): _same,
    ("float", "float"): _float,
    ("int", "float"): _float,
    ("decimal", "float"): _float,
    ("time", "time"): _time,
    ("bool", "bool"): _same,
}
"""Pairs of kinds (stored, target) of which every stored value can be read as the target."""

READABLE: dict[tuple[str, str], Read] = {
    **EXACT,
    ("int", "int"): _whole,
    ("binary", "text"): _utf8,
    ("float", "text"): _whole,
    ("decimal", "text"): _whole,
    ("float", "int"): _whole,
    ("decimal", "int"): _whole,
    ("text", "int"): _parsed,
    ("text", "float"): _parsed,
    ("text", "time"): _parsed,
}
"""Pairs of kinds that can be read, including those of which some stored values become null."""

EXPECTED = {
    "text": "text or whole numbers",
    "float": "numbers",
    "int": "whole numbers",
    "time": "moments",
    "bool": "true and false",
    "list": "a list",
}
"""Descriptions of what a column should hold, by kind, for messages."""
