"""Mistakes in a command line as sentences that name the page of the help."""

from difflib import get_close_matches

from cyclopts import CycloptsError, UnknownCommandError, UnusedCliTokensError


def sentence(error: CycloptsError) -> str:
    """Return a mistake in the command line as one sentence, with its page of the help."""
    see = " ".join(("thawmap", *(error.command_chain or ()), "--help"))
    text = str(error)
    if isinstance(error, UnknownCommandError):
        text = _unknown_verb(error)
    elif isinstance(error, UnusedCliTokensError):
        words = " ".join(map(repr, error.unused_tokens or ()))
        text = f"nothing takes {words} here; a word before it may be mistyped"
    return f"{' '.join(text.split()).rstrip('.')}; see '{see}'"


def _unknown_verb(error: UnknownCommandError) -> str:
    """Return a message on a verb that does not exist, with similar verbs or else all."""
    assert error.app is not None
    assert error.unused_tokens
    word, verbs = error.unused_tokens[0], sorted(verb for verb in error.app if not verb.startswith("-"))
    similar = get_close_matches(word, verbs)
    hint = f" (did you mean {' or '.join(map(repr, similar))}?)" if similar else f"; there are {', '.join(verbs)}"
    return f"there is no verb {word!r}{hint}"
