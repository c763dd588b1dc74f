"""The verbs, as lists of calls into the other packages, which meet only here."""
