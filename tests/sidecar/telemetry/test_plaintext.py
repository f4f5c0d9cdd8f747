"""The book of plaintext: counted by address, told once, bounded."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from sidecar.telemetry.plaintext import MOST_ROWS, MOST_TOLD, Plaintext


class Log:
    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def warning(self, message: str, **fields: Any) -> None:
        self.lines.append((message, fields))


class Wall:
    now = 1_768_000_000.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def test_a_connection_is_counted_while_it_is_open_and_afterwards() -> None:
    book, wall = Plaintext(), Wall()
    with book.stay("inbound", "main", "10.77.0.9", wall):
        with book.stay("inbound", "main", "10.77.0.9", wall), book.stay("outbound", "x", "10.77.0.9:80", wall):
            assert [(row["direction"], row["open"]) for row in book.to_json()] == [("outbound", 1), ("inbound", 2)]
        (_, row) = book.to_json()
    assert (row["address"], row["listener"], row["connections"], row["open"]) == ("10.77.0.9", "main", 2, 1)
    (_, row) = book.to_json()
    assert (row["open"], row["first"], row["last"]) == (0, "2026-01-09T23:06:41.000000Z", "2026-01-09T23:06:46.000000Z")


def test_the_log_hears_of_each_address_once_and_not_of_thousands() -> None:
    log, wall = Log(), Wall()
    book = Plaintext(log)  # type: ignore[arg-type]
    for number in range(2 * MOST_TOLD):
        for _ in range(2):
            with book.stay("inbound", "main", f"10.77.1.{number}", wall):
                pass
    assert len(log.lines) == MOST_TOLD
    assert log.lines[0] == ("plaintext comes from 10.77.1.0", {"source": "10.77.1.0", "listener": "main"})


def test_rows_that_have_nothing_open_make_room_and_are_counted() -> None:
    book, wall = Plaintext(), Wall()
    with ExitStack() as stack:
        stack.enter_context(book.stay("inbound", "main", "first", wall))
        for number in range(MOST_ROWS + 5):
            with book.stay("inbound", "main", f"peer-{number}", wall):
                pass
        rows = {row["address"] for row in book.to_json()}
        assert len(rows) == MOST_ROWS
        assert book.forgotten == 6
        assert "first" in rows
        assert "peer-0" not in rows
