"""Docstrings show their examples as `>>>` lines below `Example:`; here these become blocks of code for the site."""

import re
import textwrap

import griffe

EXAMPLE = re.compile(r"^(?:Example:\n+)?((?: *>>> .*\n?)(?:(?!\n).*\n?)*)", re.M)


class Examples(griffe.Extension):
    """Puts doctest lines between fences."""

    def on_object(self, *, obj, **kwargs):
        if obj.docstring and ">>> " in obj.docstring.value:
            obj.docstring.value = EXAMPLE.sub(fenced, obj.docstring.value)


def fenced(found):
    """The example of a docstring as Markdown."""
    return f"**Example**\n\n```pycon\n{textwrap.dedent(found[1]).rstrip()}\n```\n"
