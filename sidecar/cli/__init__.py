"""The roof: the `mesh` command, one file a verb.

`main` is the entry point. `root` is the table of verbs, each imported only when it is asked for, because
`mesh --version` and `mesh status --ready` run every second as health checks and must answer within 120 ms. `console`
is how verbs speak: tables and colour on a terminal, one JSON document with `-o json`, one line of what went wrong and
one of what to do. `mesh up` is `up` (the verb), `plan` (what to start), `preflight` (are the ports free), `fleet`
(processes, none of which outlives us), `rows` (what the admin sockets tell) and `live` (the table). `run` is one
sidecar, with or without a command of yours. `mesh top` is `top` (the verb), `top_read` (what all sockets tell, and how
fast), `top_sheets` (tables, pure) and `top_app` (the screen).

This floor may import every other one, always inside the function that needs it.
"""

from __future__ import annotations


def main() -> int:
    """Run the `mesh` command with the process's arguments; returns its exit code (see `console.Code`)."""
    from sidecar.cli.root import run_command

    return run_command()
