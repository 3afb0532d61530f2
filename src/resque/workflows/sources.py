"""The models that a comparison starts from: loaded one at a time, scored and asked for features by forward passes."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from resque.energy.meters import EnergyMeter, open_meter
from resque.forecasting.scored_models import ScoredModel
from resque.models.loading import is_untrained
from resque.models.model_card import ModelCard, read_model_card
from resque.models.weights import fingerprint
from resque.training.job import RetrainingJob
from resque.training.new_task import EXTENSION, prepare_new_task
from resque.training.recipe import Recipe
from resque.workflows.candidates import Candidate
from resque.workflows.comparison_cache import ComparisonCache, content_key, model_content
from resque.workflows.engine import Engine, LocalEngine
from resque.workflows.inputs import InputLoader, ModelOptions, is_profile
from resque.workflows.keeping import check_fields
from resque.workflows.passes import KnownUpdate, Passes
from resque.workflows.restoring import inputs_of
from resque.workflows.scoring import ToScore
from resque.workflows.ways import REPLAY

__all__ = ["ComparisonRequest", "OneNetwork", "Source"]

_SAMPLES = 2000  # of the first round


@dataclass(frozen=True, eq=False)
class ComparisonRequest:
    """What a comparison asks of each model. The attributes are arguments of :func:`resque.compare`.

    Attributes:
        change: ``"shift"``, ``"new task"`` or ``"extension"``.
    """

    train: Any
    test: Any
    target_accuracy: float
    recipe: Recipe
    original: Any = None
    original_test: Any = None
    change: str = "shift"
    shift_type: str | None = None
    seed: int = 0
    layer: str | None = None
    reduction: str | None = None
    meter: EnergyMeter | None = None
    options: ModelOptions = field(default_factory=ModelOptions)
    precision: str | float | None = None
    engine: Engine = field(default_factory=LocalEngine)
    cache: ComparisonCache | None = None
    """Features that earlier questions have computed; None computes them in any case."""

    @property
    def is_new_task(self) -> bool:
        """Whether the model gets a new or a wider head."""
        return self.change != "shift"

    @property
    def share(self) -> float:
        """Share of old data that ways mix in: the recipe's; an extension whose old data are named needs some."""
        is_mixed = self.change == EXTENSION and self.original is not None
        return self.recipe.replay or (REPLAY if is_mixed else 0.0)


