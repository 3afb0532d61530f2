"""The documentation and the project's habits agree with the code."""

import ast
import importlib.util
import re
from pathlib import Path

import pytest
import typer

import resque
from resque.cli.app import app
from resque.data.shifts import SHIFT_TYPES
from resque.ledger.export import read_json_lines
from resque.workflows.project import KEYS

ROOT = Path(__file__).parents[2]


def lint_commands() -> list[str]:
    rule = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.M)
    return [line.strip().replace("$(BIN)", ".venv/bin") for line in rule[1].splitlines()]


def test_pre_commit_runs_what_make_lint_runs_and_fetches_nothing():
    yaml = pytest.importorskip("yaml")
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local"
    assert [hook["entry"] for hook in repository["hooks"]] == lint_commands()
    assert all(hook["language"] == "system" and not hook["pass_filenames"] for hook in repository["hooks"])


PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "studies").rglob("*.md"))]
EXTENDING = ROOT / "docs" / "development" / "extending.md"


def anchors(page: Path) -> set[str]:
    """The anchors that a Markdown renderer gives to the headings of a page."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    titles = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings_that_exist(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{link}: no such file"
        assert not anchor or anchor in anchors(target), f"{link}: no such heading"


def test_index_page_links_every_page():
    docs = ROOT / "docs"
    linked = set(re.findall(r"\]\(([\w/-]+\.md)\)", (docs / "index.md").read_text()))
    assert linked == {str(page.relative_to(docs)) for page in docs.rglob("*.md")} - {"index.md"}


def test_architecture_page_lists_the_packages_with_their_levels():
    tested = (ROOT / "tests/integration/test_architecture.py").read_text()
    levels = ast.literal_eval(re.search(r"^LEVELS = (\(.*?^\))", tested, re.M | re.S)[1])
    rows = re.findall(r"^\| (\d) \| `(\w+)` \|", (ROOT / "docs/development/architecture.md").read_text(), re.M)
    assert len(rows) == 10
    for level, name in rows:
        assert name in levels[int(level) - 1]


def test_places_that_the_extension_guide_names_exist():
    text = EXTENDING.read_text()
    places = re.findall(r"`([\w/]+\.py)(?::(\w+))?`", text)
    assert len(places) > 20
    for path, name in places:
        root = ROOT if path.startswith(("tests/", "studies/")) else ROOT / "src" / "resque"
        module = root / path
        assert module.is_file(), path
        assert not name or re.search(rf"\b{name}\b", module.read_text()), f"{path}:{name}"


def command_options() -> dict[str, set[str]]:
    """Command → its options and arguments, as the command line has them."""

    def commands(group, path):
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                yield from commands(command, [*path, name])
            else:
                yield " ".join([*path, name]), command

    return {
        name: {
            option
            for parameter in command.params
            for option in (*parameter.opts, *parameter.secondary_opts)
            if parameter.param_type_name == "option" and option != "--help"
        }
        for name, command in commands(typer.main.get_command(app), ["resque"])
    }


def test_command_reference_has_every_command_option_and_an_example():
    text = (ROOT / "docs/reference/commands.md").read_text()
    sections = dict(re.findall(r"^## (resque [\w ]+)\n(.*?)(?=^## |\Z)", text, re.M | re.S))
    expected = command_options()
    assert set(sections) == set(expected)
    for name, options in expected.items():
        prose, example = re.sub(r"```.*?```", "", sections[name], flags=re.S), f"\n{name}"
        assert set(re.findall(r"`(--[a-z-]+)`", prose)) == options, name
        assert example in sections[name], f"{name}: no example"
        examples = " ".join(re.findall(r"```text\n(.*?)```", sections[name], re.S))
        assert set(re.findall(r"(--[a-z-]+)", examples)) <= options, name


def test_file_format_page_has_every_key_of_the_project_file():
    text = (ROOT / "docs/reference/file-formats.md").read_text()
    rows = re.findall(r"^\| `\[(\w+)\]` \| `(\w+)` \|", text, re.M)
    assert sorted(rows) == sorted((section, key) for section, keys in KEYS.items() for key in keys)


def test_page_of_shift_types_has_each_once_and_a_small_picture():
    page = ROOT / "docs/reference/shift-types.md"
    assert sorted(re.findall(r"^\| `(\w+)` \|", page.read_text(), re.M)) == sorted(SHIFT_TYPES)
    (picture,) = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", page.read_text())
    assert (page.parent / picture).stat().st_size < 300_000


def test_python_reference_has_every_public_name():
    text = (ROOT / "docs/reference/python.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.M)) == set(resque.__all__)


def test_readme_fits_on_150_lines_and_its_pictures_are_small():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150
    for picture in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text):
        assert (ROOT / picture).stat().st_size < 200_000


def test_picture_of_a_forecast_fetches_nothing():
    spec = importlib.util.spec_from_file_location("pictures", ROOT / "docs" / "pictures.py")
    pictures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pictures)
    entries = read_json_lines(ROOT / "tests/data/format-1/ledger.jsonl")
    forecast = next(entry for entry in entries if isinstance(entry, resque.Forecast))
    drawing = pictures.forecast_picture(forecast)
    assert forecast.id in drawing
    assert not re.search(r"@font-face|(?:src|href)=|url\((?!#)", drawing)
