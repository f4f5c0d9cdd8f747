"""Kubernetes' projected service-account tokens: verified by their cluster, turned into selectors (semantics S7).

A token says nothing before it has held: the cluster it claims to be from decides, and a claim of an audience other than
ours is a refusal that names both (pain 12). There is no second try without audience. Where the cluster cannot be asked,
that is *our* trouble, and said so: the sidecar comes back.

Keys of an OIDC issuer are kept for ten minutes, fetched again at once for a `kid` that we do not know (but no more than
every ten seconds), and serve on for a day where the issuer cannot be reached: pods start while an API server is away.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from ca.attest.clusters import KubernetesCluster
from ca.attest.proof import Attested, KubernetesProof, nothing_to_settle
from ca.bucket import Bucket
from ca.errors import ProofRefused, TooManyIssuances
from ca.https import HttpsClient, HttpsUrl, OutsideUnavailable
from ca.selectors import choose
from ca.store.base import Store
from ca.store.threads import StoreThreads
from certs.jwk import parse_public_jwk
from certs.jwt import InvalidJwt, Jwt
from certs.keys import PublicKey
from sidecar.net.clock import Clock

FRESH_SECONDS = 600.0
AGAIN_SECONDS = 10.0  # between two fetches for the sake of an unknown key
STALE_SECONDS = 86400.0
LEEWAY = 60.0
MAX_KEYS = 100
QUESTIONS_PER_SECOND, QUESTIONS_AT_ONCE = 50.0, 500.0  # TokenReviews; half of what we issue
MAX_TOKEN_FILE = 16 * 1024
_USER = "system:serviceaccount:"
_EXTRA = {"pod": "authentication.kubernetes.io/pod-name", "pod-uid": "authentication.kubernetes.io/pod-uid",
          "node": "authentication.kubernetes.io/node-name"}  # fmt: skip

_log = logging.getLogger("mesh.ca")


@dataclass(slots=True)
class _KeySet:
    """The keys of one issuer, by `kid`. Times are monotonic."""

    keys: dict[str, PublicKey]
    fetched_at: float
    tried_at: float


@dataclass(slots=True)
class Kubernetes:
    """The judge of such tokens; it keeps the keys of issuers.

    A token can be made up by anybody who reaches us, so questions to clusters come from a bucket of their own.
    """

    clock: Clock
    _questions: Bucket = field(default_factory=lambda: Bucket(QUESTIONS_PER_SECOND, QUESTIONS_AT_ONCE))
    _sets: dict[str, _KeySet] = field(default_factory=dict)
    _fetching: trio.Lock = field(default_factory=trio.Lock)

    async def attest(self, store: StoreThreads, proof: KubernetesProof, now: float) -> Attested:
        """Judge a token, and find the entry that it fits. Raises ProofRefused, OutsideUnavailable,
        TooManyIssuances, StoreUnavailable.
        """
        clusters, entries = await store.call(_look_up, store.store)
        if not clusters:
            raise ProofRefused("a Kubernetes token was presented; this CA knows no cluster: `mesh ca cluster add`")
        try:
            jwt = Jwt.parse(proof.token)
            cluster = _cluster_of(jwt, clusters, proof.cluster)
            shown = await self._verify(cluster, jwt, proof.token, now)
        except InvalidJwt as error:
            raise ProofRefused(f"a Kubernetes token was presented; {error.detail}") from None
        entry = choose(entries, shown, f"a token of cluster {cluster.name}", proof.entry)
        return Attested(entry, "kubernetes", " ".join(shown), nothing_to_settle)

    async def _verify(self, cluster: KubernetesCluster, jwt: Jwt, token: str, now: float) -> tuple[str, ...]:
        _check_audience(cluster, jwt.audience())
        jwt.check_times(now, LEEWAY)
        if cluster.mode == "review":
            if (wait := self._questions.take(self.clock.monotonic())) > 0:
                raise TooManyIssuances(wait)
            return await _review(cluster, token)
        if jwt.text("iss").rstrip("/") != cluster.url.rstrip("/"):
            issuer = jwt.text("iss")[:120]
            raise ProofRefused(f"a token of issuer {issuer} was presented; {cluster.name} is {cluster.url}")
        jwt.check_signature(await self._key(cluster, jwt.kid))
        return _selectors_of_claims(cluster, jwt)

    # ---- keys ------------------------------------------------------------------------------------------------------

    async def _key(self, cluster: KubernetesCluster, kid: str) -> PublicKey:
        async with self._fetching:
            known, now = self._sets.get(cluster.name), self.clock.monotonic()
            fresh = known is not None and now - known.fetched_at < FRESH_SECONDS and kid in known.keys
            if known is None or (not fresh and now - known.tried_at >= AGAIN_SECONDS):
                known = self._sets[cluster.name] = await self._fetch(cluster, known, now)
        key = known.keys.get(kid)
        if key is None:
            raise ProofRefused(f"a token was presented whose key (`kid`) cluster {cluster.name} does not publish")
        return key

    async def _fetch(self, cluster: KubernetesCluster, known: _KeySet | None, now: float) -> _KeySet:
        try:
            keys = await _published_keys(cluster)
        except OutsideUnavailable as error:
            if known is None or now - known.fetched_at > STALE_SECONDS:
                raise
            _log.warning("the keys of cluster %s are %.0f s old: %s", cluster.name, now - known.fetched_at, error)
            return _KeySet(known.keys, known.fetched_at, now)
        return _KeySet(keys, now, now)


def _look_up(store: Store) -> tuple[tuple[KubernetesCluster, ...], Any]:
    return tuple(map(KubernetesCluster.of_row, store.clusters())), store.entries()


def _cluster_of(jwt: Jwt, clusters: tuple[KubernetesCluster, ...], named: str) -> KubernetesCluster:
    """The cluster that the sidecar names; else that of the token's issuer; else the only one."""
    if named:
        found = next((each for each in clusters if each.name == named), None)
        if found is None:
            raise ProofRefused(f"a token of cluster {named[:80]!r} was presented, which this CA does not know")
        return found
    issuer = jwt.text("iss").rstrip("/")
    by_issuer = [each for each in clusters if each.mode == "oidc" and each.url.rstrip("/") == issuer]
    if by_issuer or len(clusters) == 1:
        return (*by_issuer, *clusters)[0]
    names = ", ".join(each.name for each in clusters)
    raise ProofRefused(f"a token of issuer {issuer[:120]} was presented; name its cluster, one of {names}")


