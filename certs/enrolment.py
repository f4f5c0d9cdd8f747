"""The enrolment file: all that a sidecar must be told before it talks to a CA for the first time (decisions D14, D15).

It names the trust domain, the CA's address and the SHA-256 of the roots that the CA may show at first contact, and
carries one proof: a single-use join token, or the private half of an enrolment key. It holds a secret either way, so it
lives in a file that only its owner can read, and neither secret appears in any repr.

    {"version": 1, "trust_domain": "demo.mesh", "ca_address": "127.0.0.1:17012", "root_sha256": ["9f…"],
     "entry": "orders-1c2d3e4f", "spiffe_id": "spiffe://demo.mesh/ns/default/sa/orders", "join_token": "…"}

`enrolment_key` (the raw 32 bytes of an Ed25519 private key, base64) takes the place of `join_token`. Without a secret
are files with `kubernetes_token_file` (and perhaps `kubernetes_cluster`) or `ca_socket`: paths to what is shown. What
the key signs is defined here too, because the sidecar that signs and the CA that checks must agree to the byte.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from certs.errors import IdentityError, InvalidSpiffeId
from certs.spiffe import SpiffeId, TrustDomain
from certs.store import read_guarded, read_private, write_private
from certs.strict_json import no_constant, unique

VERSION = 1
MAX_FILE_BYTES = 64 * 1024  # a file of ours is under 1 KiB; a hundred pinned roots still fit
KEY_BYTES = 32  # RFC 8032 section 5.1.5: private and public keys of Ed25519 are 32 octets
SIGNATURE_CONTEXT = b"mesh-enrol-v1"

_ENTRY = re.compile(r"[A-Za-z0-9._-]{1,128}\Z", re.ASCII)
_TOKEN = re.compile(r"[A-Za-z0-9_-]{16,256}\Z", re.ASCII)
_HASH = re.compile(r"[0-9a-f]{64}\Z", re.ASCII)
_HOST = re.compile(r"(?:\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)\Z", re.ASCII)
_PORT = re.compile(r"[0-9]{1,5}\Z", re.ASCII)
# what a key or a token looks like, or a good part of one: capitals, small letters and digits, all mixed
_SECRET = re.compile(r"(?=[a-z0-9+/=_-]*[A-Z])(?=[A-Z0-9+/=_-]*[a-z])(?=[A-Za-z+/=_-]*[0-9])[A-Za-z0-9+/=_-]{12,}+")
_COMMON_KEYS = {"version", "trust_domain", "ca_address", "root_sha256", "entry", "spiffe_id"}
_PROOF_KEYS = {"join_token", "enrolment_key", "kubernetes_token_file", "ca_socket"}
_OPTIONAL_KEYS = {"kubernetes_cluster"}
_SECRETS = ("join_token", "enrolment_key")


class InvalidEnrolment(IdentityError):
    """An enrolment file, or a part of one, cannot be read."""

    name = "invalid_enrolment"


@dataclass(frozen=True, slots=True)
class JoinToken:
    """A secret that buys exactly one enrolment."""

    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class EnrolmentKey:
    """The private half of a reusable, revocable enrolment key: 32 raw bytes of Ed25519."""

    private_bytes: bytes = field(repr=False)

    @classmethod
    def generate(cls) -> EnrolmentKey:
        """A fresh key."""
        return cls(Ed25519PrivateKey.generate().private_bytes_raw())

    @property
    def public_bytes(self) -> bytes:
        """The public half: 32 raw bytes."""
        return Ed25519PrivateKey.from_private_bytes(self.private_bytes).public_key().public_bytes_raw()

    def sign(self, trust_domain: TrustDomain, entry: str, nonce: str, csr_der: bytes) -> bytes:
        """Answer the CA's challenge `nonce` for this very signing request."""
        private = Ed25519PrivateKey.from_private_bytes(self.private_bytes)
        return private.sign(challenge_message(trust_domain, entry, nonce, csr_der))


@dataclass(frozen=True, slots=True)
class KubernetesToken:
    """Where a projected service-account token lies, to be read anew at each use. No secret itself."""

    path: str
    cluster: str = ""
    """Whose token it is, where the CA knows several clusters."""


