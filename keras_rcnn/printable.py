"""Text that comes from elsewhere (class names, file names, what a server says), for a terminal."""

import re

# control characters, with which a terminal can be steered, line ends of Unicode's, marks that turn the direction, and
# halves of characters; what joins letters stays
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: object, lines: bool = False) -> str:
    r"""Text whose control characters can be seen, and do nothing.

    Args:
        text: str, or anything that `str` makes one of.
        lines: whether line ends and tabs stay what they are.

    Returns:
        str.

    Example:

    >>> printable("fig\x1b[2J")
    'fig\\x1b[2J'
    """
    return _UNSAFE.sub(lambda match: match[0] if lines and match[0] in "\n\t" else _escaped(match[0]), str(text))


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
