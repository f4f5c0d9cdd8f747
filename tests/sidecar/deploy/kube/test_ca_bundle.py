"""`caBundle` is kept: what is written, what is left alone, and what is said when it cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing
import trustme

from sidecar.deploy.kube import ca_bundle
from sidecar.deploy.kube.ca_bundle import LOOK_AGAIN, CaBundle, Cluster
from sidecar.discovery.slice_api import CannotAsk, Surroundings
from tests.kit.fake_webhooks import NAME, FakeWebhooks

ROOTS = b"-----BEGIN CERTIFICATE-----\nroots\n"


@pytest.fixture
def api() -> Iterator[FakeWebhooks]:
    with FakeWebhooks() as made:
        yield made


def kept(api: FakeWebhooks, folder: Path, roots: bytes = ROOTS) -> CaBundle:
    cluster = Cluster.of(f"https://localhost:{api.port}", *api.files(folder), Surroundings("", ""))
    return CaBundle(cluster, NAME, lambda: roots)


def test_it_is_written_once_and_then_left_alone(api, tmp_path):
    bundle = kept(api, tmp_path)
    assert trio.run(bundle.once)
    assert api.ca_bundle == ROOTS.decode()
    assert not trio.run(bundle.once)
    assert api.asked == ["GET", "PATCH", "GET"]
    assert api.configuration["webhooks"][0]["failurePolicy"] == "Fail"  # and whatever else stands there


def test_every_webhook_of_the_configuration_has_it(api, tmp_path):
    first = api.configuration["webhooks"][0]
    api.configuration["webhooks"].append({**first, "name": "second", "clientConfig": {"caBundle": "b2xk"}})
    trio.run(kept(api, tmp_path).once)
    assert len({each["clientConfig"]["caBundle"] for each in api.configuration["webhooks"]}) == 1


def test_what_somebody_else_has_changed_meanwhile_is_not_written_over(api, tmp_path):
    api.meanwhile = True
    with pytest.raises(CannotAsk, match="somebody else has just changed it"):
        trio.run(kept(api, tmp_path).once)
    assert api.ca_bundle == ""


@pytest.mark.parametrize(
    ("refusal", "why"),
    [
        ((401, b"{}"), "is not accepted"),
        ((403, b'{"message": "no"}'), r"may not get mutating.* \(403\): grant get and patch; it says: no"),
        ((404, b"{}"), "apply our manifests"),
        ((429, b"slow down"), "answered get with 429"),
        ((500, b"{}"), "answered get with 500"),
        ((200, b"<html>"), "answered get with 200"),
        ((200, b'{"webhooks": []}'), "has no webhooks"),
    ],
)
def test_what_the_api_server_refuses_is_told(api, tmp_path, refusal, why):
    api.refuse = refusal
    with pytest.raises(CannotAsk, match=why):
        trio.run(kept(api, tmp_path).once)


def test_a_token_that_kubernetes_replaces_is_read_anew(api, tmp_path):
    bundle = kept(api, tmp_path)
    api.token = "another"
    with pytest.raises(CannotAsk, match="401"):
        trio.run(bundle.once)
    (tmp_path / "token").write_text("another\n")
    assert trio.run(bundle.once)
    (tmp_path / "token").unlink()
    with pytest.raises(CannotAsk, match="cannot be read"):
        trio.run(bundle.once)


def test_who_is_not_there_or_somebody_else_is_told(api, tmp_path):
    bundle = kept(api, tmp_path)
    (tmp_path / "ca.crt").write_bytes(trustme.CA().cert_pem.bytes())
    with pytest.raises(CannotAsk, match="its certificate is refused"):
        trio.run(bundle.once)
    api._server.server_close()
    with pytest.raises(CannotAsk, match=f"https://localhost:{api.port}"):
        trio.run(bundle.once)


def test_it_is_looked_at_again_each_minute_and_at_each_change_of_the_roots(monkeypatch):
    """Somebody applies the manifest again, with an empty caBundle; the root is rotated; the API server is away."""
    looks: list[float] = []
    told: list[str] = []

    async def once(self: CaBundle) -> bool:
        looks.append(trio.current_time() - began)
        if 2 <= len(looks) <= 4:
            raise CannotAsk("away")
        return len(looks) == 1

    monkeypatch.setattr(ca_bundle.CaBundle, "once", once)
    bundle = CaBundle(None, NAME, lambda: ROOTS)  # type: ignore[arg-type]
    turned = trio.Event()
    began = 0.0

    async def changed() -> None:
        await (trio.sleep_forever() if turned.is_set() else turned.wait())

    async def main() -> None:
        nonlocal began
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bundle.keep, changed, told.append)
            await trio.sleep(LOOK_AGAIN + 8)
            assert not bundle.problem
            turned.set()
            await trio.sleep(1)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert looks == pytest.approx([0, 60, 61, 63, 67, 68], abs=0.1)
    assert told == [f"caBundle of {NAME} is current now", f"caBundle of {NAME} cannot be kept: away"]
