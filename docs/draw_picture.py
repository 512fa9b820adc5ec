"""The picture at the top of the README: a product photo, and its category path as a model spells it.

    python docs/draw_picture.py --model demo/model --picture demo/shop/pictures/0.jpg --output docs/_static/answer.svg

The picture is an answer of that model, drawn from the demo's own shop. `make demo` makes both. The demo's model sees
64 px, a grid of four cells; one trained with `--image-size-px 160` on `demo/clean/kept` looks at twenty-five.
"""

import argparse
import html
from pathlib import Path
from typing import Any

from atlas_ray.artifacts import load_artifact
from atlas_ray.modalities.products import Products
from atlas_ray.prediction.paths import PathPredictor, PredictorConfig
from atlas_ray.reports.attention import Maps, overlays, seen

WIDTH, HEIGHT = 960, 330
PHOTO_PX, LEVEL_PX = 210, 150
TOP = 40
STYLE = """
text { font-family: system-ui, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328 }
.name { font-size: 17px; font-weight: 600 } .small { font-size: 13px; fill: #59636e }
.card { fill: #f6f8fa; stroke: #d1d9e0 } .track { fill: #d1d9e0 } .bar { fill: #e8590c }
.line { stroke: #818b98; fill: none; stroke-width: 1.5 }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc } .small { fill: #9198a1 } .card { fill: #151b23; stroke: #3d444d } .track { fill: #3d444d }
}
"""


def draw(row: dict[str, Any], photo: str, maps: list[str]) -> str:
    """Return the SVG of an answer.

    Args:
        row: The path, its level probabilities and its alternatives.
        photo: The picture as a data URI.
        maps: Where the model looked at each level, as data URIs to lay over it.
    """
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>A photo and its path: {html.escape(' > '.join(row['category_path']))}</title><style>{STYLE}</style>",
        f'<image href="{photo}" x="10" y="{TOP}" width="{PHOTO_PX}" height="{PHOTO_PX}"/>',
        _text(10, 24, "a product photo", "small"),
    ]
    left, step = PHOTO_PX + 70, 228
    steps = zip(row["category_path"], row["level_probabilities"], maps, strict=True)
    for number, (name, probability, drawn) in enumerate(steps):
        x = left + number * step
        middle = TOP + PHOTO_PX // 2
        before = x - 56 if number == 0 else x - 30
        parts += [
            f'<path class="line" d="M{before} {middle} H{x - 16} m-6 -5 l6 5 l-6 5"/>',
            f'<rect class="card" x="{x - 10}" y="{TOP - 8}" width="{LEVEL_PX + 38}" height="{PHOTO_PX + 46}" rx="8"/>',
            *(
                f'<image href="{source}" x="{x + 9}" y="{TOP + 4}" width="{LEVEL_PX}" height="{LEVEL_PX}"/>'
                for source in (photo, drawn)
            ),
            _text(x + 9, TOP + LEVEL_PX + 30, name, "name"),
            _text(x + 9, TOP + LEVEL_PX + 74, f"{probability:.1%}", "small"),
            f'<rect class="track" x="{x + 9}" y="{TOP + LEVEL_PX + 42}" width="{LEVEL_PX}" height="9" rx="4.5"/>',
            f'<rect class="bar" x="{x + 9}" y="{TOP + LEVEL_PX + 42}" width="{LEVEL_PX * probability:.1f}" height="9" '
            'rx="4.5"/>',
        ]
    parts.append(_text(left, 24, "its category path, level by level, and where the model looked for each", "small"))
    others = [f"{' > '.join(other['category_path'])} {other['probability']:.1%}" for other in row["alternatives"][:2]]
    parts.append(_text(left, HEIGHT - 8, f"next best: {', '.join(others)}", "small"))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _text(x: int, y: int, text: str, kind: str) -> str:
    return f'<text x="{x}" y="{y}" class="{kind}">{html.escape(text)}</text>'


def answer(model: str, picture: str) -> tuple[dict[str, Any], str, list[str]]:
    """Ask a model about a picture; return its answer, what it saw, and where it looked."""
    predictor = PathPredictor(load_artifact(model), PredictorConfig(batch_size=1, top_k=3))
    pixels, _ = predictor.decode([Path(picture).read_bytes()])
    table, attention = predictor.explain(Products(pixels, {}))
    row: dict[str, Any] = table.to_pylist()[0]
    maps: Maps = attention[0].numpy()
    return row, seen(pixels[0].numpy()), overlays(maps, len(row["category_path"]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--picture", required=True)
    parser.add_argument("--output", required=True)
    options = parser.parse_args()
    row, _, maps = answer(options.model, options.picture)
    from atlas_ray.reports.page import data_uri

    photo = data_uri(Path(options.picture).read_bytes(), "jpeg")
    Path(options.output).write_text(draw(row, photo, maps), encoding="utf-8")
