"""Files on disk: written whole or not at all, held by one writer, checked before anything trusts or replaces them."""
