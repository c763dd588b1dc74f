"""How good maps are: scores, tables and the page."""
