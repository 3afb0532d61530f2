"""Compare the ways to update one model or several: pilots in rounds for the promising, then the choice."""

import dataclasses
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from resque.energy.price import Spending
from resque.energy.reading import EnergyReading, energy_share, extend_reading, join_readings
from resque.errors import ResqueError, SettingError, TooFewUpdatesError
from resque.forecasting.comparison import Comparison, choose
from resque.forecasting.options import compare_options, with_known_prices
from resque.forecasting.price import priced
from resque.forecasting.scored_models import ScoredModel
from resque.workflows.asking import Asking
from resque.workflows.engine import Engine, ExperimentTask, LocalEngine, Row
from resque.workflows.measured_tasks import measured_task, pilot_elsewhere
from resque.workflows.open_question import OpenQuestion
from resque.workflows.passes import WAITING, KnownUpdate, after_pilot
from resque.workflows.pilots import keep_pilot, kept_pilot, read_pilot
from resque.workflows.scoring import portable
from resque.workflows.sources import Source
from resque.workflows.trials import Asked, Trial
from resque.workflows.ways import ALL

__all__ = ["Comparing"]

_FIRST_LOOK = 10  # steps of the first pilots where those of a round are dear: some ways arrive at once
_DEAR_S = 10.0  # a pilot of the first round that takes longer; to revise a forecast takes a part of a second
_ROUNDS = 50, 200, 800  # steps of the pilots that decide
_UNLIKELY, _HOPELESS = 0.25, 0.05  # chances: below, a way gets no first look; below, it is dropped after its pilot
_DROPPED = "dropped"
_FREE_S = 1.0  # a way that takes less is done, not forecast, and so is one that takes less than a pilot


