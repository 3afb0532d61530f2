"""What runs on a GPU equals what runs on the CPU, and no batch waits for it.

The device is the environment variable ``DEVICE``, else a GPU if there is one, else the CPU. Convolutions use full
float32 here, so that tolerances can be small; one test has PyTorch's default, TF32.
"""

import dataclasses
import json
import os
import shlex
import sys
import warnings

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read once; matrix products repeat bit for bit with it

import pytest
import torch
from torch import nn

from doubles import shell
from resque import ModelOptions, Profile, explain, load_data, merge, profile, resque_dist, resque_task, sampled_dist
from resque._processes import ALONE
from resque.data.corruptions import IMAGE_CORRUPTIONS
from resque.data.shifts import parse_shift
from resque.energy.meters import ClockMeter
from resque.errors import DeviceMemoryError
from resque.indices.baselines.model_outputs import collect_outputs
from resque.indices.baselines.scores import baseline_scores
from resque.indices.head_inputs import HeadInputs
from resque.indices.nearest_mean import NearestMeanAssignment
from resque.indices.shift_features import shift_features
from resque.models.batchnorm import adapt_batchnorm
from resque.models.channel_matching import match_channels
from resque.models.feature_extraction import capture_features
from resque.models.layers import representation_layer
from resque.models.networks import small_cnn
from resque.training.checkpoint import Checkpoint, save_checkpoint
from resque.training.environment import describe_host
from resque.training.evaluation import evaluate_dataset
from resque.training.job import RetrainingJob
from resque.training.parallel import share_gradients
from resque.training.pilot import run_pilot
from resque.training.probe import probe
from resque.training.recipe import named_recipe
from resque.training.retrain import retrain
from resque.training.run import RunSettings
from resque.training.trainer import Trainer
from watched import Watched

pytestmark = pytest.mark.gpu
CPU = torch.device("cpu")
DEVICE = torch.device(os.environ.get("DEVICE", "cuda" if torch.cuda.is_available() else "cpu"))
ON_GPU = DEVICE.type == "cuda"
ANGLE_TOLERANCES = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 5e-3}  # rad


