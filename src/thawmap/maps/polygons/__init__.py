"""From rows of probability to slump polygons, streamed."""
