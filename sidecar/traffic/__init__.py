"""Pure decisions about traffic: where to send, when to give up, when to try again, and how much.

No clock, no dice and no I/O: monotonic seconds are an argument, dice are handed in as a function that throws numbers in
[0, 1). Everything is called once or twice for each request, so nothing here allocates unless something has gone wrong.

`endpoints` are the places that a destination may be at, and what we have seen of each; `balance` picks one of them
(`view` says who may be picked, `maglev` keeps callers where they were). `outcome` says what an answer tells of its
endpoint; from that `outlier` (five endpoints and more) and `breaker` (fewer) take bad ones out. `retry` and `budget`
say whether a request may be sent again, `hints` reads when, `marks` tells those before us that we have tried;
`deadline` says until when. `destination` holds one upstream's share of all this and is what the proxy talks to. `gcra`,
`throttle`, `quota` (by `windows` of the calendar) and `tcp` say how much, `fields` tells the caller. `routes` says
which destination, with `faults` on the way. docs/traffic.md has the rules in plain words; tests/sim plays them.
"""
