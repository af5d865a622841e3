"""The docs name what the code has, their programs run, their links lead somewhere, and the site builds."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import textwrap
import types
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest

from agents.training.callbacks import Callback
from docs.generate import docstrings
from docs.generate.environments import COMPARING, VERSIONS, environment_page, example, is_world
from docs.generate.pictures import tiles
from docs.generate.rewards import reward_sections
from rss_env.cli import main as rss_env_command
from rss_env.datasets import DATASETS
from rss_env.env import SegmentationEnv
from rss_env.registration import ENV_IDS, make_vector_env
from rss_env.rewards import LEVELS, REWARDS, Concurrent
from rss_env.task import SegmentationTask
from rss_env.torch_task import TorchSegmentationTask
from rss_env.vector import SegmentationVectorEnv
from tests.once import once
from tests.trees import dataset_kwargs, save_photo

ROOT = Path(__file__).parent.parent
LOGGED = r"(?:reward|policy|likelihood|replay|train|time|val)/[a-z_]+"
FIXED_BY_ID = {"dataset", "level"}
TAKING_ARGUMENTS = (SegmentationTask, TorchSegmentationTask, SegmentationVectorEnv, SegmentationEnv, make_vector_env)
MARKDOWN = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
PACKAGES = (
    "rss_env",
    "rss_env.datasets",
    "rss_env.errors",
    "rss_env.rewards",
    "rss_env.wrappers",
    "rss_env.wrappers.vector",
    "agents",
    "agents.callbacks",
    "agents.ops",
    "agents.plugins",
    "agents.training",
)
PROGRAMS = [
    pytest.param(program, id=f"{path.stem}-{number}")
    for path in sorted((ROOT / "docs").glob("*.md"))
    for number, program in enumerate(re.findall(r"```python\n(.*?)```", path.read_text(), flags=re.DOTALL))
]


def page(name: str) -> str:
    return (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")


def section(markdown: str, heading: str) -> str:
    """What stands below ``## heading``, up to the next heading of that rank."""
    return re.split(r"^## ", markdown.partition(f"\n## {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0].strip()


def rows(markdown: str) -> list[list[str]]:
    """The cells of every table row, header and ruler left out."""
    lines = re.findall(r"(?:^\|.*\|\n)+", markdown + "\n", flags=re.MULTILINE)
    return [[cell.strip() for cell in line[1:-1].split(" |")] for block in lines for line in block.splitlines()[2:]]


def named(parameters: dict[str, inspect.Parameter]) -> dict[str, inspect.Parameter]:
    kinds = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return {name: p for name, p in parameters.items() if p.kind in kinds and name not in {"self", *FIXED_BY_ID}}


def arguments_of(*things: object) -> dict[str, inspect.Parameter]:
    """Every argument that can be named in the calls of ``things``; the last one's default holds."""
    return {name: p for thing in things for name, p in named(dict(inspect.signature(thing).parameters)).items()}


def test_every_logged_number_is_defined_and_every_defined_one_is_logged():
    code = "".join(path.read_text() for path in (ROOT / "agents").rglob("*.py"))
    logged = set(re.findall(rf'"({LOGGED})"', code))
    defined = set(re.findall(rf"^\| `({LOGGED})` \|", page("metrics"), flags=re.MULTILINE))
    assert len(logged) > 10
    assert logged == defined


def test_every_data_set_has_a_row_in_the_environments_page():
    names = re.findall(r"^\| `(\w+)` \| \S", page("environments"), flags=re.MULTILINE)
    assert set(DATASETS) <= set(names)


def test_the_environments_page_has_every_argument_with_its_default():
    table = {row[0].strip("`"): row for row in rows(section(page("environments"), "Arguments"))}
    arguments = arguments_of(*TAKING_ARGUMENTS)
    assert set(table) == set(arguments)
    literal = {name: row[1].strip("`") for name, row in table.items() if re.fullmatch("`[^`]+`", row[1])}
    assert len(literal) > 10
    for name, default in literal.items():
        expected = arguments[name].default
        assert ast.literal_eval(default) == getattr(expected, "value", expected), name


def test_the_rewards_page_has_every_reward_with_its_levels_and_options():
    table = {row[0].strip("`"): row for row in rows(page("rewards").partition("## A callable")[0])}
    assert list(table) == list(REWARDS)
    for name, reward in REWARDS.items():
        assert [level for level in LEVELS if level in table[name][1]] == [
            level for level in LEVELS if reward.has_level(level)
        ]
        assert tuple(re.findall("`(.+?)`", table[name][2])) == reward.options
    explained = re.findall(r"^- `(\w+)`: ", page("rewards"), flags=re.MULTILINE)
    assert set(explained) == {option for reward in REWARDS.values() for option in reward.options}


def test_the_generated_part_of_the_rewards_page_has_every_docstring_and_explains_every_option():
    parts = dict(re.findall(r"^### `(\w+)`\n(.*?)(?=^### |\Z)", reward_sections(), flags=re.MULTILINE | re.DOTALL))
    assert list(parts) == list(REWARDS)
    for name, reward in REWARDS.items():
        for score in (reward.formula, reward.pixel_score):
            if score is not None:
                assert (inspect.getdoc(score) or "").partition("\n")[0] in parts[name]
        assert [row[0].strip("`") for row in rows(parts[name])] == list(reward.options)
        assert all(row[2] for row in rows(parts[name]))
        assert "Args:" not in parts[name]


def test_the_pages_of_the_data_sets_have_every_id():
    pages = {name: environment_page(name, {}) for name in DATASETS}
    for env_id in ENV_IDS:
        assert [name for name, text in pages.items() if f"`{env_id}`" in text] == [env_id.split("-")[1]]
        assert env_id.rpartition("-")[2] in VERSIONS


@pytest.mark.parametrize("name", DATASETS)
def test_a_data_sets_page_tells_all_of_its_environments(name: str):
    entry, text = DATASETS[name], environment_page(name, {"a/b.png": "What is seen."})
    headings = re.findall(r"^## (.+)$", text, flags=re.MULTILINE)
    contract = re.findall(r"^ *## (.+)$", SegmentationEnv.__doc__ or "", flags=re.MULTILINE)
    assert headings == ["Example", *contract, "Arguments", "Data", "Version history"]
    assert "![What is seen.](a/b.png)" in text
    assert all(said in text for said in (entry.info.citation, entry.info.licence, entry.info.ignore, entry.info.steps))
    assert "*Args" not in text
    assert "::\n" not in text

    tables = {row[0].strip("`"): row for row in rows(section(text, "Arguments"))}
    arguments = arguments_of(*TAKING_ARGUMENTS)
    left_out = {"root", "resize"} if entry.generate else set()
    left_out |= set(COMPARING) if is_world(entry) else set()
    assert set(tables) == set(arguments) - left_out | set(entry.options)
    for argument, (_, default, meaning) in tables.items():
        assert meaning, argument
        if argument in arguments and argument != "image_size":
            expected = arguments[argument].default
            assert ast.literal_eval(default.strip("`")) == getattr(expected, "value", expected), argument
    assert tables["image_size"][1] == f"`{entry.image_size}`"


@pytest.mark.parametrize("name", DATASETS)
def test_the_example_on_a_data_sets_page_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    dataset_kwargs(name, tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    exec(example(name), {})
    assert re.match(r"(mean IoU|outcome): 0\.", capsys.readouterr().out)


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_programs_on_the_pages_run(program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As a module, so that its functions can be imported again; what is for the script alone does not run."""
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("program_of_a_page")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(program, vars(module))


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")  # the package imports some of its commands
def test_the_commands_on_the_page_of_your_own_score_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    parts = section(page("own_score"), "On the command line").split("\n\n")
    module, commands = (textwrap.dedent(part) for part in parts if part.startswith("    "))
    (tmp_path / "my_scores.py").write_text(module)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for command in commands.splitlines():
        name, *words = shlex.split(command.removeprefix("python -m "))
        small = ["--env-kwargs", '{"num_images": 16}', "--network-options", '{"width": 8}']
        monkeypatch.setattr(sys, "argv", [name, *words, *(small if name.startswith("agents.") else [])])
        with pytest.raises(SystemExit) as ended:
            runpy.run_module(name.replace("rss-env", "rss_env"), run_name="__main__", alter_sys=True)
        assert ended.value.code == 0, command
    assert len(list((tmp_path / "runs").glob("*/config.json"))) == 3
    assert (tmp_path / "picture.png").exists()


def test_the_page_of_python_has_every_method_of_a_callback():
    table = re.findall(r"^\| `(\w+)\((.*?)\)` \|", section(page("python"), "Watch, and stop early"), flags=re.MULTILINE)
    methods = {name: method for name, method in vars(Callback).items() if name.startswith("on_")}
    assert dict(table) == {
        name: ", ".join([*inspect.signature(method).parameters][1:]) for name, method in methods.items()
    }


def test_the_page_of_your_own_score_has_every_setting_of_slow_ones_with_its_default():
    table = {row[0].strip("`"): ast.literal_eval(row[1].strip("`")) for row in rows(section(page("own_score"), "Slow"))}
    settings = inspect.signature(Concurrent).parameters.values()
    assert table == {setting.name: setting.default for setting in settings if setting.kind is setting.KEYWORD_ONLY}


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")  # the package imports some of its commands
def test_the_commands_on_the_page_of_your_own_photos_lead_to_a_trained_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """They are run as the page has them, on generated pictures; only training is cut to one step."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    colours = np.array([[128, 64, 128], [0, 128, 192], [0, 0, 0]], np.uint8)
    for i in range(8):
        mask = colours[rng.choice(3, (12, 16), p=[0.6, 0.3, 0.1])]
        save_photo(Path("mydata", "photos", f"{i}.JPEG"), mask)
        save_photo(Path("mydata", "labels", f"{i}_L.png"), mask)
    codes = []
    for block in re.findall(r"```sh\n(.*?)```", page("your_photos"), flags=re.DOTALL):
        written = re.match(r"cat > .*?\nEND\n", block, flags=re.DOTALL)
        if written:
            subprocess.run(["sh"], input=written.group(), text=True, check=True)
            block = block[written.end() :]
        for line in block.replace("\\\n", " ").splitlines():
            first, *words = shlex.split(line)
            if first == "rss-env":
                codes.append(rss_env_command(words))
            else:
                assert [first, words[0]] == ["python", "-m"]
                monkeypatch.setattr(sys, "argv", [*words[1:], "--steps", "1", "--device", "cpu"])
                with pytest.raises(SystemExit) as end:
                    runpy.run_module(words[1], run_name="__main__", alter_sys=True)  # as python -m has it
                codes.append(end.value.code)
    assert codes == [1, 0, 0, 0]  # colours without classes; clean; trained; converted
    assert "palette" in capsys.readouterr().out
    assert list(Path("runs", "first", "checkpoints").iterdir())
    assert rss_env_command(["check", "data/photos"]) == 0


@pytest.mark.parametrize("path", MARKDOWN, ids=lambda path: path.name)
def test_relative_links_lead_to_a_file_and_a_heading(path: Path):
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)):
        address = urlsplit(target)
        if address.scheme or address.path.startswith("course/"):  # pages made of lessons: the build checks them
            continue
        file = (path.parent / unquote(address.path)) if address.path else path
        assert file.exists(), target
        if address.fragment:
            assert address.fragment in anchors(file.read_text()), target


def anchors(markdown: str) -> set[str]:
    """The anchors of the headings as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", markdown, flags=re.DOTALL), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_a_table_keeps_pipes_as_text():
    made = docstrings.table([("x | y", "`x | y` | z")], ("a", "b"))
    assert made.splitlines()[2] == "| x \\| y | `x \\| y` \\| z |"


@pytest.mark.parametrize("count", [1, 6, 7, 150, 171])
def test_tiles_show_all_of_each_image_and_are_wide(count: int):
    images = np.arange(count * 6, dtype=np.uint8).reshape(count, 1, 2, 3)
    picture = tiles(images)
    assert 500 <= picture.shape[1] <= 600
    assert 2 <= picture.shape[1] / picture.shape[0] <= 4  # about 3:2 of images of 2:1
    assert {tuple(colour) for colour in images.reshape(-1, 3)} == {tuple(colour) for colour in picture.reshape(-1, 3)}


def test_the_page_of_a_data_set_has_every_class_next_to_its_colour():
    page = environment_page("CamVid", {})
    assert '<span><span style="background: rgb(128 64 128)"></span>3 road</span>' in page
    assert page.count('<span style="background') == 11


def test_the_examples_in_the_generator_run():
    assert doctest.testmod(docstrings) == (0, 2)


class Resources(HTMLParser):
    """What a browser would fetch to show a page, and the targets of its links."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value for name, value in attrs if value}
        if "id" in found:
            self.ids.append(found["id"])
        if "src" in found:
            self.fetched.append(found["src"])
        if "href" in found:
            (self.fetched if tag == "link" else self.links).append(found["href"])


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, without running its lessons. What is generated stays out of the checkout."""

    def build(folder: Path) -> Path:
        generated = shutil.ignore_patterns("course", "environments", "generated", "__pycache__")
        shutil.copytree(ROOT / "docs", folder / "docs", ignore=generated)
        shutil.copy(ROOT / "CHANGELOG.md", folder)
        (folder / "benchmarks").symlink_to(ROOT / "benchmarks")  # files that pages show and link to
        options = ["--fail-on-warning", "--keep-going", "--quiet", "--define", "sphinx_gallery_conf.plot_gallery=0"]
        done = subprocess.run(
            [sys.executable, "-m", "sphinx", *options, str(folder / "docs"), str(folder / "site")],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return folder / "site"

    return once(tmp_path_factory, "site", build)


def test_the_site_has_a_page_and_a_card_with_a_picture_for_every_data_set(site: Path):
    overview = Resources(site / "environments.html")
    covers = set()
    for name in DATASETS:
        address = f"environments/{name.lower()}.html"
        in_navigation = Resources(site / "index.html").links.count(address)
        assert in_navigation > 0
        assert overview.links.count(address) > in_navigation
        shown = [source for source in Resources(site / address).fetched if source.startswith("../_images/")]
        covers.add(shown[0].removeprefix("../"))
    assert len(covers) == len(DATASETS)
    assert covers <= set(overview.fetched)


@pytest.mark.parametrize("package", PACKAGES)
def test_the_reference_has_every_public_class_and_function(site: Path, package: str):
    documented = {name for path in (site / "api").glob("*.html") for name in Resources(path).ids}
    module = importlib.import_module(package)
    for name in module.__all__:
        thing = getattr(module, name)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            assert {f"{package}.{name}", f"{thing.__module__}.{thing.__qualname__}"} & documented, name


def test_the_reference_shows_code_as_code(site: Path):
    """Indented code of a docstring that is not read as code is a quotation, and its headings are text."""
    for path in (site / "api").glob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert "<blockquote>" not in text, path.name
        assert "## " not in text, path.name


def test_the_site_needs_no_other_server_and_none_of_its_links_is_broken(site: Path):
    pages = {path: Resources(path) for path in site.rglob("*.html") if "_static" not in path.parts}
    assert len(pages) > len(DATASETS)
    for path, found in pages.items():
        for address in found.fetched:
            assert not urlsplit(address).netloc, f"{path.name} fetches {address}"
        for link in [*found.links, *found.fetched]:
            parts = urlsplit(link)
            if parts.netloc or parts.scheme:
                continue
            file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert file.exists(), f"{path.name} links to {link}"
            if parts.fragment and file in pages:
                assert unquote(parts.fragment) in pages[file].ids, f"{path.name} links to {link}"


def test_no_style_sheet_of_the_site_needs_another_server(site: Path):
    sheets = list(site.rglob("*.css"))
    assert len(sheets) > 3
    for sheet in sheets:
        assert not re.search(r"""(url\(|@import)\s*["']?(https?:)?//""", sheet.read_text(encoding="utf-8")), sheet.name


def test_no_code_of_the_site_generator_is_published(site: Path):
    code = {path for path in site.rglob("*.py*") if path.is_file()}
    lessons = set((site / "_downloads").rglob("lesson_*.py"))
    assert code == lessons
