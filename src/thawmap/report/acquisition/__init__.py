"""The page of a plan of acquisition."""
