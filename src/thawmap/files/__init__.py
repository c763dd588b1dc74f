"""Files on disk: written whole or not at all, by one writer, and checked."""
