"""What a service has promised about its requests and answers, read from OpenAPI 3.0 or 3.1 and made into pure checks.

`document` turns the text of a contract into plain values that know their lines; `reading` reads operations out of
those and notes every mistake with its place; `schemas` compiles JSON Schema to closures (`checks`, `formats`,
`expressions`), and `shape` tells which names an answer can have; `json_body` reads bodies, `parameters` paths, queries
and headers; `fields` filters answers to what was granted; `judge` is what the proxy asks. Bytes and values in, a
complaint or None out: no I/O, no clock. Nothing of this is imported where no listener has a contract.
"""
