"""From labelled scenes to a bundle."""
