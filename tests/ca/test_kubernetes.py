"""Kubernetes' tokens as proofs, against a fake API server over real HTTPS: TokenReview and published keys."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from ca.attest.clusters import KubernetesCluster
from ca.attest.proof import KubernetesProof
from ca.bucket import Bucket
from ca.errors import DamagedCa, InvalidEntry, ProofRefused, TooManyIssuances
from ca.https import HttpsUrl, OutsideUnavailable
from ca.store.base import Cluster
from certs.keys import new_key
from sidecar.net.http_server import Response
from tests.ca.office import DEMO, NOW, Office, open_office
from tests.kit.fake_cluster import FakeCluster, a_cluster, as_json

K8S = ("k8s:cluster:prod", "k8s:ns:shop", "k8s:sa:orders")
Story = Callable[[Office, FakeCluster], Awaitable[None]]


@pytest.fixture
def told(tmp_path: Path) -> Callable[[str, Story], None]:
    """Run a story with a CA that knows the cluster, by this mode, and has an entry for shop/orders."""

    def run(mode: str, story: Story) -> None:
        async def whole() -> None:
            with trio.fail_after(30):
                async with a_cluster() as cluster:
                    office, own = open_office(), tmp_path / "own"
                    own.write_text("first-token\n")
                    token_file = str(own) if mode == "review" else ""
                    known = KubernetesCluster("prod", mode, cluster.url, "mesh-ca", token_file, cluster.ca_pem)
                    office.store.add_cluster(known.check().to_row(NOW))
                    entry = office.entry("orders")
                    office.store.remove_entry(entry.id, NOW)
                    office.store.add_entry(dataclasses.replace(entry, id="orders-k8s", selectors=K8S))
                    await story(office, cluster)

        trio.run(whole)

    return run


async def enrol(office: Office, token: str, **more: str) -> str:
    """The SPIFFE ID of what is issued. Raises what the CA refuses with."""
    return (await office.authority.enrol(office.csr, KubernetesProof(token, **more))).spiffe_id.text


async def refusal(office: Office, token: str, kind: type[Exception] = ProofRefused, **more: str) -> str:
    with pytest.raises(kind) as caught:
        await enrol(office, token, **more)
    assert token not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("mode", ["review", "oidc"])
def test_a_token_of_the_right_account_is_a_certificate(told: Any, mode: str) -> None:
    async def story(office: Office, cluster: FakeCluster) -> None:
        assert await enrol(office, cluster.token()) == f"spiffe://{DEMO}/ns/default/sa/orders"
        assert await enrol(office, cluster.token(), entry="orders-k8s", cluster="prod")
        (latest, *_) = office.store.issuances()
        assert latest.proof == "kubernetes"
        assert latest.proof_detail.startswith("k8s:cluster:prod k8s:ns:shop k8s:sa:orders k8s:pod:orders-1")

    told(mode, story)


@pytest.mark.parametrize("mode", ["review", "oidc"])
def test_what_is_not_the_right_token_is_refused_in_words_that_help(told: Any, mode: str) -> None:
    async def story(office: Office, cluster: FakeCluster) -> None:
        token = cluster.token
        other = "orders-k8s asks for k8s:sa:orders and saw k8s:sa:web"
        assert other in await refusal(office, token(account="web"))
        assert "saw k8s:ns:default" in await refusal(office, token(namespace="default"))
        wrong = "audience istio-ca was presented; prod asks for mesh-ca"
        assert wrong in await refusal(office, token(audience="istio-ca"))
        assert "expired" in await refusal(office, token(exp=int(NOW)))
        assert "ahead" in await refusal(office, token(nbf=int(NOW) + 120))
        assert "only service accounts" in await refusal(office, token(sub="kubernetes-admin"))
        assert "only service accounts" in await refusal(office, token(sub="system:serviceaccount:shop:"))
        assert "does not know" in await refusal(office, token(), cluster="staging")
        assert "no entry 'web-1'" in await refusal(office, token(), entry="web-1")
        assert "three parts" in await refusal(office, "not.a-token-at-all-but-long-enough")
        words = await refusal(office, dataclasses.replace(cluster, key=new_key()).token())
        assert "changed, or another key" in words or "invalid bearer token" in words
        assert office.store.issued_count() == 0

    told(mode, story)


def test_the_cas_own_token_is_read_anew_at_each_review(told: Any, tmp_path: Path) -> None:
    async def story(office: Office, cluster: FakeCluster) -> None:
        await enrol(office, cluster.token())
        (tmp_path / "own").write_text("second-token")
        await enrol(office, cluster.token())
        assert cluster.own_tokens == ["first-token", "second-token"]
        for bad in (b"", b"two words", b"\xff", b"a\nb"):
            (tmp_path / "own").write_bytes(bad)
            await refusal(office, cluster.token(), OutsideUnavailable)
        (tmp_path / "own").unlink()
        assert "cannot be read" in await refusal(office, cluster.token(), OutsideUnavailable)

    told("review", story)


def test_a_review_knows_of_pods_that_are_gone_and_confirms_the_audience(told: Any) -> None:
    async def story(office: Office, cluster: FakeCluster) -> None:
        cluster.deleted_pods.add("orders-1")
        assert "has been invalidated" in await refusal(office, cluster.token())
        cluster.deleted_pods.clear()
        cluster.ignores_audiences = True
        assert "did not confirm the audience" in await refusal(office, cluster.token())

    told("review", story)


def test_a_cluster_that_cannot_be_asked_is_our_trouble_and_not_a_refusal(told: Any) -> None:
    async def story(office: Office, cluster: FakeCluster) -> None:
        reviews = "/apis/authentication.k8s.io/v1/tokenreviews"
        for answer in ({}, {"status": 7}, {"status": {"authenticated": True, "audiences": ["mesh-ca"]}}):
            cluster.answers[reviews] = lambda _, answer=answer: as_json(answer)  # type: ignore[misc]
            await refusal(office, cluster.token(), OutsideUnavailable)
        cluster.answers[reviews] = lambda _: Response(200, (), b"<html>")
        await refusal(office, cluster.token(), OutsideUnavailable)
        cluster.answers[reviews] = lambda _: Response.error(403, "forbidden")
        assert "answered 403" in await refusal(office, cluster.token(), OutsideUnavailable)
        cluster.up = False
        assert "localhost" in await refusal(office, cluster.token(), OutsideUnavailable)

    told("review", story)


@pytest.mark.parametrize(
    ("status", "more", "kind", "says"),
    [
        (429, ((b"retry-after", b"7"),), TooManyIssuances, "API server of cluster prod is busy; come back in 7.0 s"),
        (503, ((b"retry-after", b"1"),), TooManyIssuances, "come back in 1.0 s"),
        (503, ((b"retry-after", b"99999"),), TooManyIssuances, "come back in 120.0 s"),
        (429, (), OutsideUnavailable, "answered 429"),
        (429, ((b"retry-after", b"Wed, 21 Oct 2026 07:28:00 GMT"),), OutsideUnavailable, "answered 429"),
        (500, (), OutsideUnavailable, "answered 500"),
        (401, (), OutsideUnavailable, "answered 401"),  # our own token is not accepted: no fault of the sidecar
    ],
)
def test_an_api_server_on_a_worse_day(told: Any, status: int, more: Any, kind: type[Exception], says: str) -> None:
    async def story(office: Office, cluster: FakeCluster) -> None:
        reviews = "/apis/authentication.k8s.io/v1/tokenreviews"
        cluster.answers[reviews] = lambda _: Response.of_json(status, {"kind": "Status", "message": "no"}, more)
        assert says in await refusal(office, cluster.token(), kind)
        del cluster.answers[reviews]
        assert await enrol(office, cluster.token())  # and nothing is held against anybody

    told("review", story)


def test_an_api_server_that_restarts_in_the_middle_of_its_answer_or_says_nothing(told: Any, monkeypatch: Any) -> None:
    async def half() -> AsyncIterator[bytes]:
        yield b'{"status": {"auth'
        raise trio.BrokenResourceError

    async def nothing() -> AsyncIterator[bytes]:
        yield b"{"
        await trio.sleep_forever()

    async def story(office: Office, cluster: FakeCluster) -> None:
        reviews = "/apis/authentication.k8s.io/v1/tokenreviews"
        cluster.answers[reviews] = lambda _: Response(201, (), half())
        await refusal(office, cluster.token(), OutsideUnavailable)
        monkeypatch.setattr("ca.https.SECONDS", 0.3)
        cluster.answers[reviews] = lambda _: Response(201, (), nothing())
        assert "did not answer within" in await refusal(office, cluster.token(), OutsideUnavailable)

    told("review", story)


def test_keys_are_kept_fetched_again_for_a_new_one_and_serve_on_while_the_issuer_is_away(told: Any) -> None:
    async def story(office: Office, cluster: FakeCluster) -> None:
        keys = "/openid/v1/jwks"
        for _ in range(3):
            await enrol(office, cluster.token())
        assert cluster.seen.count(keys) == 1
        office.clock.now += 601
        cluster.now = office.clock.now
        await enrol(office, cluster.token())
        assert cluster.seen.count(keys) == 2
        cluster.up = False
        office.clock.now += 3000
        await enrol(office, cluster.token())
        cluster.up = True
        cluster.key, cluster.kid = new_key(), "c2"
        assert "does not publish" in await refusal(office, cluster.token()), "tried a moment ago"
        office.clock.now += 11
        await enrol(office, cluster.token())
        made_up = cluster.token()
        cluster.kid = "c9"
        for _ in range(5):
            await refusal(office, cluster.token())
        assert cluster.seen.count(keys) == 3, "strangers cannot make us ask at their pace"
        cluster.kid = "c2"
        cluster.up = False
        office.clock.now += 86400 * 2
        cluster.now = office.clock.now
        await refusal(office, cluster.token(), OutsideUnavailable)
        assert made_up

    told("oidc", story)


def test_what_an_issuer_must_not_say(told: Any) -> None:
    async def story(office: Office, cluster: FakeCluster) -> None:
        found = "/.well-known/openid-configuration"
        for document in (
            {"issuer": "https://evil.example", "jwks_uri": f"{cluster.url}/openid/v1/jwks"},
            {"issuer": cluster.url, "jwks_uri": "http://localhost/keys"},
            {"issuer": cluster.url},
            {"issuer": cluster.url, "jwks_uri": f"{cluster.url}/nowhere"},
        ):
            cluster.answers[found] = lambda _, document=document: as_json(document)  # type: ignore[misc]
            await refusal(office, cluster.token(), OutsideUnavailable)
        del cluster.answers[found]
        for keys in (7, [{}] * 101):
            cluster.answers["/openid/v1/jwks"] = lambda _, keys=keys: as_json({"keys": keys})  # type: ignore[misc]
            await refusal(office, cluster.token(), OutsideUnavailable)
        del cluster.answers["/openid/v1/jwks"]
        assert "is https://localhost" in await refusal(office, cluster.token(iss="https://evil.example"))
        bound = {"namespace": "shop", "serviceaccount": {"name": "orders"}}
        assert "bound to no" in await refusal(office, cluster.token(**{"kubernetes.io": None}))
        assert "bound to no" in await refusal(office, cluster.token(**{"kubernetes.io": bound | {"namespace": "x"}}))
        assert "two service accounts" in await refusal(
            office, cluster.token(**{"kubernetes.io": bound | {"serviceaccount": {"name": "web"}}})
        )

    told("oidc", story)


def test_a_server_that_is_not_the_one_that_was_told_of_gets_no_token(told: Any) -> None:
    async def story(office: Office, cluster: FakeCluster) -> None:
        async with a_cluster() as impostor:
            known = KubernetesCluster.of_row(office.store.clusters()[0])
            office.store.remove_cluster("prod", NOW)
            office.store.add_cluster(dataclasses.replace(known, ca_pem=impostor.ca_pem).to_row(NOW))
            words = await refusal(office, cluster.token(), OutsideUnavailable)
            assert "certificate is refused" in words
            assert cluster.own_tokens == []

    told("review", story)


def test_of_several_clusters_the_one_that_is_named_or_issued_it(told: Any) -> None:
    async def story(office: Office, cluster: FakeCluster) -> None:
        office.store.add_cluster(KubernetesCluster("other", "oidc", "https://other.example").to_row(NOW))
        assert await enrol(office, cluster.token())
        office.store.add_cluster(
            dataclasses.replace(KubernetesCluster.of_row(office.store.clusters()[1]), name="third").to_row(NOW)
        )
        assert "name its cluster" in await refusal(office, cluster.token(iss="https://nobody.example"))

    told("oidc", story)


def test_made_up_tokens_do_not_become_a_flood_of_questions(told: Any) -> None:
    async def story(office: Office, cluster: FakeCluster) -> None:
        office.authority._kubernetes._questions = Bucket(1.0, 2.0)
        forged = dataclasses.replace(cluster, key=new_key()).token()
        for _ in range(2):
            await refusal(office, forged)
        for _ in range(3):
            await refusal(office, forged, TooManyIssuances)
        assert len(cluster.own_tokens) == 2
        office.clock.now += 1
        assert await enrol(office, cluster.token())

    told("review", story)


def test_a_ca_that_knows_no_cluster_says_so() -> None:
    async def story() -> None:
        office = open_office()
        with pytest.raises(ProofRefused, match="mesh ca cluster add"):
            await enrol(office, "a.b.c")

    trio.run(story)


GOOD = KubernetesCluster("prod", "oidc", "https://issuer.example/c1")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "Prod"}, "lower-case"),
        ({"mode": "guess"}, "mode"),
        ({"audience": ""}, "audience"),
        ({"url": "http://issuer.example"}, "https"),
        ({"url": "https://user@issuer.example"}, "has a user"),
        ({"url": "https://issuer.example/?a=b"}, "query"),
        ({"token_file": "/x"}, "token file"),
        ({"mode": "review"}, "token file"),
        ({"mode": "review", "token_file": "x"}, "absolute"),
        ({"ca_pem": "no pem"}, "PEM"),
    ],
)
def test_a_cluster_that_cannot_be_meant_is_refused(change: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidEntry, match=words):
        dataclasses.replace(GOOD, **change).check()


def test_a_cluster_goes_into_the_store_and_comes_out() -> None:
    assert KubernetesCluster.of_row(GOOD.to_row(NOW)) == GOOD
    for document in ("{", "[]", '{"name": 1}', '{"name": "a", "mode": "b", "url": "c"}'):
        with pytest.raises(DamagedCa):
            KubernetesCluster.of_row(Cluster("prod", document, NOW))
    store = open_office().store
    store.add_cluster(GOOD.to_row(NOW))
    with pytest.raises(InvalidEntry, match="known already"):
        store.add_cluster(GOOD.to_row(NOW))
    assert (store.remove_cluster("prod", NOW), store.remove_cluster("prod", NOW)) == (True, False)


def test_urls_are_put_together_as_they_came_apart() -> None:
    url = HttpsUrl.parse("https://[::1]:6443/a/")
    assert (url.host, url.port, str(url / "b")) == ("::1", 6443, "https://[::1]:6443/a/b")
    assert str(HttpsUrl.parse("https://x.example")) == "https://x.example"
