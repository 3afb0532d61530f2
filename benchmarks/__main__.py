"""Run the benchmarks: ``python -m benchmarks --help``."""

import os

os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"  # read when libraries load, here and in commands

from benchmarks.run import main

if __name__ == "__main__":
    main()
