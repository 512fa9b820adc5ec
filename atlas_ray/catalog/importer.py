"""Import: another layout's catalogue to the products and images tables, streaming."""

import itertools
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from atlas_ray.catalog.category_paths import DEFAULT, ListTally, SeparatorTally
from atlas_ray.catalog.fields import FIELDS, Columns, category_of, find_value
from atlas_ray.catalog.import_account import ImportAccount
from atlas_ray.catalog.outputs import unfinished
from atlas_ray.catalog.parts import RawRow
from atlas_ray.catalog.picture_names import is_address
from atlas_ray.catalog.reading import PartReport, Reading, lines_before
from atlas_ray.catalog.rows import NO_VALUE, PATH_FIELDS, RowReader, Unread
from atlas_ray.catalog.settling import Settler, Tally
from atlas_ray.catalog.shuffling import Earlier, settle_source
from atlas_ray.catalog.sides import Sides, rule_of
from atlas_ray.catalog.sources import FORMATS, Source, guess_format, locate
from atlas_ray.catalog.split import SplitRule, known_products, parse_shares
from atlas_ray.catalog.table_reader import CORRECTED, KNOWN, PICTURE, PRODUCT
from atlas_ray.catalog.versions import next_version, publish
from atlas_ray.errors import CatalogError, ConfigError
from atlas_ray.formats.prices import point_marks_thousands
from atlas_ray.formats.tables import current, open_table
from atlas_ray.formats.text_files import check_encoding
from atlas_ray.formats.values import clean_text
from atlas_ray.io import storage
from atlas_ray.io.lease import holding
from atlas_ray.runs.run_record import read_run, write_run
from atlas_ray.runtime.tables import CORRECTIONS, copy_documents, open_catalog
from atlas_ray.schemas import CORRECTED_LABELS
from atlas_ray.settings import Settings, flag_of, setting
from atlas_ray.taxonomy import CategoryPath, Taxonomy, format_path, read_taxonomy

ANY_FORMAT = ("auto", *FORMATS)
ONE_PATH = "none"
"""The value of `category_separator` for cells that name one category path, whatever signs they contain."""
FEW_PRODUCTS = 20
KEPT = {"atlas-json": ("image_url",)}
"""Further columns that products keep by default, by format: where an Atlas picture was crawled from."""
SAMPLE_ROWS, SAMPLE_SIZE = 1000, 64 * 1024 * 1024
"""The most rows, and characters in them, from which a source's columns and separators are told."""


@dataclass(frozen=True, kw_only=True)
class ImportConfig(Settings):
    """The source, the output and the options of an import."""

    source: str
    """A file, or a folder of files or of category folders, local or in a store."""
    output: str
    """The folder of the tables; it must not hold a catalogue yet, unless that is updated."""
    update: bool = False
    """Whether the output is a catalogue that the source updates: its tables become a new version of it."""
    full: bool = setting("with --into, remove the products that the source does not name", False)
    format: str = setting("format of the source; auto tells it from its name and content", "auto", choices=ANY_FORMAT)
    encoding: str = setting(
        "encoding of the source, such as windows-1252; auto tells UTF-8 and UTF-16, and assumes an older one if the "
        "file is neither",
        "auto",
    )
    sheet: str = setting("sheet of a workbook; by default its first one", "")
    columns: Mapping[str, str] = field(default_factory=dict)
    """The source's column by field; pictures and paths may have several columns, separated by commas."""
    keep: tuple[str, ...] = ()
    """Further columns of the source that go into the attributes of its products."""
    image_base: str = setting("folder that relative picture names are below; by default the source's own", "")
    taxonomy: Taxonomy | None = None
    """The taxonomy; labels that are none of its nodes are quarantined. Without one, it is made from the labels."""
    split: str | None = setting(
        "train/val/test shares of labelled products that have no split yet; by default 65/5/30, or those of --previous",
        None,
    )
    seed: int | None = setting("random seed of the split; by default 0, or that of --previous", None)
    split_exact: bool = setting(
        "exact shares in each category path, for a catalogue that is imported once: the order of the rows decides",
        False,
    )
    previous: tuple[str, ...] = ()
    """Earlier catalogues, the newest last, whose products keep their split."""
    store: str | None = setting("store of the rows that name no store", None)
    path_separator: str | None = setting(
        "separator of the names in a category path; by default inferred from the paths", None
    )
    category_separator: str | None = setting(
        f"separator of category paths in one cell, {ONE_PATH!r} if cells hold one; by default inferred from the cells",
        None,
    )
    image_separator: str | None = setting(
        "separator of the pictures in one cell; by default inferred from their names", None
    )
    max_quarantine_fraction: float = setting(
        "share of quarantined rows above which the command exits with 3", 0.05, low=0, high=1
    )

    def __post_init__(self) -> None:
        """Refuse unknown formats, fields and shares."""
        super().__post_init__()
        unknown = [name for name in self.columns if name not in FIELDS]
        if unknown:
            raise ConfigError(f"{unknown[0]!r} is not a field of a product; expected one of {', '.join(FIELDS)}")
        for name in ("path_separator", "category_separator", "image_separator"):
            if getattr(self, name) == "":
                raise ConfigError(f"{flag_of(name)} is empty; expected what stands between the parts, such as ';'")
        check_encoding(self.encoding)
        if self.split is not None:
            parse_shares(self.split)
        if self.full and not self.update:
            raise ConfigError("--full goes with --into: it removes what a catalogue has and the source does not name")


