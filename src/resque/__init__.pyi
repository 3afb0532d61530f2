from . import errors as errors
from . import indices as indices
from .data.dataset import LabeledDataset as LabeledDataset
from .data.loading import load_data as load_data
from .energy.grid import Grid as Grid
from .energy.grid import named_grid as named_grid
from .energy.meters import (
    ClockMeter as ClockMeter,
)
from .energy.meters import (
    CodecarbonMeter as CodecarbonMeter,
)
from .energy.meters import (
    EnergyMeter as EnergyMeter,
)
from .energy.meters import (
    open_meter as open_meter,
)
from .energy.price import Tariff as Tariff
from .energy.reading import EnergyReading as EnergyReading
from .errors import ResqueError as ResqueError
from .forecasting.forecaster import forecast_from_features as forecast_from_features
from .indices.compute_profile import profile as profile
from .indices.distribution import resque_dist as resque_dist
from .indices.profile import Profile as Profile
from .indices.results import DistributionIndex as DistributionIndex
from .indices.results import TaskIndex as TaskIndex
from .indices.task import resque_task as resque_task
from .indices.task_features import TaskIndexSettings as TaskIndexSettings
from .indices.task_features import task_index as task_index
from .indices.torchmetrics_wrappers import ProfileMetric as ProfileMetric
from .indices.torchmetrics_wrappers import TaskMetric as TaskMetric
from .ledger.records import (
    Cost as Cost,
)
from .ledger.records import (
    Features as Features,
)
from .ledger.records import (
    Forecast as Forecast,
)
from .ledger.records import (
    LearningCurve as LearningCurve,
)
from .ledger.records import (
    Update as Update,
)
from .ledger.store import Ledger as Ledger
from .models.loading import load_model as load_model
from .training.cost_tracking import gradient_norm as gradient_norm
from .training.cost_tracking import parameter_change as parameter_change
from .training.from_scratch import compare_with_scratch as compare_with_scratch
from .training.job import RetrainingJob as RetrainingJob
from .training.probe import probe as probe
from .training.recipe import Recipe as Recipe
from .training.retrain import retrain as retrain
from .training.stopping import stop_epoch as stop_epoch
from .types import Interval as Interval
from .workflows.recording import record as record

__version__: str
