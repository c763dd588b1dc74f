"""Readers of layers and finders of scenes: one module per kind of delivery."""
