"""The store's memory of a root rotation: its state is the latest `rotation` line of the log, found by its number."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from ca.chain import Event
from ca.errors import RotationMoved
from ca.rotation import Rotation
from ca.slots import SlotState
from ca.store.authorities import insert_slot, move_slot
from ca.store.base import Slot
from ca.store.database import Database, head_of, log_to

_LINE = "rotation_line"  # in `numbers`; absent before the first rotation


class Rotations(Database):
    """See `ca.store.base.Store`, method by method."""

    def rotation(self) -> Rotation | None:
        """See Store.rotation."""
        sql = "SELECT line FROM log WHERE number = (SELECT value FROM numbers WHERE name = ?)"
        rows = self._read(sql, _LINE)
        return Rotation.of_facts(json.loads(rows[0][0])) if rows else None

    def advance_rotation(
        self, before: Rotation | None, after: Rotation, steps: Sequence[Slot | tuple[str, SlotState]] = ()
    ) -> Rotation:
        """See Store.advance_rotation."""
        with self._write() as db:
            row = db.execute("SELECT value FROM numbers WHERE name = ?", (_LINE,)).fetchone()
            if (0 if row is None else int(row[0])) != (0 if before is None else before.line):
                raise RotationMoved("the rotation has moved on meanwhile; see `mesh ca rotate-root --status`")
            for step in steps:
                if isinstance(step, Slot):
                    insert_slot(db, step)
                else:
                    move_slot(db, *step, after.since)
            log_to(db, Event(after.since, "rotation", after.facts()))
            line = head_of(db).number
            db.execute("INSERT OR REPLACE INTO numbers VALUES (?, ?)", (_LINE, line))
        return replace(after, line=line)
