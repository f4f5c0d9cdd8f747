"""The store in the process that the CA's server is: confined by Landlock to its own folder, so without a place for
SQLite's temporary files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.sidecar.runtime.test_hygiene import ROOT, landlocked

WORK = """
import sys
from pathlib import Path
from ca.entries import Entry, JoinTokenRecord
from ca.store.sqlite import SqliteStore
from sidecar.runtime import hygiene
from tests.ca.office import DEMO

folder = Path(sys.argv[1])
hygiene.apply(hygiene.Folders.around(folders=[folder]))
store = SqliteStore(folder / "ca.sqlite3", create=True)
store.add_entry(Entry("orders-1", DEMO.id("ns", "default", "sa", "orders"), (), 3600.0, 1.0))
for number in range(2000):
    store.add_token(JoinTokenRecord(f"{number:064x}", "orders-1", 2.0, 100.0))
print(store.begin_again(5.0))
"""


@pytest.mark.skipif(not landlocked(), reason="this kernel has no Landlock")
def test_a_confined_store_makes_changes_that_touch_many_pages(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WORK, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "2000\n", done.stderr
