"""One function over many items, on processes or a cluster; failures are values."""
