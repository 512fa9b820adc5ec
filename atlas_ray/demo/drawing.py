"""A sample catalogue that the project draws itself: garments, titles, labels, broken pictures."""

import io
import json
import random
from collections.abc import Callable

from PIL import Image, ImageDraw

from atlas_ray.io import storage
from atlas_ray.taxonomy import CategoryPath, format_path

SIDE = 128
Draw = ImageDraw.ImageDraw
Color = tuple[int, int, int]
Point = tuple[float, float]

COLORS: dict[str, Color] = {
    "red": (190, 40, 45), "blue": (45, 80, 170), "green": (50, 130, 70), "black": (40, 40, 45),
    "mustard": (205, 155, 40), "pink": (225, 120, 160), "teal": (30, 130, 140), "purple": (110, 60, 140),
    "brown": (120, 80, 50), "grey": (130, 130, 135),
}  # fmt: skip


def _shirt(draw: Draw, color: Color, dark: Color) -> None:
    draw.polygon(
        [
            (40, 30),
            (88, 30),
            (118, 52),
            (106, 68),
            (90, 58),
            (90, 108),
            (38, 108),
            (38, 58),
            (22, 68),
            (10, 52),
        ],
        color,
    )
    draw.polygon([(54, 30), (74, 30), (64, 44)], dark)
    draw.line([(64, 44), (64, 106)], dark, 2)


def _trousers(draw: Draw, color: Color, dark: Color) -> None:
    draw.polygon([(42, 16), (86, 16), (94, 116), (72, 116), (64, 50), (56, 116), (34, 116)], color)
    draw.rectangle([42, 16, 86, 22], dark)


def _shorts(draw: Draw, color: Color, dark: Color) -> None:
    draw.polygon([(36, 36), (92, 36), (104, 88), (70, 90), (64, 62), (58, 90), (24, 88)], color)
    draw.rectangle([36, 36, 92, 43], dark)


def _jacket(draw: Draw, color: Color, dark: Color) -> None:
    draw.polygon(
        [
            (40, 24),
            (88, 24),
            (106, 40),
            (114, 98),
            (98, 100),
            (92, 60),
            (92, 112),
            (36, 112),
            (36, 60),
            (30, 100),
            (14, 98),
            (22, 40),
        ],
        color,
    )
    draw.polygon([(48, 24), (64, 66), (80, 24), (88, 24), (66, 112), (62, 112), (40, 24)], dark)


def _waistcoat(draw: Draw, color: Color, dark: Color) -> None:
    draw.polygon([(46, 18), (82, 18), (94, 46), (92, 104), (64, 112), (36, 104), (34, 46)], color)
    draw.rectangle([54, 14, 74, 24], dark)
    for y in range(34, 100, 14):
        draw.ellipse([61, y, 67, y + 6], dark)


def _dress(draw: Draw, color: Color, dark: Color) -> None:
    draw.polygon([(48, 14), (56, 22), (72, 22), (80, 14), (80, 52), (108, 116), (20, 116), (48, 52)], color)
    draw.rectangle([47, 50, 81, 56], dark)


def _skirt(draw: Draw, color: Color, dark: Color) -> None:
    draw.polygon([(46, 32), (82, 32), (110, 100), (18, 100)], color)
    draw.rectangle([46, 30, 82, 37], dark)
    for x in (40, 56, 72, 88):
        draw.line([(64 + (x - 64) / 3, 38), (x, 99)], dark, 2)


def _saree(draw: Draw, color: Color, dark: Color) -> None:
    draw.polygon([(52, 12), (76, 12), (84, 50), (90, 118), (38, 118), (44, 50)], color)
    draw.polygon([(48, 12), (58, 12), (96, 96), (112, 104), (98, 118), (82, 84)], dark)
    for y in range(60, 116, 9):
        draw.arc([34, y - 8, 94, y + 8], 20, 160, dark, 2)


