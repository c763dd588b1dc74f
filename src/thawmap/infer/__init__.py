"""From a bundle and scenes to probabilities and polygons."""
