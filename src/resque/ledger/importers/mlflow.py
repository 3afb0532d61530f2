"""Reader of MLflow's stores: a folder of files (``mlruns``) or an SQLite file (``mlflow.db``).

MLflow itself is not used: it is a large dependency that sends usage data by default, and reading a history should
neither write nor call a server. Both stores are simple and stable: files named after their content, and tables of the
same names. Tracking servers, artifacts, traces and logged models are not read.
"""

import functools
import itertools
import math
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from resque._files import read_lines
from resque.errors import DataError

__all__ = ["DATABASE", "LoggedRun", "MetricPoint", "holds_runs", "read_runs"]

DATABASE = "mlflow.db"
_STATUS = {"1": "RUNNING", "2": "SCHEDULED", "3": "FINISHED", "4": "FAILED", "5": "KILLED"}
_DEPTHS = "meta.yaml", "*/meta.yaml", "*/*/meta.yaml", "*/*/*/meta.yaml"
_TRASH = ".trash"
_TOO_LARGE = 2**63
_WRITTEN = "a value that MLflow wrote"
_LONGEST_TEXT = 2**16  # characters; MLflow takes 6,000 characters of a parameter, and 8,000 of a tag
_TYPES: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("run_uuid", "key", "status"), (str,)),
    **dict.fromkeys(("name", "experiment", "param"), (str, type(None))),
    **dict.fromkeys(("start_time", "end_time"), (int, type(None))),
    **dict.fromkeys(("timestamp", "step", "is_nan"), (int,)),
    "metric": (int, float),
}
"""Column that is read → types of its values: SQLite keeps any value in any column."""


class MetricPoint(NamedTuple):
    """One logged value of a metric.

    Attributes:
        timestamp_ms: Time of logging, milliseconds since 1970.
        value: Logged value.
        step: Logged step.
    """

    timestamp_ms: int
    value: float
    step: int


@dataclass(frozen=True)
class LoggedRun:
    """A run in a store of MLflow.

    Attributes:
        id: MLflow's id of the run.
        name: Name given by the user or by MLflow.
        experiment: Name of the experiment.
        status: ``FINISHED``, ``FAILED``, ``KILLED``, ``RUNNING`` or ``SCHEDULED``.
        started_ms: Start time, milliseconds since 1970.
        ended_ms: End time, milliseconds since 1970; None if MLflow recorded none.
        params: Name → value of the parameters, as text.
        metrics: Names of the logged metrics.
        read_metric: Function from the name of a metric to its points, ordered by time and step.
    """

    id: str
    name: str
    experiment: str
    status: str
    started_ms: int
    ended_ms: int | None
    params: Mapping[str, str]
    metrics: tuple[str, ...]
    read_metric: Callable[[str], list[MetricPoint]]


def holds_runs(path: Path) -> bool:
    """Return whether a folder holds runs, as files or as a database."""
    return (path / DATABASE).is_file() or next(_run_folders(path), None) is not None


def read_runs(path: Path) -> list[LoggedRun]:
    """Return the runs of a store that were not deleted, oldest first.

    Args:
        path: Database file; or folder of a run or an experiment, the folder ``mlruns``, or the folder around it.

    Raises:
        DataError: There is no store, or it cannot be read.
    """
    if path.is_dir():
        runs = [_file_run(folder, meta) for folder, meta in _run_folders(path)]
        if runs and (path / DATABASE).is_file():
            raise DataError(
                f"{path} holds runs as files and in {DATABASE}: name {path / DATABASE}, or the files' folder"
            )
        if not runs:
            path = path / DATABASE
    if path.is_file():
        runs = _database_runs(path)
    elif not path.is_dir():
        raise DataError(f"no MLflow runs at {path}: name the folder mlruns, or {DATABASE}")
    return sorted(runs, key=lambda run: run.started_ms)


def _run_folders(path: Path) -> Iterator[tuple[Path, Mapping[str, str]]]:
    files = itertools.chain.from_iterable(path.glob(depth) for depth in _DEPTHS)
    for file in sorted(file for file in files if _TRASH not in file.relative_to(path).parts):
        meta = _meta(file)
        if ("run_id" in meta or "run_uuid" in meta) and meta.get("lifecycle_stage", "active") == "active":
            yield file.parent, meta


def _file_run(folder: Path, meta: Mapping[str, str]) -> LoggedRun:
    named, experiment = folder / "tags" / "mlflow.runName", folder.parent / "meta.yaml"
    run_id = meta.get("run_id") or meta["run_uuid"]
    try:
        started, ended = int(meta["start_time"]), meta.get("end_time", "null")
        return LoggedRun(
            run_id,
            (_text(named) if named.is_file() else "") or meta.get("run_name") or run_id,
            (_meta(experiment).get("name") if experiment.is_file() else None) or meta.get("experiment_id", ""),
            _STATUS.get(meta.get("status", ""), meta.get("status", "")),
            started,
            None if ended in ("", "null") else int(ended),
            {name: _text(folder / "params" / name) for name in sorted(_names(folder / "params"))},
            tuple(sorted(_names(folder / "metrics"))),
            functools.partial(_file_points, folder / "metrics"),
        )
    except (KeyError, ValueError) as error:
        raise DataError(f"{folder / 'meta.yaml'} lacks start_time, or a time is not a number ({error})") from error