class Source:
    """A model that a comparison starts from; its network is built anew whenever it is asked for.

    Args:
        candidate: The model as it is named.
        question: Update that is asked for.
        name: Name in the comparison; None takes the candidate's.
    """

    def __init__(self, candidate: Candidate, question: ComparisonRequest, name: str | None = None) -> None:
        self.candidate, self.question, self.name = candidate, question, name or candidate.name
        options = dataclasses.replace(question.options, weights=candidate.weights)
        self.loader = InputLoader(candidate.model, options, question.change)
        self.passes = Passes(
            self.loader,
            question.meter or open_meter(self.loader.device),
            question.layer,
            question.reduction,
            question.precision,
            question.engine,
            question.cache,
        )

    @property
    def extends(self) -> bool:
        """Whether the head is widened."""
        return self.question.change == EXTENSION

    def known(self) -> KnownUpdate:
        """Load the data, and compute the features of the update by its recipe."""
        asked, loader = self.question, self.loader
        job = loader.job(
            asked.train,
            asked.test,
            asked.target_accuracy,
            dataclasses.replace(asked.recipe, replay=asked.share),
            original=asked.original if asked.share else None,
            original_test=asked.original_test,
            seed=asked.seed,
        )
        job = dataclasses.replace(job, shift_type=asked.shift_type, replayed=job.replayed or self._data_to_mix_in())
        check_fields({"train_data": job.train.name, "test_data": job.test.name})
        if asked.is_new_task:
            return self.passes.over_new_task(job, self.extends)
        return self.passes.over_shift(job, asked.original, "true")

    def inputs(self) -> dict[str, Any]:
        """Return the names by which an update of this model can be asked for."""
        names = "train", "test", "original", "original_test", "layer", "reduction", "seed"
        return inputs_of(self.loader, **{name: getattr(self.question, name) for name in names})

    def network(self, job: RetrainingJob) -> tuple[nn.Module, str]:
        """Return the network of a job, and the fingerprint of the model before it got a head for a new task.

        From scratch it has random weights; an untrained model that learns a new task has its own.

        Raises:
            ModelError: It cannot be built, or there are no random weights for it.
        """
        network = self._base(job)
        if job.from_scratch and not (self.question.is_new_task and self.is_untrained(network)):
            network = self.loader.random_networks(network, job.seed)(job.seed)
        parent = fingerprint(network)
        return (prepare_new_task(network, job, self.extends)[0] if self.question.is_new_task else network), parent

    def starts_untrained(self, job: RetrainingJob) -> bool:
        """Return whether the model of a job has random weights, so that learning is training from scratch."""
        return self.is_untrained(self._base(job))

    def is_untrained(self, network: nn.Module) -> bool:
        """Return whether a model has the random weights that its specification gives, as far as can be told."""
        return self.loader.spec is not None and is_untrained(self.loader.spec, network, self.question.seed)

    def scored(self, cache: ComparisonCache) -> ScoredModel:
        """Return what forward passes tell of the model; from the cache for a model and data that are known there."""
        key, subject = self.to_score()
        if (known := cache.read(key, ScoredModel)) is not None:
            return self.described(known)
        with self.loader.options.show_progress(f"scoring {self.name}"):
            scored = subject.score(self.name, self.loader)
            return self.keep_scores(cache, key, scored, not self.is_untrained(subject.network))

    def to_score(self) -> tuple[str, ToScore]:
        """Load what is passed to score the model; return the key of its scores in the cache with it."""
        asked = self.question
        data = self.loader.data(asked.train).limited(_SAMPLES, asked.seed)
        network = self.loader.network(None if asked.is_new_task else data, asked.seed)
        original = None if asked.original is None or is_profile(asked.original) else self._original()
        places = asked.layer, asked.reduction, asked.is_new_task, asked.seed
        sets = data.digest, data.preprocessing, original and original.digest
        key = "scores-" + content_key(*model_content(network, data), *sets, *places)
        return key, ToScore(network, data, original, asked.is_new_task, asked.layer, asked.reduction)

    def keep_scores(self, cache: ComparisonCache, key: str, scored: ScoredModel, is_trained: bool) -> ScoredModel:
        """Write new scores to the cache, and return them as a row."""
        cache.write(key, scored := dataclasses.replace(scored, is_trained=is_trained))
        return self.described(scored)

    def described(self, scored: ScoredModel) -> ScoredModel:
        """Return scores with the name of the model and what is stated of it."""
        card = self._card()
        return dataclasses.replace(
            scored,
            model=self.name,
            license=card.license,
            limitations=card.limitations,
            license_price=self.candidate.license_price,
        )

    def _card(self) -> ModelCard:
        card = ModelCard() if self.loader.spec is None else read_model_card(self.loader.spec)
        given = self.candidate
        return ModelCard(given.license or card.license, given.limitations or card.limitations)

    def _base(self, job: RetrainingJob) -> nn.Module:
        return self.loader.network(None if self.question.is_new_task else job.train, job.seed)

    def _original(self) -> Any:
        return self.loader.data(self.question.original, for_training=False)

    def _data_to_mix_in(self) -> Any:
        """Return labeled original data; None for a profile, or without labels."""
        original = self.question.original
        if original is None or is_profile(original):
            return None
        data = self._original()
        return self.loader.numbered(data) if data.labeled else None


class OneNetwork:
    """The network that is in use: of several models, one at a time is in memory."""

    def __init__(self) -> None:
        self._key: tuple[Source, bool] | None = None
        self._held: tuple[nn.Module, str] | None = None

    def hold(self, source: Source, from_scratch: bool, network: nn.Module, parent: str) -> None:
        """Take a network in place of the one before."""
        self._key, self._held = (source, from_scratch), (network, parent)

    def clear(self) -> None:
        """Let go of the network."""
        self._key = self._held = None

    def of(self, source: Source, job: RetrainingJob) -> tuple[nn.Module, str]:
        """Return the network of a job and its parent's fingerprint; it is built if another one was in use."""
        if self._held is None or self._key != (source, job.from_scratch):
            self.clear()
            self.hold(source, job.from_scratch, *source.network(job))
        assert self._held is not None
        return self._held