@pytest.fixture(autouse=True)
def full_precision(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture(scope="module")
def clean():
    return load_data("digits@16px@train@500")


@pytest.fixture(scope="module")
def shifted():
    return load_data("digits@16px@train@500+gaussian:5")


@pytest.mark.parametrize("name", IMAGE_CORRUPTIONS)
def test_corruption_equals_that_of_the_cpu(name):
    """A count of photons or a threshold of snow may fall on the other side for a value in ten thousand."""
    images = load_data("digits@rgb@28px@100").images
    expected, found = (
        parse_shift(f"{name}:7")(images.to(device), indices=torch.arange(100), seed=3) for device in (CPU, DEVICE)
    )
    assert found.device.type == DEVICE.type
    assert float(((found.cpu() - expected).abs() > 1e-4).float().mean()) < 1e-4


def network(device, dtype=torch.float32):
    torch.manual_seed(0)
    return small_cnn().to(device, dtype)


@pytest.fixture(scope="module")
def trained(clean):
    """A network that has learned something, so that its predictions are not near ties."""
    model = network(CPU)
    trainer = Trainer(model, clean, named_recipe("train-adam"), seed=0)
    for _ in range(4 * trainer.steps_per_epoch):
        trainer.step()
    trainer.end()
    return model.eval()


def index_between(model, device, clean, shifted, labels="true"):
    first, second = (profile(model, data.batches(64, device), classes=10, labels=labels) for data in (clean, shifted))
    return resque_dist(first, second).value


@pytest.mark.parametrize("dtype", ANGLE_TOLERANCES, ids=str)
def test_index_of_a_shift_equals_that_of_the_cpu(clean, shifted, trained, dtype):
    values = []
    for device in (CPU, DEVICE):
        model = small_cnn().to(device, dtype)
        model.load_state_dict(trained.state_dict())
        values.append(index_between(model.eval(), device, clean, shifted))
    assert values[0] > 0.1
    assert values[1] == pytest.approx(values[0], abs=ANGLE_TOLERANCES[dtype])


def test_index_with_pseudo_labels_equals_that_of_the_cpu(clean, shifted, trained):
    values = []
    for device in (CPU, DEVICE):
        model = small_cnn().to(device)
        model.load_state_dict(trained.state_dict())
        values.append(index_between(model.eval(), device, clean, shifted, "pseudo"))
    assert values[1] == pytest.approx(values[0], abs=1e-4)


def test_tf32_changes_the_index_little(clean, shifted, trained, monkeypatch):
    expected = index_between(trained, CPU, clean, shifted)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    model = small_cnn().to(DEVICE)
    model.load_state_dict(trained.state_dict())
    assert index_between(model.eval(), DEVICE, clean, shifted) == pytest.approx(expected, abs=1e-3)


def of_both_devices(function, trained):
    """Call a function with the trained network on the CPU and on the device."""
    found = []
    for device in (CPU, DEVICE):
        model = small_cnn().to(device)
        model.load_state_dict(trained.state_dict())
        found.append(function(model.eval(), ModelOptions(device=str(device))))
    return found


def test_explanation_equals_that_of_the_cpu(clean, shifted, trained):
    expected, found = of_both_devices(lambda model, options: explain(model, clean, shifted, options=options), trained)
    assert [each.label for each in found.classes] == [each.label for each in expected.classes]
    angles = [[each.angle_rad for each in report.classes] for report in (expected, found)]
    assert angles[1] == pytest.approx(angles[0], abs=1e-4)


def test_sampled_index_equals_that_of_the_cpu(trained):
    """Both read the same samples, because their order depends on the seed and the labels alone."""
    data = ["digits@16px@train", "digits@16px@train+gaussian:5"]
    expected, found = of_both_devices(lambda model, options: sampled_dist(model, *data, 0.1, options=options), trained)
    assert found.sampling.n_shifted_read == expected.sampling.n_shifted_read
    assert found.value == pytest.approx(expected.value, abs=1e-4)


def test_merged_shards_equal_the_pass_of_the_whole(clean, trained):
    model = small_cnn().to(DEVICE)
    model.load_state_dict(trained.state_dict())
    shards = [profile(model, clean, classes=10, shard=(number, 3)) for number in (3, 1, 2)]
    whole = profile(model, clean.batches(64, DEVICE), classes=10)
    merged = merge(shards)
    assert (merged.n, resque_dist(merged, whole).value) == (whole.n, pytest.approx(0.0, abs=1e-5))


def test_comparison_pilots_every_way_on_the_device(cli):
    code, out, _ = cli(
        "compare --model resque.networks:small_cnn --original digits@16px@train@400 --shifted "
        "digits@16px@train@400+motion_blur:5 --test digits@16px@test@200+motion_blur:5 --target-accuracy 0.9 "
        f"--device {DEVICE} --max-minutes 1 --json"
    )
    options = json.loads(out)["options"]
    assert code == 0
    assert {"nothing", "norm", "head", "all"} <= {each["rung"] for each in options}
    assert all(each["chance"] is not None for each in options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_class_sums_equal_those_of_the_cpu(dtype):
    generator = torch.Generator().manual_seed(0)
    rows = (torch.randn(999, 33, generator=generator) + 100.0).to(dtype)
    labels = torch.randint(0, 7, (999,), generator=generator)
    expected = Profile.from_arrays(rows, labels, classes=7)
    found = Profile.from_arrays(rows.to(DEVICE), labels.to(DEVICE), classes=7)
    for before, after in zip(expected.class_means(), found.class_means(), strict=True):
        torch.testing.assert_close(after.cpu(), before, rtol=1e-13, atol=0.0)


def test_index_of_a_task_equals_that_of_the_cpu():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 5, (600,), generator=generator)
    rows = torch.randn(600, 20, generator=generator) + 2.0 * torch.nn.functional.one_hot(labels, 20)
    expected = resque_task(rows, labels).value
    assert 0.05 < expected < 0.95
    assert resque_task(rows.to(DEVICE), labels.to(DEVICE)).value == expected
    tables = []
    for device in (CPU, DEVICE):
        assignment = NearestMeanAssignment.to_profile(Profile.from_arrays(rows.to(device), labels.to(device)))
        assignment.add(rows.to(device), labels.to(device))
        tables.append(assignment.table.cpu())
    assert torch.equal(*tables)


@pytest.mark.parametrize("recipe", ["train-sgd", "train-sgd,trains=head", "train-sgd,channels_last=false"])
def test_training_measures_equal_those_of_the_cpu(clean, recipe):
    totals, states = [], []
    for device in (CPU, DEVICE):
        model = network(device)
        trainer = Trainer(model, clean, named_recipe(recipe), seed=0)
        for _ in range(trainer.steps_per_epoch + 3):
            trainer.step()
        totals.append(trainer.cost_tracker.totals(within_epoch=True))
        trainer.end()
        states.append(model.cpu().state_dict())
    assert min(totals[0]) > 0.0
    assert totals[1] == pytest.approx(totals[0], rel=2e-3)
    for name, expected in states[0].items():
        torch.testing.assert_close(states[1][name], expected, rtol=1e-2, atol=1e-3)


def test_bfloat16_training_learns(clean):
    model = network(DEVICE)
    before, _ = evaluate_dataset(model, clean)
    if ON_GPU:  # without such instructions a CPU is warned about
        trainer = Trainer(model, clean, named_recipe("train-adam,precision=bfloat16"), seed=0)
        for _ in range(4 * trainer.steps_per_epoch):
            trainer.step()
        trainer.end()
        assert evaluate_dataset(model, clean)[0] > before + 0.3
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_adapted_batch_norm_equals_that_of_the_cpu(shifted, trained):
    states = []
    for device in (CPU, DEVICE):
        model = small_cnn().to(device)
        model.load_state_dict(trained.state_dict())
        adapted = adapt_batchnorm(model.eval(), shifted.batches(64, device))
        states.append(adapted.cpu().state_dict())
    for name, expected in states[0].items():
        torch.testing.assert_close(states[1][name], expected, rtol=1e-4, atol=1e-5)


def plain_network(device=CPU):
    """A network without batch normalization."""
    torch.manual_seed(0)
    convolutions = nn.Conv2d(1, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU()
    return nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 10)).to(device)


