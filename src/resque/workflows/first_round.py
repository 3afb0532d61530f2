"""The first round of a comparison: what forward passes tell of each candidate, wherever they run."""

from collections.abc import Iterator, Sequence

from resque.errors import ModelError, ResqueError
from resque.forecasting.scored_models import ScoredModel
from resque.workflows.candidates import Candidate, all_failed
from resque.workflows.comparison_cache import ComparisonCache
from resque.workflows.engine import Engine, ExperimentTask, LocalEngine
from resque.workflows.scoring import task_to_score
from resque.workflows.sources import ComparisonRequest, Source

__all__ = ["first_round", "with_names"]


def first_round(
    candidates: Sequence[Candidate], asked: ComparisonRequest, cache: ComparisonCache, engine: Engine
) -> list[ScoredModel]:
    """Return what forward passes tell of each model, or why it failed.

    Args:
        candidates: The models.
        asked: Question of the comparison, the same for each.
        cache: Scores that are known; it gets the others, each when it is there.
        engine: Where the passes run. Each task is one model, which is loaded here; the local engine passes here, too.

    Raises:
        ResqueError: All models failed, each with its reason.
    """
    named = with_names(candidates)
    if isinstance(engine, LocalEngine):
        rows = {name: _scored_here(candidate, asked, name, cache) for candidate, name in named}
    else:
        rows = dict(_scored_elsewhere(named, asked, cache, engine))
    failures = {name: row for name, row in rows.items() if isinstance(row, ResqueError)}
    if len(failures) == len(named):
        raise all_failed({name: failures[name] for _, name in named})
    return [
        ScoredModel(name, license_price=candidate.license_price, note=str(row)) if isinstance(row, ResqueError) else row
        for candidate, name in named
        for row in [rows[name]]
    ]


def with_names(candidates: Sequence[Candidate]) -> list[tuple[Candidate, str]]:
    """Return each candidate with its name; equal names of objects are numbered.

    Example:
        >>> from torch import nn
        >>> [name for _, name in with_names([Candidate(nn.ReLU()), Candidate("net.py:build"), Candidate(nn.ReLU())])]
        ['ReLU 1', 'net.py:build', 'ReLU 2']
    """
    names = [each.name for each in candidates]
    return [
        (each, name if names.count(name) == 1 else f"{name} {names[: place + 1].count(name)}")
        for place, (each, name) in enumerate(zip(candidates, names, strict=True))
    ]


def _scored_here(
    candidate: Candidate, asked: ComparisonRequest, name: str, cache: ComparisonCache
) -> ScoredModel | ResqueError:
    try:
        return Source(candidate, asked, name).scored(cache)
    except ResqueError as error:
        return error


def _scored_elsewhere(
    named: Sequence[tuple[Candidate, str]], asked: ComparisonRequest, cache: ComparisonCache, engine: Engine
) -> Iterator[tuple[str, ScoredModel | ResqueError]]:
    """Yield the row of each model: known ones and those that cannot be loaded from here, the others from workers."""
    known: dict[str, ScoredModel | ResqueError] = {}
    waiting: dict[str, tuple[Source, str, bool]] = {}

    def tasks() -> Iterator[ExperimentTask]:
        for candidate, name in named:
            try:
                source = Source(candidate, asked, name)
                key, subject = source.to_score()
                if (found := cache.read(key, ScoredModel)) is not None:
                    known[name] = source.described(found)
                    continue
                waiting[name] = source, key, not source.is_untrained(subject.network)
                yield task_to_score(name, subject, source.loader)
            except ResqueError as error:
                known[name] = error

    with asked.options.show_progress(f"scoring {len(named)} models") as show:
        for done, (name, row) in enumerate(engine.run(tasks()), start=1):
            show(done, len(named), name)
            source, key, is_trained = waiting[name]
            if "scored" in row:
                yield name, source.keep_scores(cache, key, row["scored"], is_trained)
            else:
                yield name, row.get("failed") or ModelError(f"its forward pass was {row['error']}")
    yield from known.items()
