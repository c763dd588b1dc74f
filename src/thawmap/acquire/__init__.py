"""Acquisition: from an area and a season to data on disk; the only code on the network.

`areas` and `choosing` are pure: what is asked for, and what is taken of what catalogues offer. `planet/`, `stac/`,
`elevation` and `trends` know the services; `http`, `download` and `ledger` are what all of them use.
"""