@pytest.mark.parametrize("build", [small_cnn, plain_network])
def test_scores_of_an_adapted_network_equal_those_of_the_cpu(clean, shifted, build):
    original = build()
    trainer = Trainer(original, clean, named_recipe("train-adam"), seed=0)
    for _ in range(4 * trainer.steps_per_epoch):
        trainer.step()
    trainer.end()
    job, found = RetrainingJob(shifted, shifted, 0.9), []
    for device in (CPU, DEVICE):
        model = build().to(device)
        model.load_state_dict(original.state_dict())
        before = profile(model.eval(), clean.batches(64, device))
        scores = shift_features(model, job, before)[0].scores
        found.append({name: value for name, value in scores.items() if name.startswith("adapted")})
        assert (before.channels is None) == (build is small_cnn)
    assert set(found[0]) == {"adapted accuracy", "adapted loss", "adapted k-NN", "adapted refit"}
    assert found[1] == pytest.approx(found[0], rel=1e-3, abs=6e-3)  # three samples of 500 may fall on the other side


def test_evaluation_and_baselines_equal_those_of_the_cpu(clean, shifted, trained):
    figures = []
    for device in (CPU, DEVICE):
        model = small_cnn().to(device)
        model.load_state_dict(trained.state_dict())
        outputs = [collect_outputs(model.eval(), data) for data in (shifted, clean)]
        scores = {name: score.value for name, score in baseline_scores(*outputs).items()}
        figures.append({**scores, **dict(zip(("accuracy", "loss"), evaluate_dataset(model, shifted), strict=True))})
    assert len(figures[0]) > 10
    assert figures[1] == pytest.approx(figures[0], rel=1e-3, abs=4e-3)  # two samples of 500 may fall on the other side


