"""`mesh ca renew-jwt-key`, and how a lifetime of JWT-SVIDs is written."""

from __future__ import annotations

import time
from pathlib import Path

import click

from ca.cli_common import (
    CaCommand,
    Duration,
    dir_option,
    opened,
    output_option,
    passphrase_option,
    print_result,
    read_passphrase,
)
from ca.jwt_keys import JwtKeys
from certs.jwt_svid import MAX_LIFETIME, MIN_LIFETIME


class JwtTtl(Duration):
    """A duration from 10 s to 1 h."""

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds; fails with a message for the user."""
        seconds = super().convert(value, param, ctx)
        if not MIN_LIFETIME <= seconds <= MAX_LIFETIME:
            self.fail("a JWT-SVID lives from 10s to 1h: whoever sees it can show it again", param, ctx)
        return seconds


@click.command("renew-jwt-key", cls=CaCommand)
@click.option("--revoke", is_flag=True, help="The key is stolen: every token so far is worth nothing from here on.")
@passphrase_option
@dir_option
@output_option
def renew_jwt_key(revoke: bool, passphrase_file: Path | None, directory: Path, output: str) -> None:
    """Let another key sign JWT-SVIDs now: the prepared one, or a new one. `mesh ca serve` does so on schedule.

    \b
    Examples:
      mesh ca renew-jwt-key --passphrase-file pass.txt
      mesh ca renew-jwt-key --revoke
    """
    passphrase = read_passphrase(passphrase_file, new=False)
    with opened(directory) as (_, store):
        kid, revoked = JwtKeys(directory, store, passphrase).renew(time.time(), revoke=revoke)
    lines = [f"key {kid[:16]} signs JWT-SVIDs from now on"]
    lines += [f"revoked key {each[:16]}: its tokens are refused wherever the bundle has arrived" for each in revoked]
    print_result(output, {"kid": kid, "revoked": list(revoked)}, lines)
