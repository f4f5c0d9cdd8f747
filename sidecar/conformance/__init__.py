"""`mesh conformance`: by-passes and request smuggling against any HTTP proxy that stands in front of an origin.

`case` says what a case is: raw bytes, the readings of them that are acceptable, and why; `h2case` the same for frames
of HTTP/2. `corpus/` holds the cases as data, one file a subject. `origin` is a recorder that reads HTTP/1 by the letter
and remembers each request, so that a second, smuggled one shows. `runner` sends a case, then a canary on another
connection; `answers` and `h2answers` read what comes back; `judge` compares what the origin understood with what is
acceptable; `report` prints tables, JSON and Markdown.

What an origin understood is judged with none of the proxy's own reading: a judge that shared our parser would share its
faults. Only the frames of HTTP/2 that are sent, and the answers in HTTP/2, go through the code of `sidecar.http.h2`.
"""
