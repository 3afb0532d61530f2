"""Presets of the studies, as data: models, datasets, shifts, tasks, recipes, targets and seeds."""

import dataclasses
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from resque.data.shifts import SHIFT_TYPES

FASHION = os.environ.get("FASHION_MNIST", "/usr/share/datasets/fashion-mnist")
GLYPHS, PHOTOGRAPHS = "studies/cache/glyphs", "studies/cache/photographs"
NETWORKS = "studies/networks.py"
NOISES = ("gaussian", "blur", "salt_pepper")
WRONG_LABELS = ("relabel", "pair_flip")
LEVELS = tuple(range(1, 11))
BALANCED_LEVELS = (10, 2, 6, 4, 8, 1, 9, 3, 7, 5)
"""All levels in an order that is balanced wherever it is cut off."""
PILOT_SEEDS = (100,)
PAPER_FORMS = ((None, "flatten"), (None, "mean"), ("penultimate", "flatten"))


@dataclass(frozen=True)
class Shifted:
    """One condition of a shift.

    Attributes:
        shift_type: Type of the shift.
        level: Level of the shift; for renderings only a number.
        train: Specification of the training data.
        test: Specification of the held-out test data.
    """

    shift_type: str
    level: int
    train: str
    test: str


@dataclass(frozen=True)
class ShiftStudy:
    """Retrainings of one network on one data set for many shifts.

    Attributes:
        name: Name of the study and of its file of rows.
        train: Training data; the original model is trained on their part ``@original``.
        test: Held-out test data without a shift.
        model: Specification of the model, with random weights.
        clean_recipe: Recipe of the original training.
        clean_accuracy: Accuracy at which the original training ends.
        recipe: Recipe of the retrainings.
        targets: Early, middle and late target; a run ends at the late one, the others are read off its curve. A
            negative target is a difference from the accuracy of the original model on unshifted test data.
        shifts: Conditions of the study.
        seeds: Seeds of the original model and of its retrainings.
        forms: Layer and reduction of each form of the index; the first is the paper's.
        sizes: Numbers of shifted samples for which the index is computed, besides all of them.
        originals: Name of the study whose original models are used; empty for models of its own.
        scratch: ``(shift type, level)`` of the conditions that are also trained from scratch.
        separate_scores: Whether the scores of the batch-norm-adapted model have a file of their own, as in the
            studies that began without them.
        candidates: Whether rows hold the candidate predictors; such a study has one form of the index.
    """

    name: str
    train: str
    test: str
    model: str
    clean_recipe: str
    clean_accuracy: float
    recipe: str
    targets: tuple[float, float, float]
    shifts: tuple[Shifted, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    forms: tuple[tuple[str | None, str], ...] = PAPER_FORMS
    sizes: tuple[int, ...] = ()
    originals: str = ""
    scratch: tuple[tuple[str, int], ...] = ()
    separate_scores: bool = False
    candidates: bool = False


@dataclass(frozen=True)
class TaskStudy:
    """Every task learned by the models of all other tasks, and by a model with random weights.

    Attributes:
        name: Name of the study and of its file of rows.
        model: Specification of the model, with random weights.
        tasks: Name → training and test data.
        clean_recipe: Recipe of the original trainings.
        recipe: Recipe of the new task.
        sources: Tasks to start from; ``""`` is a model with random weights, trained by the same recipe.
        cutoffs: Task → target accuracies, early to late; tasks without any are only sources.
        seeds: Seeds of the original model and of its retrainings.
        way: Settings of the recipe by which tasks are learned another way than all layers at the usual rate; its rows
            have only what the bundled history needs. The epoch before it is by the recipe, as in a comparison.
        originals: Name of the study whose original models are used; empty for models of its own.
        per_task: Number of sources of each task; None for all.
    """

    name: str
    model: str
    tasks: Mapping[str, tuple[str, str]]
    clean_recipe: str
    recipe: str
    sources: tuple[str, ...]
    cutoffs: Mapping[str, tuple[float, float, float]]
    seeds: tuple[int, ...] = (0, 1, 2)
    way: str = ""
    originals: str = ""
    per_task: int | None = None

    def sources_of(self, target: str) -> tuple[str, ...]:
        """Return the sources of a task; of a number per task, those that follow it in the list."""
        if self.per_task is None:
            return tuple(source for source in self.sources if source != target)
        at = self.sources.index(target) + 1
        return (*self.sources[at:], *self.sources[: at - 1])[: self.per_task]


@dataclass(frozen=True)
class Preset:
    """Studies of one size.

    Attributes:
        shifts: Studies of shifts.
        tasks: Studies of tasks.
        block: Number of runs after which it is the next study's turn, so that a run that is cut off has about the same
            conditions of each study; 0 does one study after the other. Studies of tasks come last, whole.
        originals: Preset whose original models are used; empty for models of its own.
    """

    shifts: tuple[ShiftStudy, ...] = ()
    tasks: tuple[TaskStudy, ...] = field(default=())
    block: int = 0
    originals: str = ""


def conditions_by_level(
    train: str, test: str, shift_types: tuple[str, ...], levels: tuple[int, ...]
) -> tuple[Shifted, ...]:
    """Return each shift type at each level; the test data are shifted too, unless the shift makes labels wrong."""
    return tuple(
        Shifted(
            name, level, f"{train}@shifted+{name}:{level}", test if name in WRONG_LABELS else f"{test}+{name}:{level}"
        )
        for name in shift_types
        for level in levels
    )


def mixtures(train: str, test: str, shifts: tuple[str, ...]) -> tuple[Shifted, ...]:
    """Return conditions in which each sample has one of several shifts, or none."""
    shift_types = ("/".join(part.split(":")[0] for part in mixture.split("/")) for mixture in shifts)
    return tuple(
        Shifted(shift_type, number, f"{train}@shifted+{mixture}", f"{test}+{mixture}")
        for number, (shift_type, mixture) in enumerate(zip(shift_types, shifts, strict=True), start=1)
    )


def describe(study: ShiftStudy) -> str:
    """Describe a study in one paragraph."""
    relative = " Targets are differences from the original model's accuracy." if study.targets[0] < 0.0 else ""
    return (
        f"**{study.name}**: `{study.model}`, original training on `{study.train}@original` by `{study.clean_recipe}` "
        f"to {study.clean_accuracy:g}, retraining by `{study.recipe}`, tested on `{study.test}`, which is shifted too; "
        f"{len(study.shifts)} conditions × {len(study.seeds)} seeds.{relative}"
    )


def idx(part: str) -> str:
    """Return the specification of Fashion-MNIST's ``train`` or ``t10k``, as in Debian's dataset-fashion-mnist."""
    return f"idx:{FASHION}/{part}-images-idx3-ubyte.gz,{FASHION}/{part}-labels-idx1-ubyte.gz"


def glyphs(name: str, style: str, part: str) -> str:
    """Return the specification of one alphabet in one style, rendered by ``studies/glyphs.py``."""
    return f"npz:{GLYPHS}/{name}-{style}-{part}.npz"


DIGITS = ("digits@16px@train", "digits@16px@test")
FASHION_SMALL = (f"{idx('train')}@4000", f"{idx('t10k')}@2000")
UPPER = (glyphs("upper", "sans", "train"), f"{glyphs('upper', 'sans', 'test')}@1000")
OTHERS = ("rotation", "contrast", "jpeg", "bit_depth", "relabel", "imbalance")
STYLES = ("bold", "mono", "serif", "italic")

FASHION_STUDY = ShiftStudy(
    name="fashion",
    train=FASHION_SMALL[0],
    test=FASHION_SMALL[1],
    model=f"{NETWORKS}:small_resnet",
    clean_recipe="train-adam,max_epochs=30",
    clean_accuracy=0.81,
    recipe="retrain-adam,evaluate_every=1,evaluate_growth=0.15,max_epochs=20",
    targets=(0.76, 0.78, 0.8),
    shifts=(
        *conditions_by_level(*FASHION_SMALL, NOISES, LEVELS),
        *conditions_by_level(*FASHION_SMALL, OTHERS, (2, 5, 8, 10)),
        *mixtures(
            *FASHION_SMALL,
            (
                "gaussian:8/none",
                "blur:10/none",
                "gaussian:6/blur:8/salt_pepper:6",
                "rotation:5/contrast:10/none",
                "gaussian:5/none",
                "gaussian:10/none",
                "blur:7/none",
                "salt_pepper:8/none",
                "gaussian:3/blur:5/salt_pepper:3",
                "rotation:8/contrast:8/none",
            ),
        ),
        *conditions_by_level(*FASHION_SMALL, ("rotation",), (1, 3)),
        *conditions_by_level(*FASHION_SMALL, ("contrast",), (4, 7)),
        *conditions_by_level(*FASHION_SMALL, ("exchange",), (2, 5, 8, 10)),
    ),
    forms=(*PAPER_FORMS, ("layer1.0.conv2", "mean"), ("layer2.0.conv2", "mean")),
    sizes=(300, 1000),
    scratch=tuple(("gaussian", level) for level in (2, 4, 6, 8, 10)),
    separate_scores=True,
)
GLYPHS_STUDY = ShiftStudy(
    name="glyphs",
    train=UPPER[0],
    test=UPPER[1],
    model=f"{NETWORKS}:small_vgg",
    clean_recipe="train-adam,max_epochs=30",
    clean_accuracy=0.96,
    recipe="retrain-adam,evaluate_every=2,evaluate_growth=0.2,max_epochs=12",
    targets=(0.9, 0.93, 0.95),
    shifts=(
        *conditions_by_level(*UPPER, NOISES, (2, 4, 6, 8, 10)),
        *(
            Shifted(
                "rendering",
                number,
                f"{glyphs('upper', style, 'train')}@shifted",
                f"{glyphs('upper', style, 'test')}@1000",
            )
            for number, style in enumerate(STYLES, start=1)
        ),
    ),
    separate_scores=True,
)
DIGITS_STUDY = ShiftStudy(
    name="digits",
    train=DIGITS[0],
    test=DIGITS[1],
    model=f"{NETWORKS}:small_vit",
    clean_recipe="train-sgd,max_epochs=60",
    clean_accuracy=0.9,
    recipe="retrain-sgd,evaluate_every=2,evaluate_growth=0.2,max_epochs=80",
    targets=(0.7, 0.75, 0.8),
    shifts=conditions_by_level(*DIGITS, NOISES, (1, 2, 3, 5, 7)),
    forms=((None, "flatten"), (None, "token-mean"), ("penultimate", "flatten")),
    separate_scores=True,
)
COLOR_ONLY = ("desaturate", "saturate")
TWINS = {
    "gaussian_noise": "gaussian",
    "impulse_noise": "salt_pepper",
    "gaussian_blur": "blur",
    "low_contrast": "contrast",
    "jpeg_compression": "jpeg",
}
"""Published corruption → shift type that it nearly repeats; in two halves of the kinds, one would tell of the other."""
KINDS = tuple(name for name in SHIFT_TYPES if name not in (*COLOR_ONLY, *TWINS.values()))
"""Every shift type that changes gray images, once."""
KIND_LEVELS = (6, 9, 3)
"""Levels in the order of their use to a study that is cut off."""
KIND_TARGETS = (-0.1, -0.05, -0.02)
"""Below the original model's accuracy, so that they ask the same of both networks, whose robustness differs.

Of 21 conditions that were tried with seed 0, all came to the first, 16 to the second and 13 to the last, below which
mild shifts begin. The rows have other seeds.
"""


WAY_SHIFTS = tuple(
    condition
    for place, name in enumerate(name for name in KINDS if name not in WRONG_LABELS)
    for condition in conditions_by_level(*FASHION_SMALL, (name,), ((6,), (9,), ())[place % 3])
)
"""Two of three shift types, at the levels 6 and 9 in turn: mild shifts begin above the target."""


def kinds_study(network: str) -> ShiftStudy:
    """Return a study of every shift type on Fashion-MNIST for one small network, with the candidate predictors.

    The original training is fixed in length, so that its accuracy is steady when it ends.
    """
    return dataclasses.replace(
        FASHION_STUDY,
        name=network,
        model=f"{NETWORKS}:{network}",
        clean_recipe="train-adam,milestones=15,fixed_epochs=20",
        clean_accuracy=1.0,
        recipe="retrain-adam,evaluate_every=1,evaluate_growth=0.15,max_epochs=12",
        targets=KIND_TARGETS,
        shifts=tuple(
            condition for level in KIND_LEVELS for condition in conditions_by_level(*FASHION_SMALL, KINDS, (level,))
        ),
        seeds=(1, 2),
        forms=PAPER_FORMS[:1],
        sizes=(),
        scratch=(),
        separate_scores=False,
        candidates=True,
    )


def ways_studies(network: str) -> Iterator[ShiftStudy]:
    """Yield studies of the other ways to update a network: its head alone, other learning rates, and from scratch.

    They show how far a way gets beside all layers at the usual rate, on the same original model and shifts.
    """
    study = dataclasses.replace(
        kinds_study(network), originals=network, shifts=WAY_SHIFTS, seeds=(1,), candidates=False
    )
    scratch = tuple((shift.shift_type, shift.level) for shift in WAY_SHIFTS[:12:3])
    for way, change in (("head", "trains=head"), ("faster", "learning_rate=1e-3"), ("slower", "learning_rate=1e-5")):
        recipe = f"{study.recipe},{change}"
        yield dataclasses.replace(
            study, name=f"{network}-{way}", recipe=recipe, scratch=scratch if way == "faster" else ()
        )


def photographs_study() -> ShiftStudy:
    """Return a study of every shift type on patches of color photographs, cut by ``studies/photographs.py``."""
    train, test = f"npz:{PHOTOGRAPHS}/train.npz", f"npz:{PHOTOGRAPHS}/test.npz"
    return dataclasses.replace(
        kinds_study("color_resnet"),
        name="photographs",
        train=train,
        test=test,
        shifts=tuple(
            condition
            for level in KIND_LEVELS[:2]
            for condition in conditions_by_level(train, test, (*KINDS, *COLOR_ONLY), (level,))
        ),
        seeds=(1,),
    )


TASKS = {
    "fashion": FASHION_SMALL,
    "digits": ("digits@28px@train", "digits@28px@test"),
    **{
        name: (f"{glyphs(name, 'any', 'train')}@3000", glyphs(name, "any", "test"))
        for name in ("upper", "lower", "numerals", "greek", "cyrillic")
    },
}


TASK_STUDY = TaskStudy(
    name="tasks",
    model=f"{NETWORKS}:small_resnet",
    tasks=TASKS,
    clean_recipe="train-adam,fixed_epochs=8",
    recipe="retrain-adam,evaluate_every=4,evaluate_growth=0.2,fixed_epochs=12",
    sources=("", *TASKS),
    cutoffs={
        "fashion": (0.6, 0.7, 0.76),
        "digits": (0.7, 0.85, 0.95),
        "upper": (0.4, 0.6, 0.8),
        "lower": (0.5, 0.65, 0.8),
        "numerals": (0.7, 0.85, 0.93),
        "greek": (0.4, 0.6, 0.8),
        "cyrillic": (0.3, 0.45, 0.6),
    },
)
TASK_WAYS = {
    "head": "trains=head,fixed_epochs=40",
    "lora": "trains=lora,fixed_epochs=24",
    "faster": "learning_rate=1e-3",
    "slower": "learning_rate=1e-5",
}
"""Another way to learn a task → its settings; a step of a head or an adapter gets less far than one of all layers."""
TASK_CLEAN = {"small_vit": "train-adam,fixed_epochs=20"}
"""Network → recipe of its original trainings, where the usual one leaves it untrained."""


def task_ways(network: str, settings: str, ways: Mapping[str, int | None]) -> Iterator[TaskStudy]:
    """Yield studies of the other ways to learn the tasks by one network, all from the original models of the first.

    Args:
        network: Name of the network.
        settings: Steps that each data specification gets, such as ``"@16px"``.
        ways: Name of a way → number of sources of each task; None for all.
    """
    tasks = {name: (train + settings, test + settings) for name, (train, test) in TASKS.items()}
    first = next(iter(ways))
    for way, per_task in ways.items():
        yield dataclasses.replace(
            TASK_STUDY,
            name=f"tasks-{network}-{way}",
            model=f"{NETWORKS}:{network}",
            tasks=tasks,
            clean_recipe=TASK_CLEAN.get(network, TASK_STUDY.clean_recipe),
            sources=tuple(TASKS),
            seeds=(0,),
            way=TASK_WAYS[way],
            originals="" if way == first else f"tasks-{network}-{first}",
            per_task=per_task,
        )


def full_size(name: str, network: str, train: str, test: str, targets: tuple[float, float, float]) -> ShiftStudy:
    """Return a study of one of the paper's networks under its three noises at ten levels, by its recipes."""
    optimizer = "sgd" if network == "vit" else "adam"
    return ShiftStudy(
        name=name,
        train=train,
        test=test,
        model=f"resque.networks:{network}",
        clean_recipe=f"train-{optimizer},augmentation=paper",
        clean_accuracy=targets[-1],
        recipe=f"retrain-{optimizer},augmentation=paper,evaluate_every=10,evaluate_growth=0.1",
        targets=targets,
        shifts=conditions_by_level(train, test, NOISES, LEVELS),
        forms=((None, "flatten"), (None, "token-mean" if network == "vit" else "mean"), ("penultimate", "flatten")),
        scratch=tuple(("gaussian", level) for level in LEVELS) if network == "vgg16" else (),
    )


VISIT_NETWORKS = ("resnet18", "vgg16", "vit")
VISIT_TARGETS = (-0.1, -0.07, -0.04)
VISIT_BATCH, VISIT_TEST = 128, 3000


def visit_study(network: str, limit: int | None = None) -> ShiftStudy:
    """Return a study of Fashion-MNIST for one of the paper's networks that any time limit leaves balanced.

    Images are shifted in gray at 32 × 32 pixels, then get three equal channels. Unlike the paper's, the original
    training is short and lowers its learning rate three times, so that its accuracy is steady at the end.

    Args:
        network: Name of the network.
        limit: Number of images; None takes all 60,000.
    """
    train, test = idx("train") + (f"@{limit}" if limit else ""), f"{idx('t10k')}@{VISIT_TEST}"

    def gray(spec: str, steps: str = "") -> str:
        return f"{spec}@32px{steps}@rgb"

    shifts = tuple(
        Shifted(noise, level, gray(train, f"@shifted+{noise}:{level}"), gray(test, f"+{noise}:{level}"))
        for level in BALANCED_LEVELS
        for noise in NOISES
    )
    study = full_size(f"{network}-fashion{limit or ''}", network, gray(train), gray(test), VISIT_TARGETS)
    return dataclasses.replace(
        study,
        clean_recipe=f"{study.clean_recipe},batch_size={VISIT_BATCH},milestones=5+8+11,fixed_epochs=12",
        clean_accuracy=1.0,
        recipe=f"{study.recipe},batch_size={VISIT_BATCH},max_epochs=6",
        shifts=shifts,
        seeds=(0, 1, 2, 3),  # a seed that a visit cuts off is not continued
        forms=study.forms[::2],
        scratch=(),
    )


def torchvision_data(name: str) -> tuple[str, str]:
    """Return the specifications of training and test data in color at 32 × 32 pixels."""
    return f"torchvision:{name}@rgb@32px", f"torchvision:{name}:test@rgb@32px"


PAPER_TASKS = ("CIFAR10", "CIFAR100", "EMNIST", "FashionMNIST", "Food101", "GTSRB", "MNIST", "SVHN")

PRESETS = {
    "quick": Preset(
        shifts=(
            ShiftStudy(
                name="digits",
                train=DIGITS[0],
                test=DIGITS[1],
                model="resque.networks:small_cnn",
                clean_recipe="train-adam,max_epochs=40",
                clean_accuracy=0.98,
                recipe="retrain-adam,evaluate_every=5,max_epochs=40",
                targets=(0.9, 0.93, 0.95),
                shifts=conditions_by_level(*DIGITS, NOISES, (2, 4, 6, 8, 10)),
                seeds=(0, 1),
                scratch=(("gaussian", 4), ("gaussian", 8)),
            ),
        ),
        tasks=(
            TaskStudy(
                name="tasks",
                model="resque.networks:small_cnn",
                tasks={
                    name: (f"studies/digit_tasks.py:{name}@16px@train", f"studies/digit_tasks.py:{name}@16px@test")
                    for name in ("low", "high", "parity", "thirds")
                },
                clean_recipe="train-adam,fixed_epochs=10",
                recipe="retrain-adam,evaluate_every=5,fixed_epochs=15",
                sources=("", "low", "high", "parity", "thirds"),
                cutoffs={"low": (0.5, 0.7, 0.9), "high": (0.5, 0.6, 0.7), "parity": (0.6, 0.65, 0.7)},
                seeds=(0, 1),
            ),
        ),
    ),
    "cpu": Preset(
        shifts=(
            FASHION_STUDY,
            GLYPHS_STUDY,
            DIGITS_STUDY,
            *(
                dataclasses.replace(
                    FASHION_STUDY,
                    name=f"fashion-{name}",
                    recipe=f"{FASHION_STUDY.recipe},{change}",
                    shifts=conditions_by_level(*FASHION_SMALL, NOISES, (4, 8)),
                    originals="fashion",
                    scratch=(),
                )
                for name, change in (
                    ("faster", "learning_rate=3e-4"),
                    ("slower", "learning_rate=3e-5"),
                    ("head", "trains=head"),
                )
            ),
            dataclasses.replace(
                DIGITS_STUDY,
                name="digits-lora",
                recipe=f"{DIGITS_STUDY.recipe},trains=lora",
                shifts=conditions_by_level(*DIGITS, NOISES, (2, 5)),
                originals="digits",
            ),
        ),
        tasks=(TASK_STUDY,),
    ),
    # other ways to update the networks of "kinds" than all layers at the usual rate
    "ways": Preset(
        shifts=tuple(study for network in ("small_resnet", "plain_cnn") for study in ways_studies(network)),
        tasks=(
            *task_ways("small_resnet", "", {"head": None, "faster": 1, "slower": 1}),
            *task_ways("small_vit", "@16px", {"head": 3, "lora": 2}),
            *task_ways("plain_cnn", "", {"head": 3, "faster": 1, "slower": 1}),
        ),
        originals="kinds",
    ),
    # every shift type, with and without batch norm, and what may predict the cost
    "kinds": Preset(shifts=tuple(map(kinds_study, ("small_resnet", "plain_cnn"))), block=len(KINDS)),
    # the same on color photographs, with one network and one seed
    "photographs": Preset(shifts=(photographs_study(),)),
    # Fashion-MNIST with the paper's networks at their size, for short visits to a GPU
    "gpu": Preset(
        shifts=(
            *(visit_study(network, limit=20_000) for network in VISIT_NETWORKS),
            *(visit_study(network) for network in VISIT_NETWORKS),
        ),
    ),
    # the same with the demo's network, for a test on a CPU
    "gpu-tiny": Preset(
        shifts=(
            ShiftStudy(
                name="small_cnn-digits",
                train="digits@16px@train@400",
                test="digits@16px@test@200",
                model="resque.networks:small_cnn",
                clean_recipe="train-adam,fixed_epochs=10",
                clean_accuracy=1.0,
                recipe="train-adam,evaluate_every=2,max_epochs=3",
                targets=(-0.3, -0.2, -0.1),
                shifts=conditions_by_level("digits@16px@train@400", "digits@16px@test@200", ("gaussian",), (9, 3)),
                seeds=(0, 1),
                forms=PAPER_FORMS[:1],
            ),
        ),
    ),
    # the paper's own studies, for a GPU and datasets under ./data; the paper names no targets, so these are ours
    "paper": Preset(
        shifts=(
            full_size("resnet18-cifar100", "resnet18", *torchvision_data("CIFAR100"), (0.5, 0.53, 0.56)),
            full_size("vit-cifar10", "vit", *torchvision_data("CIFAR10"), (0.6, 0.63, 0.66)),
            full_size("vgg16-svhn", "vgg16", *torchvision_data("SVHN"), (0.86, 0.88, 0.9)),
        ),
        tasks=(
            TaskStudy(
                name="tasks-resnet18",
                model="resque.networks:resnet18",
                tasks={name: torchvision_data(name) for name in PAPER_TASKS},
                clean_recipe="train-adam,augmentation=paper,fixed_epochs=100",
                recipe="retrain-adam,augmentation=paper,evaluate_every=10,evaluate_growth=0.1,fixed_epochs=100",
                sources=("", *PAPER_TASKS),
                cutoffs={"CIFAR10": (0.7, 0.75, 0.8), "CIFAR100": (0.35, 0.4, 0.45), "GTSRB": (0.8, 0.85, 0.9)},
            ),
        ),
    ),
}
