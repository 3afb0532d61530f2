"""Many runs on a real Ray: on this machine, with two workers, of which some are killed in the middle of a task."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

import cluster_tasks
from calibrated import run
from cluster_tasks import DEADLINE_S, die, endless, fail, meet, work_alone
from compared import compare, fix_choices
from compared import told as told_comparison
from lethal import LethalMeter
from resque.energy.meters import ClockMeter
from resque.errors import ModelError, SettingError
from resque.ledger.store import Ledger
from resque.models.loading import load_model
from resque.workflows.engine import ExperimentTask, LocalEngine, read_rows, run_tasks
from resque.workflows.ray_engine import METER_RESOURCE, RayEngine, open_engine

HELPERS = str(Path(cluster_tasks.__file__).parent)


@pytest.fixture(scope="module")
def ray():
    """A Ray of two processors; at its end no process is left."""
    ray = pytest.importorskip("ray")
    before = set(psutil.Process().children(recursive=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([HELPERS, *filter(None, [os.environ.get("PYTHONPATH")])]))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setattr("ray._private.utils.get_num_cpus", lambda *_, **__: 2)
        with open_engine("ray"):
            started = set(psutil.Process().children(recursive=True)) - before
            assert started
            yield ray
    assert not ray.is_initialized()
    assert not psutil.wait_procs(started, timeout=DEADLINE_S)[1]


@pytest.fixture
def engine(ray):
    with open_engine("ray") as engine:
        yield engine
    assert ray.is_initialized()  # it was connected before


def task(work, name, folder, is_metered=False, **more) -> ExperimentTask:
    return ExperimentTask(name, work, {"folder": str(folder), "name": name, **more}, is_metered)


def processes(folder, name) -> list[str]:
    return (folder / name).read_text().split()


def test_killed_worker_s_task_is_run_again_and_every_row_is_there(engine, tmp_path):
    tasks = [
        task(meet, "a", tmp_path, others=["b"]),
        task(meet, "b", tmp_path, others=["a"]),
        task(die, "killed", tmp_path, is_metered=True, times=1),
        *(task(work_alone, f"alone{n}", tmp_path, is_metered=True) for n in range(4)),
        ExperimentTask("fails", fail, {"text": "x"}),
    ]
    path = tmp_path / "rows.jsonl"
    rows = run_tasks(tasks, path, engine)
    assert list(rows) == [each.key for each in tasks]
    assert [rows[f"alone{n}"].get("square") for n in range(4)] == [36] * 4  # never two at once
    assert rows["killed"]["tries"] == 2
    assert len(set(processes(tmp_path, "killed"))) == 2
    assert processes(tmp_path, "a") != processes(tmp_path, "b")
    assert rows["a"]["threads"] == rows["b"]["threads"] == str(engine.threads)
    assert rows["fails"]["error"] == "KeyError: 'x'"
    assert run_tasks(tasks, path, LocalEngine(0)) == rows == read_rows(path)
    assert all(len(processes(tmp_path, each.key)) == 1 for each in tasks[3:-1])


def test_task_that_loses_its_worker_every_time_is_a_failed_row(engine, tmp_path):
    tasks = [task(die, "lost", tmp_path, times=9), task(work_alone, "fine", tmp_path)]
    rows = run_tasks(tasks, tmp_path / "rows.jsonl", RayEngine(retries=1))
    assert rows["lost"]["error"].startswith("lost 2 times: WorkerCrashedError")
    assert rows["fine"]["square"] == 16
    assert len(processes(tmp_path, "lost")) == 2


def test_error_of_a_task_keeps_its_type_and_what_still_runs_is_cancelled(engine, tmp_path):
    tasks = [task(endless, "waits", tmp_path), ExperimentTask("fails", fail, {"text": "x"})]
    with pytest.raises(KeyError, match="^'x'$"):
        list(engine.run(tasks))
    with_all = [task(meet, name, tmp_path, others=[other]) for name, other in (("a", "b"), ("b", "a"))]
    assert len(list(engine.run(with_all))) == 2  # both processors are free again


@pytest.mark.parametrize(
    ("engine", "is_metered", "text"),
    [
        (RayEngine(gpus=64), False, "needs 64 GPU, and the cluster has .: use nodes with GPUs"),
        (RayEngine(threads=3), False, "needs 3 CPU, and the cluster has 2: set OMP_NUM_THREADS"),
        (RayEngine(threads=999, gpus=64), True, "a task needs .* and the cluster has"),
    ],
)
def test_what_the_cluster_has_not_is_refused_in_one_line(ray, engine, is_metered, text):
    with pytest.raises(SettingError, match=text) as stop:
        list(engine.run([ExperimentTask("a", dict, {}, is_metered)]))
    assert "\n" not in str(stop.value)


@pytest.mark.parametrize("offered", [{"CPU": 8.0}, {"CPU": 8.0, METER_RESOURCE: 0.5}])
def test_cluster_without_the_resource_of_measured_runs_is_refused(ray, monkeypatch, offered):
    monkeypatch.setattr(ray, "cluster_resources", lambda: offered)
    with pytest.raises(SettingError, match=r"""start each node with --resources='\{"resque_meter": 1\}'"""):
        list(RayEngine().run([ExperimentTask("a", dict, {}, is_metered=True)]))


DRIVER = """
import sys
from pathlib import Path
from cluster_tasks import endless, work_alone
from resque.workflows.engine import ExperimentTask, run_tasks
from resque.workflows.ray_engine import open_engine

