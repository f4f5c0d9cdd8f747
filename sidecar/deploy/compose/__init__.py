"""The mesh in a docker-compose project: a pure transformation of the user's file, and a look at what then runs.

    text → document → project (who is there, on which ports) → callers (who asks whom) → meshfile + inject → text

Nothing here edits an application. Each service gets a holder, which owns the network namespace with its aliases and
the redirect rules, and a sidecar beside it (decision D29); a published port becomes a door with an identity of its own.
The original travels in the file that is made (`sealed`), so that undoing needs nothing else. `engine` talks to docker,
`dial` knocks from outside. What runs inside a project and makes its CA is `sidecar/cli/compose_keys.py`: the roof alone
may know the CA.

Only the verbs of `mesh compose`, `mesh up --compose` and `mesh down` import this; ruamel.yaml comes with it.
"""
