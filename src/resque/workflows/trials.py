"""Try the ways to update a model: forecast each, pilot the promising in rounds, and put them beside each other."""

import dataclasses
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from resque.energy.clock import now
from resque.energy.grid import Grid
from resque.energy.price import Tariff
from resque.energy.reading import EnergyReading, join_readings
from resque.errors import ResqueError, TooFewUpdatesError
from resque.forecasting.comparison import BY_HISTORY, BY_PILOT, Comparison, Option, choose
from resque.forecasting.costs import price_estimate
from resque.forecasting.forecaster import forecast_from_features
from resque.ledger.components import MEASURED
from resque.ledger.records import Estimate, Features, Forecast, Update
from resque.ledger.store import Ledger
from resque.models.inference import device_of
from resque.models.weights import fingerprint
from resque.training.checkpoint import load_checkpoint, run_identity
from resque.training.evaluation import evaluate_dataset
from resque.types import Interval
from resque.workflows.passes import KnownUpdate, Passes
from resque.workflows.pilots import keep_pilot, kept_pilot
from resque.workflows.ways import NOTHING, SCRATCH, Way, ways_to_update

__all__ = ["Comparing"]

_ROUNDS = 50, 200, 800  # steps of the pilots
_EVALUATIONS = 10  # of a pilot, about
_HOPELESS = 0.05
_FREE_S = 1.0  # a way that takes less is done, not forecast


@dataclass(eq=False)
class _Trial:
    """A way that is tried: its forecast so far."""

    way: Way
    known: KnownUpdate
    forecast: Forecast
    is_stored: bool = False
    note: str = ""

    @property
    def steps(self) -> int:
        """Steps of its pilot."""
        return 0 if self.forecast.pilot is None else self.forecast.pilot.steps

    def seconds_for(self, steps: int, evaluation_s: float) -> float:
        """Return about how long a pilot until so many steps will take."""
        return (steps - self.steps) * self.known.step_cost.wall_s + _EVALUATIONS * evaluation_s

    @property
    def has_ended(self) -> bool:
        """Whether it ran to its end within its pilot."""
        return self.forecast.pilot is not None and self.forecast.pilot.stopped_by is not None


