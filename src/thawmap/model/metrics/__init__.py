"""Counts of pixels, objects and boundaries, and the scores made of them."""
