"""README.md and docs/: its navigation and links, its generated and its hand-made tables, and its commands, run."""

import configparser
import inspect
import math
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import keras
import pytest

import keras_rcnn
from keras_rcnn import cli
from keras_rcnn.cli.command_line import command_line
from keras_rcnn.training.recipe import load_recipe
from keras_rcnn.training.settings import settings_markdown
from tests.standing import pages, write_data, write_photos, write_runs
from tools.pages import family, zoo
from tools.pages.openvino import export_tables

ROOT = Path(__file__).resolve().parents[1]
DOCS, SITE = ROOT / "docs", ROOT / "docs" / "pages"
ALL = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")


def read(path):
    return path.read_text(encoding="utf-8")


def prose(path):
    """A page without its code."""
    return re.sub(r"```.*?```", "", read(path), flags=re.S)


def anchors(path):
    """Where `page.md#here` can lead, as MkDocs has it."""
    heads = re.findall(r"^#+ (.+)$", prose(path), re.M)
    return {re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", head.lower()).strip()) for head in heads}


def name(path):
    return str(path.relative_to(ROOT))


# === Pages ===


def test_the_readme_is_short():
    assert len(read(ROOT / "README.md").splitlines()) <= 150


def test_the_readmes_two_commands_stand():
    text = read(ROOT / "README.md")
    assert "python3 -m venv .venv && .venv/bin/pip install -e '.[demo]' && .venv/bin/keras-rcnn demo\n" in text
    assert ".venv/bin/pip install -e '.[test]' && .venv/bin/pytest -n 2\n" in text


def test_every_page_is_in_the_navigation():
    navigation = read(DOCS / "mkdocs.yml").partition("\nnav:\n")[2].partition("\nmarkdown_extensions:")[0]
    named = re.findall(r"(\S+\.md)$", navigation, re.M)
    assert sorted(named) == sorted(page.relative_to(SITE).as_posix() for page in SITE.rglob("*.md"))


@pytest.mark.parametrize("page", ALL, ids=name)
def test_links_lead_somewhere(page):
    for link in LINK.findall(prose(page)):
        if link.startswith(("http://", "https://")):
            continue
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), link
        if anchor:
            assert anchor in anchors(path), link
        if page.is_relative_to(SITE) and not path.is_relative_to(SITE):  # docs/hooks.py puts a copy into the site
            assert page.parent == SITE and link.startswith("../../") and path.suffix != ".md", link


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/design.md"])
def test_the_files_that_are_named_are_there(page):
    named = re.findall(r"`((?:keras_rcnn|tests|tools|zoo|docs|\.ci)/[\w./]*)`", prose(ROOT / page))
    assert len(named) > 9
    for path in named:
        assert (ROOT / path).exists(), path


def test_the_reference_has_every_public_name():
    text = "\n".join(read(page) for page in sorted((SITE / "reference").glob("*.md")))
    modules = set(re.findall(r"^::: (\S+)$", text, re.M))
    for room in (
        "app",
        "models",
        "layers",
        "backbones",
        "data",
        "training",
        "evaluation",
        "export",
        "serve",
        "convert",
        "bulk",
    ):
        assert f"keras_rcnn.{room}" in modules
    assert {f"keras_rcnn.ops.{one}" for one in keras_rcnn.ops.__all__} <= modules
    for public in keras_rcnn.__all__:
        value = getattr(keras_rcnn, public)
        if not (inspect.isclass(value) or inspect.isfunction(value)):
            continue
        room = value.__module__
        while room not in modules and f"{room}.{public}" not in modules:
            room = room.rpartition(".")[0]
            assert room, f"docs/pages/reference: {value.__module__}.{public} is on no page"


def test_the_extra_builds_the_site():
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    assert "mkdocs-material" in parser["options.extras_require"]["docs"]
    assert 'mkdocs" build --strict -f docs/mkdocs.yml' in read(ROOT / ".ci" / "run")


def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocstrings", reason="the site is built where the extra is: pip install -e '.[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", DOCS / "mkdocs.yml", "-d", tmp_path / "site"]
    built = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"})
    assert built.returncode == 0, built.stdout + built.stderr
    page = read(tmp_path / "site" / "reference" / "evaluation.html")
    assert "&gt;&gt;&gt; " in page and "<p>&gt;&gt;&gt; " not in page  # examples are code


# === Tables ===


def test_generated_parts_are_as_the_generator_has_them():
    parts = {
        "README.md": [zoo.preset_tables()["zoo"]],
        "docs/pages/presets.md": [zoo.preset_tables()["presets"]],
        "docs/pages/family.md": [family.diffs(), family.family(), family.stages()],
        "docs/pages/training.md": [settings_markdown()],
        "docs/pages/serving.md": export_tables().values(),
    }
    for page, bodies in parts.items():
        for body in bodies:
            assert body in read(ROOT / page), f"{page}: run python tools/readme.py"


def test_the_readmes_comparison_is_the_measured_one():
    """Each row is one of performance.md, whose faster form of torchvision it shows."""
    measured = [re.split(r" *\| *", line)[1:-1] for line in read(SITE / "performance.md").splitlines() if "|" in line]
    short = read(ROOT / "README.md").partition("<!-- compare")[2].partition("<!-- /compare -->")[0]
    rows = [re.split(r" *\| *", line)[1:-1] for line in short.splitlines() if re.search(r"\| [\d.]+ \|", line)]
    assert len(rows) == 4
    at = 0
    for title, ours, theirs, ratio in rows:
        at = next(i for i, row in enumerate(measured) if i >= at and row[0] == title)
        _, first, *others, share = measured[at]
        assert (ours, ratio) == (first, share)
        assert float(theirs) == min(map(float, others))


