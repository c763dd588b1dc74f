"""PlanetScope scenes from Planet: found, looked into, ordered once and fetched.

`search` and `coverage` make offers, `quota` says what the account has left, `orders` places orders and `delivery` waits
for them and fetches their files. `history` is what the ledger tells of all orders, and `credentials` the user's login.
"""