@dataclass(frozen=True, slots=True)
class UnixSocket:
    """The CA's Unix socket, on which we are known by our user. No secret itself."""

    path: str


Proof = JoinToken | EnrolmentKey | KubernetesToken | UnixSocket


@dataclass(frozen=True, slots=True)
class Enrolment:
    """One enrolment file, as a value. `ca_address` is `host:port`; `root_sha256` are hex digests of root DER."""

    trust_domain: TrustDomain
    ca_address: str
    root_sha256: tuple[str, ...]
    entry: str
    spiffe_id: SpiffeId
    proof: Proof

    @classmethod
    def parse(cls, data: bytes) -> Enrolment:
        """Read the content of an enrolment file. Raises InvalidEnrolment, naming the field that is wrong.

        Messages quote what stands there, but nothing that could be the secret: it may stand in the wrong field.
        """
        try:
            return cls._parse(data)
        except InvalidEnrolment as error:
            raise InvalidEnrolment(_SECRET.sub("…", str(error))) from None

    @classmethod
    def _parse(cls, data: bytes) -> Enrolment:
        document = _read_object(data)
        if document.get("version") != VERSION or isinstance(document.get("version"), bool):
            raise InvalidEnrolment(f"version is {document.get('version')!r}; this program reads version {VERSION}")
        if unknown := document.keys() - _COMMON_KEYS - _PROOF_KEYS - _OPTIONAL_KEYS:
            raise InvalidEnrolment(f"unknown field {sorted(unknown)[0]!r}")
        try:
            trust_domain = TrustDomain.parse(_text(document, "trust_domain"))
            spiffe_id = SpiffeId.parse(_text(document, "spiffe_id"))
        except InvalidSpiffeId as error:
            raise InvalidEnrolment(str(error)) from None
        if spiffe_id.trust_domain != trust_domain or not spiffe_id.path:
            raise InvalidEnrolment(f"spiffe_id {spiffe_id} names no workload of trust domain {trust_domain}")
        return cls(
            trust_domain=trust_domain,
            ca_address=_matching(document, "ca_address", check_address),
            root_sha256=_hashes(document.get("root_sha256")),
            entry=_matching(document, "entry", check_entry_name),
            spiffe_id=spiffe_id,
            proof=_proof(document),
        )

    def to_json(self) -> bytes:
        """The content of the file, ending with a newline. It holds a secret: write it with `save`."""
        document: dict[str, Any] = {
            "version": VERSION,
            "trust_domain": self.trust_domain.name,
            "ca_address": self.ca_address,
            "root_sha256": list(self.root_sha256),
            "entry": self.entry,
            "spiffe_id": self.spiffe_id.text,
        }
        match self.proof:
            case JoinToken(token):
                document["join_token"] = token
            case EnrolmentKey(private):
                document["enrolment_key"] = base64.b64encode(private).decode()
            case KubernetesToken(path, cluster):
                document["kubernetes_token_file"] = path
                if cluster:
                    document["kubernetes_cluster"] = cluster
            case UnixSocket(path):
                document["ca_socket"] = path
        return json.dumps(document, indent=2).encode() + b"\n"

    def save(self, path: Path) -> None:
        """Write the file atomically, readable by its owner alone."""
        write_private(path, self.to_json())

    @classmethod
    def load(cls, path: Path) -> Enrolment:
        """Read an enrolment file from disk. Raises InvalidEnrolment; PrivateFileUnavailable where it is
        missing, others could write it, or, with a secret in it, read it."""
        try:
            found = cls.parse(read_guarded(path))
            if isinstance(found.proof, JoinToken | EnrolmentKey):
                return cls.parse(read_private(path))
            return found
        except InvalidEnrolment as error:
            raise InvalidEnrolment(f"{path}: {error}") from None


def challenge_message(trust_domain: TrustDomain, entry: str, nonce: str, csr_der: bytes) -> bytes:
    """What an enrolment key signs: it binds trust domain, entry, the CA's nonce and the CSR together.

    No part before the digest may hold a NUL, so the parts cannot run into each other; the digest has a fixed length.
    """
    parts = (SIGNATURE_CONTEXT, trust_domain.name.encode(), entry.encode(), nonce.encode())
    if any(b"\0" in part for part in parts):
        raise InvalidEnrolment("an entry or nonce may not contain NUL")
    return b"\0".join((*parts, hashlib.sha256(csr_der).digest()))


