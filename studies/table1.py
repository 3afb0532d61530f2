"""Table 1: how well RESQUE_dist orders the cost of retraining for a shift, beside the paper's figures.

Pearson's r and Spearman's ρ with each cost at an early, a middle and a late target, for the paper's three noises and
for all shift types, averaged over seeds as in the paper and run by run. Each has n, a 95 % interval (Fisher's z; for ρ
with Bonett and Wright's variance) and p. Conditions that began at the target are left out. Conditions that a seed never
brought to it are counted, and rank last in the last column.

    python studies/table1.py --preset quick
"""

from collections.abc import Iterator, Mapping

from analysis import (
    CORRELATION_COLUMNS,
    COSTS,
    INDEX,
    TARGET_NAMES,
    Run,
    conditions,
    correlation_cells,
    fixed_target,
    markdown,
    number,
    seed_variation,
    successful_runs,
)
from presets import NOISES, PRESETS, ShiftStudy, describe
from publish import Rows, publish

PUBLISHED = """The paper's r / ρ with epochs, gradient norm and parameter change, n = 30 conditions each, three runs
averaged: ResNet18 on CIFAR100 .77 .74 .70 / .97 .97 .95; ViT on CIFAR10 .87 .88 .84 / .88 .88 .88; VGG16 on SVHN
.93 .95 .94 / .92 .95 .93 (its p for .93 does not fit n = 30)."""
HEAD = ("shifts", "target", "cost", *CORRELATION_COLUMNS)
MEANS, COMPLETE, SINGLE = "means over seeds", "where every seed began below the target", "single runs"
VARIATION_COLUMNS = (
    "target",
    "conditions",
    "deviation of the index [rad]",
    "deviation of steps [factor]",
    "one seed's steps are off another's by (median)",
)


def correlation_rows(study: ShiftStudy, runs: list[Run]) -> Iterator[tuple[str, ...]]:
    """Yield a table row for each scope, averaging, target and cost."""
    noises = [run for run in runs if run.group[1] in NOISES]
    scopes = {"three noises": noises} | ({"all shift types": runs} if len(runs) > len(noises) else {})
    seeds = {run.seed for run in runs}
    for scope, members in scopes.items():
        for averaging in (MEANS, COMPLETE, SINGLE) if len(seeds) > 1 else (SINGLE,):
            for name, target in zip(TARGET_NAMES, study.targets, strict=True):
                known = conditions(members, fixed_target(target), index_alone, by_seed=averaging == SINGLE)
                if averaging == COMPLETE:
                    known = [condition for condition in known if condition.runs == len(seeds)]
                for cost in COSTS:
                    cells = correlation_cells(known, INDEX, cost)
                    yield f"{scope}, {averaging}", f"{name}, {target:g}", cost, *cells


def variation_rows(study: ShiftStudy, runs: list[Run]) -> Iterator[tuple[str, ...]]:
    """Yield a table row of the variation over seeds at each target."""
    for name, target in zip(TARGET_NAMES, study.targets, strict=True):
        variation = seed_variation(runs, target)
        error = "–" if variation.steps_error is None else f"{100 * variation.steps_error:.0f} %"
        deviations = number(variation.index), number(variation.steps_factor)
        yield f"{name}, {target:g}", str(variation.conditions), *deviations, error


def index_alone(run: Run) -> dict[str, float]:
    """Return the index in the paper's form as the only predictor."""
    return {INDEX: run.row["indices"][INDEX]}


def make(preset: str, rows: Rows) -> Mapping[str, str]:
    """Make the table of a preset, from the studies that have original models of their own."""
    parts = [f"# Table 1, preset {preset}", f"RESQUE_dist ({INDEX}) and the cost of retraining for a shift.", PUBLISHED]
    for study in PRESETS[preset].shifts:
        runs = successful_runs(rows.get(study.name, ()))
        if runs and not study.originals:
            parts.append(f"{describe(study)} Runs: {len(runs)}.")
            parts.append(markdown(HEAD, correlation_rows(study, runs)))
            if len({run.seed for run in runs}) > 1:
                parts.append("Deviations over seeds within a condition:")
                parts.append(markdown(VARIATION_COLUMNS, variation_rows(study, runs)))
    return {"table1": "\n\n".join(parts) + "\n"}


if __name__ == "__main__":
    publish(__doc__, make, "shifts")
