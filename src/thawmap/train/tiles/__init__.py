"""The tile store: labelled scenes cut into tiles, written and read."""
