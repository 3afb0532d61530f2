"""What forward passes, a probe and a pilot tell of an update before it is done."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from torch import nn

from resque._format import format_count
from resque.data.dataset import LabeledDataset
from resque.data.random_access import IndexedDataset
from resque.energy.meters import EnergyMeter
from resque.energy.reading import EnergyReading, join_readings
from resque.errors import SettingError
from resque.forecasting.landmarking import ForecastReviser
from resque.forecasting.pilot import forecast_after_pilot
from resque.indices.profile import Profile
from resque.indices.results import DistributionIndex, Sampling
from resque.indices.sampled_dist import SamplingOptions
from resque.indices.shift_features import shift_features
from resque.ledger.records import Features, Forecast, Pilot, StepCost, Update
from resque.models.batchnorm import has_running_statistics
from resque.training.evaluation import check_data_fits_model
from resque.training.job import RetrainingJob
from resque.training.new_task import forgetting_risk, prepare_new_task
from resque.training.pilot import run_pilot
from resque.training.probe import forecast_overhead, probe
from resque.training.recipe import recipe_to_dict
from resque.training.run import RunProgress, RunSettings
from resque.workflows.comparison_cache import ComparisonCache, content_key, model_content
from resque.workflows.engine import Engine, LocalEngine
from resque.workflows.inputs import InputLoader, is_profile
from resque.workflows.measured_tasks import measured_task, probe_elsewhere
from resque.workflows.sampling import sampled_index
from resque.workflows.scoring import portable

__all__ = ["WAITING", "KnownUpdate", "Passes", "after_pilot"]

WAITING = "imports, loading, evaluations and fits"
"""What a question takes beside its measured windows."""


@dataclass(frozen=True)
class KnownUpdate:
    """What is known of an update before it is done, and what it took to know it."""

    network: nn.Module
    job: RetrainingJob
    features: Features
    step_cost: StepCost
    overhead: EnergyReading
    risk: str | None = None
    sampling: Sampling | None = None
    original: LabeledDataset | None = None
    """Data before the shift, where they are in memory."""


@dataclass(frozen=True)
class Passes:
    """How the features of an update are computed."""

    loader: InputLoader
    meter: EnergyMeter
    layer: str | None
    reduction: str | None
    precision: str | float | None = None
    engine: Engine = field(default_factory=LocalEngine)
    """Where probes run; the local one measures in this process."""
    cache: ComparisonCache | None = None
    """Features that earlier questions have computed; None computes them in any case."""

    def over_shift(self, job: RetrainingJob, original: Any, labels: str) -> KnownUpdate:
        """Compute the features of a shift."""
        network = self.loader.network(job.train, job.seed)
        check_data_fits_model(network, job.train)
        check_data_fits_model(network, job.test)
        if job.recipe.replay and job.replayed is not None:
            check_data_fits_model(network, job.replayed)
        if self.precision is None and original is not None and not is_profile(original):
            original = self.loader.passed(original)
        before = original if isinstance(original, LabeledDataset) else None
        key = self._key(network, job, original, labels)
        features, sampling, passes_s = self._kept(key), None, 0.0
        if features is None:
            features, sampling, passes_s = self._pass_shift(network, job, original, labels)
            self._keep(key, features)
        step_cost = self.probe(network, job)
        overhead = forecast_overhead(passes_s, step_cost)
        return KnownUpdate(network, job, features, step_cost, overhead, sampling=sampling, original=before)

    def _pass_shift(
        self, network: nn.Module, job: RetrainingJob, original: Any, labels: str
    ) -> tuple[Features, Sampling | None, float]:
        """Pass original and new data; return the features, how the index was sampled, and the seconds."""
        profile, sampled = None, None
        if self.precision is not None and original is not None:
            profile, sampled = self._sampled(network, job, original, labels)
        elif original is None and (self.layer, self.reduction) != (None, None):
            self.loader.check_profile(network, job.train, self.layer, self.reduction)
        elif original is not None:
            profile = self.loader.original_profile(network, original, self.layer, self.reduction)
        with self.loader.options.show_progress("passing the new data"):
            features, _, passes_s = shift_features(network, job, profile, labels, sampled)
        sampling = None if sampled is None else sampled.sampling
        return features, sampling, passes_s + (0.0 if sampling is None else sampling.pass_s)

    def _key(self, network: nn.Module, job: RetrainingJob, original: Any, *more: object) -> str | None:
        """Return the name of features in the cache, by content; None where they depend on more than that.

        Args:
            network: Model as it is now.
            job: The update; its data count, and its seed.
            original: Data before the shift, or None.
            more: Further settings that the features depend on.
        """
        is_content = original is None or isinstance(original, LabeledDataset)
        if self.cache is None or self.precision is not None or not is_content:
            return None
        data = [(each.digest, each.preprocessing) for each in (job.train, job.test, original) if each is not None]
        places = self.layer, self.reduction, job.seed
        return f"features-{content_key(*model_content(network, job.train), *data, *places, *more)}"

    def _kept(self, key: str | None) -> Features | None:
        return None if self.cache is None or key is None else self.cache.read(key, Features)

    def _keep(self, key: str | None, features: Features) -> None:
        if self.cache is not None and key is not None:
            self.cache.write(key, features)

    def _sampled(
        self, network: nn.Module, job: RetrainingJob, original: Any, labels: str
    ) -> tuple[Profile | None, DistributionIndex]:
        """Return the profile of the original data, if it is known or needed in full, and the index from a sample.

        A network without batch normalization is adapted by sums over the channels on all of the original data.
        """
        profile = None
        if is_profile(original) or not has_running_statistics(network):
            profile = self.loader.original_profile(network, original, self.layer, self.reduction)
        undefined = "skip" if labels == "pseudo" else "error"
        options = SamplingOptions(self.precision or "", labels, self.layer, self.reduction, undefined=undefined)
        new = IndexedDataset.of(job.train)
        return profile, sampled_index(self.loader, network, original if profile is None else profile, new, options)

    def over_new_task(self, job: RetrainingJob, extend: bool) -> KnownUpdate:
        """Compute the features of a new task; the model and the job of the result have the new head."""
        network, warm_up = self.loader.network(None, job.seed), []
        key = self._key(network, job, None, extend, recipe_to_dict(job.recipe))
        features = self._kept(key)
        if features is None:
            places = extend, self.layer, self.reduction, self.meter
            features, reading = self.loader.new_task_features(network, job, *places)
            warm_up.append(reading)
            self._keep(key, features)
        risk = forgetting_risk(network, job) if extend else None
        network, job = prepare_new_task(network, job, extend)
        step_cost = self.probe(network, job)
        return KnownUpdate(network, job, features, step_cost, join_readings([*warm_up, step_cost.reading]), risk)

    def pilot(
        self,
        known: KnownUpdate,
        forecast: Forecast,
        steps: int,
        begun: Mapping[str, Any] | None = None,
        of: str = "",
    ) -> tuple[Pilot, dict[str, Any]]:
        """Train the first steps of the update; return the pilot, and the state to go on from.

        Args:
            known: Knowledge of the update from passes and probe.
            forecast: Forecast before its pilot.
            steps: Steps of the pilot.
            begun: State of a shorter pilot, which goes on.
            of: Name of the way that is tried, for its progress; empty where there is one alone.
        """
        name = f"{of}: first" if of else "pilot of"
        with self.loader.options.show_progress(f"{name} {format_count(steps, 'step')}") as show:

            def on_progress(at: RunProgress) -> None:
                show(at.step, steps, f"accuracy {at.accuracy:.4f}")

            settings = RunSettings(self.meter, known.step_cost, on_progress=on_progress)
            return run_pilot(known.network, known.job, steps, forecast.parent, settings, begun)

    def probe(self, network: nn.Module, job: RetrainingJob) -> StepCost:
        """Measure the cost of a step of a job on a copy of its network."""
        with self.loader.options.show_progress("measuring a training step"):
            if isinstance(self.engine, LocalEngine):
                return probe(network, job.trained_on, job.recipe, self.meter)
            arguments = {"network": portable(network), "data": job.trained_on, "recipe": job.recipe}
            task = measured_task("probe", probe_elsewhere, self.meter, **arguments, device=self.loader.device.type)
            ((_, row),) = self.engine.run([task])
        if "error" in row:
            raise SettingError(
                f"the probe of {self.loader.name} was {row['error']}; start again, and the others are kept"
            )
        return cast(StepCost, row["step_cost"])


def after_pilot(forecast: Forecast, pilot: Pilot, job: RetrainingJob, history: Sequence[Update]) -> Forecast:
    """Return a forecast as its pilot changes it.

    Args:
        forecast: Forecast before its pilot.
        pilot: Its pilot.
        job: Job of the update.
        history: The user's own finished updates.
    """
    ended = pilot.stopped_by is not None
    revision = None if ended else ForecastReviser.of_forecast(forecast, history, job)(pilot.curve)
    return forecast_after_pilot(forecast, pilot, revision, job, history)
