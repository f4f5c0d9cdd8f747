"""How well detectors find the attacks of the data set: `python -m tests.sim.detection` prints the tables of
docs/detectors.md and draws docs/detectors.svg; `--quick` only prints, `--training` the same of the seeds that they were
made with.

What counts: an attack is *found* where its detector told of its caller between its first minute and a minute after its
last. A detection is *right* where any attack of that caller was under way then, else a *false alarm*; those of one
caller and detector within half an hour are one alarm, as people see it. First calls to a route (`new_edge`) are told
apart: they are no accusation.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from certs.spiffe import workload_id
from sidecar.config.schema_detectors import Detectors as Spec
from sidecar.config.schema_detectors import Enumeration, Spikes, Stuffing
from sidecar.traffic.detectors import Detection, Detectors
from tests.bench.plot import STYLE
from tests.kit.hops import DEMO, a_hop
from tests.sim.callers import TARGETS, Attack, play

DRAWING = Path(__file__).parents[2] / "docs" / "detectors.svg"
KINDS = ("stuffing", "enumeration", "spikes")
SEEDS, EACH = (101, 102, 103), 24  # that nobody has looked at while the detectors were made
TRAINING = (1, 2, 3)  # and those that they were made with
FACTORS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 4.0)
STRONG, STRONG_SPIKE = 60, 6  # requests a minute, and times the busiest minute: an attack that is in a hurry
BANDS = ((10, 20), (20, 40), (40, 100), (100, 401))  # requests a minute
SPIKE_BANDS = ((2, 3), (3, 5), (5, 10), (10, 21))  # times the busiest minute
ALARM = 1800.0  # seconds that alarms of one caller and detector are one
USUAL = Spec(Stuffing(), Enumeration(), Spikes())


@dataclass
class Score:
    """What came of one kind of detector."""

    attacks: int = 0
    found: int = 0
    strong: int = 0  # attacks of `STRONG` and more
    strong_found: int = 0
    right: int = 0  # alarms
    false: int = 0
    missed: Counter[str] = field(default_factory=Counter)
    by: Counter[str] = field(default_factory=Counter)  # false alarms, by caller
    seconds: list[float] = field(default_factory=list)  # until found
    bands: Counter[tuple[int, bool]] = field(default_factory=Counter)  # the band of its strength, whether it was found

    @property
    def precision(self) -> float:
        """The share of alarms that are right."""
        return self.right / max(1, self.right + self.false)

    @property
    def recall(self) -> float:
        """The share of attacks that are found."""
        return self.found / max(1, self.attacks)

    def add(self, other: Score) -> None:
        """The figures of another run too."""
        self.attacks += other.attacks
        self.found += other.found
        self.strong += other.strong
        self.strong_found += other.strong_found
        self.right += other.right
        self.false += other.false
        self.missed += other.missed
        self.by += other.by
        self.seconds += other.seconds
        self.bands += other.bands

    def recalls(self) -> list[float]:
        """The recall of each band."""
        each = [(self.bands[band, True], self.bands[band, False]) for band in range(len(BANDS))]
        return [found / max(1, found + missed) for found, missed in each]


def scaled(factor: float) -> Spec:
    """All numbers times this one."""
    stuffing, enumeration, spikes = Stuffing(), Enumeration(), Spikes()
    return Spec(
        replace(stuffing, refusals=max(1, round(stuffing.refusals * factor))),
        replace(enumeration, ids=round(enumeration.ids * factor), sequential=round(enumeration.sequential * factor)),
        replace(spikes, least=round(spikes.least * factor), times=max(1, round(spikes.times * factor))),
    )


def watch(specs: Sequence[Spec], seed: int, each: int = EACH) -> tuple[list[Attack], list[list[Detection]], int]:
    """The attacks of this seed, what detectors of each of these said, and how many calls there were."""
    planned, calls = play(seed, each)
    found: list[list[Detection]] = [[] for _ in specs]
    watching = [Detectors(spec, told.append, 0.0) for spec, told in zip(specs, found, strict=True)]
    ids = {}
    hop, count = a_hop(), 0
    for call in calls:
        if call.caller not in ids:
            ids[call.caller] = workload_id(DEMO, "default", call.caller)
        hop.peer, hop.route, hop.segments, hop.status = ids[call.caller], call.route, call.path, call.status
        hop.ended = call.at
        count += 1
        for each_one in watching:
            each_one.observe(hop)
    return planned, found, count


def score(kind: str, planned: Sequence[Attack], found: Sequence[Detection]) -> Score:
    """What this detector's alarms were worth."""
    result, last = Score(), dict[str, tuple[float, bool]]()
    own = [each for each in found if each.detector == kind]
    for each in own:
        caller = each.who[0].rpartition("/")[2]
        right = any(_under_way(attack, caller, each.at) for attack in planned)
        before = last.get(caller)
        last[caller] = (each.at, right)
        if before is not None and each.at - before[0] < ALARM and before[1] == right:
            continue
        result.right += right
        result.false += not right
        result.by[caller] += not right
    for attack in planned:
        if attack.kind == kind:
            result.attacks += 1
            times = [each.at for each in own if _under_way(attack, each.who[0].rpartition("/")[2], each.at)]
            result.found += bool(times)
            result.bands[_band(attack), bool(times)] += 1
            strong = attack.strength >= (STRONG if kind != "spikes" else STRONG_SPIKE * TARGETS[attack.caller])
            result.strong += strong
            result.strong_found += strong and bool(times)
            result.seconds += [min(times) - 60.0 * attack.start] if times else []
            result.missed[attack.name] += not times
    return result


