"""Text that others wrote, made harmless for a terminal."""

from __future__ import annotations

from collections.abc import Iterable


def printable(text: str) -> str:
    """The text with control and format characters replaced: escape sequences could rewrite what was printed."""
    return "".join(character if character.isprintable() else "?" for character in text)


def printable_lines(lines: Iterable[str]) -> tuple[str, ...]:
    return tuple(map(printable, lines))