def _meta(file: Path) -> dict[str, str]:
    """Return the ``key: value`` lines of MLflow's simple YAML; a value folded onto a second line is joined."""
    meta: dict[str, str] = {}
    key = ""
    for line in _text(file).splitlines():
        if line.startswith(" ") and key:
            meta[key] += " " + line.strip()
        else:
            key, _, value = line.partition(":")
            meta[key] = value.strip()
    return {key: _unquoted(value) for key, value in meta.items()}


def _unquoted(value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] == "'":
        return value[1:-1].replace("''", "'")
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value


def _names(folder: Path) -> Iterator[str]:
    """Yield the names of metrics or parameters; one with a slash in its name lies in a subfolder."""
    return (file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


def _text(file: Path) -> str:
    """Return the content of a file of MLflow that holds one value, or one run's description."""
    lines, size = [], 0
    with closing(read_lines(file, _WRITTEN)) as text:
        for line in text:
            lines.append(line)
            if (size := size + len(line)) > _LONGEST_TEXT:
                raise DataError(f"{file} has more than {_LONGEST_TEXT:,} characters; expected {_WRITTEN}")
    return "".join(lines)


def _file_points(folder: Path, name: str) -> list[MetricPoint]:
    points = []
    with closing(read_lines(folder / name, _WRITTEN)) as lines:
        for number, line in enumerate(lines, start=1):
            try:
                timestamp, value, step = line.split()[:3]
                points.append(MetricPoint(_int64(timestamp), float(value), _int64(step)))
            except ValueError as error:
                raise DataError(
                    f"{folder / name}, line {number}: {line.strip()!r:.60}, expected `time value step`"
                ) from error
    return _in_order(points)


def _int64(text: str) -> int:
    """Return a whole number of 64 bits, as MLflow's databases hold; raise ValueError for any other text."""
    if abs(number := int(text)) >= _TOO_LARGE:
        raise ValueError("it has more than 64 bits")
    return number


def _in_order(points: Sequence[MetricPoint]) -> list[MetricPoint]:
    return sorted(points, key=lambda point: (point.timestamp_ms, point.step))


def _database_runs(path: Path) -> list[LoggedRun]:
    runs = """SELECT r.run_uuid, r.name, e.name AS experiment, r.status, r.start_time, r.end_time
        FROM runs r LEFT JOIN experiments e USING (experiment_id) WHERE r.lifecycle_stage = 'active'"""
    named: dict[str, str] = dict(
        _rows(
            path, "SELECT run_uuid, value AS param FROM tags WHERE key = 'mlflow.runName'"
        )  # where older versions kept it
    )
    params: dict[str, dict[str, str]] = {}
    for run_id, key, value in _rows(path, "SELECT run_uuid, key, value AS param FROM params ORDER BY key"):
        params.setdefault(run_id, {})[key] = value
    metrics: dict[str, list[str]] = {}
    for run_id, key in _rows(path, "SELECT DISTINCT run_uuid, key FROM metrics ORDER BY key"):
        metrics.setdefault(run_id, []).append(key)
    return [
        LoggedRun(
            run_id,
            named.get(run_id) or name or run_id,
            experiment or "",
            status,
            int(started or 0),
            ended,
            params.get(run_id, {}),
            tuple(metrics.get(run_id, ())),
            functools.partial(_database_points, path, run_id),
        )
        for run_id, name, experiment, status, started, ended in _rows(path, runs)
    ]


def _database_points(path: Path, run_id: str, name: str) -> list[MetricPoint]:
    query = "SELECT timestamp, value AS metric, step, is_nan FROM metrics WHERE run_uuid = ? AND key = ?"
    rows = _rows(path, query, run_id, name)
    return _in_order(
        [MetricPoint(time_ms, math.nan if is_nan else value, step) for time_ms, value, step, is_nan in rows]
    )


def _rows(path: Path, query: str, *values: str) -> list[tuple[Any, ...]]:
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            cursor = connection.execute(query, values)
            names = [column[0] for column in cursor.description]
            rows = cursor.fetchall()
    except sqlite3.DatabaseError as error:
        raise DataError(f"{path} cannot be read as an MLflow database: {error}; name mlflow.db or mlruns") from error
    for row in rows:
        for name, value in zip(names, row, strict=True):
            if type(value) not in _TYPES[name]:
                expected = " or ".join(type_.__name__ for type_ in _TYPES[name])
                raise DataError(f"{path} holds {value!r:.40} as {name}, expected {expected}: correct or remove the row")
    return rows
