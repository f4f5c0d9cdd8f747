"""Our own certificate has ended: an answer and a reason, never a crash; and a new one is taken up at once."""

from __future__ import annotations

from tests.integration.bad_input.conftest import assert_explained, assert_still_serving
from tests.integration.bad_input.test_upstreams import ask
from tests.kit.identities import DAY, NOW, an_svid
from tests.kit.processes import eventually
from tests.kit.programs import curl
from tests.kit.sidecars import World
from tests.kit.tls_peers import call

ENDED = {"not_before": NOW - 3 * DAY, "not_after": NOW - 2 * DAY}


def test_the_callers_own_certificate_has_ended(world: World) -> None:
    with world.sidecar("app") as app, world.sidecar("web") as web:
        assert_still_serving(world, app, web)  # and leaves a connection in the pool
        web.publish(an_svid(world.issuer, "web", **ENDED))

        answer = ask(world)
        decision_id = answer.headers["mesh-decision-id"]
        assert answer.status == 503
        told = f'mesh; error=proxy_internal_error; details="ID no_identity decision={decision_id}"'
        assert answer.headers["proxy-status"] == told
        eventually("the refusal in the audit", lambda: web.audit("refusal"))
        assert web.audit("refusal")[0]["error"] == "no_identity"
        assert_explained("own_certificate_ended_outbound", world.explain(decision_id))
        assert web.admin("GET", "/status")[1]["not_ready"] == ["our certificate has expired: not renewed"]

        web.publish(an_svid(world.issuer, "web"))
        assert_still_serving(world, app, web)


def test_the_called_ones_own_certificate_has_ended(world: World) -> None:
    with world.sidecar("app") as app, world.sidecar("web") as web:
        app.publish(an_svid(world.issuer, "app", **ENDED))

        seen = call(world.ports.app_in, an_svid(world.issuer, "web"))
        assert (seen.status, seen.version) == (0, "")  # no handshake with a certificate that has ended
        audited = app.handshake_failure()
        assert audited["reason"] == "no_identity"
        assert_explained("own_certificate_ended_inbound", world.explain(audited["decision_id"]))
        assert ask(world).status == 503
        assert curl(world.url).code == 0

        app.publish(an_svid(world.issuer, "app"))
        assert_still_serving(world, app, web)
