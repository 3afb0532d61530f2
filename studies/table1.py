"""Table 1: how well the index orders the cost of retraining for a shift, beside the paper's figures.

Pearson's r and Spearman's ρ of RESQUE_dist with optimizer steps, total gradient norm and normalized parameter change,
averaged over the seeds of a condition as the paper does, with n, intervals (Fisher's z; for ρ with Bonett and Wright's
variance) and p. Conditions that began at the target are left out, those that never reached it in every seed are
counted; each kind of predictor has the same conditions.

    python studies/table1.py --preset quick
"""

import argparse
import math
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from scipy import stats

from resque.campaign import Row
from resque.plain import from_plain
from resque.records import Update
from shift import PRESETS, RESULTS, campaign

COSTS = {"steps": "steps", "gradient norm": "gradient_norm", "parameter change": "parameter_change"}
INDEX = "paper layer, flatten, true labels"
PUBLISHED = """The paper's r / ρ with epochs, gradient norm and parameter change, n = 30 conditions each: ResNet18 on
CIFAR100 .77 .74 .70 / .97 .97 .95; ViT on CIFAR10 .87 .88 .84 / .88 .88 .88; VGG16 on SVHN .93 .95 .94 / .92 .95 .93
(its p for .93 does not fit n = 30)."""
Z = 1.959964


def conditions(rows: Sequence[Row], target: float) -> Iterator[dict[str, Any]]:
    """Means over the seeds of each shift: the index, and each cost at a target; None where a seed never reached it."""
    groups: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        if "error" not in row:
            groups.setdefault((row["kind"], row["level"]), []).append(row)
    for (kind, level), group in groups.items():
        updates = [from_plain(Update, row["update"]) for row in group]
        costs = [update.cost_at(target) for update in updates]
        if any((update.features.accuracy or 0.0) >= target for update in updates):
            continue
        reached = [cost for cost in costs if cost is not None]
        means = {
            name: statistics.fmean(getattr(cost, field) for cost in reached) if len(reached) == len(costs) else None
            for name, field in COSTS.items()
        }
        index = statistics.fmean(row["indices"][INDEX] for row in group)
        yield {"kind": kind, "level": level, "index": index, **means}


def correlation(x: Sequence[float], y: Sequence[float], kind: str) -> str:
    """A correlation with its 95 % interval and p."""
    n = len(x)
    if n < 5:
        return f"– (n = {n})"
    found = (stats.pearsonr if kind == "r" else stats.spearmanr)(x, y)
    value, p = float(found.statistic), float(found.pvalue)
    spread = math.sqrt((1.0 if kind == "r" else 1.0 + value**2 / 2.0) / (n - 3))
    middle = math.atanh(max(min(value, 1 - 1e-12), -1 + 1e-12))
    low, high = math.tanh(middle - Z * spread), math.tanh(middle + Z * spread)
    return f"{value:.2f} [{low:.2f}, {high:.2f}], p = {p:.1g}"


def table(preset: str, rows: Sequence[Row]) -> str:
    """The table of one preset, as Markdown."""
    lines = ["| study | target | cost | conditions | never reached | r | ρ |", "|---|---|---|---|---|---|---|"]
    for study in PRESETS[preset]:
        own = [row for row in rows if row.get("study") == study.name]
        starts = sorted(row["update"]["curve"]["accuracy"][0] for row in own if "update" in row)
        low = starts[len(starts) // 2]
        for name, share in (("early", 0.5), ("middle", 0.75), ("late", 1.0)):
            target = low + share * (study.target_accuracy - low)
            found = list(conditions(own, target))
            for cost in COSTS:
                known = [(c["index"], c[cost]) for c in found if c[cost] is not None]
                x, y = ([pair[i] for pair in known] for i in (0, 1))
                both = [correlation(x, y, kind) for kind in ("r", "ρ")]
                lines.append(
                    f"| {study.name} | {name}, {target:.3f} | {cost} | {len(known)} | {len(found) - len(known)} | "
                    f"{' | '.join(both)} |"
                )
    seeds = ", ".join(f"{study.name}: {len(study.seeds)} seeds" for study in PRESETS[preset])
    head = (
        f"# Table 1, preset {preset}\n\nRESQUE_dist ({INDEX}) and the cost of retraining; means over seeds ({seeds}).\n"
    )
    return "\n".join([head, *lines, "", PUBLISHED, ""])


def main() -> None:
    """Make the rows that are missing, print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="quick")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    rows = campaign(options.preset, options.workers, options.results)
    made = table(options.preset, list(rows.values()))
    (options.results / f"table1-{options.preset}.md").write_text(made)
    print(made)


if __name__ == "__main__":
    main()
