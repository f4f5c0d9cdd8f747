"""What `mesh install` prints: the manifests that travel with us, for a namespace, an image and a trust domain of yours.

They stand in `manifests/` (and, for people, under `deploy/k8s/`) as plain kustomize. The three names that an operator
chooses are words that stand for nothing else there, so they are replaced wherever they occur in a value; keys, and what
merely contains such a word as a part of another, stay.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from certs.errors import InvalidSpiffeId
from certs.spiffe import TrustDomain
from sidecar.deploy import names
from sidecar.deploy.cluster.kustomize import Document, identity, render

MANIFESTS: Final = Path(__file__).parent / "manifests"
OVERLAYS: Final = ("base", "dev", "production")
NAMESPACE: Final = "mesh-system"
TRUST_DOMAIN: Final = "cluster.mesh"

# What must be there before what; the webhook last: from then on pods of labelled namespaces wait for the injector.
_ORDER: Final = (
    "Namespace", "ServiceAccount", "Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding", "ConfigMap",
    "NetworkPolicy", "Service", "StatefulSet", "Deployment", "PodDisruptionBudget", "ServiceMonitor", "PodMonitor",
    "MutatingWebhookConfiguration",
)  # fmt: skip
_MONITORING: Final = "monitoring.coreos.com/"
_KEPT: Final = ("Namespace",)  # with it would go the CA's volume
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z", re.ASCII)  # RFC 1123, as Kubernetes names namespaces
_IMAGE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._:/@-]{0,511}\Z", re.ASCII)
_LONGEST: Final = 4096  # characters of one line of YAML, so that none is folded


class BadInstall(ValueError):
    """An option that cannot be meant, in words."""


@dataclass(frozen=True, slots=True)
class Install:
    """What an operator chooses. `check` says what cannot be."""

    overlay: str = "base"
    namespace: str = NAMESPACE
    image: str = names.IMAGE
    trust_domain: str = TRUST_DOMAIN
    monitors: bool = True

    def check(self) -> Install:
        """The same. Raises BadInstall."""
        if self.overlay not in OVERLAYS:
            raise BadInstall(f"overlay {self.overlay[:80]!r} is none of {', '.join(OVERLAYS)}")
        if not _LABEL.match(self.namespace):
            raise BadInstall(f"{self.namespace[:80]!r} is no name for a namespace: small letters, digits and hyphens")
        if self.namespace in ("kube-system", "kube-public", "kube-node-lease", "default"):
            raise BadInstall(f"namespace {self.namespace} is Kubernetes' own; choose one for the mesh alone")
        if not _IMAGE.match(self.image):
            raise BadInstall(f"{self.image[:80]!r} is no reference of an image, such as registry.example/mesh:1.2.3")
        try:
            TrustDomain.parse(self.trust_domain)
        except InvalidSpiffeId as error:
            raise BadInstall(str(error)) from None
        return self

    def documents(self) -> list[Document]:
        """Every object, in the order in which to apply them. Raises BadInstall, BadManifests."""
        self.check()
        folder = MANIFESTS / ("base" if self.overlay == "base" else f"overlays/{self.overlay}")
        found = [self._named(document) for document in render(folder)]
        if not self.monitors:
            found = [each for each in found if not str(each["apiVersion"]).startswith(_MONITORING)]
        return sorted(found, key=lambda document: _ORDER.index(document["kind"]))

    def removal(self, *, everything: bool = False) -> list[Document]:
        """What to delete, in that order: the webhook first, since pods could not start without the injector behind it.

        The namespace stays, and with it the CA's volume and passphrase, unless `everything`.
        """
        found = self.documents()[::-1]
        return found if everything else [each for each in found if each["kind"] not in _KEPT]

    def _named(self, document: Document) -> Document:
        changes = (
            (_word(NAMESPACE), self.namespace), (_word(TRUST_DOMAIN), self.trust_domain),
            (re.compile(rf"(?:(?<=^)|(?<=--image=)){re.escape(names.IMAGE)}\Z"), self.image),
        )  # fmt: skip

        def change(text: str) -> str:
            for pattern, value in changes:
                text = pattern.sub(lambda _, value=value: value, text)  # type: ignore[misc]
            return text

        changed = _mapped(document, change)
        assert isinstance(changed, dict)
        return changed


def _word(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![a-z0-9-]){re.escape(name)}(?![a-z0-9-])")


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, dict):
        return {key: _mapped(each, change) for key, each in value.items()}
    if isinstance(value, list):
        return [_mapped(each, change) for each in value]
    return change(value) if isinstance(value, str) else value


# ---- printing --------------------------------------------------------------------------------------------------------


class _Plain(yaml.SafeDumper):
    """Text of several lines as a block; nothing shared."""

    def ignore_aliases(self, data: Any) -> bool:
        """Each value stands for itself."""
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Plain.add_representer(str, _text)


def as_yaml(documents: Sequence[Document]) -> str:
    """One stream of YAML documents, each with a line that says what it is."""
    return "".join(
        f"---\n# {' '.join(part for part in identity(each) if part)}\n"
        + yaml.dump(each, Dumper=_Plain, sort_keys=False, allow_unicode=True, width=_LONGEST)
        for each in documents
    )


def as_json(documents: Sequence[Document]) -> str:
    """One `List`, as kubectl takes it too."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(documents)}, indent=2, ensure_ascii=False)