def test_invalid_rows_are_reported_when_the_sums_are_read(clean, trained):
    from resque.errors import RepresentationError
    from resque.indices.baselines.moments import Moments

    for rows, labels, message in (
        (torch.full((3, 2), torch.nan), [0, 1, 1], "NaN or infinity"),
        (torch.ones(3, 2), [0, 1, 2], "none of the classes"),
    ):
        moments = Moments([0, 1])

        def add_and_read(rows=rows, labels=labels, moments=moments):
            moments.update(rows.to(DEVICE), torch.tensor(labels))
            return moments.counts

        with pytest.raises(RepresentationError, match=message):
            add_and_read()


class KilledError(Exception):
    pass


def drops(device):
    """A network that draws random numbers on its device."""
    torch.manual_seed(0)
    model = small_cnn()
    model.insert(len(model) - 1, nn.Dropout(0.3))
    return model.to(device)


@pytest.mark.parametrize("augmentation", ["", ",augmentation=flip+jitter"])
def test_resumed_run_equals_the_whole_one_bit_for_bit(tmp_path, clean, augmentation):
    if augmentation:
        pytest.importorskip("kornia")
    job = RetrainingJob(clean, clean, 1.0, named_recipe(f"train-adam,max_epochs=3{augmentation}"), seed=1)
    at, curves = Checkpoint(tmp_path, every_s=0.0), []

    def kill(progress):
        if progress.step >= 2 * -(-len(clean) // job.recipe.batch_size):
            raise KilledError

    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        curves.append(retrain(drops(DEVICE), job, meter=ClockMeter()).curve)
        with pytest.raises(KilledError):
            retrain(drops(DEVICE), job, meter=ClockMeter(), checkpoint=at, on_progress=kill)
        torch.rand(5, device=DEVICE)  # the state of the device is another one now
        update = retrain(drops(DEVICE), job, meter=ClockMeter(), checkpoint=dataclasses.replace(at, resume=True))
        curves.append(update.curve)
    finally:
        torch.use_deterministic_algorithms(False)
    assert update.resumed == 1
    assert dataclasses.replace(curves[1], wall_s=curves[0].wall_s) == curves[0]


@pytest.mark.parametrize("augmentation", ["", ",augmentation=flip+jitter"])
def test_update_goes_on_from_its_pilot_bit_for_bit(tmp_path, clean, augmentation):
    if augmentation:
        pytest.importorskip("kornia")
    job = RetrainingJob(clean, clean, 1.0, named_recipe(f"train-adam,max_epochs=2{augmentation}"), seed=1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        whole = retrain(drops(DEVICE), job, meter=ClockMeter())
        _, state = run_pilot(drops(DEVICE), job, 5, whole.parent, RunSettings(ClockMeter()))
        save_checkpoint(tmp_path / "a.checkpoint", state)
        torch.rand(5, device=DEVICE)  # the state of the device is another one now
        at = Checkpoint(tmp_path, pilot=tmp_path / "a.checkpoint")
        update = retrain(drops(DEVICE), job, meter=ClockMeter(), checkpoint=at)
    finally:
        torch.use_deterministic_algorithms(False)
    assert (update.child, update.pilot_steps) == (whole.child, 5)


@pytest.mark.parametrize("work", ["probe", "retrain"])
def test_random_state_is_left_as_it_was(clean, work):
    def state():
        return torch.cat([torch.get_rng_state(), *([torch.cuda.get_rng_state(DEVICE)] if ON_GPU else [])])

    model, recipe = drops(DEVICE), named_recipe("train-adam,max_epochs=1")
    before = state()
    if work == "probe":
        probe(model, clean, recipe, ClockMeter())
    else:
        retrain(model, RetrainingJob(clean, clean, 1.0, recipe, seed=5), meter=ClockMeter())
    assert torch.equal(before, state())


def count_waits(function):
    """Count what makes the host wait: synchronizations and copies to the host; reads of values on the CPU."""
    if not ON_GPU:
        with Watched() as seen:
            function()
        return seen.waits
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiled

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of the profiler, about cycles of its own
        with profiled(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as prof:
            function()
    waiting = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "Memcpy DtoH")
    return sum(event.name.startswith(waiting) for event in prof.events())


def steps(model, data, n):
    trainer = Trainer(model, data, named_recipe("train-adam,batch_size=8"), seed=0)
    for _ in range(4):
        trainer.step()
    return lambda: [trainer.step() for _ in range(n)]


def index_pass(model, data, n):
    batches = [*data.take(torch.arange(8 * n)).batches(8, DEVICE)]
    return lambda: profile(model, batches, classes=10)


def pseudo_label_pass(model, data, n):
    batches = [*data.take(torch.arange(8 * n)).batches(8, DEVICE)]
    return lambda: profile(model, batches, labels="pseudo")


def evaluation(model, data, n):
    few, many = data.resident(DEVICE), 1024
    whole = dataclasses.replace(
        few,
        inputs=few.inputs.repeat(n * many // len(few) + 1, 1, 1, 1),
        labels=few.labels.repeat(n * many // len(few) + 1),
    )
    return lambda: evaluate_dataset(model, whole)


def batch_norm_adaptation(model, data, n):
    batches = [*data.take(torch.arange(8 * n)).batches(8, DEVICE)]
    return lambda: adapt_batchnorm(model, batches)


def plain_index_pass(model, data, n):
    batches = [*data.take(torch.arange(8 * n)).batches(8, DEVICE)]
    return lambda: profile(plain_network(DEVICE), batches, classes=10)


def channel_matching(model, data, n):
    plain, batches = plain_network(DEVICE), [*data.take(torch.arange(8 * n)).batches(8, DEVICE)]
    original = profile(plain_network(), data.batches(64)).channels
    return lambda: match_channels(plain, batches, original)


def head_inputs(model, data, n):
    return lambda: HeadInputs.of(model, data.take(torch.arange(256 * n) % len(data)).resident(DEVICE), 64)


def model_outputs(model, data, n):
    return lambda: collect_outputs(model, data.take(torch.arange(256 * n) % len(data)).resident(DEVICE))


def nearest_means(model, data, n):
    batches = [*data.take(torch.arange(8 * n)).batches(8, DEVICE)]
    assignment = NearestMeanAssignment.to_profile(profile(model, data.batches(64, DEVICE), classes=10))

    def assign():
        with capture_features(model, representation_layer(model)) as extract:
            for inputs, labels in batches:
                assignment.add(extract(inputs)[0], labels)

    return assign


PASSES = [index_pass, plain_index_pass, pseudo_label_pass, batch_norm_adaptation, channel_matching, head_inputs]


@pytest.mark.parametrize("work", [steps, evaluation, *PASSES, model_outputs, nearest_means])
def test_no_batch_waits_for_the_device(clean, work):
    if work in (model_outputs, nearest_means) and not ON_GPU:
        pytest.skip("on the CPU rows are picked by class, which a GPU would have to wait for")
    model = network(DEVICE).eval()
    work(model, clean, 4)()  # what only the first pass of a process does
    few, many = (count_waits(work(model, clean, n)) for n in (6, 12))
    assert few == many


class Hungry(nn.Module):
    """A network that takes more memory than there is, for batches above a size."""

    def __init__(self, most):
        super().__init__()
        self.most, self.head = most, nn.Linear(256, 10)

    def forward(self, inputs):
        if len(inputs) > self.most:
            torch.empty(2**50, device=inputs.device)
        return self.head(inputs.flatten(1))


def test_too_large_a_batch_is_an_error_that_names_a_smaller_one(clean):
    trainer = Trainer(Hungry(16).to(DEVICE), clean, named_recipe("train-adam,batch_size=32"), seed=0)
    with pytest.raises(DeviceMemoryError, match=r"for a batch of 32: pass a smaller one \(in a recipe batch_size=16\)"):
        trainer.step()


def test_evaluation_halves_batches_that_take_too_much_memory(clean):
    accuracy, loss = evaluate_dataset(Hungry(100).to(DEVICE), clean)
    assert 0.0 <= accuracy <= 1.0 < loss
    with pytest.raises(DeviceMemoryError, match="batch of 1: use a device with more memory"):
        evaluate_dataset(Hungry(0).to(DEVICE), clean)


def test_host_names_what_rounds_on_a_gpu():
    host = describe_host(DEVICE)
    assert host["device"].startswith(f"{DEVICE.type}: ")
    assert ("tf32" in host) == ("cudnn" in host) == ON_GPU


def test_ledger_says_how_the_energy_was_obtained(cli):
    line = "retrain --model resque.networks:small_cnn --train digits@16px@train@400 --test digits@16px@test@200"
    code, out, _ = cli(f"{line} --target-accuracy 0.99 --recipe train-adam,max_epochs=3 --device {DEVICE} --json")
    assert code == 0
    update = json.loads(out)
    assert update["host"]["device"].startswith(DEVICE.type)
    code, out, _ = cli("ledger list --json")
    assert code == 0
    assert update["id"] in out
    methods = update["energy"]["methods"]
    if pytest.importorskip("codecarbon") and ON_GPU:
        assert methods["gpu"] == "measured"
        assert update["energy"]["components_kwh"].get("gpu", 0.0) > 0.0 or update["energy"]["note"]
    assert "gpu" in methods or not ON_GPU


def test_gradients_of_a_group_over_nccl_are_those_of_the_model(clean, tmp_path):
    """A group of one process, for which one GPU is enough."""
    inputs, labels = next(iter(clean.batches(64, DEVICE)))
    alone, shared = network(DEVICE), network(DEVICE)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        wrapped = share_gradients(shared, (inputs, labels), ALONE)
        for model in (alone, wrapped):
            nn.functional.cross_entropy(model(inputs), labels).backward()
    finally:
        torch.distributed.destroy_process_group()
    for expected, found in zip(alone.parameters(), shared.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, rtol=1e-4, atol=1e-6)


def test_pass_of_two_processes_on_one_device_is_that_of_one(tmp_path):
    """Only gradients travel over NCCL, which wants a GPU for each process; sums travel over the CPU."""
    device = f"{DEVICE}:0" if ON_GPU else "cpu"
    command = (
        f"resque dist --model resque.networks:small_cnn --original digits@16px@train --shifted "
        f"digits@16px@train+gaussian:5 --device {device} --json"
    )
    one, two = by_one_and_by_two(command, tmp_path)
    assert two["value"] == pytest.approx(one["value"], abs=1e-6)


@pytest.mark.skipif(not ON_GPU, reason="needs a GPU")
def test_two_processes_on_one_gpu_exchange_no_gradients(tmp_path):
    command = "resque task --model resque.networks:small_cnn --data digits@16px@train --warmup-steps 2"
    ran = shell(started(2, f"{command} --device {DEVICE.type}:0"), tmp_path)
    assert ran.returncode != 0
    assert "2 processes have 1 GPU, and each needs one of its own" in ran.stderr


PLAIN_NET = """
from torch import nn
def build():
    return nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.GELU(), nn.Flatten(), nn.Linear(196, 10))
"""


def by_one_and_by_two(command, folder):
    """What a command prints in one process and in two, whose gradients travel over NCCL."""
    (folder / "net.py").write_text(PLAIN_NET)
    return (json.loads(shell(started(count, command), folder).stdout) for count in (1, 2))


def started(count, command):
    launcher = f"torch.distributed.run --nproc-per-node {count} -m " if count > 1 else ""
    return f"{shlex.quote(sys.executable)} -m {launcher}{command.format(count=count)}"


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_task_of_two_gpus_is_that_of_one(tmp_path):
    command = "resque task --model net.py:build --data digits@16px@train --device cuda --warmup-steps 6 --json"
    one, two = by_one_and_by_two(command, tmp_path)
    assert two["value"] == pytest.approx(one["value"], abs=0.02)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_retraining_by_two_gpus_has_the_curve_of_one(tmp_path):
    command = (
        "resque retrain --model net.py:build --train digits@16px@train --test digits@16px@test --target-accuracy 0.99 "
        "--recipe train-adam,batch_size=50,max_epochs=4 --device cuda --json --ledger {count}.db --out {count}"
    )
    one, two = by_one_and_by_two(command, tmp_path)
    assert (one["processes"], two["processes"]) == (1, 2)
    assert two["curve"]["steps"] == one["curve"]["steps"]
    assert two["curve"]["accuracy"] == pytest.approx(one["curve"]["accuracy"], abs=0.01)
    assert two["curve"]["loss"] == pytest.approx(one["curve"]["loss"], rel=1e-2)
