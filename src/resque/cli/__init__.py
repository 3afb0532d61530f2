"""The command line; ``resque.cli:main`` is its entry point."""

from resque.cli.app import main

__all__ = ["main"]
