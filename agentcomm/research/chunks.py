"""Chunks: a long text in pieces that a small model can read.

Windows of a number of characters that overlap, so that what one cuts through stands whole in the
next. No window cuts through a character that a reader sees as one.
"""

from __future__ import annotations

from agentcomm.channels.text import Place, whole_at
from agentcomm.errors import ConfigError

SIZE, OVERLAP, SMALLEST = 6000, 200, 100


def chunks(text: str, size: int = SIZE, overlap: int = OVERLAP, smallest: int = SMALLEST) -> list[Place]:
    """Where the chunks of ``text`` start and end, in code points, in order.

    They cover the text; neighbours share at least ``overlap`` code points, and none has more than
    ``size``, but where one character is longer than that. One of fewer than ``smallest`` (white space
    at its ends not counted) is dropped, so a text that short has none.

    Raises
    ------
    ConfigError
        If the overlap leaves no room to go forward.

    Examples
    --------
    >>> chunks("abcdefghij", size=6, overlap=2, smallest=1)
    [(0, 6), (4, 10)]
    """
    if size < 1 or overlap < 0 or overlap >= size or smallest < 0:
        raise ConfigError(
            f"chunks of {size} characters with an overlap of {overlap}: the overlap must be at least 0 and "
            "below the size"
        )
    if len(text.strip()) < max(1, smallest):
        return []
    found: list[Place] = []
    start = done = 0
    while True:
        end = min(len(text), start + size)
        while end > done and not whole_at(text, end):
            end -= 1
        if end <= done:  # the next character does not fit behind an overlap, or at all
            start, end = done, done + 1
            while not whole_at(text, end):
                end += 1
        if len(text[start:end].strip()) >= smallest:
            found.append((start, end))
        if end == len(text):
            return found
        again = max(0, end - overlap)
        while not whole_at(text, again):
            again -= 1
        start, done = (again if again > start else end), end
