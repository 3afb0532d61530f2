"""Run the command line: ``python -m resque.cli``, the same as ``python -m resque``."""

from resque.cli import main

if __name__ == "__main__":
    main()
