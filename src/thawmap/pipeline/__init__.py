"""The verbs, each as a list of calls into the other packages, which meet only here."""
