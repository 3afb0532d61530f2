"""Table 1: how well RESQUE_dist orders the cost of retraining for a shift, beside the paper's figures.

Pearson's r and Spearman's ρ with every cost at an early, a middle and a late target: of the paper's three noises and
of every kind of shift, averaged over seeds as the paper does and run by run. Each with n, its 95 % interval (Fisher's
z; for ρ with Bonett and Wright's variance) and p. Conditions that began at the target are left out; those that a seed
never brought to it are counted, and rank last in the last column.

    python studies/table1.py --preset quick
"""

from collections.abc import Iterator, Mapping

from agreement import (
    CORRELATIONS,
    COSTS,
    EARLY_TO_LATE,
    INDEX,
    Run,
    at,
    conditions,
    correlations,
    markdown,
    number,
    replicates,
    runs,
)
from presets import NOISES, PRESETS, ShiftStudy, describe
from publish import Rows, publish

PUBLISHED = """The paper's r / ρ with epochs, gradient norm and parameter change, n = 30 conditions each, three runs
averaged: ResNet18 on CIFAR100 .77 .74 .70 / .97 .97 .95; ViT on CIFAR10 .87 .88 .84 / .88 .88 .88; VGG16 on SVHN
.93 .95 .94 / .92 .95 .93 (its p for .93 does not fit n = 30)."""
HEAD = ("shifts", "target", "cost", *CORRELATIONS)
MEANS, EVERY, SINGLE = "means over seeds", "where every seed began below the target", "single runs"
FORMS = (MEANS, EVERY, SINGLE)
SPREADS = (
    "target",
    "conditions",
    "deviation of the index [rad]",
    "deviation of steps [factor]",
    "one seed's steps are off another's by (median)",
)


def lines(study: ShiftStudy, found: list[Run]) -> Iterator[tuple[str, ...]]:
    """One line for each scope, target and cost."""
    noises = [run for run in found if run.group[1] in NOISES]
    scopes = {"three noises": noises} | ({"all kinds": found} if len(found) > len(noises) else {})
    for scope, own in scopes.items():
        for form in FORMS:
            for name, target in zip(EARLY_TO_LATE, study.targets, strict=True):
                known = conditions(own, at(target), of_index, by_seed=form == SINGLE)
                if form == EVERY:
                    known = [condition for condition in known if condition.runs == len(study.seeds)]
                for cost in COSTS:
                    yield f"{scope}, {form}", f"{name}, {target:g}", cost, *correlations(known, INDEX, cost)


def spreads(study: ShiftStudy, found: list[Run]) -> Iterator[tuple[str, ...]]:
    """Deviations over seeds at each target."""
    for name, target in zip(EARLY_TO_LATE, study.targets, strict=True):
        own = replicates(found, target)
        error = "–" if own.steps_error is None else f"{100 * own.steps_error:.0f} %"
        yield f"{name}, {target:g}", str(own.conditions), number(own.index), number(own.steps_factor), error


def of_index(run: Run) -> dict[str, float]:
    """The paper's form alone."""
    return {INDEX: run.row["indices"][INDEX]}


def make(preset: str, rows: Rows) -> Mapping[str, str]:
    """The table of a preset: studies that have original models of their own."""
    parts = [f"# Table 1, preset {preset}", f"RESQUE_dist ({INDEX}) and the cost of retraining for a shift.", PUBLISHED]
    for study in PRESETS[preset].shifts:
        if not study.originals:
            parts.append(describe(study))
            found = runs(rows[study.name])
            parts += [markdown(HEAD, lines(study, found)), "Deviations over seeds within a condition:"]
            parts.append(markdown(SPREADS, spreads(study, found)))
    return {"table1": "\n\n".join(parts) + "\n"}


if __name__ == "__main__":
    publish(__doc__, make, "shifts")
