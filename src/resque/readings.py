"""What one question gives back: an index, an interval, a meter's reading, a grid. Frozen, units in the fields' names.

A field is None when it was not measured; zero means zero.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from resque.errors import SettingError

LARGEST_PUE = 10.0


@dataclass(frozen=True)
class Interval:
    """A prediction interval of a cost, or a confidence interval of an index.

    Attributes:
        low: Lower bound, in the unit of the value it belongs to.
        high: Upper bound; None when the history cannot bound it from above.
        level: Nominal coverage, e.g. 0.8.
        guarantee: What is promised of what, and under which condition.
    """

    low: float
    high: float | None
    level: float
    guarantee: str

    def __contains__(self, value: float) -> bool:
        return self.low <= value and (self.high is None or value <= self.high)


@dataclass(frozen=True)
class EnergyReading:
    """What a meter says of one window.

    Attributes:
        wall_s: Length of the window.
        energy_kwh: Sum of the components, None if any is unknown.
        components_kwh: Device → energy.
        methods: Device → ``measured``, ``modelled``, ``assumed``, or ``not told`` by the file that it is from.
        meter: The meter's name and settings.
        note: Why energy is None, or how it was obtained; empty where there is nothing to say.
    """

    wall_s: float
    energy_kwh: float | None
    components_kwh: Mapping[str, float]
    methods: Mapping[str, str]
    meter: str
    note: str = ""


@dataclass(frozen=True)
class Grid:
    """The electricity that a machine runs on.

    Attributes:
        region: ISO 3166 alpha-3 code, or ``"given"`` for an intensity named by the user.
        intensity_g_per_kwh: Carbon intensity, grams of CO2 equivalent per kWh, location based.
        source: Where the intensity comes from.
        pue: Power usage effectiveness of the site: what it draws in all for each kWh of the machine.
    """

    region: str
    intensity_g_per_kwh: float
    source: str
    pue: float = 1.0

    def __post_init__(self) -> None:
        if not 1.0 <= self.pue <= LARGEST_PUE:
            raise SettingError(
                f"power usage effectiveness (--pue) {self.pue:g}: expected 1 to {LARGEST_PUE:g}, e.g. 1.2"
            )

    @property
    def kg_per_kwh(self) -> float:
        """Emissions of a kWh of the machine, with the site's share."""
        return self.pue * self.intensity_g_per_kwh / 1000.0

    def carbon_kg(self, energy_kwh: float | None) -> float | None:
        """Emissions of that much energy of the machine, with the site's share; None for None.

        Example:
            >>> round(Grid("DEU", 400.0, "given", pue=1.5).carbon_kg(2.0), 9)
            1.2
        """
        return None if energy_kwh is None else energy_kwh * self.kg_per_kwh


@dataclass(frozen=True)
class Tariff:
    """What a run is paid for.

    Attributes:
        per_kwh: Price of a kWh.
        per_hour: Price of an hour of the machine.
        currency: Of both.
    """

    per_kwh: float = 0.0
    per_hour: float = 0.0
    currency: str = "EUR"

    def __post_init__(self) -> None:
        if not (0.0 <= self.per_kwh < math.inf and 0.0 <= self.per_hour < math.inf):
            raise SettingError(f"prices {self.per_kwh:g} per kWh and {self.per_hour:g} per hour: expected 0 or more")

    def price(self, energy_kwh: float | None, wall_s: float) -> float | None:
        """What that costs; None where energy is paid for and not known.

        Example:
            >>> Tariff(per_kwh=0.3, per_hour=2.0).price(0.5, 1800.0)
            1.15
        """
        if self.per_kwh and energy_kwh is None:
            return None
        return self.per_kwh * (energy_kwh or 0.0) + self.per_hour * wall_s / 3600.0


@dataclass(frozen=True)
class Index:
    """A RESQUE index, which never travels without its unit and how it was made.

    Attributes:
        value: The index.
        unit: ``"rad"`` or ``"pi"`` (fractions of pi).
        per_class: Label → angle of that class, None where undefined and skipped.
        reduction: How a representation was made flat: ``flatten``, ``mean`` or ``token-mean``.
        layer: Name of the module whose output is the representation.
        labels: ``"true"`` or ``"pseudo"`` (the model's own predictions), for the shifted side.
        n_original: Samples on the original side.
        n_shifted: Samples on the shifted side.
        interval: Confidence interval, None where samples are too few to tell; its ``guarantee`` says of what.
        floor: What the index would be at these two sizes without any shift, None where it cannot be told.
        debiased: Whether the angle that sampling noise adds was taken out.
        sub_sums: G, the independent sums per class that floor, interval and correction rest on.
        labels_original: As ``labels``, for the original side.
        skipped: Classes without an angle, left out of the mean.
    """

    value: float
    unit: str
    per_class: Mapping[int, float | None]
    reduction: str
    layer: str
    labels: str
    n_original: int
    n_shifted: int
    interval: Interval | None = None
    floor: float | None = None
    debiased: bool = False
    sub_sums: int = 2
    labels_original: str = "true"
    skipped: int = 0


@dataclass(frozen=True)
class TaskAsking:
    """What it took to ask for RESQUE_task: the warm-up on the new task, the pass and the clustering.

    Attributes:
        head: ``"new"``, or ``"widened"`` where the old classes stayed.
        outputs: Classes of that head.
        recipe: How the warm-up trained.
        steps: Its optimizer steps.
        epochs: Its share of a pass over the data.
        accuracy: On that data after the warm-up, from the same pass.
        warm_up_s: Seconds of training.
        pass_s: Seconds of the forward pass (two where samples go to the nearest class mean).
        clustering_s: Seconds of clustering and index.
        energy: The meter's reading of all of it.
        carbon_kg: Its emissions, None without a region or without energy.
    """

    head: str
    outputs: int
    recipe: Mapping[str, Any]
    steps: int
    epochs: float
    accuracy: float
    warm_up_s: float
    pass_s: float
    clustering_s: float
    energy: EnergyReading
    carbon_kg: float | None


@dataclass(frozen=True)
class TaskIndex:
    """RESQUE_task, and how it was made.

    Attributes:
        value: One minus the adjusted Rand index; 0 is best, 1 what chance gives, and more is possible.
        unit: ``"1 - ARI"``.
        init: How the clustering began.
        lloyd: Whether Lloyd's iterations ran, or samples went to the nearest class mean once.
        reduction: How a representation was made flat.
        n: Samples.
        classes: Classes, which is also the number of clusters.
        layer: Name of the module whose output is the representation, empty for plain arrays.
        keep: Which of the random clusterings counts, empty where there are none.
        by_init: Start → index, where all three were asked for.
        agreement: Pair of starts → adjusted Rand index of their clusterings, where all three were asked for.
        cost_of_asking: None for plain arrays.
    """

    value: float
    unit: str
    init: str
    lloyd: bool
    reduction: str
    n: int
    classes: int
    layer: str = ""
    keep: str = ""
    by_init: Mapping[str, float] = dataclasses.field(default_factory=dict)
    agreement: Mapping[str, float] = dataclasses.field(default_factory=dict)
    cost_of_asking: TaskAsking | None = None
