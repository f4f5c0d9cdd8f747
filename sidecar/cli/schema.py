"""`mesh schema`: the config as JSON Schema for editors, or in Markdown for people; both from the code that reads it."""

from __future__ import annotations

import json

import click


@click.command(epilog="\b\nExamples:\n  mesh schema > mesh.schema.json\n  mesh schema --markdown > docs/config.md")
@click.option("--markdown", is_flag=True, help="The reference for people instead.")
def schema(markdown: bool) -> None:
    """The JSON Schema of mesh.yaml, for editors and other tools.

    Editors with YAML support take it from a first line `# yaml-language-server: $schema=mesh.schema.json`.
    """
    from sidecar.config.reference import json_schema, reference_markdown

    if markdown:
        click.echo(reference_markdown(), nl=False)
    else:
        click.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))
