"""What a sidecar tells of itself: metrics, the live table, decisions, the access log, the audit and the operational
log.

Everything here is a view of hops. `Recorder` (record.py) is the only door: a finished hop goes in at `observe`, and
from there to the views. That call stands in the hot path, so it is synchronous, takes no lock, looks series up by
small tuples and never raises. What must reach a disk or a terminal is handed, as finished lines, to a writer thread
(writer.py) that is the only place that may wait for one.

    hop → record.py → metrics.py (Prometheus)   table.py (`mesh up`)   decisions.py (`mesh explain ID`)
                    → access_log.py → writer.py → file or standard output
                    → audit.py      → writer.py → file

Labels come from configuration or from a verified identity, never from bytes that a caller chose; series.py caps and
expires them all the same. Every text that leaves goes through redact.py.
"""
