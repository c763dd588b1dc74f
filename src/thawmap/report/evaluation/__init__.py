"""Evaluation of maps: scores, tables and the page."""