@dataclass
class ImportReport:
    """The outcome of an import."""

    output: str
    records: int = 0
    """The number of rows of the source: products, joined, quarantined and blank ones."""
    products: int = 0
    images: int = 0
    without_picture: int = 0
    """The number of products without a picture."""
    labelled: int = 0
    labels: Counter[CategoryPath] = field(default_factory=Counter)
    """Counts of labelled products by category path."""
    paths: Counter[CategoryPath] = field(default_factory=Counter)
    """The same by each of their category paths, of which a product may have several."""
    joined: int = 0
    """The number of rows that add to a product of an earlier row."""
    deleted: int = 0
    """The number of rows that say that a product is no longer there."""
    changes: Counter[str] = field(default_factory=Counter)
    """Counts of an update: products that were added, changed, the same, absent from the source, or removed."""
    kept_first: Counter[str] = field(default_factory=Counter)
    """Counts of joined rows by the field of which the first value was kept."""
    blank: int = 0
    """The number of blank rows."""
    quarantined: Counter[str] = field(default_factory=Counter)
    """Counts of quarantined rows by error code."""
    quarantined_fraction: float = 0.0
    """The share of quarantined rows among those that are not blank."""
    examples: dict[str, str] = field(default_factory=dict)
    """The first message of each error code, with its place."""
    hint: str | None = None
    """Advice if a single error code explains most of the quarantined rows."""
    encoding: str | None = None
    """The encoding that a text file was read with."""
    encoding_assumed: bool = False
    """Whether the encoding is a guess."""
    unread: dict[str, Unread] = field(default_factory=dict)
    """Values of optional fields that were left out, by field."""
    columns: dict[str, list[str]] = field(default_factory=dict)
    """The columns that were read, by field."""
    path_separator: str = DEFAULT
    """The separator of the names of category paths."""
    assumed: list[str] = field(default_factory=list)
    """Sentences about assumptions made from the first rows, which may be wrong."""
    unused: list[str] = field(default_factory=list)
    """Columns of a table that no field was taken from."""
    unsure_paths: Unread | None = None
    """Category paths that were read as one, and may be several."""
    likely_separator: str | None = None
    """A separator that most category paths contain, if none contains `path_separator`."""
    splits: Counter[str] = field(default_factory=Counter)
    """Counts of labelled products by split; `none` counts those that an earlier catalogue keeps out of all splits."""
    split_origins: Counter[str] = field(default_factory=Counter)
    """Counts as in `atlas_ray.catalog.sides.Sides.counts`."""
    untrained: list[tuple[CategoryPath, int]] = field(default_factory=list)
    """Category paths without a product in train, those with most products first."""
    taxonomy: Taxonomy | None = None
    few: list[tuple[CategoryPath, int]] = field(default_factory=list)
    """Leaves with under 20 products, fewest first."""
    not_leaves: list[tuple[CategoryPath, int]] = field(default_factory=list)
    """Labels above the leaves of the taxonomy, most products first."""


