"""The command line; ``resque.cli:main`` is its entry point."""

from resque.cli._began import BEGAN_S  # first: it times the other import
from resque.cli.app import main

__all__ = ["BEGAN_S", "main"]
