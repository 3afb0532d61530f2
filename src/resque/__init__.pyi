from . import errors as errors, indices as indices
from .data.dataset import LabeledDataset as LabeledDataset
from .data.loading import load_data as load_data
from .data.preprocessing import ImagePreprocessing as ImagePreprocessing, Tokenization as Tokenization
from .data.shards import Shard as Shard
from .data.shifts import Shift as Shift
from .data.streams import DataStream as DataStream, open_stream as open_stream
from .energy.grid import Grid as Grid, named_grid as named_grid
from .energy.meters import (
    ClockMeter as ClockMeter,
    CodecarbonMeter as CodecarbonMeter,
    EnergyMeter as EnergyMeter,
    Window as Window,
    open_meter as open_meter,
)
from .energy.price import Spending as Spending, Tariff as Tariff
from .energy.reading import EnergyReading as EnergyReading
from .errors import ResqueError as ResqueError
from .forecasting.break_even import BreakEven as BreakEven
from .forecasting.comparison import Comparison as Comparison, Option as Option
from .forecasting.budget import Budget as Budget, Decision as Decision, decide as decide
from .forecasting.drift import Drift as Drift
from .forecasting.scored_models import ScoredModel as ScoredModel
from .forecasting.forecaster import forecast_from_features as forecast_from_features
from .indices.class_report import ClassErrors as ClassErrors, ClassReport as ClassReport
from .forecasting.plan import (
    Cadence as Cadence,
    Plan as Plan,
    PlanWindow as PlanWindow,
    UpdateLater as UpdateLater,
    UpdateNow as UpdateNow,
)
from .indices.compute_profile import profile as profile
from .indices.distribution import resque_dist as resque_dist
from .indices.angles import SplitHalves as SplitHalves
from .indices.class_sums import ClassSums as ClassSums, ScratchBuffer as ScratchBuffer
from .indices.merging import merge as merge
from .indices.profile import Origin as Origin, Profile as Profile
from .indices.results import (
    DistributionIndex as DistributionIndex,
    Sampling as Sampling,
    TaskIndex as TaskIndex,
    TaskIndexOverhead as TaskIndexOverhead,
)
from .indices.task import resque_task as resque_task
from .indices.task_features import TaskIndexSettings as TaskIndexSettings, task_index as task_index
from .indices.task_table import TaskTable as TaskTable, score_tasks as score_tasks
from .indices.torchmetrics_wrappers import ProfileMetric as ProfileMetric, TaskMetric as TaskMetric
from .ledger.records import (
    Cost as Cost,
    Estimate as Estimate,
    Features as Features,
    Forecast as Forecast,
    ForecastRevision as ForecastRevision,
    LearningCurve as LearningCurve,
    MissingLabels as MissingLabels,
    Pilot as Pilot,
    Question as Question,
    StepCost as StepCost,
    Update as Update,
    Void as Void,
)
from .ledger.store import Ledger as Ledger
from .models.loading import load_model as load_model
from .training.checkpoint import Checkpoint as Checkpoint
from .training.cost_tracking import gradient_norm as gradient_norm, parameter_change as parameter_change
from .training.from_scratch import (
    CostRatio as CostRatio,
    ScratchComparison as ScratchComparison,
    compare_with_scratch as compare_with_scratch,
)
from .training.job import RetrainingJob as RetrainingJob
from .training.probe import probe as probe
from .training.recipe import Recipe as Recipe
from .training.retrain import retrain as retrain
from .training.run import RunProgress as RunProgress
from .training.stopping import stop_epoch as stop_epoch
from .types import Interval as Interval
from .workflows.calibrate import calibrate as calibrate
from .workflows.candidates import Candidate as Candidate
from .workflows.compare import compare as compare
from .workflows.explain import explain as explain
from .workflows.forecast import forecast as forecast
from .workflows.inputs import ModelOptions as ModelOptions
from .workflows.plan import plan as plan
from .workflows.recording import Recording as Recording, record as record
from .workflows.sampling import sampled_dist as sampled_dist
from .workflows.update import update as update

__version__: str
