"""The sentence of the issue, between real sidecars: an abusive caller's median grows while another's p99 stays flat."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.kit.crowding import Crowd, crowd
from tests.kit.fleet import settled, spiffe
from tests.kit.processes import eventually
from tests.kit.programs import echo_app

LIMIT = "name: turns, limit: 20/s, burst: 5, per: caller, over: delay, delay: 4s"


def test_an_abusive_callers_median_grows_while_anothers_p99_stays_flat(tmp_path: Path) -> None:
    mesh = Crowd(tmp_path, LIMIT.replace("20/s", "30/s"))
    with echo_app(tmp_path, mesh.ports.app), mesh:
        mesh.start_all()
        greedy, other = crowd(mesh, [(3, 3.0), (20, 4.0), (60, 5.0)])
        settled([mesh["app"]])
        few, more, many = (greedy.percentile(0.5, *span) for span in ((0.5, 3.0), (4.5, 6.5), (9.0, 10.0)))
        flat = other.percentile(0.99, 0.5, 12.0)
        told = f"p50 {few:.2f}, {more:.2f}, {many:.2f} s; the other's p99 {flat * 1e3:.0f} ms"
        assert few < 0.3, told
        assert 0.3 < more < 1.2, told
        assert 1.2 < many < 3.5, told
        assert flat < many / 2, told  # a machine that is busy with others has to pass, too
        assert other.percentile(0.9, 0.5, 12.0) < 0.2, told
        assert {status for *_, status in other.answers} == {200}, told
        assert len(other.answers) > 120, told
        assert not greedy.broken + other.broken

        metrics = mesh["app"].metrics()
        delayed = metrics.total("mesh_rate_delayed_seconds_count", limit="turns")
        assert 150 < delayed <= len(greedy.answers)
        assert metrics.total("mesh_requests_total", flag="TH", source=spiffe("greedy")) == delayed
        assert metrics.total("mesh_requests_total", flag="TH", source=spiffe("other")) == 0
        eventually("every line of them is written", lambda: len(waited(mesh)) == delayed)
        lines = waited(mesh)
        assert {(line["flags"], line["status"], line["waited"]["limit"]) for line in lines} == {("TH", 200, "turns")}
        explained = mesh.explain(max(lines, key=lambda line: line["waited"]["seconds"])["decision_id"])
        assert "s for its turn at limit turns" in explained, explained
        mesh.assert_well()


def waited(mesh: Crowd) -> list[dict[str, Any]]:
    """The access log's lines, so far, of requests that were held."""
    return [line for line in mesh["app"].access_log() if "waited" in line]