def _band(attack: Attack) -> int:
    times = attack.strength / TARGETS[attack.caller]
    bands, strength = (SPIKE_BANDS, times) if attack.kind == "spikes" else (BANDS, attack.strength)
    return next((number for number, (_, end) in enumerate(bands) if strength < end), len(bands) - 1)


def curve(scores: dict[str, Score]) -> str:
    """The recall of each by strength."""
    heads = (f"{first} to {end - (end == BANDS[-1][1])}" for first, end in BANDS)
    lines = [f"| requests a minute | {' | '.join(heads)} |", "|---" * 5 + "|"]
    for kind, each in scores.items():
        if kind == "spikes":
            times = (f"{a} to {b - (b == 21)} times" for a, b in SPIKE_BANDS)
            lines.append("| *spikes: of the busiest minute* | " + " | ".join(f"*{each}*" for each in times) + " |")
        lines.append(f"| `{kind}` | " + " | ".join(f"{recall:.0%}" for recall in each.recalls()) + " |")
    return "\n".join(lines)


def _bars(scores: dict[str, Score], left: int, step: int, top: int) -> list[str]:
    """Recall by strength, a panel for each."""
    parts = []
    for number, (kind, each) in enumerate(scores.items()):
        begin, end = left + number * step, top + 60
        bands = SPIKE_BANDS if kind == "spikes" else BANDS
        unit = "times the busiest minute" if kind == "spikes" else "requests a minute"
        parts.append(f'<text x="{begin}" y="{top - 8}">recall by {unit}</text>')
        parts.append(f'<polyline class="axis" fill="none" points="{begin},{top} {begin},{end} {begin + 190},{end}"/>')
        for band, recall in enumerate(each.recalls()):
            x = begin + 6 + 46 * band
            high = 60 * recall
            parts.append(f'<rect class="bar" x="{x}" y="{end - high:.1f}" width="38" height="{high:.1f}"/>')
            parts.append(f'<text x="{x + 19}" y="{end + 15}" text-anchor="middle">{bands[band][0]}+</text>')
    return parts


def _under_way(attack: Attack, caller: str, at: float) -> bool:
    return attack.caller == caller and 60.0 * attack.start <= at <= 60.0 * (attack.end + 1)


def tables(specs: Sequence[Spec], seeds: Sequence[int]) -> tuple[list[dict[str, Score]], int, int]:
    """The scores of each of these, of all seeds together; the calls, and first calls that were told of."""
    scores = [{kind: Score() for kind in KINDS} for _ in specs]
    calls = edges = 0
    for seed in seeds:
        planned, found, count = watch(specs, seed)
        calls += count
        edges += sum(each.detector == "new_edge" for each in found[0])
        for mine, told in zip(scores, found, strict=True):
            for kind in KINDS:
                mine[kind].add(score(kind, planned, told))
    return scores, calls, edges


