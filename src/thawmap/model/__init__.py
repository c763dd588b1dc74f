"""Networks, losses, metrics and bundles: tensors, and no files on the ground."""
