"""Places on Earth: coordinate systems, pixel sizes in metres, shapes."""
