"""The colours of pictures: layers shown as red, green and blue, and how bright."""

import numpy as np
import numpy.typing as npt

FALSE_COLOUR = ("nir", "red", "green")
"""Layers that are shown as red, green and blue wherever a project has them."""

_PERCENTILES = (2, 98)  # of what the sensor saw: darker is black, brighter is white


_Floats = npt.NDArray[np.floating]


def brightness_limits(pixels: _Floats) -> tuple[_Floats, _Floats]:
    """Return each layer's 2nd and 98th percentile, to be shown as black and white.

    The pixels are (n, layer), without NaN.
    """
    low, high = np.percentile(pixels, _PERCENTILES, axis=0)
    return low, high


def brightness(layers: _Floats, low: _Floats, high: _Floats) -> _Floats:
    """Scale layers (..., layer) to brightness 0..1 between two limits, clipped.

    The limits are (layer,) each. NaN stays NaN.
    """
    shares: _Floats = (layers - low) / np.maximum(high - low, 1e-6)
    return np.clip(shares, 0, 1)
