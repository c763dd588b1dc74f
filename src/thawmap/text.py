"""Pieces of sentences: numbers with nouns, and strange names fit to be shown."""

import re
import unicodedata

_DIGITS = re.compile("[0-9]{1,9}")
_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # Unicode categories that move, colour or hide what a terminal shows
_JOINERS = "\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}"  # parts of words and emoji


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return a text of a number and its noun, in the singular for one.

    >>> counted(1, "scene"), counted(0, "scene"), counted(2, "slump of one date", "slumps of one date")
    ('1 scene', '0 scenes', '2 slumps of one date')
    """
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def before(number: int) -> str:
    """Return a clause such as ', 2 of them before', or an empty text for none.

    It ends a sentence on items, of which an earlier run had finished some.

    >>> "3 scenes are mapped" + before(2), "3 scenes are mapped" + before(0)
    ('3 scenes are mapped, 2 of them before', '3 scenes are mapped')
    """
    return f", {number} of them before" if number else ""


def whole_number(text: str) -> int | None:
    """Return a text of 1 to 9 digits as a whole number; None for other texts.

    >>> whole_number("12"), whole_number("1_2"), whole_number("²"), whole_number("-1"), whole_number("9" * 5000)
    (12, None, None, None, None)
    """
    return int(text) if _DIGITS.fullmatch(text) else None


def printable(text: str) -> str:
    r"""Return a text on one line, with control and hidden characters as escapes.

    So a name cannot command a terminal.

    >>> printable("Lena\x1b[2J\n")
    'Lena\\x1b[2J\\n'
    """
    return "".join(_shown(character) for character in text)


def _shown(character: str) -> str:
    hidden = unicodedata.category(character) in _HIDDEN and character not in _JOINERS
    return ascii(character)[1:-1] if hidden else character
