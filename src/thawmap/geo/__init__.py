"""Where things lie on Earth: coordinate systems, pixel sizes in metres, shapes and areas."""