def _check_audience(cluster: KubernetesCluster, audience: tuple[str, ...]) -> None:
    if cluster.audience not in audience:
        seen = ", ".join(audience)[:200]
        raise ProofRefused(f"a token for audience {seen} was presented; {cluster.name} asks for {cluster.audience}")


# ---- by TokenReview --------------------------------------------------------------------------------------------------


async def _review(cluster: KubernetesCluster, token: str) -> tuple[str, ...]:
    """Ask the API server. Raises ProofRefused, OutsideUnavailable, TooManyIssuances."""
    url = HttpsUrl.parse(cluster.url) / "apis/authentication.k8s.io/v1/tokenreviews"
    own = await trio.to_thread.run_sync(_own_token, cluster)
    question = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": token, "audiences": [cluster.audience]},
    }
    try:
        answer = await HttpsClient(cluster.ca_pem).post(url, question, {"authorization": f"Bearer {own}"})
    except OutsideUnavailable as error:
        if error.retry_after:  # it is there, and too busy: the sidecar comes back then, and counts no failure
            raise TooManyIssuances(error.retry_after, f"the API server of cluster {cluster.name} is busy") from None
        raise
    status = answer.get("status")
    if not isinstance(status, dict):
        raise OutsideUnavailable(f"cluster {cluster.name} answered a TokenReview without a status")
    if status.get("authenticated") is not True:
        raise ProofRefused(f"a token was presented that cluster {cluster.name} does not accept: {_why(status)}")
    audiences, user = status.get("audiences"), status.get("user")
    if not isinstance(audiences, list) or cluster.audience not in audiences:  # who ignores audiences says none
        raise ProofRefused(f"cluster {cluster.name} did not confirm the audience {cluster.audience}")
    if not isinstance(user, dict) or not isinstance(user.get("username"), str):
        raise OutsideUnavailable(f"cluster {cluster.name} answered a TokenReview without a user")
    namespace, account = _split(user["username"])
    extra = user.get("extra")
    more = {name: _first(extra.get(key)) for name, key in _EXTRA.items()} if isinstance(extra, dict) else {}
    return _selectors(cluster, namespace, account, more)


