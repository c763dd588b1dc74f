"""Files on the ground: reading, deriving, stacking, labelling and simulating; no networks."""
