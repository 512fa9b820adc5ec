"""`demo`: the commands that a user would run, on a shop drawn and served here."""

import random
import shlex
from collections.abc import Callable, Sequence

from atlas_ray.demo.drawing import GARMENTS, draw_garment, to_jpeg
from atlas_ray.demo.shop import ShopProduct, draw_shop, serve_shop
from atlas_ray.errors import OutputError
from atlas_ray.io import storage
from atlas_ray.io.lease import LEASE, hold

PRODUCTS_PER_LEAF = 80
CLOSE_UP_EVERY = 3
"""Number of products for each one that has a close-up, too."""
UNMAPPED_EVERY = 10
"""Number of products for each one whose breadcrumb is outside the taxonomy."""


def run_demo(output: str, run_command: Callable[[Sequence[str]], int]) -> int:
    """Crawl a drawn shop, filter its pictures, train on them, score and evaluate.

    Args:
        output: The folder of the demo.
        run_command: Runs a command line and returns its exit code.

    Raises:
        OutputError: if the folder holds something else.
    """
    root = storage.absolute(output)
    with hold(root, "demo"):
        return _demo(root, run_command)


def _demo(root: str, run_command: Callable[[Sequence[str]], int]) -> int:
    marker = storage.join(root, "made-by-atlas-ray-demo")
    if any(name != LEASE for name, _ in storage.walk(root)) and not storage.exists(marker):
        raise OutputError(f"{root} holds something else than a demo; name another folder with --output")
    names = ("shop", "collected", "zoom", "clean", "model", "run")
    shop, collected, zoom, clean, model, run = (storage.join(root, name) for name in names)
    for folder in (shop, collected, zoom, clean, model, run):
        storage.delete_folder(folder)  # of an earlier demo
    storage.write_bytes(marker, b"")
    taxonomy, stores = storage.join(root, "taxonomy.csv"), storage.join(root, "stores.yaml")
    levels = "level_1,level_2,level_3\n" + "".join(",".join(path) + "\n" for path in GARMENTS)
    storage.write_bytes(taxonomy, levels.encode())
    draw_shop(shop, draw_products())
    places = (stores, taxonomy, collected, zoom, clean, model, run)
    stores_q, taxonomy_q, collected, zoom, clean, model, run = map(shlex.quote, places)
    with serve_shop(shop) as served:
        print(f"a shop drawn in {shop} is served at {served.url}")
        served.write_stores(stores)
        steps = (
            f"crawl --stores {stores_q} --only demo --taxonomy {taxonomy_q} --output {collected} "
            f"--allow-private {served.place} --timeout-s 3 --retries 1 --backoff-s 0.1 --per-host-rate 0",
            f"train zoom --catalog {collected}/catalog --output {zoom} --pictures 800 --epochs 8",
            f"filter --catalog {collected}/catalog --model {zoom} --output {clean}",
            f"train encoder-decoder --catalog {clean}/kept --output {model} --epochs 14 --batch-size 32 "
            "--backbone resnet18 --image-size-px 64 --hidden-dim 128 --augment --encoder-lr 1e-3 --decoder-lr 1e-3 "
            "--schedule one-cycle --weight-decay 0.05",
            f"score --catalog {clean}/kept --model {model} --output {run}",
            f"evaluate --run {run}",
        )
        for step in steps:
            print(f"\n$ atlas-ray {step}", flush=True)
            code = run_command(shlex.split(step))
            if code:
                return code
    return 0


def draw_products() -> list[ShopProduct]:
    """Draw what the shop sells."""
    rng = random.Random(0)
    products: list[ShopProduct] = []
    for path in GARMENTS:
        for _ in range(PRODUCTS_PER_LEAF):
            picture, color = draw_garment(path, rng)
            side = picture.width
            left, top = (rng.randint(side // 4, side // 2) for _ in range(2))
            close_up = picture.crop((left, top, left + side // 4, top + side // 4)).resize((side, side))
            number = len(products)
            products.append(
                ShopProduct(
                    title=f"{color.title()} {path[-1].removesuffix('s').lower()} for {path[0].lower()}, no. {number}",
                    description=f"A {color} piece of {path[1].lower()}.",
                    price=round(rng.uniform(9, 90), 2),
                    breadcrumb=("Sale", "Last pieces") if number % UNMAPPED_EVERY == 0 else path,
                    picture=to_jpeg(picture),
                    close_ups=(to_jpeg(close_up),) if number % CLOSE_UP_EVERY == 0 else (),
                )
            )
    return products
