"""llhttp's test messages: each `http` block of its Markdown, and whether the `log` block after it ends in an error."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(rb"^```http\n(?P<http>.*?)^```$", re.DOTALL | re.MULTILINE)
_META = re.compile(rb"<!-- meta=(\{[^\n]*\}) -->")
_LOG = re.compile(rb"^```log\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_HEADING = re.compile(rb"^#+ (.*)$", re.MULTILINE)
_ESCAPE = re.compile(rb"\\(?:(r)|(n)|(t)|(f)|x([0-9a-fA-F]{2}))")
_PLAIN = {1: b"\r", 2: b"\n", 3: b"\t", 4: b"\f"}


@dataclass(frozen=True)
class Message:
    """One block. `error` is why it is refused, empty where it is taken; `lenient`: with flags switched on."""

    name: str
    raw: bytes
    error: str
    lenient: bool


def messages(file: Path) -> list[Message]:
    """Every message of one file, in order."""
    text = file.read_bytes().replace(b"\r\n", b"\n")
    found = []
    blocks = [*_BLOCK.finditer(text)]
    ends = [*(block.start() for block in blocks[1:]), len(text)]
    for number, (match, end) in enumerate(zip(blocks, ends, strict=True), 1):
        title = _HEADING.findall(text, 0, match.start())[-1].decode(errors="replace").strip("`").strip()
        meta = _META.findall(text, 0, match.start())[-1]
        log = _LOG.search(text, match.end(), end)
        error = re.search(rb'error code=\d+ reason="([^\n]*)"', log[1]) if log is not None else None
        paused = error is not None and error[1].startswith((b"on_", b"Pause", b"Paused"))
        reason = error[1].decode(errors="replace") if error is not None and not paused else ""
        found.append(Message(f"{file.stem}#{number} {title}", _bytes(match["http"]), reason, b"lenient" in meta))
    return found


def _bytes(block: bytes) -> bytes:
    """What a block means: its last line break is decoration, the others are CRLF, escapes are written out."""
    block = re.sub(rb"\n\Z", b"", block)
    block = re.sub(rb"\\\n", b"", block).replace(b"\n", b"\r\n")
    return _ESCAPE.sub(_unescape, block)


def _unescape(match: re.Match[bytes]) -> bytes:
    return bytes([int(match[5], 16)]) if match[5] else _PLAIN[match.lastindex or 0]
