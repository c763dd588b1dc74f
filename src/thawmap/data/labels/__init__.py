"""Labels: digitised polygons and rasters, their faults, and their ground."""
