"""Training of boosted trees: pixels drawn from tiles, trees grown on them, the loop."""
