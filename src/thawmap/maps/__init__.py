"""The map of one scene: one reader and one writer of its folder."""
