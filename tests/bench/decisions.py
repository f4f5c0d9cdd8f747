"""What the pure decisions about traffic cost: `python -m tests.bench.decisions`.

Nanoseconds of processor time, best of five. The bar: at least a million decisions a second for one limiter key.
`make bench` prints it too, after its rows.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from random import Random
from time import process_time
from zoneinfo import ZoneInfo

from certs.spiffe import TrustDomain, workload_id
from sidecar.config.conditions import Condition
from sidecar.config.schema_inbound import Rule
from sidecar.config.terms import Address
from sidecar.hop import Headers, Hop, Permit, Token
from sidecar.patterns import IdentityPattern, PathTemplate
from sidecar.policy.authz import RuleSet
from sidecar.policy.tokens import ListenerTokens
from sidecar.traffic.budget import Budget
from sidecar.traffic.destination import Algorithm, Destination, DestinationRules
from sidecar.traffic.endpoints import Declared
from sidecar.traffic.gcra import Levels, Rate
from sidecar.traffic.outcome import Outcome
from sidecar.traffic.quota import Quota, QuotaRules
from sidecar.traffic.quota_store import MemoryStore
from sidecar.traffic.throttle import Throttle, ThrottleRules
from tests.kit.tokens import NOW as TOKENS_AT
from tests.kit.tokens import Shelf, Signer, key_set, listener

TIMES = 100_000
SEEN, FIRST = "a bearer token, seen before", "a bearer token, ES256, the first time"
MOST = {SEEN: 3e-6, FIRST: 150e-6}  # seconds (issue 9)
ONE_KEY, LEAST = "limit, one key, let in", 1_000_000.0  # decisions a second
NOON = 1_795_608_000.0


def cost(step: Callable[[float], object], start: float = 1000.0, times: int = TIMES) -> float:
    """Seconds for one call, time going on by a microsecond each."""
    best = float("inf")
    for _ in range(5):
        now, began = start, process_time()
        for _ in range(times):
            now += 1e-6
            step(now)
        best = min(best, process_time() - began)
        start = now
    return best / times


def attempt(count: int, balance: Algorithm) -> Callable[[float], object]:
    """One request that goes well: budget, ceiling, pick, begin, end."""
    entries = [Declared(Address(f"10.0.{n // 250}.{n % 250 + 1}", 80)) for n in range(count)]
    destination = Destination(entries, Random(1).random, 0.0, DestinationRules(balance=balance))
    requests, keys = destination.ceilings.requests, cycle(b"caller-%d" % n for n in range(1000))

    def step(now: float) -> None:
        requests.enter()
        destination.budget.request(now)
        endpoint = destination.begin(now, (), next(keys))
        assert endpoint is not None
        destination.end(endpoint, Outcome.GOOD, now, now + 1e-5)
        requests.leave()

    return step


def rule_with_a_condition() -> float:
    """Seconds for a verdict by one rule whose path parameter must equal a claim (bar: 5 µs)."""
    rule = Rule(
        "own", "allow", (IdentityPattern.parse("web", TrustDomain("demo.mesh"), "shop"),),
        paths=(PathTemplate.parse("/customers/{customer}/orders"),),
        when=(Condition.parse("path customer is claim customer"),),
    )  # fmt: skip
    rules, peer = RuleSet.compile([rule]), workload_id(TrustDomain("demo.mesh"), "shop", "web")
    hop = Hop("inbound", "http", 8443, "http", peer=peer, method="GET", segments=("customers", "c7", "orders"))
    hop.token = Token("idp", "ann", {"customer": "c7"}, frozenset(), 2e9, "0" * 16)
    assert isinstance(rules.check(hop, 0.0), Permit)
    return cost(lambda now: rules.check(hop, now))


def bearer(times: int) -> list[tuple[str, float]]:
    """Tokens at a listener: found in the head of a request, and verified or known."""
    signer = Signer()
    shelf = Shelf(login=key_set(signer))
    rows = []
    for name, known in ((SEEN, True), (FIRST, False)):
        judged = listener(shelf)
        claims = {"scope": "orders:read", "client_id": "billing", "jti": "XidgyvYmS7BHl6odprR4XLPZ4VP7mJTzF8PvmQy5y6n"}
        value = b"Bearer " + signer.token(**claims)
        head = [*((b"x-%d" % number, b"value") for number in range(8)), (b"authorization", value)]

        def step(_: float, *, judged: ListenerTokens = judged, head: Headers = head, known: bool = known) -> None:
            if not known:
                judged._known.clear()
            judged.judge(head, "", TOKENS_AT)

        rows.append((name, cost(step, times=times if known else times // 50)))
    return rows


def main() -> None:
    """Print a line for each, and what the bar says."""
    one, refusing = Rate("one", 1e9, 1000), Rate("one", 1.0, 1)
    three = Levels((Rate("listener", 1e9, 1000), Rate("caller", 1e9, 1000), Rate("endpoint", 1e9, 1000)))
    keys = ("", "spiffe://mesh/ns/shop/sa/web", "GET /orders/{id}")
    throttle = Throttle(ThrottleRules(rate=1e9, burst=1000))
    quota = Quota(QuotaRules("daily", 10**9, "day", ZoneInfo("Europe/Berlin")), MemoryStore())
    budget = Budget()
    kind: Algorithm
    rows: list[tuple[str, float]] = [
        ("an empty call", cost(lambda now: None)),
        (ONE_KEY, cost(lambda now: one.take(now, "web"))),
        ("limit, one key, refused", cost(lambda now: refusing.take(now, "web"))),
        ("limit, one key, let in, no lambda around it", cost(Rate("bare", 1e9, 1000).take)),
        ("limits, three levels", cost(lambda now: three.take(now, keys))),
        ("a rule with a condition", rule_with_a_condition()),
        ("throttle", cost(lambda now: throttle.check(now, "web"))),
        ("quota", cost(lambda now: quota.take(now, "web"), NOON)),
        ("budget, a request", cost(budget.request)),
    ]
    for count in (1, 3, 10, 1000):
        rows += [(f"a whole attempt, least loaded of {count}", cost(attempt(count, "least_loaded")))]
    for kind in ("round_robin", "weighted", "maglev"):
        rows += [(f"a whole attempt, {kind} of 10", cost(attempt(10, kind)))]
    rows += bearer(TIMES)
    for name, seconds in rows:
        print(f"  {name:45} {seconds * 1e9:6.0f} ns {1 / seconds / 1e6:6.2f} M/s")
    rate = 1 / dict(rows)[ONE_KEY]
    said = "pass" if rate >= LEAST else "miss"
    print(f"  bar  {said}: {rate:,.0f} decisions a second for one limiter key (bar ≥ {LEAST:,.0f})")
    for name, most in MOST.items():
        said = "pass" if dict(rows)[name] <= most else "miss"
        print(f"  bar  {said}: {dict(rows)[name] * 1e6:.2f} µs for {name} (bar ≤ {most * 1e6:g} µs)")


if __name__ == "__main__":
    main()
