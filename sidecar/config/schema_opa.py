"""What an operator can say of an Open Policy Agent that is asked about requests; see docs/opa.md."""
# ruff: noqa: RUF009 - `described` only wraps dataclasses.field; its defaults are immutable

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sidecar.config.terms import CheckedPath, ClaimName, Count, FilePath, HeaderName, Method, Seconds, described
from sidecar.config.urls import Url
from sidecar.patterns import PathTemplate


@dataclass(frozen=True, slots=True)
class Asked:
    """Some requests; an absent field does not narrow. In a list, any one is enough."""

    methods: tuple[Method, ...] = described("Methods, upper case.", (), yaml="method", some=True)
    paths: tuple[PathTemplate, ...] = described(
        "Path templates: `/orders/{id}`, `/static/**`.", (), yaml="path", some=True
    )


@dataclass(frozen=True, slots=True)
class AnswerCache:
    """How long an answer of OPA stands for the same question."""

    ttl: Seconds = described("For so long after the question was asked; then OPA is asked again.", 1.0)
    size: Count = described("So many answers are kept at most; the oldest goes.", 4096)


@dataclass(frozen=True, slots=True)
class Opa:
    """An Open Policy Agent that is asked, by its REST API, about requests that the rules have permitted. It can only
    narrow: what no rule allows it is never asked about.
    """

    url: Url = described("Where it listens: `http://127.0.0.1:8181`, or `https://HOST`.")
    path: CheckedPath = described(
        "The document that is asked for. Its `result` has to be `true`, or an object with `allow: true`.",
        "/v1/data/mesh/allow",
    )
    timeout: Seconds = described("How long a request waits for the answer at most, from connecting on.", 0.25)
    silent: Literal["deny", "unsafe_permit"] = described(
        "What becomes of a request when OPA says neither yes nor no: it is away, slow, or answers something else. "
        "`unsafe_permit` lets it pass as if there were no OPA.",
        "deny",
    )
    cache: AnswerCache | None = described(
        "Whether an answer stands for a while for the same question, yes and no alike; absent, each request is asked "
        "about. A change of policy takes effect after `ttl` at the latest.",
        None,
    )
    mode: Literal["enforce", "shadow"] = described(
        "`shadow` asks, counts and logs what OPA says, and does not act on it; requests wait for it all the same.",
        "enforce",
    )
    concerns: tuple[Asked, ...] = described(
        "The requests that OPA is asked about; absent means all of HTTP.", (), yaml="for", some=True
    )
    headers: tuple[HeaderName, ...] = described("Request headers that OPA is told. Credentials never are.", ())
    claims: tuple[ClaimName, ...] = described(
        "Claims of the verified token that OPA is told, by name; `*` for all of them.", ()
    )
    roots: FilePath = described(
        "For `https://`: roots, in PEM, that its certificate is verified by; empty for the system's.", ""
    )
