"""Rules: what a message can do without, whatever it says.

White space, markdown's decoration, lines said over again and phrases that say nothing. Protected
pieces (code, JSON, URLs, quotations, numbers) are left as they stand. No model, no loss of content
beyond what the lists below name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from agentcomm.channels.base import Compressor, Made
from agentcomm.channels.protect import KINDS, find
from agentcomm.channels.relevance import Job

_FILLER = re.compile(
    r"(?:^|(?<=[.!?]\s)|(?<=\n))"
    r"(?:(?:Sure|Certainly|Of course|Absolutely|Great question|Thank you for (?:the|your) \w+)[!.,] *"
    r"|As an AI(?: language)? (?:model|assistant), *"
    r"|(?:I hope (?:this|that) helps|Let me know if you (?:have|need)[^.!?\n]*|Feel free to ask[^.!?\n]*)[.!] *"
    r"|(?:It is|It's) (?:important|worth(?:while)?) (?:to note|noting|to mention) that *"
    r"|(?:Please note that|Note that|Needless to say,|As (?:I )?mentioned (?:before|above|earlier),"
    r"|In other words,|To be honest,|Basically,|Essentially,|In conclusion,) *)(?P<next>\w?)"
)
_HEADER = re.compile(r"^[ \t]{0,3}#{2,6}[ \t]+", re.MULTILINE)
_RULE = re.compile(r"^[ \t]*([-*_=])(?:[ \t]*\1){2,}[ \t]*$\n?", re.MULTILINE)
_BOLD = re.compile(r"(?<![\w*\ue001])\*\*(?=\S)([^\n]+?)(?<=\S)\*\*(?![\w*\ue000])")
SHORT_LINE = 6
"""Characters below which a repeated line stays: saying how often costs more."""
_HOLE = "\ue000{}\ue001"
_HOLES = re.compile("\ue000(\\d+)\ue001")


@dataclass(frozen=True, kw_only=True)
class Rules(Compressor):
    """Drops white space, filler phrases, repeated lines and markdown's decoration, each if asked.

    With a ``budget`` what is left over it is cut as for every channel; without one the message is
    only tidied, and delivered whole if that saves nothing.
    """

    whitespace: bool = True
    filler: bool = True
    repeats: bool = True
    markdown: bool = True

    name: ClassVar[str] = "rules"
    needs_budget: ClassVar[bool] = False
    always: ClassVar[bool] = True

    async def shorten(self, job: Job) -> Made:
        return Made(self.tidy(job.text))

    def tidy(self, text: str) -> str:
        """The text after the rules."""
        if "\ue000" in text:  # it uses our marks for something else
            return text
        kept: list[str] = []
        parts: list[str] = []
        at = 0
        for span in find(text, KINDS):
            parts += [text[at : span.start], _HOLE.format(len(kept))]
            kept.append(text[span.start : span.end])
            at = span.end
        out = "".join([*parts, text[at:]])
        if self.markdown:
            out = _BOLD.sub(r"\1", _HEADER.sub("", _RULE.sub("", out)))
        if self.filler:
            out = _FILLER.sub(_capital, out)
        if self.whitespace:
            out = re.sub(r"[^\S\n]+(?=\n|\Z)", "", out)
            out = re.sub(r"(?<=\S)[^\S\n]{2,}", " ", out)
            out = re.sub(r"\n{3,}", "\n\n", out).strip()
        out = _HOLES.sub(lambda m: kept[int(m[1])], out)
        return _folded(out) if self.repeats else out


def _capital(match: re.Match[str]) -> str:
    """What begins the sentence now, as a capital (where that is one letter)."""
    upper = match["next"].upper()
    return upper if len(upper) == 1 else match["next"]


def _folded(text: str) -> str:
    """Lines that follow upon their like, once with how often; code keeps its lines."""
    blocks = [(s.start, s.end) for s in find(text, ("code", "json"))]
    lines: list[tuple[str, int]] = []
    at = 0
    for line in text.split("\n"):
        fixed = any(a < at + len(line) and at < b for a, b in blocks)
        if not fixed and lines and len(line.strip()) >= SHORT_LINE and lines[-1][0] == line:
            lines[-1] = (line, lines[-1][1] + 1)
        else:
            lines.append((line, 1))
        at += len(line) + 1
    return "\n".join(line if n == 1 else f"{line} (×{n})" for line, n in lines)
