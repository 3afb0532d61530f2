"""Ask what updates of the models of a comparison would cost: passes over the data, then a probe for each way."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from torch import nn

from resque._format import format_list
from resque.energy.clock import now
from resque.energy.grid import Grid
from resque.energy.price import Tariff
from resque.energy.reading import join_readings, nothing_more, split_reading
from resque.errors import ResqueError, TooFewUpdatesError
from resque.forecasting.comparison import NOTHING, SCRATCH, Option
from resque.forecasting.curve_history import from_scratch_features
from resque.forecasting.forecaster import forecast_from_features
from resque.forecasting.forgetting import expected_forgetting
from resque.forecasting.options import do_nothing
from resque.forecasting.price import priced
from resque.forecasting.selection import updates_to_learn_from
from resque.ledger.records import Forecast, Update
from resque.ledger.store import Ledger
from resque.models.inference import device_of
from resque.models.weights import fingerprint
from resque.training.checkpoint import run_identity
from resque.training.evaluation import evaluate_dataset
from resque.training.recipe import Recipe
from resque.workflows.candidates import all_failed
from resque.workflows.comparison_cache import ComparisonCache
from resque.workflows.done_before import done_before, outcome_in_words, what_it_showed
from resque.workflows.picture_strip import keep_strip
from resque.workflows.sources import OneNetwork, Source
from resque.workflows.trials import Asked, Start, Trial, pilot_key, way_license
from resque.workflows.ways import Way, ways_to_extend, ways_to_learn, ways_to_update

__all__ = ["Asking"]


@dataclass(frozen=True, eq=False)
class Asking:
    """How the ways of a model are forecast before their pilots.

    Attributes:
        history: Ledger with the user's own updates, and with forecasts that have their pilots.
        bundled: Bundled history.
        grid: Electricity grid.
        level: Nominal coverage of the intervals.
        tariff: Prices.
        in_use: The network that is in memory.
        short_names: Name of each model → a short one; empty for one model alone.
    """

    history: Ledger
    bundled: Sequence[Update]
    grid: Grid | None
    level: float
    tariff: Tariff
    in_use: OneNetwork
    short_names: Mapping[str, str]
    begun: list[Asked] = field(default_factory=list)
    """What is known of each model so far; an interrupted comparison has taken that much."""

    def of_all(self, sources: Sequence[Source]) -> tuple[list[Asked], dict[str, str]]:
        """Return what is known of each model, and why others failed.

        Raises:
            TooFewUpdatesError: There is too little history for any forecast.
            ResqueError: All models failed, each with its reason.
        """
        failed: dict[str, ResqueError] = {}
        asked: list[Asked] = []
        tried: dict[str, Trial] = {}
        pending = self.history.forecasts(pending=True)
        stored = {each.pilot.identity: each for each in reversed(pending) if each.pilot is not None}
        for source in sources:
            try:
                asked.append(self._ask(source, stored, tried))
            except TooFewUpdatesError:
                raise
            except ResqueError as error:
                failed[source.name] = error
        if not asked:
            raise all_failed(failed)
        return asked, {name: str(error) for name, error in failed.items()}

    @property
    def trials(self) -> list[Trial]:
        """Ways of all models, as far as they are known."""
        return [trial for each in self.begun for trial in each.trials]

    @property
    def cache(self) -> ComparisonCache:
        """Unfinished pilots."""
        return ComparisonCache.of(self.history)

    def named(self, way: Way, source: Source) -> str:
        """Return the name of a way, with its model where there are several."""
        return f"{way.name} ({self.short_names[source.name]})" if self.short_names else way.name

    def _ask(self, source: Source, stored: Mapping[str, Forecast], tried: dict[str, Trial]) -> Asked:
        """Return what is known of a model, and its ways; models of one architecture share that from scratch.

        Args:
            source: The model.
            stored: Identity of a run → the pending forecast that has its pilot.
            tried: Key → way of this and earlier models; it grows.
        """
        self.in_use.clear()
        known, is_new_task = source.known(), source.question.is_new_task
        network, job = known.network, known.job
        keep_strip(self.history, job.train, known.original)
        before = now(device_of(network))
        evaluate_dataset(network, job.test)
        evaluation_s = now(device_of(network)) - before
        parent = job.parent or fingerprint(network)
        updates = updates_to_learn_from(self.history, parent, is_new_task)
        probed = {_settings_of_a_step(job.recipe): (known.step_cost, known.overhead)}
        kept = job.original_accuracy
        if kept is None and job.original_test is not None:
            kept = evaluate_dataset(network, job.original_test)[0]
        start = Start(source, job, known.features, parent, updates, evaluation_s, probed, kept)
        asked = Asked(start, [] if is_new_task else [self._nothing(start)])
        self.begun.append(asked)
        asked.notes += [] if known.risk is None else [known.risk]
        if known.sampling is not None:
            asked.notes.append(f"index of {self.short_names.get(source.name, source.name)} {known.sampling.sentence}")
        if any(option.chance >= 1.0 for option in asked.nothing):
            return asked
        ways = self._ways(start, network, asked.notes)
        self.in_use.hold(source, False, network, parent)
        del network, known
        shared: dict[str, list[str]] = {}  # other model → ways that are the same
        for way in ways:
            try:
                trial = self._begin(way, start, stored)
            except TooFewUpdatesError:
                raise
            except ResqueError as error:
                asked.notes.append(f"{self.named(way, source)}: not compared: {error}")
                continue
            if (same := tried.setdefault(trial.key, trial)) is trial:
                asked.trials.append(trial)
            else:
                shared.setdefault(self.short_names[same.start.source.name], []).append(self.named(way, source))
        for other, names in shared.items():
            is_copy = not asked.trials and len(names) > 1
            what = f"All of {self.short_names[source.name]}" if is_copy else format_list(names)
            asked.notes.append(f"{what}: the same as of {other}")
        self._share_overhead(asked.trials)
        return asked

    def _share_overhead(self, trials: Sequence[Trial]) -> None:
        """Share what passes and probes took among the ways that they served, so that none looks dearer; price them."""
        new = [trial for trial in trials if not trial.is_stored and trial.forecast.pilot is None]
        if not new:
            return
        part = split_reading(join_readings([trial.forecast.overhead for trial in new]), len(new))
        for trial in new:
            trial.forecast = priced(dataclasses.replace(trial.forecast, overhead=part), self.tariff)

    def _ways(self, start: Start, network: nn.Module, notes: list[str]) -> Iterator[Way]:
        """Return the ways to update a model; what is left out without a word elsewhere gets a note."""
        job, source = start.job, start.source
        is_mixed = job.replayed is not None and not source.extends
        ways = ways_to_update(network, job.recipe, is_mixed, source.loader.spec is not None)
        if not source.question.is_new_task:
            return ways
        ways = ways_to_learn(ways, source.starts_untrained(job))
        if not source.extends:
            return ways
        lacking = sorted({*job.test.classes} - {*job.train.classes})
        if lacking:
            notes.append(f"ways without old data are left out: {job.train.name} has none of the classes {lacking}, "
                         "which are tested")  # fmt: skip
        old = 0 if job.replayed is None else len(job.replayed)
        return ways_to_extend(ways, source.question.share, old / (old + len(job.train)), is_plain=not lacking)

    def _nothing(self, start: Start) -> Option:
        """Return what it is to do nothing."""
        job, source, fee = start.job, start.source, start.source.candidate.license_price
        costs = ["steps", "wall_s", "energy_kwh", *([] if self.grid is None else ["carbon_kg"])]
        return do_nothing(
            source.name,
            start.features.accuracy or 0.0,
            job.target_accuracy,
            [*costs, *(["price"] if fee or self.tariff.per_kwh or self.tariff.per_hour else [])],
            level=self.level,
            id=f"{NOTHING} {source.name}" if self.short_names else NOTHING,
            original_accuracy=start.original_accuracy,
            license_price=fee,
        )

    def _begin(self, way: Way, start: Start, stored: Mapping[str, Forecast]) -> Trial:
        """Forecast a way from features and history; one that was done, or has its pilot, is taken so.

        A pilot may be in the ledger, or unfinished.

        Args:
            way: The way.
            start: Model that it starts from.
            stored: Identity of a run → the pending forecast that has its pilot.
        """
        from_scratch, source = way.rung == SCRATCH, start.source
        job, features = dataclasses.replace(start.job, recipe=way.recipe, from_scratch=from_scratch), start.features
        network, parent = self.in_use.of(source, job)
        if from_scratch:
            features = from_scratch_features(features, *evaluate_dataset(network, job.test))
            job = dataclasses.replace(job, parent=parent if job.parent else "")
        if (done := done_before(self.history, parent, job)) is not None:
            kept = start.original_accuracy
            if from_scratch and job.original_test is not None:
                kept = evaluate_dataset(network, job.original_test)[0]
            shown = what_it_showed(done, job, self.level, kept)
            return Trial(way, start, job, shown, is_stored=True, note=outcome_in_words(done, job), update_id=done.id)
        if (found := stored.get(run_identity(parent, job))) is not None:
            note = "from the ledger: `resque ledger void` asks anew"
            return Trial(way, start, job, found, is_stored=True, note=note)
        if (begun := self.cache.read(pilot_key(parent, job), Forecast)) is not None:
            return Trial(way, start, job, begun, earlier_s=begun.asking(continued=False).wall_s)
        if (settings := _settings_of_a_step(way.recipe)) not in start.probed:
            step_cost = source.passes.probe(network, job)
            start.probed[settings] = step_cost, step_cost.reading
        step_cost, overhead = start.probed[settings]
        with source.loader.options.show_progress(f"{self.named(way, source)}: forecasting"):
            forecast = forecast_from_features(
                start.updates,
                job,
                features,
                step_cost=step_cost,
                overhead=overhead,
                parent=parent,
                grid=self.grid,
                model_name=source.loader.name,
                level=self.level,
                bundled=self.bundled,
            )
        lost = None if from_scratch else expected_forgetting(start.updates, parent, forecast.recipe)
        forecast = dataclasses.replace(
            forecast,
            inputs=source.inputs(),
            original_accuracy=start.original_accuracy,
            expected_forgetting=lost,
            license_price=way_license(way, source),
        )
        start.probed[settings] = step_cost, nothing_more(overhead)  # counted once, with this forecast
        return Trial(way, start, job, forecast)


def _settings_of_a_step(recipe: Recipe) -> tuple[object, ...]:
    """Return the settings that what a step takes depends on; ways that share them share a probe."""
    augmentation = tuple(recipe.augmentation)
    how = recipe.precision, recipe.channels_last, recipe.compile
    return recipe.trains, recipe.rank, recipe.optimizer, recipe.batch_size, augmentation, *how
