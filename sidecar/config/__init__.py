"""From `mesh.yaml` to frozen dataclasses, once; after that nobody reads YAML or the environment.

files.py     bytes of the main file and of what it includes, in one consistent generation
document.py  bytes → nodes with line and column; what YAML can say but a config must not is refused here (D1)
reader.py    nodes → drafts, walking the dataclasses of schema.py through fields.py
kinds.py     how single values are written, with plain.py (the traps of YAML), quantities.py and addresses.py
assemble.py  drafts → MeshConfig: defaults, ports, identities and endpoints filled in
lint.py      what no single value shows: duplicates, clashes, rules that can never match; advice.py: what is only odd
load.py      all of this in order; every mistake at once, or a complete config
reference.py the same fields as JSON Schema and as docs/config.md
"""