@dataclass
class OpenSource:
    """A source whose first rows were looked at."""

    uri: str
    source: Source
    """Whose rows are partly read."""
    sample: list[RawRow]
    """The first rows."""
    reader: RowReader
    assumed: list[str]
    """Sentences about assumptions made from the first rows, which may be wrong."""
    reading: Reading
    """What a task needs to read a part of it."""

    @property
    def kind(self) -> str:
        """The format."""
        return self.source.kind

    @property
    def unused(self) -> list[str]:
        """Columns of a table that no field was taken from, as far as it was read."""
        taken = {column for _, column in self.reader.taken} | set(self.reader.keep)
        return [name for name in self.source.header or () if name and name not in taken]


def open_source(config: ImportConfig) -> OpenSource:
    """Look at a source's first rows: which columns it has, and what its category paths are written with.

    Raises:
        CatalogError: if it cannot be read as a whole.
        ConfigError: for a column of `config` that it lacks.
    """
    uri = locate(config.source, config.format)
    kind = config.format if config.format != "auto" else guess_format(uri, config.encoding)
    if config.sheet and kind != "excel":
        raise ConfigError(f"--sheet {config.sheet!r}: {uri} is read as {kind}, which has no sheets")
    columns = Columns(config.columns)

    advice = "if the header is this line, name its columns, such as --map product_id=COLUMN; otherwise delete "
    advice += "what stands above it"

    def begin() -> Source:
        return Source(uri, kind, columns.names, encoding=config.encoding, advice=advice, sheet=config.sheet)

    source = begin()
    sample, size = [], 0
    for raw in source:
        sample.append(raw)
        size += sum(len(value) for value in raw.fields.values() if isinstance(value, str | list))
        if len(sample) == SAMPLE_ROWS or size > SAMPLE_SIZE:
            break
    fields = [raw.fields for raw in sample if raw.fields]
    # One shop writes a feed, in which an item may lack its own category beside one of another kind. Lines of JSON may
    # come from several shops, which call it by several names.
    category = category_of(fields) if kind == "feed" else None
    if source.header is not None:
        header = dict.fromkeys(source.header)
        columns.check(uri, [header])
        columns = Columns(config.columns, fields or [header])
        columns.check_needed(uri)
        columns.check_kept(uri, config.keep)
    else:
        if fields and config.columns:
            columns.check(uri, itertools.chain(fields, (raw.fields for raw in begin())))
        columns = Columns(config.columns, category=category)
    separators = {}
    for name in PATH_FIELDS:
        tally = SeparatorTally()
        for row in fields:
            cell = find_value(row, columns.of(row)[name])
            if cell and str(cell[1]).strip().lower() not in NO_VALUE:
                tally.add(cell[1])
        separators[name] = config.path_separator or tally.best()
    between = None if config.category_separator == ONE_PATH else config.category_separator
    if config.category_separator is None:
        lists = ListTally(separators["category_path"])
        for row in fields:
            if cell := find_value(row, columns.of(row)["category_path"]):
                lists.add(cell[1])
        between = lists.best()
    prices = [str(cell[1]) for row in fields if (cell := find_value(row, columns.of(row)["price"]))]
    base = config.image_base or (uri if kind == "folder" else uri.rpartition("/")[0])
    reader = RowReader(
        image_base=base if is_address(base) else storage.absolute(base) if base else "",
        image_base_given=bool(config.image_base),
        columns=columns,
        taxonomy=config.taxonomy,
        store=clean_text(config.store or "") or None,
        separators=separators,
        category_separator=between,
        doubts_paths=config.category_separator is None and config.taxonomy is None,
        image_separator=config.image_separator,
        point_marks_thousands=point_marks_thousands(prices),
        keep=tuple(dict.fromkeys((*KEPT.get(kind, ()), *config.keep))),
    )
    assumed, separator = [], separators["category_path"]
    if columns.without_pictures:
        assumed.append("no column is one of pictures, so products have texts alone; --map image_uris=COLUMN names one")
    if config.path_separator is None and separator != DEFAULT:
        assumed.append(f"category paths are separated by {separator!r} (assumed; --path-separator says otherwise)")
    if between and config.category_separator is None:
        assumed.append(
            f"cells hold several category paths with {between!r} between them (assumed; --category-separator "
            f"{ONE_PATH} says that each is one)"
        )
    if reader.point_marks_thousands:
        assumed.append("a price of 1.299 is more than a thousand (assumed, as other prices are written)")
    template = replace(
        reader, columns=columns.settled(source.header) if source.header else Columns(config.columns, category=category)
    )
    reading = Reading(uri, kind, columns.names, config.encoding, advice, config.sheet, template)
    return OpenSource(uri, source, sample, reader, assumed, reading)


