"""The table on the terminal: every contestant's figures, the ratio of ours to it, and what the bars say."""

from __future__ import annotations

import os
import platform
import ssl
import sys
import sysconfig
from pathlib import Path
from typing import Any

from tests.bench.judge import Figures, disturbed, judge, median, ratios
from tests.bench.rows import UNITS, Row


def print_row(row: Row, figures: Figures, missing: list[str]) -> None:
    """One row."""
    print(f"\n{row.name}: {row.title}" + (f"  [{row.note}]" if row.note else ""))
    names = list(dict.fromkeys(f["name"] for f in figures))
    for metric in row.metrics:
        print(f"  {'':9}{UNITS[metric]:>18}{'spread':>9}{'mesh / it':>11}   {_more(row)}")
        for name in names:
            found = [f[metric] for f in figures if f["name"] == name]
            middle = median(figures, name, metric)
            if middle is None:
                continue
            ratio = ratios(figures, name, metric)
            share = median(figures, "mesh", metric)
            times = f"{share / middle:10.2f}x" if share and ratio else ""
            spread = (max(found) - min(found)) / middle
            print(f"  {name:9}{middle:18.3g}{spread:9.0%}{times:>11}   {_rest(row, figures, name)}")
    for name in missing:
        print(f"  !! {name} is NOT INSTALLED (or lacks a module): its column is left out")
    for kind, bars in (("bar", row.bars), ("aim", row.aims)):
        for bar in bars:
            judgement = judge(row, figures, bar)
            verdict = f"no figure for {bar.peer}" if judgement is None else str(judgement)
            print(f"  {kind}  {verdict}")
    bad = [f"{f['name']} round {f['round'] + 1}: {why}" for f in figures if (why := disturbed(f))]
    for line in bad[:3]:
        print(f"  disturbed: {line}" + (f" (and {len(bad) - 3} more)" if line is bad[2:3] else ""))


def _more(row: Row) -> str:
    if row.metric == "kib_per_connection":
        return f"{'MiB before':>12}{'MiB held':>12}{'MiB after':>12}"
    speed = f"{'MB/s':>12}" if row.metric == "cpu_us_per_mb" else f"{'requests/s':>12}"
    return f"{speed}{'CPU used':>10}{'p50 ms':>9}{'p99 ms':>9}"


def _rest(row: Row, figures: Figures, name: str) -> str:
    def mid(key: Any) -> float:
        return median(figures, name, key) or 0.0

    if row.metric == "kib_per_connection":
        return f"{mid('before_mib'):12.1f}{mid('held_mib'):12.1f}{mid('left_mib'):12.1f}"
    speed = mid("mb_per_second") if row.metric == "cpu_us_per_mb" else mid("requests_per_second")
    return f"{speed:12.0f}{mid('cpu_share'):10.0%}{mid('p50_ms'):9.3f}{mid('p99_ms'):9.3f}"


def interpreter() -> str:
    """Which Python, and whether it is an optimised build. Debian's is; its configuration does not say so everywhere."""
    flags = sysconfig.get_config_var("CONFIG_ARGS") or ""
    flags += sysconfig.get_config_var("PY_CORE_CFLAGS") or ""
    optimised = "--enable-optimizations" in flags or "-fprofile-use" in flags
    debians = sys.base_prefix == "/usr" and Path("/etc/debian_version").exists()
    build = "optimised" if optimised else "optimised by Debian" if debians else "NOT AN OPTIMISED BUILD"
    return f"Python {platform.python_version()} of {sys.base_prefix} ({build})"


def on_debians_python() -> bool:
    """Whether this is the interpreter that the bars are meant for."""
    return sys.base_prefix == "/usr" and sys.version_info[:2] == (3, 11)


def environment() -> dict[str, Any]:
    """What the figures depend on."""
    import OpenSSL.SSL

    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if "model name" in line), platform.machine())
    return {
        "python": interpreter(), "openssl": OpenSSL.SSL.OpenSSL_version(OpenSSL.SSL.OPENSSL_VERSION).decode(),
        "system_openssl": ssl.OPENSSL_VERSION, "cpu": model, "cpus": os.cpu_count(),
        "kernel": platform.release().partition("-")[0],
    }  # fmt: skip
