"""A Workload API as another agent serves it: grpcio, the `spiffe` library's protocol buffers, PyJWT; nothing of ours.

    python -m tests.kit.spiffe_agent FOLDER NAME...      serves FOLDER/NAME.sock for each NAME

What it mints looks as SPIRE's does: a self-signed CA with a SPIFFE ID, leaves without DNS names whose subject is
C=US, O=SPIRE and whose key may also encipher and agree, a trust domain's bundle by its SPIFFE ID, an identity more than
one asked for, a hint. Until a name is registered it answers PermissionDenied. It obeys lines on its standard input, and
answers each with one line of JSON: `register NAME`, `rotate NAME`, `revoke NAME`, `root`, `federate DOMAIN`.
"""

from __future__ import annotations

import datetime
import json
import secrets
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from spiffe._proto import workload_pb2 as proto
from spiffe._proto import workload_pb2_grpc as service

DOMAIN = "spiffe://demo.mesh"
_DER = serialization.Encoding.DER
_USAGES = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
           "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")  # fmt: skip


def usage(*on: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{name: name in on for name in _USAGES})


class Authority:
    """A self-signed CA of one trust domain."""

    def __init__(self, domain: str) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name(
            [x509.NameAttribute(NameOID.COUNTRY_NAME, "US"), x509.NameAttribute(NameOID.ORGANIZATION_NAME, "SPIFFE"),
             x509.NameAttribute(NameOID.SERIAL_NUMBER, str(secrets.randbits(64)))]
        )  # fmt: skip
        public = self.key.public_key()
        self.certificate = (
            _builder(self.name, self.name, public, domain, 86400, critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
            .add_extension(usage("key_cert_sign", "crl_sign"), True)
            .sign(self.key, hashes.SHA256())
        )

    def issue(self, spiffe_id: str, seconds: float) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name(
            [x509.NameAttribute(NameOID.COUNTRY_NAME, "US"), x509.NameAttribute(NameOID.ORGANIZATION_NAME, "SPIRE"),
             x509.NameAttribute(NameOID.X500_UNIQUE_IDENTIFIER, secrets.token_hex(16))]
        )  # fmt: skip
        both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        above = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        leaf = (
            _builder(subject, self.name, key.public_key(), spiffe_id, seconds, critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
            .add_extension(usage("digital_signature", "key_encipherment", "key_agreement"), True)
            .add_extension(x509.ExtendedKeyUsage(both), False)
            .add_extension(above, False)
            .sign(self.key, hashes.SHA256())
        )
        return leaf, key


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, uri: str, seconds: float, *, critical: bool
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder(subject_name=subject, issuer_name=issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(seconds=10))
        .not_valid_after(now + datetime.timedelta(seconds=seconds))
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), False)
    )


class Agent:
    """What all sockets share: the CA, the key of tokens, and who is registered."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.version = 0
        self.authorities = [Authority(DOMAIN)]
        self.others: dict[str, Authority] = {}
        self.jwt_key = ec.generate_private_key(ec.SECP256R1())
        self.svids: dict[str, tuple[x509.Certificate, ec.EllipticCurvePrivateKey]] = {}

    def obey(self, command: str, *words: str) -> dict[str, Any]:
        with self.changed:
            said: dict[str, Any] = {"done": command}
            match command:
                case "register" | "rotate":
                    leaf, _ = self.svids[words[0]] = self.authorities[-1].issue(spiffe_id(words[0]), 3600)
                    said["serial"] = f"{leaf.serial_number:x}"
                case "revoke":
                    del self.svids[words[0]]
                case "root":
                    self.authorities.append(Authority(DOMAIN))
                case "federate":
                    self.others[f"spiffe://{words[0]}"] = Authority(f"spiffe://{words[0]}")
            self.version += 1
            self.changed.notify_all()
            return said

    def bundle(self) -> bytes:
        return b"".join(one.certificate.public_bytes(_DER) for one in self.authorities)

    def jwks(self) -> bytes:
        key = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(self.jwt_key.public_key()))
        return json.dumps({"keys": [{**key, "kid": "agent-1", "use": "jwt-svid"}]}).encode()


def spiffe_id(name: str) -> str:
    return f"{DOMAIN}/ns/default/sa/{name}"


class Api(service.SpiffeWorkloadAPIServicer):  # type: ignore[misc]
    """The calls on one socket, whose callers are all the workload `name`."""

    def __init__(self, agent: Agent, name: str) -> None:
        self._agent = agent
        self._name = name

    def FetchX509SVID(self, request: Any, context: Any) -> Iterator[Any]:
        for _ in self._each(context):
            leaf, key = self._agent.svids[self._name]
            others = {name: one.certificate.public_bytes(_DER) for name, one in self._agent.others.items()}
            extra, extra_key = self._agent.authorities[-1].issue(f"{DOMAIN}/another", 600)
            yield proto.X509SVIDResponse(
                svids=[self._svid(extra, extra_key, f"{DOMAIN}/another", "external"),
                       self._svid(leaf, key, spiffe_id(self._name), "internal")],
                federated_bundles=others,
            )  # fmt: skip

    def FetchJWTBundles(self, request: Any, context: Any) -> Iterator[Any]:
        for _ in self._each(context):
            yield proto.JWTBundlesResponse(bundles={DOMAIN: self._agent.jwks()})

    def FetchJWTSVID(self, request: Any, context: Any) -> Any:
        self._check(context)
        now = int(datetime.datetime.now(datetime.UTC).timestamp())
        claims = {"sub": spiffe_id(self._name), "aud": list(request.audience), "exp": now + 300, "iat": now}
        token = jwt.encode(claims, self._agent.jwt_key, "ES256", {"kid": "agent-1"})
        return proto.JWTSVIDResponse(svids=[proto.JWTSVID(spiffe_id=claims["sub"], svid=token)])

    def _svid(self, leaf: x509.Certificate, key: ec.EllipticCurvePrivateKey, name: str, hint: str) -> Any:
        pkcs8 = key.private_bytes(_DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return proto.X509SVID(
            spiffe_id=name, x509_svid=leaf.public_bytes(_DER), x509_svid_key=pkcs8, bundle=self._agent.bundle(),
            hint=hint,
        )  # fmt: skip

    def _check(self, context: Any) -> None:
        if ("workload.spiffe.io", "true") not in context.invocation_metadata():
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "security header missing from request")
        if self._name not in self._agent.svids:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "no identity issued")

    def _each(self, context: Any) -> Iterator[None]:
        """Now, and after each change; ends where the name is not registered any more."""
        seen = -1
        while context.is_active():
            with self._agent.changed:
                if self._agent.version == seen:
                    self._agent.changed.wait(0.2)
                    continue
                seen = self._agent.version
                self._check(context)
            yield


def main(folder: str, *names: str) -> None:
    """Serve until standard input ends."""
    agent, servers = Agent(), []
    for name in names:
        server = grpc.server(ThreadPoolExecutor(16))
        service.add_SpiffeWorkloadAPIServicer_to_server(Api(agent, name), server)
        server.add_insecure_port(f"unix:{folder}/{name}.sock")
        server.start()
        servers.append(server)
    print(json.dumps({"done": "serving"}), flush=True)
    for line in sys.stdin:
        print(json.dumps(agent.obey(*line.split())), flush=True)
    for server in servers:
        server.stop(None)


if __name__ == "__main__":
    main(*sys.argv[1:])
