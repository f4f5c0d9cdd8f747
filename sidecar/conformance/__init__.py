"""`mesh conformance`: by-passes and request smuggling against any HTTP/1 proxy that stands in front of an origin.

`case` says what a case is: raw bytes, the readings of them that are acceptable, and why. `corpus/` holds the cases as
data, one file a subject. `origin` is a recorder that reads HTTP/1 by the letter and remembers each request, so that a
second, smuggled one shows. `runner` sends a case, then a canary on another connection; `judge` compares what the
origin understood with what is acceptable; `report` prints tables, JSON and Markdown.

Only the standard library, and none of the proxy's own reading: a judge that shared our parser would share its faults.
"""
