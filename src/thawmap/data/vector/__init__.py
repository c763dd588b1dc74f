"""Polygons in vector files: one reader and one writer."""
