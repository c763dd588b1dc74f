"""Map retrogressive thaw slumps, or any other object, from satellite scenes."""

__version__ = "0.1.0"
