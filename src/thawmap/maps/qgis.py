"""The styles (QML) with which QGIS 3 shows the files of a map.

QGIS loads them by itself, because they stand beside the files.

The structure is that which QGIS writes: a `pipe` with a `rasterrenderer` for rasters, a `renderer-v2` for polygons.
"""

from collections.abc import Mapping
from xml.etree import ElementTree as ET

Colour = tuple[int, int, int, int]
"""Red, green, blue, opacity, each 0..255."""

PROBABILITY: Mapping[float, Colour] = {
    0.0: (255, 255, 178, 0),
    0.2: (254, 217, 118, 60),
    0.4: (254, 178, 76, 150),
    0.6: (253, 141, 60, 255),
    0.8: (240, 59, 32, 255),
    1.0: (189, 0, 38, 255),
}
"""Colour of a probability; between two of them it is blended, and the image below shines through what is unlikely."""

OUTLINES: Mapping[tuple[float, float], Colour] = {
    (0.0, 0.5): (254, 224, 139, 255),
    (0.5, 0.6): (253, 174, 97, 255),
    (0.6, 0.7): (244, 109, 67, 255),
    (0.7, 0.8): (215, 48, 39, 255),
    (0.8, 1.0): (165, 0, 38, 255),
}
"""Colour of an outline by the mean probability of its object."""

_MEAN = "coalesce(attribute($currentfeature, 'probability_mean'), attribute($currentfeature, 'prob_mean'))"
_OUTLINE_MM = "0.46"


def probability_style() -> str:
    """Return the QGIS style (QML text) of a raster of probabilities: a colour ramp.

    Its lower end is transparent.
    """
    style, renderer = _raster("singlebandpseudocolor", {"classificationMin": "0", "classificationMax": "1"})
    ramp = {
        "colorRampType": "INTERPOLATED",
        "classificationMode": "1",
        "minimumValue": "0",
        "maximumValue": "1",
        "clip": "0",
        "labelPrecision": "2",
    }
    shader = ET.SubElement(ET.SubElement(renderer, "rastershader"), "colorrampshader", ramp)
    for value, colour in PROBABILITY.items():
        item = {"value": f"{value:g}", "color": _hex(colour), "alpha": str(colour[3]), "label": f"{value:.1f}"}
        ET.SubElement(shader, "item", item)
    return _text(style)


def mask_style(colours: Mapping[int, Colour], labels: Mapping[int, str]) -> str:
    """Return the QGIS style (QML text) of a mask: a colour and a label per value."""
    style, renderer = _raster("paletted", {})
    palette = ET.SubElement(renderer, "colorPalette")
    for value, label in labels.items():
        colour = colours[value]
        entry = {"value": str(value), "color": _hex(colour), "alpha": str(colour[3]), "label": label}
        ET.SubElement(palette, "paletteEntry", entry)
    return _text(style)


def outline_style() -> str:
    """Return the QGIS style (QML text) of outlines coloured by mean probability.

    The same file serves GeoPackage, GeoParquet and Shapefile.
    """
    style = ET.Element("qgis", {"version": "3.28.0", "styleCategories": "Symbology"})
    renderer = ET.SubElement(
        style,
        "renderer-v2",
        {
            "type": "graduatedSymbol",
            "attr": _MEAN,
            "graduatedMethod": "GraduatedColor",
            "symbollevels": "0",
            "forceraster": "0",
            "enableorderby": "0",
        },
    )
    ranges, symbols = ET.SubElement(renderer, "ranges"), ET.SubElement(renderer, "symbols")
    for number, ((low, high), colour) in enumerate(OUTLINES.items()):
        limits = {"lower": f"{low:.15f}", "upper": f"{high:.15f}", "label": f"{low:g} - {high:g}"}
        ET.SubElement(ranges, "range", {**limits, "symbol": str(number), "render": "true"})
        look = {"type": "fill", "name": str(number), "alpha": "1", "clip_to_extent": "1", "force_rhr": "0"}
        symbol = ET.SubElement(symbols, "symbol", look)
        line = ET.SubElement(symbol, "layer", {"class": "SimpleLine", "enabled": "1", "locked": "0", "pass": "0"})
        _properties(line, {"line_color": ",".join(map(str, colour)), "line_width": _OUTLINE_MM, "line_style": "solid"})
    return _text(style)


def _raster(kind: str, attributes: Mapping[str, str]) -> tuple[ET.Element, ET.Element]:
    """Return new XML elements of a raster's style: its root and the renderer in it."""
    style = ET.Element("qgis", {"version": "3.28.0", "styleCategories": "Symbology"})
    pipe = ET.SubElement(style, "pipe")
    renderer = ET.SubElement(
        pipe,
        "rasterrenderer",
        {"type": kind, "band": "1", "opacity": "1", "alphaBand": "-1", "nodataColor": "", **attributes},
    )
    ET.SubElement(renderer, "rasterTransparency")
    return style, renderer


def _properties(layer: ET.Element, properties: Mapping[str, str]) -> None:
    """Add properties to a symbol's XML, in the forms of newer and older QGIS.

    Newer: from version 3.26 on.
    """
    options = ET.SubElement(layer, "Option", {"type": "Map"})
    for name, value in properties.items():
        ET.SubElement(options, "Option", {"name": name, "type": "QString", "value": value})
        ET.SubElement(layer, "prop", {"k": name, "v": value})


def _hex(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour[:3])


def _text(style: ET.Element) -> str:
    ET.indent(style)
    doctype = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>"
    return f"{doctype}\n{ET.tostring(style, encoding='unicode')}\n"
