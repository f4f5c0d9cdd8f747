"""The record of edges: it adds what is new, outlives the process, is bounded; a broken one is begun anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.telemetry import edges as module
from sidecar.telemetry.edges import Edges
from sidecar.telemetry.table import Table
from tests.kit.hops import a_hop, a_tcp_hop


def test_what_is_new_is_added_once_and_written_once(tmp_path: Path) -> None:
    table, book = Table(), Edges(tmp_path / "edges.json", 5.0)
    for at in (10.0, 20.0):
        table.observe(a_hop(), at)
    table.observe(a_hop(tls=None, peer=None, rule="posture:permissive"), 30.0)
    book.take(table.rows())
    book.take(table.rows())
    first, second = book.to_json()["edges"]
    assert (first["count"], first["last"], first["auth"], first["listener"]) == (2, 20.0, "mTLS", "http")
    assert (second["count"], second["auth"], second["caller"]) == (1, "plaintext", "")
    data = book.unwritten()
    assert data is not None
    assert book.unwritten() is None
    book.write(data)
    assert (tmp_path / "edges.json").stat().st_mode & 0o077 == 0

    again = Edges.load(tmp_path / "edges.json", 99.0)
    assert (again.since, again.problem, again.unwritten()) == (5.0, "", None)
    table = Table()
    table.observe(a_hop(), 40.0)
    again.take(table.rows())
    assert again.to_json()["edges"][0] == {**first, "last": 40.0, "count": 3}


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"v": 2}', '{"v": 1, "since": 1, "left_out": 0, "edges": [{}]}']
)
def test_what_cannot_be_read_begins_anew_and_says_so(tmp_path: Path, text: str) -> None:
    (tmp_path / "edges.json").write_text(text)
    book = Edges.load(tmp_path / "edges.json", 7.0)
    assert (book.since, book.to_json()["edges"]) == (7.0, [])
    assert "begins anew" in book.problem
    assert not Edges.load(tmp_path / "none.json", 7.0).problem


def test_it_is_bounded_and_counts_what_it_leaves_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 2)
    table, book = Table(), Edges(tmp_path / "edges.json", 0.0)
    for route in ("/a", "/b", "/c"):
        table.observe(a_hop(route=route), 1.0)
    table.observe(a_tcp_hop(), 1.0)
    book.take(table.rows())
    assert (len(book.to_json()["edges"]), book.left_out) == (2, 2)
