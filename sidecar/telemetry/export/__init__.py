"""Sends the audit elsewhere: `feed` reads the audit file itself, which is the queue, and remembers how far it is;
`syslog`, `otlp` and `ocsf` are what an event looks like there; `deliver` is the task that carries it, and tries again.
Imported only where `audit.export` asks for it.
"""
