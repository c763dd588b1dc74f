"""Where layers come from: one module per kind of delivery."""
