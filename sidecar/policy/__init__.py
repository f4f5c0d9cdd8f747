"""Pure decisions about hops: no clock, no dice, no I/O. Data flows in as a `Hop`, out as a verdict.

`authz` holds a service's rules in compiled form and says Permit or Deny; the same object stands behind the proxy,
`mesh check`, `mesh explain` and shadow rules. `explain` says why it decided so, which rule came nearest and what the
smallest change of YAML would be (`differences`, `propose`, `why_not`). `reasons` has plain words for every failure that
is not a matter of rules (`finer`, `identities`, `words`). `reading` and `question` make the hop that is judged.

Policies know hops and patterns. They know neither each other nor anything that can wait.
"""
