"""The tile store: written, read, and encoded."""
