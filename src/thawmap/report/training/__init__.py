"""The report of one training."""
