"""Other trust domains that a config names: whoever gives out identities must federate with them.

Whether it does is not in the file, so each gets a warning; `mesh check --ca-dir` has looked, and leaves out what is so.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from certs.spiffe import TrustDomain
from sidecar.config.assemble import View
from sidecar.config.mistakes import Book, Mistake, nearest

CODE = "MESH083"


def foreign(own: TrustDomain, views: Sequence[View], book: Book) -> None:
    """Warn of each other trust domain once for our CA, and once for the services whose identity is from elsewhere."""
    told: set[tuple[TrustDomain, bool]] = set()
    for view in views:
        elsewhere = view.built.identity_source is not None
        for domain, path in _named(view, book):
            if domain == own or (domain, elsewhere) in told:
                continue
            told.add((domain, elsewhere))
            source = f"what gives {view.name} its identity" if elsewhere else "the CA"
            near = nearest(domain.name, [own.name])
            hint = f"have {domain}'s bundle added there" if elsewhere else command(domain)
            book.warn(CODE, path, _message(domain, source), f'did you mean "{near}"? If not: {hint}' if near else hint)


def command(domain: TrustDomain) -> str:
    """How the CA federates with it."""
    return f"mesh ca federation add {domain} --url https://… (its bundle endpoint), or --file its-bundle.json"


def still_open(warnings: Iterable[Mistake], federated: Collection[TrustDomain]) -> tuple[Mistake, ...]:
    """These warnings without those about trust domains that our CA is known to federate with."""
    settled = {_message(domain, "the CA") for domain in federated}
    return tuple(one for one in warnings if one.code != CODE or one.message not in settled)


def _named(view: View, book: Book) -> Iterator[tuple[TrustDomain, str]]:
    """Every trust domain of a rule's caller or an upstream's identity, and where it is written."""
    for rule in (*view.allow, *view.deny):
        for index, pattern in enumerate(rule.value.callers):
            yield pattern.trust_domain, book.item(rule.path, "from", index)
    for upstream in view.outbound:
        if upstream.value.identity is not None:
            yield upstream.value.identity.trust_domain, f"{upstream.path}.identity"


def _message(domain: TrustDomain, source: str) -> str:
    return f"{domain} is another trust domain: until {source} federates with it, its identities are refused"
