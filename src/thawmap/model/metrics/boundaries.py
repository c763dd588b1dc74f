"""Pixel counts near objects' outlines, which show faults that areas hide.

The area of a large object hardly changes where its outline is wrong; a narrow band along the outline does.
Boundary IoU (Cheng et al. 2021, doi 10.1109/CVPR46437.2021.01508, equation 2) is the IoU of two bands: the pixels of
an object that lie within some pixels of its outline, in the prediction and in the labels. Here the bands are counted
in pixels, so that counts add and `thawmap.model.metrics.pixels.scores` makes the scores of them (its `iou` is Boundary
IoU).

Differences from the authors' code, each so that nothing counts that is not known: a band lies beside pixels that are
known not to be of the object, so neither the edge of the raster nor an ignored pixel is an outline, and what
ignored pixels hold changes nothing. An object without such a pixel near it has no band. Empty against empty is NaN.
"""

import numpy as np
import numpy.typing as npt
from scipy.ndimage import maximum_filter1d

from thawmap.errors import DataError
from thawmap.model.metrics.pixels import Counts, counts

Bools = npt.NDArray[np.bool_]


def boundary_counts(
    prediction: Bools, target: npt.NDArray[np.integer], valid: Bools, *, width: int, within: Bools | None = None
) -> Counts:
    """Count tp, fp, fn, tn of pixels in bands along predicted and labelled outlines.

    Pixels in both bands are tp, in the predicted one only fp, in the labelled one only fn, in neither tn.

    Args:
        prediction: True where an object is predicted, (H, W) or (N, H, W) for N rasters.
        target: 1 object, 0 not; anything else (255) is ignored; same shape.
        valid: True where the pixel could be used; same shape.
        width: Width of the bands in pixels, along rows, columns and diagonals alike (the authors' choice is 2 % of
            the image's diagonal: 7 px of a tile of 256 px).
        within: True where pixels are counted; others are only looked at, as neighbours: so the windows of a
            raster, each with a halo of ``width`` px, add up to all of it. None: everywhere.

    Raises:
        DataError: If ``width`` is below 1.
    """
    if width < 1:
        msg = f"a boundary of {width} px has no pixels; allowed is 1 or more"
        raise DataError(msg)
    usable = valid & ((target == 0) | (target == 1))
    predicted = _band(usable & prediction, usable & ~prediction, width)
    labelled = _band(usable & (target == 1), usable & (target == 0), width)
    return counts(predicted, labelled, usable if within is None else usable & within)


def _band(inside: Bools, outside: Bools, width: int) -> Bools:
    """Return the pixels of an object mask within ``width`` px of its outside, bool.

    Distance is counted along rows, columns and diagonals alike.
    """
    dilated = outside.astype(np.uint8)
    for axis in (-2, -1):  # a square is the same along rows and then columns, in time that does not grow with width
        dilated = maximum_filter1d(dilated, 2 * width + 1, axis=axis, mode="constant", cval=0)
    return inside & dilated.astype(np.bool_)
