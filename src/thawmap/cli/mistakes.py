"""Mistakes in a command line, each as one sentence that names the page of the help."""

from difflib import get_close_matches

from cyclopts import CycloptsError, UnknownCommandError


def sentence(error: CycloptsError) -> str:
    """A mistake in the command line, with the page of the help that says more."""
    see = " ".join(("thawmap", *(error.command_chain or ()), "--help"))
    text = _unknown_verb(error) if isinstance(error, UnknownCommandError) else str(error)
    return f"{' '.join(text.split()).rstrip('.')}; see '{see}'"


def _unknown_verb(error: UnknownCommandError) -> str:
    """Which verb does not exist, and the nearest that do; all where none is near."""
    assert error.app is not None
    assert error.unused_tokens
    word, verbs = error.unused_tokens[0], sorted(verb for verb in error.app if not verb.startswith("-"))
    near = get_close_matches(word, verbs)
    hint = f" (did you mean {' or '.join(map(repr, near))}?)" if near else f"; there are {', '.join(verbs)}"
    return f"there is no verb {word!r}{hint}"