@dataclass(frozen=True, eq=False)
class Comparing:
    """A comparison in progress.

    Attributes:
        sources: Models whose ways are tried.
        asking: Maker of their forecasts.
        question: The question, which is stored where no forecast holds what it took.
        pilots_s: Time for pilots.
        scored: Scores of the first round; empty for one model.
        engine: Where pilots are made; the local one makes one after the other in this process.
    """

    sources: Sequence[Source]
    asking: Asking
    question: OpenQuestion
    pilots_s: float
    scored: Sequence[ScoredModel] = ()
    engine: Engine = field(default_factory=LocalEngine)

    def run(self) -> Comparison:
        """Try the ways, and choose.

        What it took is in the ledger whatever happens: with the forecasts that it stores, or as a question without one.
        """
        try:
            asked, failed = self.asking.of_all(self.sources)
            at_target = any(option.chance >= 1.0 for each in asked for option in each.nothing)
            trials = [] if at_target else [trial for each in asked for trial in each.trials]
            self._pilots(trials)
        except BaseException as error:
            if self.asking.begun and not isinstance(error, TooFewUpdatesError):
                with suppress(ResqueError):  # the reason of the interruption is what is told
                    self._keep_question(self._reading())
            raise
        reading, new = self._reading(), [trial for trial in trials if not trial.is_stored]
        if new:
            self._share_rest(new, reading)
        else:
            self._keep_question(reading)
        for trial in new:
            self.asking.history.add(trial.forecast)
            self.asking.cache.remove(trial.key)
        return self._comparison(asked, trials, failed, reading)

    def _reading(self) -> EnergyReading:
        """Return what the question took so far, with what it had taken before it was interrupted.

        Beside the readings of passes, probes and pilots it is all that the user waited for.
        """
        trials = self.asking.trials
        readings = [left for each in self.asking.begun for _, left in each.start.probed.values()]
        known = join_readings([*readings, *(each for trial in trials for each in trial.readings())])
        waited_s = time.perf_counter() - self.question.began_s + math.fsum(trial.earlier_s for trial in trials)
        return extend_reading(known, waited_s, WAITING)

    def _share_rest(self, new: Sequence[Trial], reading: EnergyReading) -> None:
        """Share what the records of the new ways do not hold among them, whose price it changes."""
        rest = _beside(new, reading)
        share_s, share_kwh = rest.wall_s / len(new), None if rest.energy_kwh is None else rest.energy_kwh / len(new)
        for trial in new:
            overhead = trial.forecast.overhead
            overhead = extend_reading(overhead, overhead.wall_s + share_s, WAITING, share_kwh)
            trial.forecast = priced(dataclasses.replace(trial.forecast, overhead=overhead), self.asking.tariff)

    def _keep_question(self, reading: EnergyReading) -> None:
        """Store what no forecast holds as a question without one.

        Pilots that are kept beside the ledger count once the comparison goes on.
        """
        kept = [trial for trial in self.asking.trials if not trial.is_stored and trial.steps]
        start, question = self.asking.begun[0].start, self.question
        question.model, question.parent, question.train_data = (
            start.source.loader.name,
            start.parent,
            start.job.train.name,
        )
        question.store(_beside(kept, reading))

    def _comparison(
        self, asked: Sequence[Asked], trials: Sequence[Trial], failed: Mapping[str, str], reading: EnergyReading
    ) -> Comparison:
        tariff = self.asking.tariff
        options = [*(trial.option(tariff) for trial in trials), *(each for one in asked for each in one.nothing)]
        job, kept = asked[0].start.job, {each.start.source.name: each.start.original_accuracy for each in asked}
        made = compare_options(
            options,
            self.asking.level,
            tariff,
            model=", ".join(source.name for source in self.sources),
            train_data=job.train.name,
            target_accuracy=job.target_accuracy,
            asking=reading,
            notes=tuple(note for each in asked for note in each.notes),
            first_round=tuple(
                dataclasses.replace(each, is_kept=each.model in kept, note=failed.get(each.model, each.note))
                for each in self.scored
            ),
        )
        first = next(iter(option for option in options if option.id in (made.best, made.nearest)), None)
        return dataclasses.replace(
            made,
            original_accuracy=None if first is None else kept[first.model],
            options=tuple(  # others promised more than the best one, and did not keep it
                dataclasses.replace(each, note="") if each.id == made.best and each.note.startswith(_DROPPED) else each
                for each in made.options
            ),
        )

    def _pilots(self, trials: Sequence[Trial]) -> None:
        """Make pilots in rounds, each for the better half of those before; the shortest come first.

        Before them, the dear ones that are not unlikely get a first look. It drops nothing, and decides only what
        arrives.
        """
        ends_at = time.monotonic() + self.pilots_s
        alive = [trial for trial in trials if not trial.is_stored]
        self._round_and_spared([trial for trial in alive if _deserves_look(trial)], _FIRST_LOOK, trials, ends_at)
        best = self._best(trials)
        if best is not None and best.has_ended and self._is_decided(trials):
            return
        resting: list[Trial] = []
        for steps in _ROUNDS:
            alive += self._round_and_spared(alive, steps, trials, ends_at)
            if self._is_decided(trials):
                return
            alive, resting = self._survivors(alive, resting)

    def _round_and_spared(
        self, alive: Sequence[Trial], steps: int, trials: Sequence[Trial], ends_at: float
    ) -> list[Trial]:
        """Make the pilots of a round; then first ones of ways that were spared for one that has fallen behind.

        Returns:
            The latter, as far as they were not alive.
        """
        again: list[Trial] = []
        self._round(alive, steps, trials, ends_at)
        while spared := [trial for trial in trials if trial.spared_for not in (None, self._best(trials))]:
            self._round(spared, _FIRST_LOOK, trials, ends_at)
            again += [trial for trial in spared if trial not in (*alive, *again)]
        return again

    def _round(self, alive: Sequence[Trial], steps: int, trials: Sequence[Trial], ends_at: float) -> None:
        """Make the pilots of a round.

        Several may be made at once. Each is taken in its turn, when all before it are, or left if there is a reason
        against it by then: the result is that of one after the other.
        """
        at = _Round(trials, ends_at)
        for trial in sorted(alive, key=lambda trial: trial.rank(steps)):
            trial.spared_for = None
            max_steps = trial.job.max_steps
            until = max_steps if _is_free(trial, trials) else min(steps, max_steps)
            if not trial.has_ended and trial.steps < until:
                at.waiting[trial.key] = trial, until
        while at.waiting:
            at.begun.clear()
            for key, row in self._made(self._to_begin(at), at):
                at.made[key] = row
                self._take(at)
            self._take(at)

    def _to_begin(self, at: "_Round") -> Iterator[tuple[Trial, int]]:
        """Yield the pilots against which there is no reason so far, each when it can begin."""
        for key, (trial, until) in [*at.waiting.items()]:
            if key in at.waiting and not self._reason_against(trial, until, at.trials, at.ends_at):
                at.begun.add(key)
                yield trial, until

    def _made(self, pilots: Iterator[tuple[Trial, int]], at: "_Round") -> Iterator[tuple[str, Row]]:
        """Yield the pilots as they end."""
        if isinstance(self.engine, LocalEngine):
            yield from ((trial.key, self._pilot(trial, until)) for trial, until in pilots)
            return
        with self.sources[0].loader.options.show_progress("pilots") as show:
            tasks = (self._task(trial, until) for trial, until in pilots)
            for done, (key, row) in enumerate(self.engine.run(tasks), start=1):
                trial, _ = at.waiting[key]
                name = self.asking.named(trial.way, trial.start.source)
                if "error" in row:
                    raise SettingError(f"the pilot of “{name}” was {row['error']}; start again, and the others go on")
                show(done, len(at.begun), name)
                yield key, row

    def _take(self, at: "_Round") -> None:
        """Take the pilots whose turn it is."""
        for key, (trial, until) in [*at.waiting.items()]:
            if key in at.begun and key not in at.made:
                return  # it goes on
            row = at.made.pop(key, None)
            if reason := self._reason_against(trial, until, at.trials, at.ends_at if row is None else math.inf):
                trial.note = reason
                trial.spared_for = self._best(at.trials) if trial.steps == 0 else None
                trial.unused += [] if row is None else row["spent"]
            elif row is None:
                return  # it begins next
            else:
                self._go_on(trial, row)
            del at.waiting[key]

    def _reason_against(self, trial: Trial, until: int, trials: Sequence[Trial], ends_at: float) -> str:
        """Return why a way gets no further pilot; empty if it does.

        A pilot of the best way is a part of its update. That of another one must not cost more than it may save.
        """
        if time.monotonic() + trial.seconds_for(until) > ends_at:
            return f"no time beyond {trial.tried}" if trial.steps else "no time for a pilot"
        best, pilot_s = self._best(trials), trial.expected_seconds_for(until)
        if best is None or best is trial or best.forecast.pilot is None:
            return ""
        rest_s = best.forecast.estimates["wall_s"].value - best.forecast.pilot.training_s
        if not best.has_ended and rest_s > pilot_s:
            return ""
        more = " further" if trial.steps else ""
        better = self.asking.named(best.way, best.start.source)
        return f"no{more} pilot: it would cost more than it may save over “{better}”"

    def _pilot(self, trial: Trial, steps: int) -> Row:
        """Make or continue the pilot of a way in this process."""
        start, forecast = trial.start, trial.forecast
        network, _ = self.asking.in_use.of(start.source, trial.job)
        known = KnownUpdate(network, trial.job, forecast.features, forecast.step_cost, forecast.overhead)
        name = self.asking.named(trial.way, start.source)
        pilot, state = start.source.passes.pilot(known, forecast, steps, self._begun(trial), name)
        return {"pilot": pilot, "state": state}

    def _task(self, trial: Trial, steps: int) -> ExperimentTask:
        """Return the pilot of a way as a task for another process; data and network are sent once for several ways."""
        start, job = trial.start, trial.job
        network, _ = self.asking.in_use.of(start.source, job)
        changes = {"recipe": job.recipe, "from_scratch": job.from_scratch, "parent": job.parent}
        return measured_task(
            trial.key,
            pilot_elsewhere,
            start.source.passes.meter,
            network=portable(network),
            job=start.job,
            changes={**changes, "fingerprint": trial.forecast.parent, "step_cost": trial.forecast.step_cost},
            steps=steps,
            begun=self._begun(trial),
            device=start.source.loader.device.type,
        )

    def _begun(self, trial: Trial) -> dict[str, Any] | None:
        """Return the state of the pilot that a way has; None if it has none, or none is here."""
        kept = kept_pilot(self.asking.history, trial.forecast)
        return None if kept is None else read_pilot(kept, trial.forecast)

    def _go_on(self, trial: Trial, row: Row) -> None:
        """Take the pilot of a way into its forecast, and keep both."""
        name = self.asking.named(trial.way, trial.start.source)
        with trial.start.source.loader.options.show_progress(f"{name}: forecasting"):
            forecast = after_pilot(trial.forecast, row["pilot"], trial.job, trial.start.updates)
        trial.forecast = priced(forecast, self.asking.tariff)
        keep_pilot(self.asking.history, trial.forecast, row["state"])
        self.asking.cache.write(trial.key, trial.forecast)
        trial.note = ""  # of an earlier round

    def _survivors(self, alive: Sequence[Trial], resting: Sequence[Trial]) -> tuple[list[Trial], list[Trial]]:
        """Return the better half of those that may arrive, and those that rest; others get a note.

        One that rested takes the place of one that has fallen behind it.
        """
        going = [trial for trial in alive if not trial.has_ended]
        hopeful = [trial for trial in going if trial.forecast.probability_reached >= _HOPELESS]
        for trial in going:
            if trial not in hopeful:
                trial.note = trial.note or f"{_DROPPED} after {trial.tried}: it would hardly arrive"
        waiting = [trial for trial in resting if trial not in alive]
        ranked = sorted([*hopeful, *waiting], key=self._promise)
        n = math.ceil(max(1, len(hopeful)) / 2)
        for trial in ranked[n:]:
            trial.note = trial.note or f"{_DROPPED} after {trial.tried}: others promise more"
        return ranked[:n], ranked[n:]

    def _promise(self, trial: Trial) -> tuple[bool, float]:
        """Return what sorts the more promising ways first: likely enough, then cheap; else by their chance."""
        likely = trial.forecast.probability_reached >= self.asking.level and not trial.is_extrapolated
        return not likely, trial.forecast.estimates["wall_s"].value if likely else -trial.forecast.probability_reached

    def _is_decided(self, trials: Sequence[Trial]) -> bool:
        return self._best(trials) is not None and not self._choose(trials)[1]

    def _best(self, trials: Sequence[Trial]) -> Trial | None:
        """Return the way that would be taken now, unless its chance is extrapolated."""
        chosen = self._choose(trials)[0]
        return next((each for each in trials if each.forecast.id == chosen and not each.is_extrapolated), None)

    def _choose(self, trials: Sequence[Trial]) -> tuple[str | None, tuple[str, ...], str | None, str]:
        tariff = self.asking.tariff
        options = with_known_prices([trial.option(tariff) for trial in trials], tariff)
        return choose(
            [each if each.is_extrapolated else dataclasses.replace(each, doubt="") for each in options],
            self.asking.level,
        )


