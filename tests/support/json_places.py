"""Every place of a JSON value, and copies with another value there: for tests of files that others may have written."""


def places(content, above=()):
    """Every key and list item of a JSON value, as the way to it."""
    inside = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in inside:
        yield (*above, key)
        yield from places(value, (*above, key))


def changed(content, way, value):
    """A copy of a JSON value with another value at one place."""
    if not way:
        return value
    copy = list(content) if isinstance(content, list) else dict(content)
    copy[way[0]] = changed(content[way[0]], way[1:], value)
    return copy
