"""What an operator can say of an upstream that is no member of a mesh: its TLS, our token, what may be asked."""
# ruff: noqa: RUF009 - `described` only wraps dataclasses.field; its defaults are immutable

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sidecar.config.terms import (
    ClientId,
    Command,
    FilePath,
    HostName,
    Method,
    Pin,
    Scope,
    TokenAudience,
    described,
)
from sidecar.config.urls import Url
from sidecar.patterns import PathTemplate


@dataclass(frozen=True, slots=True)
class OutboundTls:
    """TLS toward a third party: the application speaks plain HTTP to its sidecar, and the sidecar HTTPS to the host.

    TLS 1.2 at least. Our certificate of the mesh is never shown there.
    """

    roots: FilePath = described(
        "Roots, in PEM, that its certificate is verified by; read again when the file changes. `system` for those of "
        "this machine.",
        "system",
    )
    name: HostName = described(
        "The name, or IP address, that its certificate must be for (RFC 9525), and that it is asked for by SNI.",
        "",
        filled="the upstream's `host`",
    )
    pins: tuple[Pin, ...] = described(
        "SHA-256 of public keys (`sha256/` and base64, of the SubjectPublicKeyInfo), one of which has to stand in its "
        "verified chain. Name a spare one, or a new key locks us out.",
        (),
        some=True,
    )
    certificate: FilePath = described(
        "A certificate of our own to show there, PEM, with those above it; empty for none.", ""
    )
    key: FilePath = described("Its private key, PEM; nobody else may be able to read it.", "")


@dataclass(frozen=True, slots=True)
class Secret:
    """Where a secret is read, each time it is needed: exactly one of these."""

    file: FilePath = described("A file; nobody else may be able to read it. A newline at its end is cut off.", "")
    command: Command = described("A program that prints it, within 10 s.", ())


@dataclass(frozen=True, slots=True)
class ClientToken:
    """A bearer token that the sidecar gets by client credentials (RFC 6749 section 4.4) and puts on every request to
    this upstream, in the place of whatever `authorization` the application has sent.
    """

    url: Url = described("The token endpoint.")
    client_id: ClientId = described("Who we are there.")
    secret: Secret = described("The client's secret: `{file: /run/secrets/partner}`.")
    scopes: tuple[Scope, ...] = described("The scopes to ask for; absent for what it gives by itself.", ())
    audience: TokenAudience = described("What goes with the request as `audience`; empty for nothing.", "")
    resource: TokenAudience = described("What goes with it as `resource` (RFC 8707); empty for nothing.", "")
    auth: Literal["basic", "post"] = described(
        "How the secret is shown: `basic` by the Authorization header (`client_secret_basic`), `post` in the body "
        "(`client_secret_post`).",
        "basic",
    )
    roots: FilePath = described(
        "Roots, in PEM, that the token endpoint's certificate is verified by; `system` for those of this machine.",
        "system",
    )


@dataclass(frozen=True, slots=True)
class EgressRule:
    """Requests that the application may send to an upstream; an absent field does not narrow."""

    methods: tuple[Method, ...] = described("Methods, upper case.", (), yaml="method", some=True)
    paths: tuple[PathTemplate, ...] = described(
        "Path templates: `/v1/charges/{id}`, `/v1/**`.", (), yaml="path", some=True
    )
