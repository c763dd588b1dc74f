"""Rasters: read onto any grid, written whole."""