@dataclass(frozen=True, eq=False)
class Comparing:
    """A comparison in progress."""

    passes: Passes
    known: KnownUpdate
    history: Ledger
    updates: Sequence[Update]
    bundled: Sequence[Update]
    grid: Grid | None
    level: float
    tariff: Tariff
    ends_at: float

    def run(self) -> Comparison:
        """Try the ways, and choose."""
        nothing, notes = self._nothing(), list[str]()
        trials: list[_Trial] = []
        if nothing.chance < 1.0:
            with_scratch = self.passes.loader.spec is not None
            job, pending = self.known.job, self.history.forecasts(pending=True)
            stored = {each.pilot.identity: each for each in reversed(pending) if each.pilot is not None}
            for way in ways_to_update(self.known.network, job.recipe, job.replayed is not None, with_scratch):
                try:
                    trials.append(self._begin(way, stored))
                except TooFewUpdatesError:
                    raise
                except ResqueError as error:
                    notes.append(f"{way.name}: not compared: {error}")
            self._pilots(trials)
            for trial in trials:
                if not trial.is_stored:
                    self.history.add(trial.forecast)
        options = [self._option(trial) for trial in trials] + [nothing]
        best, ties, nearest, by = choose(options, self.level)
        first = [each for each in (best, *ties, nearest) if each is not None]
        order = sorted(
            options, key=lambda each: (first.index(each.id) if each.id in first else len(first), -each.chance)
        )
        readings = [self.known.overhead, *(each for trial in trials for each in _asked(trial))]
        return Comparison(
            model=self.passes.loader.name,
            train_data=self.known.job.train.name,
            target_accuracy=self.known.job.target_accuracy,
            options=tuple(order),
            best=best,
            ties=ties,
            nearest=nearest,
            by=by,
            level=self.level,
            asking=join_readings(readings),
            currency=self.tariff.currency,
            original_accuracy=nothing.original_accuracy,
            notes=tuple(notes),
        )

    def _nothing(self) -> Option:
        """Return what it is to do nothing."""
        job, accuracy = self.known.job, self.known.features.accuracy or 0.0
        kept = None if job.original_test is None else evaluate_dataset(self.known.network, job.original_test)[0]
        costs = dict.fromkeys(("steps", "wall_s", "energy_kwh"), self._measured(0.0))
        if self.grid is not None:
            costs["carbon_kg"] = self._measured(0.0)
        reached = float(accuracy >= job.target_accuracy)
        best, name = self._measured(accuracy), self.passes.loader.name
        return Option(NOTHING, NOTHING, "Do nothing", name, {}, reached, costs, best, MEASURED, 0, kept, 0.0)

    def _begin(self, way: Way, stored: Mapping[str, Forecast]) -> _Trial:
        """Forecast a way from features and history; one that is stored with its pilot is taken as it is.

        Args:
            way: The way.
            stored: Identity of a run → the pending forecast that has its pilot.
        """
        known = self._from_scratch(way) if way.rung == SCRATCH else self.passes.by_recipe(self.known, way.recipe)
        parent = fingerprint(known.network)
        if (found := stored.get(run_identity(parent, known.job))) is not None:
            return _Trial(way, known, found, is_stored=True, note="from the ledger: `resque ledger void` asks anew")
        forecast = forecast_from_features(
            self.updates,
            known.job,
            known.features,
            step_cost=known.step_cost,
            overhead=known.overhead,
            parent=parent,
            grid=self.grid,
            model_name=self.passes.loader.name,
            level=self.level,
            bundled=self.bundled,
        )
        return _Trial(way, known, forecast)

    def _from_scratch(self, way: Way) -> KnownUpdate:
        """Return what is known of training new weights."""
        job = dataclasses.replace(self.known.job, recipe=way.recipe, from_scratch=True)
        network = self.passes.loader.random_networks(self.known.network, job.seed)(job.seed)
        accuracy, loss = evaluate_dataset(network, job.test)
        known = self.known.features
        features = Features(None, accuracy, loss, known.samples, classes=known.classes, parameters=known.parameters)
        return self.passes.by_recipe(
            dataclasses.replace(self.known, network=network, job=job, features=features), way.recipe
        )

    def _pilots(self, trials: Sequence[_Trial]) -> None:
        """Make pilots in rounds, each for the better half of those before."""
        start = now(device_of(self.known.network))
        evaluate_dataset(self.known.network, self.known.job.test)
        evaluation_s = now(device_of(self.known.network)) - start
        alive = [trial for trial in trials if not trial.is_stored]
        for steps in _ROUNDS:
            for trial in alive:
                max_steps = trial.known.job.max_steps
                is_free = max_steps * trial.known.step_cost.wall_s < _FREE_S
                until = max_steps if is_free else min(steps, max_steps)
                reason = self._reason_against(trial, trial.seconds_for(until, evaluation_s), trials)
                if not trial.has_ended and reason:
                    trial.note = reason
                elif not trial.has_ended:
                    self._go_on(trial, until)
            if self._is_decided(trials):
                return
            alive = self._survivors(alive)

    def _reason_against(self, trial: _Trial, pilot_s: float, trials: Sequence[_Trial]) -> str:
        """Return why a way gets no further pilot; empty if it does.

        A pilot of the best way is a part of its update. That of another one must not cost more than it may save.
        """
        if time.monotonic() + pilot_s > self.ends_at:
            return "no time for its pilot" if not trial.steps else f"no time beyond a pilot of {trial.steps} steps"
        chosen = self._choose(trials)[0]
        best = next((each for each in trials if each.forecast.id == chosen), None)
        if best is None or best is trial or best.forecast.pilot is None:
            return ""
        rest_s = best.forecast.estimates["wall_s"].value - best.forecast.pilot.training_s
        if not best.has_ended and rest_s > pilot_s:
            return ""
        return f"no pilot: it would cost more than it may save over “{best.way.name}”"

    def _go_on(self, trial: _Trial, steps: int) -> None:
        """Make or continue the pilot of a way."""
        kept = kept_pilot(self.history, trial.forecast)
        begun = None if kept is None else load_checkpoint(kept)
        trial.forecast, state = self.passes.pilot(trial.known, trial.forecast, steps, self.updates, begun)
        keep_pilot(self.history, trial.forecast, state)
        trial.note = ""  # of an earlier round

    def _survivors(self, alive: Sequence[_Trial]) -> list[_Trial]:
        """Return the better half of those that may arrive; the others get a note."""
        going = [trial for trial in alive if not trial.has_ended]
        hopeful = [trial for trial in going if trial.forecast.probability_reached >= _HOPELESS]
        for trial in going:
            if trial not in hopeful:
                trial.note = trial.note or f"dropped after a pilot of {trial.steps} steps: it would hardly arrive"
        ranked = sorted(hopeful, key=self._promise)
        kept = ranked[: math.ceil(len(ranked) / 2)]
        for trial in ranked[len(kept) :]:
            trial.note = trial.note or f"dropped after a pilot of {trial.steps} steps: others promise more"
        return kept

    def _promise(self, trial: _Trial) -> tuple[bool, float]:
        """Return what sorts the more promising ways first: likely enough, then cheap; else by their chance."""
        likely = trial.forecast.probability_reached >= self.level
        return not likely, trial.forecast.estimates["wall_s"].value if likely else -trial.forecast.probability_reached

    def _is_decided(self, trials: Sequence[_Trial]) -> bool:
        best, ties, _, _ = self._choose(trials)
        return best is not None and not ties

    def _choose(self, trials: Sequence[_Trial]) -> tuple[str | None, tuple[str, ...], str | None, str]:
        return choose([self._option(trial) for trial in trials], self.level)

    def _option(self, trial: _Trial) -> Option:
        forecast, pilot, way = trial.forecast, trial.forecast.pilot, trial.way
        price = price_estimate(forecast.estimates, self.tariff)
        return Option(
            id=forecast.id,
            rung=way.rung,
            name=way.name,
            model=forecast.model,
            recipe=dict(forecast.recipe),
            chance=forecast.probability_reached,
            estimates={**forecast.estimates, **({} if price is None else {"price": price})},
            accuracy=forecast.best_accuracy,
            how_known=BY_HISTORY if pilot is None else MEASURED if trial.has_ended else BY_PILOT,
            labels=len(trial.known.job.train) if way.needs_labels else 0,
            original_accuracy=None if pilot is None else pilot.original_accuracy,
            trainable_share=None if pilot is None else pilot.trainable_share,
            note=trial.note,
        )

    def _measured(self, value: float) -> Estimate:
        return Estimate(value, Interval(value, value, self.level, "measured"), value)


def _asked(trial: _Trial) -> Iterator[EnergyReading]:
    """Yield the readings of what a way took to be known; nothing for one that was in the ledger."""
    if not trial.is_stored:
        yield trial.forecast.overhead
        if trial.forecast.pilot is not None:
            yield trial.forecast.pilot.reading