def _beside(trials: Sequence[Trial], reading: EnergyReading) -> Spending:
    """Return what a question took beside what the records of some ways hold."""
    held = [trial.forecast.asking(continued=False) for trial in trials]
    rest_s = max(0.0, reading.wall_s - math.fsum(each.wall_s for each in held))
    known = [each.energy_kwh for each in held if each.energy_kwh is not None]
    if reading.energy_kwh is None or len(known) < len(held):
        return Spending(rest_s, energy_share(reading, rest_s))
    return Spending(rest_s, max(0.0, reading.energy_kwh - math.fsum(known)))


def _is_free(trial: Trial, trials: Sequence[Trial]) -> bool:
    """Return whether a way takes less than a second, or than the first pilot of a way of all layers.

    The head is one: its features are computed once, and its steps are small.
    """
    pilots_s = [_ROUNDS[0] * each.step_s for each in trials if each.way.rung == ALL and each.start is trial.start]
    return trial.job.max_steps * trial.step_s < max([_FREE_S, *pilots_s])


def _deserves_look(trial: Trial) -> bool:
    return trial.forecast.probability_reached >= _UNLIKELY and trial.seconds_for(_ROUNDS[0]) > _DEAR_S


@dataclass(frozen=True)
class _Round:
    """Pilots of a round: all ways, when the time is up, and by key what waits for its turn, was begun, was made."""

    trials: Sequence[Trial]
    ends_at: float
    waiting: dict[str, tuple[Trial, int]] = field(default_factory=dict)
    begun: set[str] = field(default_factory=set)
    made: dict[str, Row] = field(default_factory=dict)
