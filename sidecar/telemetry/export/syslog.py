"""Events as messages of syslog: RFC 5424, framed by their length as RFC 5425 section 4.3 wants it over TLS.

    LEN <PRI>1 TIME HOST mesh INSTANCE KIND [mesh@32473 id="…" kind="…" service="…"] BOM {the event as JSON}

The facility is 13 (log audit); a refusal or failure is a warning, a loss an error, all else a notice. 32473 is the
enterprise number that RFC 5612 keeps for examples: we have none of our own.
"""

from __future__ import annotations

import re
from typing import Final

from sidecar.telemetry.export.feed import Event

FACILITY: Final = 13
ERROR, WARNING, NOTICE = 3, 4, 5
_FAILURES = frozenset(("refusal", "limited", "detection", "config_refused", "evicted"))
_BAD = frozenset(("expired", "revoked", "not_renewed", "refused"))
_BOM = b"\xef\xbb\xbf"  # RFC 5424 section 6.4: the message is UTF-8
_NOT_PRINTABLE = re.compile(r"[^!-~]")
_QUOTED = re.compile(r'(["\\\]])')


def severity(event: Event) -> int:
    """3 error, 4 warning, 5 notice."""
    values = event.values
    if values.get("kind") == "lost":
        return ERROR
    failed = values.get("kind") in _FAILURES or values.get("ok") is False or values.get("what") in _BAD
    return WARNING if failed else NOTICE


def message(event: Event, host: str, body: bytes) -> bytes:
    """One message with its length in front."""
    values = event.values
    service = str(values.get("service", ""))
    data = (
        f'[mesh@32473 id="{event.id}" kind="{_quoted(str(values.get("kind", "")))}" service="{_quoted(service)}"]'
    )
    header = (
        f"<{FACILITY * 8 + severity(event)}>1 {_name(str(values.get('time', '')), 32)} {_name(host, 255)} mesh "
        f"{_name(str(values.get('instance', '')), 128)} {_name(str(values.get('kind', '')), 32)} {data} "
    )
    whole = header.encode("utf-8") + _BOM + body
    return b"%d %b" % (len(whole), whole)


def _name(text: str, most: int) -> str:
    """A field of the header: printable ASCII, or `-`."""
    return _NOT_PRINTABLE.sub("_", text)[:most] or "-"


def _quoted(text: str) -> str:
    return _QUOTED.sub(r"\\\1", text)
