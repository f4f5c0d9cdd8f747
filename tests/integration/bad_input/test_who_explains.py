"""A refusal is explained by the sidecar that decided it, whoever else has heard of its id."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.integration.bad_input.conftest import assert_explained, assert_still_serving
from tests.integration.bad_input.test_upstreams import Answer
from tests.kit.processes import eventually
from tests.kit.programs import curl
from tests.kit.sidecars import World

DENIED = "[{name: web-may, from: web, path: [/after, '/orders/{id}']}]"


def test_the_callers_sidecar_knows_the_id_but_the_called_one_explains_it(
    a_world: Callable[..., World], tmp_path: Path
) -> None:
    world = a_world(allow=DENIED)
    with world.sidecar("app") as app, world.sidecar("web") as web:
        answer = Answer.of(curl("-i", world.url + "/admin"))
        decision_id = answer.headers["mesh-decision-id"]
        assert (answer.status, answer.json) == (403, {"title": "Forbidden", "status": 403, "decision": decision_id})
        assert answer.headers["proxy-status"] == (
            f'mesh; received-status=403; details="refused by the peer, decision={decision_id}"'
        )
        eventually("web has recorded it", lambda: web.access_log())
        explained = world.explain(decision_id)
        assert_explained("refused_by_a_rule", explained)

        socket = world.run_dir / "app.sock"
        try:
            later = socket.rename(world.run_dir / "zzz.sock")  # now web's sidecar is asked first
            assert world.explain(decision_id) == explained
            later = later.rename(tmp_path / "elsewhere")  # as if it were on another machine
            assert_explained("refused_on_another_machine", world.explain(decision_id))
        finally:
            later.rename(socket)
        assert_still_serving(world, app, web)
