"""A posture other than strict has an end, near enough, and is over by itself when that has come (decision D12)."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from sidecar.config.diff import diff
from sidecar.config.load import load_bytes, load_text
from sidecar.config.mistakes import ConfigErrors, Mistake
from sidecar.config.posture import LONGEST, SLACK, Posture, posture_of, show_moment
from sidecar.config.schema_inbound import Inbound

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC).timestamp()
DAY = 86400.0
MESH = """\
trust_domain: demo.mesh
services:
  web: {}
  orders:
    inbound:
      - app: 127.0.0.1:8080
        %s
    allow: [{from: web}]
"""


def listener(text: str, now: float | None = NOW) -> Inbound:
    """The listener with these lines, read at this moment."""
    return load_text(MESH % text.replace("\n", "\n        "), now=now).services["orders"].inbound[0]


def mistakes(text: str, now: float | None = NOW) -> list[Mistake]:
    """What is wrong with these lines."""
    with pytest.raises(ConfigErrors) as caught:
        listener(text, now)
    return list(caught.value.mistakes)


MOMENTS = [
    ("2026-01-10", datetime(2026, 1, 10, tzinfo=UTC)),
    ('"2026-01-10"', datetime(2026, 1, 10, tzinfo=UTC)),
    ("2026-01-10T18:30:00Z", datetime(2026, 1, 10, 18, 30, tzinfo=UTC)),
    ("2026-01-10T18:30Z", datetime(2026, 1, 10, 18, 30, tzinfo=UTC)),
    ("2026-01-10T18:30:00+02:00", datetime(2026, 1, 10, 16, 30, tzinfo=UTC)),
    ("2026-01-19T12:00:00Z", datetime(2026, 1, 19, 12, tzinfo=UTC)),  # the very last moment that is accepted
]


@pytest.mark.parametrize(("text", "moment"), MOMENTS)
def test_an_end_is_a_date_or_a_moment(text: str, moment: datetime) -> None:
    found = listener(f"posture: observe\nuntil: {text}")
    assert posture_of(found) == Posture("observe", moment.timestamp())
    assert show_moment(moment.timestamp()) == moment.strftime("%Y-%m-%dT%H:%M:%SZ")


UNREADABLE = [
    ("2026-01-10T18:30:00", "names no time zone", "did you mean 2026-01-10T18:30:00Z?"),
    ("2026-02-30", "is in no calendar", "2026-01-31"),
    ("2026-01-10T25:00:00Z", "is in no calendar", "2026-01-31"),
    ("2026-01-10T18:30:00+99:00", "is in no calendar", "2026-01-31"),
    ("9999-12-31T23:59:59-23:59", "is in no calendar|more than 14 days", ""),
    ("10.01.2026", "neither a date nor a moment", "2026-01-31"),
    ("14d", "neither a date nor a moment", "2026-01-31"),
    ("tomorrow", "neither a date nor a moment", "2026-01-31"),
    ("1768000000", "neither a date nor a moment", "2026-01-31"),
    ("", "neither a date nor a moment", "2026-01-31"),
    ("off", "neither a date nor a moment", "2026-01-31"),
]


@pytest.mark.parametrize(("text", "message", "hint"), UNREADABLE)
def test_what_is_no_end_is_refused_once_and_with_its_place(text: str, message: str, hint: str) -> None:
    (mistake,) = mistakes(f"posture: permissive\nuntil: {text}")
    assert any(each in mistake.message for each in message.split("|"))
    assert hint in mistake.hint
    assert mistake.path == "services.orders.inbound[0].until"
    assert mistake.where.line == 8


REFUSED = [
    ("posture: permissive", "MESH018", 7, "permissive without an end"),
    ("posture: observe", "MESH018", 7, "observe without an end"),
    ("posture: observe\nuntil: 2026-01-19T12:00:01Z", "MESH019", 8, "for more than 14 days"),
    ("posture: permissive\nuntil: 2036-01-01", "MESH019", 8, "for more than 14 days"),
    ("posture: lax", "MESH001", 7, '"lax" is not valid'),
    ("posture: disabled\nuntil: 2026-01-06", "MESH001", 7, '"disabled" is not valid'),
]


@pytest.mark.parametrize(("text", "code", "line", "message"), REFUSED)
def test_without_an_end_that_is_near_there_is_no_such_config(text: str, code: str, line: int, message: str) -> None:
    (mistake,) = mistakes(text)
    assert (mistake.code, mistake.where.file, mistake.where.line) == (code, "mesh.yaml", line)
    assert message in mistake.message


def test_the_hint_is_the_latest_end_that_is_accepted() -> None:
    (mistake,) = mistakes("posture: observe\nuntil: 2026-03-01")
    latest = mistake.hint.rpartition(" ")[2]
    assert latest == "2026-01-19T12:00:00Z"
    assert listener(f"posture: observe\nuntil: {latest}").until == NOW + LONGEST


def test_who_does_not_say_what_time_it_is_gets_no_weaker_posture() -> None:
    (mistake,) = mistakes("posture: observe\nuntil: 2026-01-06", now=None)
    assert mistake.code == "MESH019"
    assert "nobody said what time it is" in mistake.message
    assert listener("posture: strict", now=None).posture == "strict"


WARNED = [
    ("posture: permissive\nuntil: 2026-01-06", "MESH063", 7, "permissive until 2026-01-06T00:00:00Z: whoever reaches"),
    ("posture: observe\nuntil: 2026-01-06", "MESH063", 7, "observe until 2026-01-06T00:00:00Z: no rule refuses"),
    ("posture: permissive\nuntil: 2026-01-05T12:00:00Z", "MESH061", 8, "has ended: listener http is strict since"),
    ("posture: observe\nuntil: 1999-01-01", "MESH061", 8, "is strict since 1999-01-01T00:00:00Z"),
    ("posture: strict\nuntil: 2026-01-06", "MESH062", 8, "listener http is strict, now and afterwards"),
    ("until: 2099-01-06", "MESH062", 7, "listener http is strict, now and afterwards"),
]


@pytest.mark.parametrize(("text", "code", "line", "message"), WARNED)
def test_nobody_can_overlook_a_posture(text: str, code: str, line: int, message: str) -> None:
    """An end that is past refuses no config: a sidecar that starts again that night must come up, and comes up
    strict.
    """
    data = (MESH % text.replace("\n", "\n        ")).encode()
    (warning,) = load_bytes(data, now=NOW).warnings
    assert (warning.code, warning.where.line) == (code, line)
    assert message in warning.message


IN_FORCE = [
    (-LONGEST - SLACK - 1, False),  # a clock that was set back makes nothing last longer
    (-LONGEST - SLACK, True),
    (-LONGEST, True),
    (-1.0, True),
    (-0.001, True),
    (0.0, False),
    (1.0, False),
    (365 * DAY, False),
]


@pytest.mark.parametrize(("seconds", "expected"), IN_FORCE)
def test_when_a_posture_is_in_force(seconds: float, expected: bool) -> None:
    assert Posture("observe", NOW).in_force(NOW + seconds) is expected


OBSERVE = "posture: observe\n        until: "


def test_a_reload_tells_of_a_posture_and_of_its_end() -> None:
    strict, observe, longer = (
        load_text(MESH % text, now=NOW)
        for text in ("name: http", f"{OBSERVE}2026-01-10", f"{OBSERVE}2026-01-12T06:00Z")
    )
    assert [str(change) for change in diff(strict, observe, "orders")] == [
        "orders.inbound.http.posture: strict → observe",
        "orders.inbound.http.until: none → 2026-01-10T00:00:00Z",
    ]
    (change,) = diff(observe, longer, "orders")
    assert str(change) == "orders.inbound.http.until: 2026-01-10T00:00:00Z → 2026-01-12T06:00:00Z"
    assert not change.fixed


def test_strict_is_what_nobody_had_to_say() -> None:
    assert listener("name: http").posture == "strict"
    assert posture_of(listener("name: http")) is None
    assert posture_of(listener("until: 2026-01-06")) is None
    assert posture_of(Inbound(name="a", port=1, posture="observe")) is None  # without an end there is none