@holding("import", "config.output")
def import_catalog(config: ImportConfig, on_open: Callable[[OpenSource], None] | None = None) -> ImportReport:
    """Write products, images, quarantine, taxonomy.json and run.json below `config.output`.

    A small source is read here; a large one by Ray, in parts. Memory does not grow with the catalogue: rows stream, and
    those of a product are brought together by a shuffle.

    Args:
        config: The settings.
        on_open: Called with the source after its first rows were looked at, and before anything is read.

    Raises:
        CatalogError: if the source as a whole cannot be read, or holds no product.
        ConfigError: for a column of `config` that it lacks.
        OutputError: if the output already holds a catalogue.
        AuditError: if a row of the source came to nothing.
    """
    began = time.time()
    catalog = storage.absolute(config.output)
    base, output = (current(catalog), next_version(catalog)) if config.update else (None, catalog)
    config = _as_before(config, base)
    previous = tuple(map(storage.absolute, config.previous))
    rule = rule_of(config.split, config.seed, exact=config.split_exact, previous=(*previous, *filter(None, [base])))
    rule = replace(rule, previous=previous)
    earlier = [Earlier(known_products(place), KNOWN, number) for number, place in enumerate(previous)]
    source = open_source(config)
    if on_open is not None:
        on_open(source)
    with unfinished(output):
        settler = Settler(
            source.uri, source.source.format.word, output, Sides(rule), update=config.update, full=config.full
        )
        earlier += _tables_of(base) if base else []
        reports, tally = settle_source(source.reading, source.source.parts(), settler, earlier)
        account = ImportAccount.of(source.source, reports, tally)
        report = _report(output, source, reports, account, tally)
        _check_some(report, source, account)
        _check_whole(config, report, source)
        account.check(tally)
        _finish(config, report, rule, source, began)
        if base:
            copy_documents(base, output, (CORRECTIONS,))
    if config.update:
        publish(catalog, output)
    return report


def _as_before(config: ImportConfig, base: str | None) -> ImportConfig:
    """Return the settings with the taxonomy that the catalogue was checked against so far, if it was."""
    if base is None or config.taxonomy is not None or not (read_run(base) or {}).get("config", {}).get("taxonomy"):
        return config
    return replace(config, taxonomy=read_taxonomy(storage.join(base, "taxonomy.json")))


def _tables_of(catalog: str) -> list[Earlier]:
    """Open the tables of the catalogue that is updated, and the labels that a person corrected in it."""
    tables = open_catalog(catalog, images=("sha256", "etag", "width", "height"), may_be_empty=True)
    corrections = storage.join(catalog, CORRECTIONS)
    found = [Earlier(tables.products, PRODUCT), Earlier(tables.images, PICTURE)]
    if storage.exists(corrections):
        found.append(Earlier(open_table(corrections, CORRECTED_LABELS), CORRECTED))
    return found


def _report(
    output: str,
    source: OpenSource,
    reports: Sequence[PartReport],
    account: ImportAccount,
    tally: Tally,
) -> ImportReport:
    """Say how the source was read, and what became of its rows."""
    reader = source.reader = source.reader.anew()
    before = lines_before(reports)
    for part in reports:
        if part.reader is not None:
            reader.merge(part.reader.located(before[part.part.number]))
    untrained = [(path, count) for path, count in tally.labels.items() if not tally.trained[path]]
    return ImportReport(
        output,
        records=account.records,
        products=tally.products,
        images=tally.images,
        without_picture=tally.without_picture,
        labelled=tally.labels.total(),
        labels=tally.labels,
        paths=tally.paths,
        joined=tally.joined,
        deleted=tally.deleted,
        changes=tally.changes,
        kept_first=tally.kept_first,
        blank=account.blank,
        quarantined=account.quarantined,
        quarantined_fraction=account.quarantined_fraction,
        examples=account.examples,
        hint=account.hint(),
        encoding=account.encoding,
        encoding_assumed=account.encoding_assumed,
        unread={name: missed.unread for name, missed in reader.unread.items()},
        columns=reader.columns_taken,
        path_separator=reader.separators["category_path"],
        assumed=source.assumed,
        unused=source.unused,
        unsure_paths=reader.unsure.unread if reader.unsure else None,
        likely_separator=reader.likely_separator,
        splits=tally.splits,
        split_origins=tally.origins,
        untrained=sorted(untrained, key=lambda item: -item[1]),
    )


