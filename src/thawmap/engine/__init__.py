"""One function over many items, on threads, processes or a cluster; a failure is a value."""
