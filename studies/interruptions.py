"""Interrupt retrainings at random moments, resume them, and compare them with an uninterrupted run.

Each trial starts ``resque retrain`` on scikit-learn's digits. After a random share of the time of an uninterrupted run
it sends SIGKILL (every other time), SIGTERM or SIGINT. Then it runs the same command with ``--resume``, unless the
ledger has the entry already. At the end the ledger must hold exactly one entry, with its files, and the learning curve
must equal that of the uninterrupted run, bit for bit.

    python studies/interruptions.py --trials 20 --out studies/results/interruptions.md
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from signal import SIG_DFL, Signals
from signal import signal as signal_handler

RUN = [
    *(
        sys.executable,
        "-c",
        "from resque.cli import main; main()",
        "retrain",
        "--model",
        "resque.networks:small_cnn",
    ),
    *("--train", "digits@16px@train", "--test", "digits@16px@test", "--target-accuracy", "1"),
    *("--recipe", "train-adam,augmentation=flip,evaluate_every=20", "--max-epochs", "12"),
    *("--checkpoint-every", "0.2", "--json"),
]


def restore_sigint() -> None:
    """Let SIGINT end the process as in a terminal; a script in the background ignores it."""
    signal_handler(Signals.SIGINT, SIG_DFL)


def run(
    folder: Path, *more: str, after_s: float | None = None, signal: Signals = Signals.SIGKILL
) -> tuple[dict | None, float]:
    """Return the update, or None if the run was interrupted before it ended, and the seconds that the run took."""
    start = time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*RUN, *more],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=restore_sigint,
    )
    try:
        out, err = process.communicate(timeout=after_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal)
        out, err = process.communicate()
        return (json.loads(out) if process.returncode == 0 else None), time.perf_counter() - start
    if process.returncode > 0:
        raise SystemExit(err.decode())
    return (json.loads(out) if process.returncode == 0 else None), time.perf_counter() - start


def curve(update: dict) -> dict:
    """Return the learning curve without times, which must be equal."""
    return {key: value for key, value in update["curve"].items() if key != "wall_s"}


def entries(folder: Path) -> list[dict]:
    """Return the updates in the ledger; an empty list if there is no ledger."""
    if not (folder / "resque.db").exists():
        return []
    command = [sys.executable, "-c", "from resque.cli import main; main()", "ledger", "list", "--json"]
    listing = subprocess.run(command, cwd=folder, capture_output=True, check=True).stdout
    updates: list[dict] = json.loads(listing)["updates"]
    return updates


def main() -> None:
    """Run the trials and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="also write the table there")
    options = parser.parse_args()
    generator = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as place:
        whole, whole_s = run(Path(place))
    assert whole is not None
    lines = ["| signal | sent after [s] | entries after it | entries at the end | resumed | same curve | files there |"]
    lines.append("|---|---|---|---|---|---|---|")
    for trial in range(options.trials):
        with tempfile.TemporaryDirectory() as place:
            folder, moment = Path(place), generator.uniform(0.3, 1.0) * whole_s
            signal = (Signals.SIGKILL, (Signals.SIGTERM, Signals.SIGINT)[trial // 2 % 2])[trial % 2]
            run(folder, after_s=moment, signal=signal)
            after = len(entries(folder))
            if not after:
                run(folder, "--resume")
            (update,) = entries(folder)
            same = "yes" if curve(update) == curve(whole) else "NO"
            files = sorted(path.name for path in folder.glob(f"updates/{update['id']}/*"))
            there = "yes" if files == ["model.safetensors", "profile.safetensors"] else "NO"
            row = f"| {signal.name} | {moment:.1f} | {after} | 1 | {update['resumed']} | {same} | {there} |"
            lines.append(row)
            print(row, flush=True)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(
            f"Uninterrupted run: {whole_s:.1f} s, {whole['cost']['steps']} steps\n\n" + "\n".join(lines) + "\n"
        )


if __name__ == "__main__":
    main()
