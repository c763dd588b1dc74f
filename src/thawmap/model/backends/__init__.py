"""Ways to run a network, checked against each other and measured."""