GARMENTS: dict[CategoryPath, Callable[[Draw, Color, Color], None]] = {
    ("Men", "Western Wear", "Shirts"): _shirt,
    ("Men", "Western Wear", "Trousers"): _trousers,
    ("Men", "Western Wear", "Shorts"): _shorts,
    ("Men", "Western Wear", "Jackets"): _jacket,
    ("Men", "Ethnic Wear", "Jackets"): _waistcoat,
    ("Women", "Western Wear", "Dresses"): _dress,
    ("Women", "Western Wear", "Skirts"): _skirt,
    ("Women", "Ethnic Wear", "Sarees"): _saree,
}
"""The leaves of the sample's taxonomy; a name stands at two places."""


def draw_garment(path: CategoryPath, rng: random.Random) -> tuple[Image.Image, str]:
    """Draw one product's picture; return it with the name of its color."""
    name = rng.choice(list(COLORS))
    color = COLORS[name]
    shade = rng.uniform(0.45, 0.7)
    red, green, blue = (int(part * shade) for part in color)
    back = tuple(rng.randint(215, 250) for _ in range(3))
    garment = Image.new("RGBA", (SIDE, SIDE), (0, 0, 0, 0))
    GARMENTS[path](ImageDraw.Draw(garment), color, (red, green, blue))
    side = int(SIDE * rng.uniform(0.75, 1.0))
    garment = garment.resize((side, side)).rotate(rng.uniform(-8, 8), Image.Resampling.BILINEAR)
    picture = Image.new("RGB", (SIDE, SIDE), back)
    room = SIDE - side
    picture.paste(garment, (rng.randint(0, room), rng.randint(0, room)), garment)
    return picture, name


def draw_catalog(output: str, *, products_a_leaf: int = 80, unlabelled_a_leaf: int = 15, seed: int = 0) -> str:
    """Write a sample catalogue and return the URI of its `products.jsonl`.

    Beside it lie `taxonomy.csv` and `images/`. Of each leaf some products have no label. Six
    products are broken, each in its own way: an empty file, a cut one, text, a bomb's header, a
    missing file, and a row without a picture or a text.

    Args:
        output: A folder, local or in S3.
        products_a_leaf: Labelled products of each category path.
        unlabelled_a_leaf: Products of each path whose label is kept back.
        seed: Of the drawing; the same seed draws the same catalogue.
    """
    rng = random.Random(seed)
    rows: list[dict[str, object]] = []

    def add(image: bytes | None, title: str, path: CategoryPath | None) -> None:
        product_id = f"P{len(rows):05d}"
        name = f"images/{product_id}.jpg"
        if image is not None:
            storage.write_bytes(storage.join(output, name), image)
        row: dict[str, object] = {
            "id": product_id,
            "title": title,
            "price": round(rng.uniform(9, 90), 2),
            "image": name,
        }
        rows.append(row | {"category": format_path(path)} if path else row)

    for path in GARMENTS:
        for number in range(products_a_leaf + unlabelled_a_leaf):
            picture, color = draw_garment(path, rng)
            title = f"{color.title()} {path[-1].removesuffix('s').lower()} for {path[0].lower()}"
            add(to_jpeg(picture), title, path if number < products_a_leaf else None)
    whole = to_jpeg(draw_garment(next(iter(GARMENTS)), rng)[0])
    bomb = bytearray(to_jpeg(Image.new("RGB", (16, 16))))
    start = bomb.index(b"\xff\xc0")
    bomb[start + 5 : start + 9] = b"\xff\xf0\xff\xf0"  # the frame header: 65520 x 65520 pixels
    for title, broken in (
        ("An empty picture", b""),
        ("A cut picture", whole[: len(whole) // 2]),
        ("A page in place of a picture", b"<html><body>404</body></html>"),
        ("A decompression bomb", bytes(bomb)),
        ("A picture that is not there", None),
    ):
        add(broken, title, None)
    rows.append({"id": f"P{len(rows):05d}", "price": 9.0})
    text = "".join(json.dumps(row) + "\n" for row in rows)
    uri = storage.join(output, "products.jsonl")
    storage.write_bytes(uri, text.encode())
    levels = "level_1,level_2,level_3\n" + "".join(",".join(path) + "\n" for path in GARMENTS)
    storage.write_bytes(storage.join(output, "taxonomy.csv"), levels.encode())
    return uri


def to_jpeg(picture: Image.Image) -> bytes:
    """Encode a picture."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=88)
    return buffer.getvalue()
