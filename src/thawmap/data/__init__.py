"""Files on the ground: rasters, vectors, scenes, labels, stacks; no networks."""
