"""Where plain hops of one kind are counted, so that the express looks nothing up twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sidecar.telemetry.audit import Permits
    from sidecar.telemetry.metrics import HopSeries
    from sidecar.telemetry.plain_lines import Template
    from sidecar.telemetry.table import Row


class Tally:
    """Where hops of one kind are counted, looked up once: hops that differ only in host, method, path, time and size
    share it.
    """

    __slots__ = ("epoch", "places", "row", "series", "shapes", "template")

    def __init__(self, epoch: int, series: HopSeries, row: Row) -> None:
        self.epoch = epoch
        self.series = series
        self.row = row
        self.places: dict[tuple[str, str, tuple[str, ...]], Permits] = {}  # the audit's, by method, host and path
        self.shapes: dict[tuple[str, str, str], Permits] = {}  # and by the shape of that
        self.template: Template | None = None  # of their lines in the access log
