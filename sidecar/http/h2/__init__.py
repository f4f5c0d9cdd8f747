"""HTTP/2 in our tongue: bytes in, events out, bytes to send; no I/O, and time as an argument.

`H2Server` and `H2Client` are the two roles of a connection, `H2Stream` one exchange on it, which speaks as the codec
of HTTP/1 does. On the way in: `frames` cuts and sizes, `blocks` puts header blocks together and reads HPACK, `heads` is
the one strict reading of a head, `control` and `reading` hold frames to the rules, `limits` tells floods from use.
`sending` is the way out, `windows` what may come in. `engine` keeps the books of states and of what may go out, on h2;
nothing else knows that library, so another engine can take its place.
"""

from sidecar.http.h2.client import H2Client
from sidecar.http.h2.codes import Abuse, Code
from sidecar.http.h2.events import Dismissed, Ended, Failed, H2Event, Leaving, Opened, Pong, Stirred
from sidecar.http.h2.limits import H2Limits
from sidecar.http.h2.server import H2Server
from sidecar.http.h2.stream import H2Stream

__all__ = [
    "Abuse", "Code", "Dismissed", "Ended", "Failed", "H2Client", "H2Event", "H2Limits", "H2Server", "H2Stream",
    "Leaving", "Opened", "Pong", "Stirred",
]  # fmt: skip
