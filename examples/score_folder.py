"""Category paths for the pictures of a folder, without Ray: `python examples/score_folder.py MODEL FOLDER`.

Thousands of pictures are the work of `atlas-ray score`; this is for the few that lie on a desk.
"""

import sys
from pathlib import Path

import atlas_ray as ar

BATCH = 64


def main(model: str, folder: str) -> None:
    """Print a line for each picture: its name, and its path with the probability, or the code of its refusal."""
    predict = ar.PathPredictor(ar.load_artifact(model), ar.PredictorConfig(top_k=1))
    files = sorted(path for path in Path(folder).iterdir() if path.is_file())
    for start in range(0, len(files), BATCH):
        some = files[start : start + BATCH]
        answers, refused = predict([path.read_bytes() for path in some])
        for place, (path, answer) in enumerate(zip(some, answers.to_pylist(), strict=True)):
            if place in refused:
                print(f"{path.name}\t{refused[place].code}")
            else:
                print(f"{path.name}\t{' > '.join(answer['category_path'])}\t{answer['probability']:.3f}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(f"usage: {sys.argv[0]} MODEL FOLDER")
    main(*sys.argv[1:])
