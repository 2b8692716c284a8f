"""Page: one self-contained HTML file, written piece by piece, in which no data can become markup.

Three rules make it safe to put any model's text into it:

* Data travels as JSON inside ``<script type="application/json">`` with every ``<`` escaped, or
  gzipped and in base64 (large pieces, opened by the reader's browser when they are needed).
* A content security policy allows the one style and the one script of this package, by hash, and
  nothing else: no network, no inline handlers, no string that becomes script or markup.
* The script makes elements and sets ``textContent``; it never parses a string as markup (the
  policy's trusted types make the browser refuse it).
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from importlib.resources import files
from typing import IO, Any

SCRIPTS = ("tools.js", "store.js", "graph.js", "charts.js", "table.js", "episode.js", "main.js")
"""In this order they make up the page's one script."""

_MARKER = re.compile(r"<!--\s*(policy|style|data|script)\s*-->")


def as_json(value: Any) -> str:
    """JSON that can stand inside a ``<script>``: no ``<``, ``>`` or ``&``, ASCII only.

    >>> as_json("</script>")
    '"\\\\u003c/script\\\\u003e"'
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def packed(value: Any) -> str:
    """JSON, gzipped, in base64: a third to a tenth of the text it holds."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError:  # halves of surrogate pairs, which only JSON's escapes can carry
        data = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode()
    # No time stamp: the same run gives the same file.
    return base64.b64encode(gzip.compress(data, 9, mtime=0)).decode("ascii")


class Page:
    """The file as it grows: the frame's beginning, pieces of data, :meth:`end`.

    ``written`` counts bytes so far.
    """

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self.written = 0
        style = _asset("report.css")
        self._script = '"use strict";\n(() => {\n' + "\n".join(_asset(name) for name in SCRIPTS) + "\n})();\n"
        policy = (
            f"default-src 'none'; script-src '{_hash(self._script)}'; style-src '{_hash(style)}'; img-src data:; "
            "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
        )
        pieces = _MARKER.split(_asset("report.html"))
        filled = dict(zip(pieces[1::2], pieces[2::2], strict=True))
        self._write(pieces[0])
        self._write(f'<meta http-equiv="Content-Security-Policy" content="{policy}">' + filled["policy"])
        self._write(f"<style>{style}</style>" + filled["style"])
        self._between, self._after = filled["data"], filled["script"]

    def data(self, name: str, value: Any) -> None:
        """A piece of data that the script reads when the page opens."""
        self._write(f'<script type="application/json" id="{name}">{as_json(value)}</script>\n')

    def packed(self, name: str, text: str) -> None:
        """A piece made by :func:`packed`, opened when it is needed."""
        self._write(f'<script type="application/gzip;base64" id="{name}">{text}</script>\n')

    def end(self) -> None:
        """The frame's end: the script, which finds all data before it."""
        self._write(f"{self._between}<script>{self._script}</script>{self._after}")

    def _write(self, text: str) -> None:
        self._file.write(text)
        self.written += len(text.encode("utf-8"))


def _asset(name: str) -> str:
    return (files("agentcomm.evaluation") / "report_assets" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