def table(scores: dict[str, Score]) -> str:
    """The figures of the defaults."""
    head = "| detector | attacks | found (recall) | of the strong ones | alarms | right (precision) |"
    lines = [f"{head} median until found | false alarms |", "|---" * 8 + "|"]
    for kind, each in scores.items():
        median = f"{sorted(each.seconds)[len(each.seconds) // 2]:.0f} s" if each.seconds else "-"
        by = ", ".join(f"{name} {count}" for name, count in each.by.most_common() if count) or "none"
        lines.append(
            f"| `{kind}` | {each.attacks} | {each.found} ({each.recall:.0%}) |"
            f" {each.strong_found} of {each.strong} | {each.right + each.false} |"
            f" {each.right} ({each.precision:.0%}) | {median} | {by} |"
        )
    return "\n".join(lines)


def draw(scores: Sequence[dict[str, Score]]) -> str:
    """Precision and recall of each over its numbers, as factors of the defaults; and recall by strength."""
    width, height, left, panel, gap, top = 720, 300, 44, 190, 40, 66
    parts = ['<text class="title" x="12" y="24">Precision and recall over the detectors\' numbers</text>']
    for x, name in ((12, "precision"), (132, "recall")):
        parts.append(f'<line class="{name}" x1="{x}" y1="40" x2="{x + 22}" y2="40"/>')
        parts.append(f'<text x="{x + 28}" y="44">{name}</text>')
    for number, kind in enumerate(KINDS):
        begin, end = left + number * (panel + gap), top + 90
        step = panel / (len(FACTORS) - 1)
        parts.append(f'<text class="title" x="{begin}" y="{top - 6}">{kind}</text>')
        parts.append(f'<polyline class="axis" fill="none" points="{begin},{top} {begin},{end} {begin + panel},{end}"/>')
        marks = ((share, end - 90 * share + 4) for share in (0.0, 0.5, 1.0))
        parts += [f'<text x="{begin - 6}" y="{y}" text-anchor="end">{share:.0%}</text>' for share, y in marks]
        at = begin + FACTORS.index(1.0) * step
        parts.append(f'<line class="axis" stroke-dasharray="3 3" x1="{at:.1f}" y1="{top}" x2="{at:.1f}" y2="{end}"/>')
        for index, factor in enumerate(FACTORS):
            x = begin + index * step
            parts.append(f'<text x="{x:.1f}" y="{end + 16}" text-anchor="middle">×{factor:g}</text>')
        for name in ("precision", "recall"):
            values = [float(getattr(each[kind], name)) for each in scores]
            points = " ".join(f"{begin + i * step:.1f},{end - 90 * value:.1f}" for i, value in enumerate(values))
            parts.append(f'<polyline class="{name}" points="{points}"/>')
    parts += _bars(scores[FACTORS.index(1.0)], left, panel + gap, top + 144)
    style = (
        ".precision, .recall { fill: none; stroke-width: 1.8 } .precision { stroke: #2f6fde } "
        ".recall { stroke: #b5488f; stroke-dasharray: 6 3 } .bar { fill: #b5488f; opacity: .75 }"
    )
    words = "Precision and recall of stuffing, enumeration and spikes, with numbers from a quarter to four times"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="{words}">'
    return "\n".join((head, f"<style>{STYLE} {style}</style>", *parts, "</svg>")) + "\n"


def main() -> None:
    """See above."""
    seeds = TRAINING if "--training" in sys.argv else SEEDS
    if "--quick" in sys.argv or "--training" in sys.argv:
        (scores,), calls, edges = tables([USUAL], seeds)
    else:
        each, calls, edges = tables([USUAL, *map(scaled, FACTORS)], seeds)
        scores = each[0]
        DRAWING.write_text(draw(each[1:]))
    print(table(scores), curve(scores), sep="\n\n")
    print(f"\n{calls:,} calls, of seeds {', '.join(map(str, seeds))}; first calls to a route told of: {edges}")
    missed = {kind: {n: c for n, c in sorted(score.missed.items()) if c} for kind, score in scores.items()}
    print("Missed: " + "; ".join(f"{kind} {names}" for kind, names in missed.items()))


if __name__ == "__main__":
    main()
