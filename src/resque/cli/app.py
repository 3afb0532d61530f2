"""The command line: parse, call, print.

Only typer is imported here at the top; a command imports what it needs, so that ``--help`` is quick.
"""

import functools
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from resque import __version__
from resque._format import describe_error, printable
from resque._waiting import command
from resque.cli import ledger
from resque.cli._began import BEGAN_S
from resque.cli._torchrun import Torchrun
from resque.cli.calibrate import calibrate
from resque.cli.compare import compare
from resque.cli.demo import demo
from resque.cli.dist import dist
from resque.cli.doctor import doctor
from resque.cli.explain import explain
from resque.cli.forecast import forecast
from resque.cli.init import init
from resque.cli.merge import merge
from resque.cli.plan import plan
from resque.cli.profile import profile
from resque.cli.report import report
from resque.cli.retrain import retrain
from resque.cli.task import task
from resque.cli.values import CheckedCommand
from resque.errors import ModelError, ResqueError, ResqueWarning, SettingError
from resque.reporting.progress import watched

__all__ = ["app", "main"]

FORMER_OPTIONS = {
    "--kind": "--shift-type",
    "--prior": None,  # the default
    "--bundled-history": None,
    "--no-prior": "--no-bundled-history",
}
"""Options that stay valid and are not listed in the help → what they mean today."""
INTERRUPTED = 130  # what typer makes of SIGINT
_IMPORTS_S = time.perf_counter() - BEGAN_S  # before a command begins, and a part of what the user waits for


class _Group(TyperGroup):
    """The commands; control characters in their messages about wrong usage are escaped."""

    def make_context(self, *arguments: Any, **more: Any) -> Any:
        with _printable_usage_errors():
            return super().make_context(*arguments, **more)

    def invoke(self, ctx: Any) -> Any:
        try:
            with _printable_usage_errors():
                return super().invoke(ctx)
        except (Exception, KeyboardInterrupt):  # the exits of this program are among them, as typer.Exit
            raise
        except BaseException as stop:
            if isinstance(stop.__context__, BrokenPipeError):  # nobody reads on, as after `| head`
                raise
            raise ModelError(f"code of the model or the data ended the command ({describe_error(stop)}); expected a "
                             "result: take the exit out of it") from stop  # fmt: skip


@contextmanager
def _printable_usage_errors() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if hasattr(error, "format_message"):  # the class is click's, or the one in typer, depending on the version
            error.message = printable(str(error.message))  # type: ignore[attr-defined]
        raise


app = typer.Typer(
    name="resque",
    cls=_Group,
    help="Forecast what updating a deep learning classifier will cost, and measure what it did cost.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
_PANELS: dict[str, tuple[Callable[..., None], ...]] = {
    "Start": (demo, doctor, init),
    "Index": (profile, merge, dist, explain, task),
    "Update": (calibrate, forecast, compare, plan, retrain, report),
}
for _panel, _commands in _PANELS.items():
    for _command in _commands:
        app.command(cls=CheckedCommand, rich_help_panel=_panel)(_command)
app.add_typer(ledger.app, name="ledger", rich_help_panel="Update")


def _show_version(requested: bool) -> None:
    if requested:
        typer.echo(f"resque {__version__}")
        raise typer.Exit


@app.callback()
def start(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Forecast what updating a deep learning classifier will cost, and measure what it did cost."""


def main() -> None:
    """Run the command line: one line on stderr and an exit code for whatever goes wrong."""
    torchrun = Torchrun()

    def end(message: str, code: int = 1) -> None:
        torchrun.tell(message, _print_error)
        sys.exit(code)

    try:
        with command(time.perf_counter() - _IMPORTS_S), warnings.catch_warnings():
            warnings.simplefilter("always", ResqueWarning)
            warnings.showwarning = functools.partial(_show_warning, set())
            arguments = _with_current_names([_checked(argument) for argument in sys.argv[1:]])
            with (
                torchrun.joined(arguments),
                _only_json() if "--json" in arguments else nullcontext(),
                watched("working", _print_line),
            ):
                app(args=arguments)
    except ResqueError as error:
        end(str(error), error.exit_code)
    except SystemExit as stop:
        if stop.code == INTERRUPTED:
            _print_error("interrupted; what ended is kept: run it again, a retraining with --resume")
        raise
    except Exception as error:
        if os.environ.get("RESQUE_DEBUG"):
            raise
        if type(error).__name__ == "OutOfMemoryError":  # PyTorch's; to import it would take seconds
            end("the device has too little memory: use a smaller batch (batch_size in the recipe) or --limit")
        end(f"unexpected {describe_error(error)}; this is a bug: RESQUE_DEBUG=1 shows where")


def _only_json() -> AbstractContextManager[None]:
    from resque.reporting import console

    return console.only_json()


def _checked(argument: str) -> str:
    """Return an argument; raise SettingError if its bytes were no text."""
    if any("\ud800" <= character <= "\udfff" for character in argument):
        raise SettingError(f"argument {argument!r:.60} is no Unicode text: rename the file, or type it again")
    return argument


def _with_current_names(arguments: list[str]) -> list[str]:
    """Return the arguments with former option names replaced."""
    named = [argument.partition("=") for argument in arguments]
    current = [(FORMER_OPTIONS.get(option, option), sign + value) for option, sign, value in named]
    return [option + value for option, value in current if option is not None]


def _show_warning(shown: set[str], message: Warning | str, category: type[Warning], *where: Any) -> None:
    """Show a warning of resque as one line, once; leave those of others as they are."""
    if not issubclass(category, ResqueWarning):
        sys.stderr.write(printable(warnings.formatwarning(message, category, *where[:2]), keep="\n"))
    elif str(message) not in shown:
        from resque.reporting import console

        shown.add(str(message))
        console.warn(str(message))


def _print_line(line: str) -> None:
    print(printable(line), file=sys.stderr, flush=True)  # noqa: T201


def _print_error(message: str) -> None:
    print(f"resque: {printable(' '.join(message.split()))}", file=sys.stderr)  # noqa: T201
