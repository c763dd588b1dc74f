"""Labels: what polygons say, what is wrong with them, and where they lie."""
