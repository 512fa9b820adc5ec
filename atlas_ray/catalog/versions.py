"""Versions of a catalogue: each is a folder of tables; a document in the catalogue names the current one.

A reader that has begun stays with the version that it found. Earlier versions are catalogues of their own.
"""

import json
from concurrent.futures import ThreadPoolExecutor

from atlas_ray.errors import OutputError
from atlas_ray.formats.tables import CURRENT, current
from atlas_ray.io import storage
from atlas_ray.runtime.tables import DOCUMENTS, copy_documents

VERSIONS = "versions"
THREADS = 16


def next_version(catalog: str) -> str:
    """Return the folder of the version that comes next.

    Raises:
        OutputError: if there is no catalogue.
    """
    now = current(catalog)
    if not storage.exists(storage.join(now, "run.json")) or not storage.files(storage.join(now, "products")):
        raise OutputError(f"{catalog} holds no catalogue that could be updated; import one with --output")
    number = 0 if now == catalog else int(now.rpartition("/")[2])
    return storage.join(catalog, VERSIONS, f"{number + 1:05d}")


def publish(catalog: str, version: str) -> None:
    """Make a version the current one, at once; what the catalogue says of itself is copied beside it before."""
    if current(catalog) == catalog:
        _copy(catalog, storage.join(catalog, VERSIONS, f"{0:05d}"))
    copy_documents(version, catalog)
    name = version[len(catalog.rstrip("/")) + 1 :]
    storage.write_bytes(storage.join(catalog, CURRENT), json.dumps({"version": name}).encode())


def _copy(catalog: str, output: str) -> None:
    """Copy the tables that a catalogue had before it had versions; those who read them go on where they are."""
    files = [file for name in ("products", "images") for file in storage.files(storage.join(catalog, name))]
    for name in ("products", "images"):
        storage.make_folder(storage.join(output, name))
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda file: storage.copy_file(file, output + file[len(catalog) :]), files))
    copy_documents(catalog, output, (*DOCUMENTS, "run.json"))
