"""Several dates of one ground."""