def tasks(folder, last):
    arguments = [{"folder": folder, "name": name} for name in ("first", "second", "last")]
    return [ExperimentTask(each["name"], work, each) for each, work in zip(arguments, (work_alone, work_alone, last))]

if __name__ == "__main__":
    folder, address = sys.argv[1:]
    with open_engine("ray", address or None) as engine:
        run_tasks(tasks(folder, endless), Path(folder) / "rows.jsonl", engine, on_progress=lambda *_: print("row"))
"""


@pytest.mark.parametrize("place", ["cluster", "own"])
def test_killed_driver_resumes_and_leaves_no_process(ray, engine, tmp_path, place):
    script, path = tmp_path / "driver.py", tmp_path / "rows.jsonl"
    script.write_text(DRIVER)
    address = ray.get_runtime_context().gcs_address if place == "cluster" else ""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([HELPERS, *filter(None, sys.path)])}
    os.mkfifo(tmp_path / "begun")
    driver = subprocess.Popen(
        [sys.executable, "-u", script, str(tmp_path), address], env=environment, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, cwd=tmp_path, text=True,
    )  # fmt: skip
    assert (tmp_path / "begun").read_text() == "begun"
    while len(read_rows(path)) < 2:
        assert driver.stdout.readline()
    started = {psutil.Process(int(processes(tmp_path, "last")[0])), *psutil.Process(driver.pid).children(True)}
    started -= {each for each in started if each.name().endswith("Agent")}  # Ray's own end about a minute later
    driver.kill()
    driver.communicate()
    assert not psutil.wait_procs(started, timeout=DEADLINE_S)[1]
    tasks = [task(work_alone, name, tmp_path) for name in ("first", "second", "last")]
    assert len(run_tasks(tasks, path, engine)) == 3
    assert [len(processes(tmp_path, name)) for name in ("first", "second", "last")] == [1, 1, 2]


def told(updates) -> dict[str, tuple]:
    """What runs were, by shift, without their times."""
    return {
        update.train_data: (
            update.features, update.curve.steps, update.curve.accuracy, update.curve.loss, update.child,
            update.target_accuracy, update.stopped_by, update.seed, update.grid, update.parent,
        )
        for update in updates
    }  # fmt: skip


@pytest.fixture(scope="module")
def alone(trained, plan, tmp_path_factory):
    """The runs of a calibration on this machine, in rounds of two."""
    model = load_model(f"{trained[0]}:build", trained[1])
    return run(model, plan, Ledger(tmp_path_factory.mktemp("here") / "a.db"), ClockMeter(), round_size=2)


def test_calibration_on_ray_gives_the_ledger_of_this_machine_though_a_worker_is_killed(
    engine, model, plan, alone, tmp_path
):
    ledger = Ledger(tmp_path / "there.db")
    runs = run(model, plan, ledger, LethalMeter(str(tmp_path)), round_size=2, engine=engine)
    assert (tmp_path / "killed").exists()
    assert (runs.new, runs.ended) == (alone.new, alone.ended) == (5, "5 runs were asked for")
    assert len(ledger.updates()) == 5
    assert told(ledger.updates()) == told(alone.updates)


def test_calibration_that_loses_a_worker_too_often_keeps_the_other_runs(ray, model, plan, alone, tmp_path):
    ledger = Ledger(tmp_path / "resque.db")
    with pytest.raises(SettingError, match="was lost 1 times: WorkerCrashedError.*start again, and the other runs"):
        run(model, plan, ledger, LethalMeter(str(tmp_path)), round_size=2, engine=RayEngine(retries=0))
    (kept,) = ledger.updates()
    assert told([kept]).items() <= told(alone.updates).items()


def test_object_is_sent_once_for_all_runs_and_given_up_with_its_last_user(engine):
    value = ExperimentTask("shared", dict)  # anything that can be referred to weakly
    assert engine._send(value) == engine._send(value) != engine._send(ExperimentTask("other", dict))
    assert len(engine._sent) == 1
    engine._send({"plain": 1})
    del value
    assert not engine._sent


def test_comparison_on_ray_is_that_of_this_machine_though_a_worker_is_killed(engine, tmp_path, monkeypatch):
    fix_choices(monkeypatch)
    there = compare(tmp_path, 0.75, "there.db", LethalMeter(str(tmp_path)), engine="ray")
    assert (tmp_path / "killed").exists()  # by a probe or pilot: this process measures nothing
    here = compare(tmp_path, 0.75, "here.db")
    assert told_comparison(there) == told_comparison(here)
    assert there.best is not None
    assert len(Ledger(tmp_path / "there.db").forecasts()) == len(Ledger(tmp_path / "here.db").forecasts()) == 6


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"name": "spark"}, "engine 'spark': expected local or ray"),
        ({"address": "auto"}, "the local engine has no address, and 'auto' was given: add --engine ray"),
    ],
)
def test_invalid_engines_are_refused(settings, text):
    with pytest.raises(SettingError, match=text), open_engine(**settings):
        pass


def test_ray_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ModelError, match=r"ray is not installed: pip install 'resque\[ray\]'"), open_engine("ray"):
        pass