def _check_some(report: ImportReport, source: OpenSource, account: ImportAccount) -> None:
    """Refuse a source without a product."""
    if account.records == account.blank:
        header = source.source.header
        found = f"a header ({', '.join(header[:12])}) and no row below it" if header else "an empty file"
        raise CatalogError(f"{source.uri}: {found}; expected a catalogue")
    if not report.products and not report.deleted:
        example = account.examples[report.quarantined.most_common(1)[0][0]]
        hint = f"; {report.hint}" if report.hint else ""
        raise CatalogError(
            f"{source.uri}: not one row could be used ({_worst(report)}), such as {example}{hint}; "
            f"see {report.output}/quarantine"
        )


def _worst(report: ImportReport) -> str:
    """Return the commonest error codes of the rows, with their counts."""
    return ", ".join(f"{code} {count}" for code, count in report.quarantined.most_common(3))


def _check_whole(config: ImportConfig, report: ImportReport, source: OpenSource) -> None:
    """Refuse a whole catalogue of which so much cannot be read that what it does not name may be there all the same."""
    if config.update and config.full and report.quarantined_fraction > config.max_quarantine_fraction:
        example = next(iter(report.examples.values()), "")
        raise CatalogError(
            f"{source.uri}: {report.quarantined_fraction:.1%} of its rows cannot be used ({_worst(report)}), such as "
            f"{example}; with --full each product without a row would be removed. Nothing was changed: mend the "
            "source, import it without --full, or allow more with --max-quarantine-fraction"
        )


def _finish(config: ImportConfig, report: ImportReport, rule: SplitRule, source: OpenSource, began: float) -> None:
    labels = report.labels
    rule.write(report.output)
    report.taxonomy = config.taxonomy
    if report.taxonomy is None and report.paths:
        name = source.uri.rstrip("/").rpartition("/")[2].rpartition(".")[0] or "catalog"
        report.taxonomy = Taxonomy(report.paths, name=name)
    if report.taxonomy is not None:
        document = report.taxonomy.to_json().encode()
        storage.write_bytes(storage.join(report.output, "taxonomy.json"), document)
        leaves = report.taxonomy.leaf_set
        above = [(path, count) for path, count in labels.items() if path not in leaves]
        report.not_leaves = sorted(above, key=lambda item: -item[1])
        report.untrained = [(path, count) for path, count in report.untrained if path in leaves]
        counts = [(path, report.paths[path]) for path in report.taxonomy.leaves]
        report.few = sorted((item for item in counts if item[1] < FEW_PRODUCTS), key=lambda item: item[1])
    fields = {
        "config": {
            "source": source.uri,
            "format": source.kind,
            "encoding": config.encoding,
            "sheet": config.sheet,
            "columns": dict(config.columns),
            "split": rule.shares,
            "seed": rule.seed,
            "split_exact": config.split_exact,
            "previous": list(rule.previous),
            "store": config.store,
            "path_separator": report.path_separator,
            "category_separator": source.reader.category_separator,
            "image_separator": config.image_separator,
            "keep": list(config.keep),
            "taxonomy": config.taxonomy.id if config.taxonomy else None,
            "full": config.full,
        },
        "columns": report.columns,
        "unused_columns": report.unused,
        "assumed": report.assumed,
        "taxonomy_id": report.taxonomy.id if report.taxonomy else None,
        "encoding": report.encoding,
        "encoding_assumed": report.encoding_assumed,
        "counts": {
            "records": report.records,
            "products": report.products,
            "joined": report.joined,
            "blank": report.blank,
            "deleted": report.deleted,
            **({"changes": dict(report.changes)} if config.update else {}),
            "images": report.images,
            "without_picture": report.without_picture,
            "labelled": report.labelled,
            "splits": dict(report.splits),
            "split_origins": dict(report.split_origins),
            "quarantined": dict(report.quarantined),
        },
        "unread": {name: asdict(values) for name, values in report.unread.items()},
        "kept_first": dict(report.kept_first),
        "unsure_paths": asdict(report.unsure_paths) if report.unsure_paths else None,
        "likely_separator": report.likely_separator,
        "few_products": {format_path(path): count for path, count in report.few},
        "not_leaves": {format_path(path): count for path, count in report.not_leaves},
        "untrained": {format_path(path): count for path, count in report.untrained},
    }
    write_run(report.output, "import", began, fields)