def signature_is_by(
    public_bytes: bytes, signature: bytes, trust_domain: TrustDomain, entry: str, nonce: str, csr_der: bytes
) -> bool:
    """True if the key with this raw public half answered the challenge `nonce` with this signature."""
    try:
        key = Ed25519PublicKey.from_public_bytes(public_bytes)
        key.verify(signature, challenge_message(trust_domain, entry, nonce, csr_der))
    except (InvalidSignature, ValueError):
        return False
    return True


def check_address(text: str) -> str:
    """`host:port` as it is, or InvalidEnrolment. IPv6 addresses stand in brackets."""
    host, _, port = text.rpartition(":")
    if not _HOST.match(host) or not _PORT.match(port) or not 0 < int(port) < 65536:
        raise InvalidEnrolment(f"{text[:80]!r} is not an address: write host:port, such as 127.0.0.1:17012")
    return text


def check_entry_name(text: str) -> str:
    """An entry's id as it is, or InvalidEnrolment."""
    if not _ENTRY.match(text):
        raise InvalidEnrolment(f"entry {text[:80]!r}: up to 128 letters, digits, . - and _ are allowed")
    return text


def decode_base64(text: str, length: int | None = None) -> bytes:
    """Standard base64 with padding, nothing else (RFC 4648 section 4). Raises InvalidEnrolment without the text."""
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise InvalidEnrolment("not valid base64") from None
    if length is not None and len(data) != length:
        raise InvalidEnrolment(f"{len(data)} bytes long; {length} are needed")
    return data


def _read_object(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_FILE_BYTES:
        raise InvalidEnrolment(f"{len(data)} bytes long; an enrolment file has at most {MAX_FILE_BYTES}")
    try:
        document = json.loads(data.decode("utf-8"), object_pairs_hook=unique, parse_constant=no_constant)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidEnrolment("this is not a JSON document") from None
    except ValueError as error:
        raise InvalidEnrolment(str(error)) from None
    if not isinstance(document, dict):
        raise InvalidEnrolment("a JSON object is needed")
    return document


def _text(document: dict[str, Any], key: str) -> str:
    value = document.get(key)
    if not isinstance(value, str):
        raise InvalidEnrolment(f"field {key!r} is missing" if value is None else f"field {key!r} must be text")
    return value


def _matching(document: dict[str, Any], key: str, check: Any) -> str:
    value: str = check(_text(document, key))
    return value


def _hashes(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise InvalidEnrolment("field 'root_sha256' must list at least one root: without it no CA can be trusted")
    if not all(isinstance(item, str) and _HASH.match(item) for item in value):
        raise InvalidEnrolment("field 'root_sha256': each item is 64 lower-case hex digits")
    return tuple(value)


def _proof(document: dict[str, Any]) -> Proof:
    given = sorted(document.keys() & _PROOF_KEYS)
    if len(given) != 1:
        names = "'join_token', 'enrolment_key', 'kubernetes_token_file' and 'ca_socket'"
        raise InvalidEnrolment(f"exactly one of {names} is needed")
    text = _text(document, given[0])
    if "kubernetes_cluster" in document and given != ["kubernetes_token_file"]:
        raise InvalidEnrolment("field 'kubernetes_cluster' goes with 'kubernetes_token_file'")
    if given[0] not in _SECRETS:
        if not text.startswith("/") or not text.isprintable() or len(text) > 4096:
            raise InvalidEnrolment(f"field {given[0]!r} is not an absolute path")
        if given == ["ca_socket"]:
            return UnixSocket(text)
        if "kubernetes_cluster" not in document:
            return KubernetesToken(text)
        return KubernetesToken(text, _matching(document, "kubernetes_cluster", check_entry_name))
    if given == ["join_token"]:
        if not _TOKEN.match(text):
            raise InvalidEnrolment("field 'join_token' is not a join token")
        return JoinToken(text)
    try:
        return EnrolmentKey(decode_base64(text, KEY_BYTES))
    except InvalidEnrolment as error:
        raise InvalidEnrolment(f"field 'enrolment_key': {error}") from None
