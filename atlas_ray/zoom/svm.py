"""The baseline that the zoom filter is compared with: a linear SVM over gradients and contours.

HOG features tell in which directions edges run; contours tell how many shapes there are, and how
long. Source: Atlas (Umaashankar et al. 2019), which compares its network with such an SVM.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.color import rgb2gray
from skimage.feature import hog
from skimage.filters import threshold_otsu
from skimage.measure import find_contours
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from atlas_ray.zoom.examples import Examples

PENALTIES = (1e-4, 1e-3, 1e-2)
"""The values of C to choose from; the first is the paper's."""
FOLDS = 3
LEAST_CONTOUR_PX = 10


@dataclass(frozen=True)
class Baseline:
    """A fitted SVM and the C that its folds chose."""

    svm: Any
    penalty: float

    def find_zoomed(self, examples: Examples) -> NDArray[np.bool_]:
        """Return which pictures it takes for zoomed, (count,)."""
        found: NDArray[np.bool_] = self.svm.predict(features(examples))
        return found


def fit_baseline(examples: Examples, seed: int) -> Baseline:
    """Fit the SVM; its C is chosen by folds in which no product is on both sides."""
    svm = LinearSVC(loss="hinge", dual=True, class_weight="balanced", max_iter=20_000, random_state=seed)
    folds = GroupKFold(min(FOLDS, len(set(examples.product_ids))))
    search = GridSearchCV(make_pipeline(StandardScaler(), svm), {"linearsvc__C": PENALTIES}, scoring="f1", cv=folds)
    search.fit(features(examples), examples.zoomed, groups=examples.product_ids)
    return Baseline(search.best_estimator_, float(search.best_params_["linearsvc__C"]))


def features(examples: Examples) -> NDArray[np.float32]:
    """Return what the SVM sees of each picture, (count, features)."""
    return np.stack([_features(picture) for picture in examples.pixels.permute(0, 2, 3, 1).numpy()])


def _features(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    grey = rgb2gray(picture)
    gradients = hog(grey, pixels_per_cell=(16, 16), cells_per_block=(2, 2))
    contours = find_contours(grey, threshold_otsu(grey)) if np.ptp(grey) > 0 else []
    lengths = np.array([len(contour) for contour in contours if len(contour) >= LEAST_CONTOUR_PX])
    shapes = [len(lengths), lengths.sum(), lengths.max(initial=0), lengths.mean() if len(lengths) else 0]
    return np.concatenate([gradients, shapes]).astype(np.float32)
