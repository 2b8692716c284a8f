"""Redaction: what looks like a key or a token leaves a text before it is stored or shown.

Two kinds of secrets go: values that were registered as such (exactly, wherever they stand), and
what has the shape of a key or a bearer token. Shapes are looked for in error texts and notes
only, never in what models say: a reply must come back from the ledger as it was.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote

HIDDEN = "[redacted]"
SHORTEST_SECRET = 8
"""Registered values shorter than this ("EMPTY", "dummy") are placeholders: hiding them would
tear holes into ordinary words."""

# Names that come before a secret in headers, URLs, JSON bodies and environment listings.
_NAMES = (
    r"(?:x-)?(?:api[ _-]?key(?: provided)?|access[_-]?token|auth[_-]?token|client[_-]?secret|secret|password)"
)

_SHAPES: tuple[tuple[re.Pattern[str], str], ...] = (
    # user:password@host in a URL
    (re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"), HIDDEN),
    # Authorization: Bearer abc, 'authorization': 'Basic abc'
    (re.compile(r"(?i)\b(bearer|basic)(\s+)[A-Za-z0-9._~+/=-]{6,}"), rf"\1\2{HIDDEN}"),
    # api_key=abc, "x-api-key": "abc", OPENAI_API_KEY=abc
    (re.compile(rf"(?i)({_NAMES}[\"']?\s*[:=]\s*[\"']?)(?!\[redacted\])[^\s\"',;&}}]{{4,}}"), rf"\1{HIDDEN}"),
    # Keys known by their prefix: OpenAI, Anthropic, OpenRouter..., Hugging Face, GitHub, Google, AWS,
    # Groq, xAI, Slack. Servers mask the middle with stars ("sk-abc***xyz"); that goes as well.
    (re.compile(r"\b(?:sk|pk|rk)[-_][A-Za-z0-9_*.-]*[A-Za-z0-9_*-]{6,}"), HIDDEN),
    (
        re.compile(
            r"\b(?:hf|gsk|ghp|gho|ghs|github_pat|glpat|nvapi|xai|xox[abprs]|tgp|pplx|r8)[-_][A-Za-z0-9_-]{10,}"
        ),
        HIDDEN,
    ),
    (re.compile(r"\bAIza[A-Za-z0-9_-]{20,}"), HIDDEN),
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}"), HIDDEN),
    # JSON web tokens
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]*)?"), HIDDEN),
)


class Redactor:
    """Hides registered secrets and, in :meth:`text`, whatever has the shape of one.

    >>> Redactor(["correct horse"]).text("sent correct horse with Bearer abcdef123456")
    'sent [redacted] with Bearer [redacted]'
    """

    def __init__(self, secrets: Iterable[str | None] = ()) -> None:
        self._secrets: tuple[str, ...] = ()
        for secret in secrets:
            self.add(secret)

    def add(self, secret: str | None) -> None:
        """Register a value; ``None`` and values under 8 characters are ignored."""
        if secret is None or len(secret.strip()) < SHORTEST_SECRET:
            return
        spellings = {secret, secret.strip(), quote(secret.strip(), safe="")}
        # The longest first: a secret may contain another one.
        self._secrets = tuple(sorted({*self._secrets, *spellings}, key=lambda s: (-len(s), s)))

    def exact(self, text: str) -> str:
        """``text`` without the registered secrets; nothing else is touched."""
        for secret in self._secrets:
            if secret in text:
                text = text.replace(secret, HIDDEN)
        return text

    def text(self, text: str) -> str:
        """``text`` without registered secrets and without anything shaped like one."""
        text = self.exact(text)
        for shape, instead in _SHAPES:
            text = shape.sub(instead, text)
        return text


def redact(text: str, secrets: Iterable[str | None] = ()) -> str:
    """``text`` without ``secrets`` and without anything that looks like an API key or a token."""
    return Redactor(secrets).text(text)
