"""Whether what is expected of rules holds: each expectation is made into a hop and judged as the proxy judges one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sidecar.config.mistakes import Book, meant
from sidecar.errors import HopError, TokenMissing
from sidecar.hop import Deny
from sidecar.policy.authz import RuleSet
from sidecar.policy.explain import Explanation, explain
from sidecar.policy.question import BadQuestion, hop_of, moment_of
from sidecar.policy.steered import steered

if TYPE_CHECKING:
    from sidecar.config.expectations import Expectation
    from sidecar.config.schema import MeshConfig, Service
    from sidecar.config.schema_inbound import Inbound
    from sidecar.hop import Hop


@dataclass(frozen=True, slots=True)
class Said:
    """What a sidecar would say of a request: by which rule, with which error, and why."""

    error: HopError | None  # None is permit
    rule: str = ""  # the one that decided, empty where none did
    explanation: Explanation | None = None  # None where it was refused before any rule was asked
    answered: bool = True  # a refusal has a status; a raw connection is only closed

    @property
    def verdict(self) -> str:
        """`permit` or `deny`."""
        return "permit" if self.error is None else "deny"

    @property
    def why(self) -> str:
        """What decided and, of a refusal that no rule said, which rule came nearest and what it wants. One line."""
        if self.explanation is None:
            return str(self.error)
        near = self.explanation.nearest
        if near is None:
            return self.explanation.decision
        lacking = "; ".join(f"{each.field}: wanted {each.wanted}, seen {each.seen}" for each in near.differences)
        return f"{self.explanation.decision}; nearest is rule {near.rule!r} ({near.where}): {lacking}"


def mistakes(test: Expectation, path: str, config: MeshConfig, book: Book) -> None:
    """Note what an expectation names that this config does not have: it would say nothing about the rules."""
    service = config.services.get(test.called)
    if service is None:
        book.at(f"{path}.to", f'there is no service "{test.called}"', meant(test.called, list(config.services)))
        return
    if test.caller and "/" not in test.caller and test.caller not in config.services:
        hint = meant(test.caller, list(config.services))
        book.at(f"{path}.from", f'there is no service "{test.caller}"', f"{hint} (or namespace/service, or spiffe://…)")
        return
    rules = [rule.name for rule in (*service.deny, *service.allow)]
    if test.rule and test.rule not in rules:
        book.at(f"{path}.rule", f'{service.name} has no rule "{test.rule}"', meant(test.rule, rules))
    try:
        hop = _hop(test, config, service)
    except BadQuestion as error:
        book.at(f"{path}.request", str(error))
    except HopError:
        return  # that is an answer
    else:
        if hop.token is not None and _listener(hop, service).tokens is None:
            problem = f"listener {hop.listener} of {service.name} verifies no tokens, and so knows no claims and scopes"
            book.at(f"{path}.request", problem, "say `tokens:` there, or leave them out")


def said_of(test: Expectation, config: MeshConfig, now: float) -> Said:
    """What would be said of it, at the moment that it names or else now (seconds since the epoch)."""
    service = config.services[test.called]
    try:
        hop = _hop(test, config, service)
    except HopError as refused:
        return Said(refused)
    tokens = _listener(hop, service).tokens
    if tokens is not None and tokens.required and hop.token is None:
        return Said(TokenMissing(f"listener {hop.listener} asks each request for a token"))
    moment = moment_of(test.question, now)
    rules = RuleSet.compile(service.allow, service.deny)
    verdict = rules.check(hop, moment)
    error = verdict.error if isinstance(verdict, Deny) else None
    return Said(error, verdict.rule, explain(rules, hop, moment), hop.protocol == "http")


def _hop(test: Expectation, config: MeshConfig, service: Service) -> Hop:
    """The hop that this is, led along the caller's own routes. Raises BadQuestion, HopError."""
    question: dict[str, Any] = test.question
    asking = config.services.get(test.caller)
    if asking is not None:
        question["from"] = asking.identity.text
    return hop_of(steered(config, service.name, question).question, service)


def _listener(hop: Hop, service: Service) -> Inbound:
    return next(each for each in service.inbound if each.name == hop.listener)
