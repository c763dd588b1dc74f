"""The report of a cross-validation."""
