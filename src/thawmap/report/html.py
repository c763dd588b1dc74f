"""Pages made of templates, and figures as they stand in a page."""

import base64
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from thawmap.report.figures import thousands
from thawmap.report.style import png
from thawmap.text import counted

_REM_PER_INCH = 6.8  # makes the letters of all figures as large as each other


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A figure as it stands on a page, with its words.

    Attributes:
        title: Its heading.
        uri: The PNG, as a data URI.
        alt: What it shows, in words.
        caption: How it is read.
        width_rem: How wide it needs to be at most, in units of the page's letters.
    """

    title: str
    uri: str
    alt: str
    caption: str
    width_rem: float

    @property
    def png(self) -> bytes:
        """PNG file of the figure as bytes, decoded from its data URI."""
        return base64.b64decode(self.uri.partition(",")[2])


def picture(title: str, figure: Figure, alt: str, caption: str) -> Picture:
    """Return a `Picture`: the figure as a PNG data URI, with title, alt and caption."""
    uri = "data:image/png;base64," + base64.b64encode(png(figure)).decode("ascii")
    width_rem = round(_REM_PER_INCH * float(figure.get_size_inches()[0]), 1)
    return Picture(title=title, uri=uri, alt=alt, caption=caption, width_rem=width_rem)


def render(template: str, **values: Any) -> str:
    """Return the HTML of a page, from a template's path and the values in it.

    Templates have the filters ``score``, ``share``, ``rate``, ``thousands`` and ``counted``, and ``version``.
    """
    environment = Environment(
        loader=PackageLoader("thawmap", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"score": score, "share": _share, "rate": rate, "thousands": thousands, "counted": counted}
    return environment.get_template(template).render(version=version("thawmap"), **values)


def score(value: float) -> str:
    """Return a score as text with two decimals; n/a where it is not defined."""
    return "n/a" if pd.isna(value) else f"{round(value, 2) + 0.0:.2f}"


def rate(value: float) -> str:
    """Return a number per area as text with one decimal; n/a where it is not defined."""
    return "n/a" if pd.isna(value) else f"{value:.1f}"


def _share(value: float) -> str:
    """Return a share as text with three decimals; n/a where it is not defined."""
    return "n/a" if pd.isna(value) else f"{value:.3f}"
