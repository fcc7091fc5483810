"""Numbers in sentences."""

from __future__ import annotations


def counted(number: int, thing: str) -> str:
    """`1 instance`, `2 instances`."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