def test_the_loss_by_hand():
    """By `math`, by `keras_rcnn.ops.losses` as the page has it, and as the page says."""

    def smooth_l1(error, beta=1 / 9):
        return 0.5 * error**2 / beta if abs(error) < beta else abs(error) - 0.5 * beta

    def sigmoid(logit):
        return 1 / (1 + math.exp(-logit))

    def crossentropy(logits, label):
        return math.log(sum(map(math.exp, logits))) - logits[label]

    page = read(SITE / "family.md")
    objectness = -(math.log(sigmoid(2)) + math.log(1 - sigmoid(-1)) + math.log(1 - sigmoid(0.5))) / 3
    errors = [0.1 - 8 / 64, -0.05 + 4 / 64, 0.05 - math.log(64 / 64), -0.2 - math.log(48 / 64)]
    rpn_box = sum(map(smooth_l1, errors)) / 3
    classifier = (crossentropy([2, 0.5, -1], 0) + crossentropy([0, 0, 1], 2)) / 2
    box = sum(map(smooth_l1, [0.4 - 0.5, 0.5 - 0.5, 0.0, 0.3 - 5 * math.log(110 / 100)])) / 2
    expected = [objectness, rpn_box, classifier, box]

    rows = dict(re.findall(r"^\| `?(\w+)`? \| (\d\.\d{4}) \|$", page.partition("<!-- by hand")[2], re.M))
    names = ["loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg"]
    assert [float(rows[one]) for one in names] == pytest.approx(expected, abs=5e-5)
    assert float(rows["sum"]) == pytest.approx(sum(expected), abs=5e-5)
    for value in expected:
        assert f"**{value:.4f}**" in page
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", page, re.S) if "rpn_losses(" in block)
    space = {}
    exec(compile(code, "family.md", "exec"), space)  # noqa: S102
    assert space["computed"] == pytest.approx(expected, rel=1e-5)


# === Commands ===

# what stands for a preset of the zoo, and what makes a command short; the rest of the line is as it is written
SHORT = {"--epochs": "1", "--minutes": "0.001"}
INSTEAD = {
    "nuclei_mrcnn": "runs/masks",
    "nuclei_frcnn": "runs/mine",
    "256": "8",
    "128": "8",
}
QUICK = ("check", "detect", "evaluate", "proposals", "compress", "convert-data", "presets")


def commands():
    """Each line of bash that starts with keras-rcnn, once."""
    blocks = [block for page in pages(ROOT) for block in re.findall(r"```bash\n(.*?)```", read(page), re.S)]
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return sorted({line for line in lines if re.match(r"(\w+=\S+ )*keras-rcnn ", line)})


def words(line):
    return shlex.split(line[line.index("keras-rcnn") :])[1:]


def runnable(line):
    """Whether a command needs nothing but what tests/standing.py makes; keypoints are trained in tests/training,
    tests/serve/test_process.py starts services, tests/app/test_page.py the app, and tests/export/test_web.py has npm's
    registry."""
    recipe = line.startswith("keras-rcnn train ") and (".py" in line or "keypoints=True" in line)
    outside = "--server", "--merge", "--format web", "://"
    elsewhere = words(line)[0] in ("app", "convert", "push", "serve") or any(word in line for word in outside)
    return line.startswith("keras-rcnn ") and not recipe and not elsewhere


def shortened(line):
    given, made = words(line), []
    for before, word in zip([None, *given], given):
        word = f"new/{word}" if before == "--out" else word
        made.append(SHORT.get(before) or INSTEAD.get(word, word))
    if made[0] == "train":
        made += ["--overwrite"] if "--base" in made else ["--overwrite", "--base", "runs/mine"]
        made += ["--epochs", "1"] if "--epochs" not in made else []
    return made


def test_there_are_commands():
    assert len(commands()) > 25
    assert {words(line)[0] for line in commands() if runnable(line)} == {*QUICK, "train", "export"}


@pytest.mark.parametrize("line", commands(), ids=str)
def test_commands_are_understood(line):
    args = command_line().parse_args(words(line))
    if getattr(args, "recipe", None):
        settings = load_recipe(ROOT / args.recipe, args.set)
        assert settings.train is not None


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("docs")
    write_photos(made)
    write_runs(made, write_data(made))
    return made


def run(line, folder, monkeypatch):
    monkeypatch.chdir(folder)
    keras.utils.set_random_seed(0)
    fine = (0, 1) if words(line)[0] == "check" else (0,)  # 1: there is something wrong with the tiny data
    assert cli.main(shortened(line)) in fine


@pytest.mark.parametrize("line", [one for one in commands() if runnable(one) and words(one)[0] in QUICK])
def test_commands_run(line, folder, monkeypatch):
    run(line, folder, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("line", [one for one in commands() if runnable(one) and words(one)[0] not in QUICK])
def test_long_commands_run(line, folder, monkeypatch):
    run(line, folder, monkeypatch)