def _own_token(cluster: KubernetesCluster) -> str:
    """The CA's own token, as it is now: Kubernetes replaces it. Raises OutsideUnavailable."""
    try:
        with Path(cluster.token_file).open("rb") as file:
            text = file.read(MAX_TOKEN_FILE).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise OutsideUnavailable(f"the CA's own token for cluster {cluster.name} cannot be read: {error}") from None
    if not text or not text.isprintable() or " " in text:
        raise OutsideUnavailable(f"{cluster.token_file} holds no token")
    return text


def _why(status: dict[str, Any]) -> str:
    error = status.get("error")
    return error[:200] if isinstance(error, str) and error.isprintable() else "it says no more"


def _first(value: Any) -> str:
    return value[0] if isinstance(value, list) and value and isinstance(value[0], str) else ""


# ---- by published keys -----------------------------------------------------------------------------------------------


async def _published_keys(cluster: KubernetesCluster) -> dict[str, PublicKey]:
    """OpenID Connect Discovery 1.0 section 4, then RFC 7517. Raises OutsideUnavailable."""
    issuer, client = HttpsUrl.parse(cluster.url), HttpsClient(cluster.ca_pem)
    found = await client.get(issuer / ".well-known/openid-configuration")
    if str(found.get("issuer", "")).rstrip("/") != cluster.url.rstrip("/"):
        raise OutsideUnavailable(f"cluster {cluster.name}: {issuer} says that it is another issuer")
    try:
        where = HttpsUrl.parse(str(found.get("jwks_uri", "")), query=True)
    except ValueError as error:
        raise OutsideUnavailable(f"cluster {cluster.name}: its jwks_uri: {error}") from None
    entries = (await client.get(where)).get("keys")
    if not isinstance(entries, list) or len(entries) > MAX_KEYS:
        raise OutsideUnavailable(f"cluster {cluster.name}: {where} is no JWK Set")
    keys: dict[str, PublicKey] = {}
    for entry in entries:
        if isinstance(entry, dict) and isinstance(entry.get("kid"), str) and entry.get("use", "sig") == "sig":
            try:
                keys[entry["kid"]] = parse_public_jwk(entry)
            except ValueError as error:
                _log.warning("a key of cluster %s is left out: %s", cluster.name, error)
    return keys


def _selectors_of_claims(cluster: KubernetesCluster, jwt: Jwt) -> tuple[str, ...]:
    namespace, account = _split(jwt.text("sub"))
    private = jwt.claims.get("kubernetes.io")
    if not isinstance(private, dict) or private.get("namespace") != namespace:
        raise ProofRefused("a token was presented that is bound to no service account (a projected one is needed)")
    pod, node = _of(private, "pod", "name"), _of(private, "node", "name")
    more = {"pod": pod, "pod-uid": _of(private, "pod", "uid"), "node": node}
    if _of(private, "serviceaccount", "name") != account:
        raise ProofRefused("a token was presented that names two service accounts")
    return _selectors(cluster, namespace, account, more)


def _of(claims: dict[str, Any], what: str, member: str) -> str:
    found = claims.get(what)
    value = found.get(member) if isinstance(found, dict) else None
    return value if isinstance(value, str) else ""


# ---- both ------------------------------------------------------------------------------------------------------------


def _split(user: str) -> tuple[str, str]:
    """Namespace and account of `system:serviceaccount:NAMESPACE:ACCOUNT`. Raises ProofRefused."""
    namespace, colon, account = user.removeprefix(_USER).partition(":")
    if not user.startswith(_USER) or not colon or not namespace or not account or ":" in account:
        raise ProofRefused(f"a token of {user[:120]!r} was presented; only service accounts are workloads")
    return namespace, account


def _selectors(
    cluster: KubernetesCluster, namespace: str, account: str, more: dict[str, str]
) -> tuple[str, ...]:
    facts = {"cluster": cluster.name, "ns": namespace, "sa": account, **more}
    return tuple(f"k8s:{name}:{value}" for name, value in facts.items() if value and value.isprintable())
