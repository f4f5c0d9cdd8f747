"""What stands behind the codes about conditions of rules (`when:`). See `codes`."""

from __future__ import annotations

from typing import Final

_HEAD: Final = "services:\n  web: {outbound: [{to: orders, listen: '127.0.0.1:9001'}]}\n  orders:\n    inbound: [{}]\n"
_RULE: Final = "    allow: [{from: web, path: '/customers/{customer}/orders', when: ["

CONDITIONS: Final[tuple[tuple[str, str, str, str, str, str], ...]] = (
    (
        "MESH003", "a path parameter that the rule's paths do not have",
        "A condition looks at a `{name}` of the rule's own path. Where a path of the rule has none of that name, the "
        "condition can never hold there: an allow rule would let nobody in, and a deny rule would stop nobody.",
        "Name it in every path of the rule, or take the path without it to a rule of its own.",
        f"{_HEAD}{_RULE}path costumer is caller]}}]\n",
        f"{_HEAD}{_RULE}path customer is caller]}}]\n",
    ),
)  # fmt: skip
