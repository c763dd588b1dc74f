"""`python -m thawmap` is `thawmap`."""

from thawmap.cli import main

if __name__ == "__main__":
    main()
