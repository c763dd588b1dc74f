"""STAC catalogues: searching them, whatever they do wrong, and Sentinel-2 scenes from them."""
