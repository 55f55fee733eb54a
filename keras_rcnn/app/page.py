"""The page, by Gradio: controls, a column for each of two presets, and the four papers. All it shows is `Viewer`'s."""

# Gradio need not be installed where types are checked, and where it is, its own are stricter than what it takes
# pyright: reportMissingImports=false, reportPrivateImportUsage=false, reportArgumentType=false

from __future__ import annotations

import contextlib
import html
from collections.abc import Callable, Iterator
from typing import Any

import fastapi
import gradio as gr
import numpy as np

from keras_rcnn.app.papers import MOST, WORDS, papers
from keras_rcnn.app.stages import Settings, own_settings
from keras_rcnn.app.viewer import View, Viewer
from keras_rcnn.presets import zoo_folder

_TITLE = "What the detector sees"
_NONE = "(none)"
_EXAMPLES = ("fluorescence.png", "chelsea.jpg", "astronaut.jpg")  # of zoo/demo
_SCORES = "7. Class scores of the RoI"
_WIDE = 380  # pixels of a picture on the page
_UPLOAD = "64mb"
# the system's fonts: those of Gradio's themes may come from Google
_FONTS = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
# each stage of a column: a field of View, its title, what it is
_STAGES = (
    (
        "anchors",
        "1. Anchors.",
        "Dots: centres of a level's anchors. Boxes: all anchors of one cell, the best.",
    ),
    ("objectness", "2. Objectness.", "How likely the best anchor of each cell holds an object: black 0, yellow 1."),
    ("candidates", "3. Before NMS.", "Anchors moved by their deltas, the best 60; or what selective search found."),
    ("proposals", "4. Proposals.", "What is left after NMS, the best 60. The box head looks at these alone."),
    ("sampling", "5. A region on its map.", "Where the features of one region of interest (RoI) are read."),
    ("region", "6. Refined.", "White: the RoI. Coloured: where the box head moves it, for its likeliest class."),
    ("detections", "8. Detections.", "After the score threshold and NMS; with masks, if the detector has them."),
)


def build_page(viewer: Viewer) -> fastapi.FastAPI:
    """The application; see `keras_rcnn.app.create_page`."""
    examples = [str(zoo_folder() / "demo" / name) for name in _EXAMPLES]
    photo, names = viewer.read(examples[0]), list(viewer.models)
    own = own_settings(viewer.models[names[0]])
    first = viewer.view(names[0], photo, own)
    with gr.Blocks(title=_TITLE, analytics_enabled=False) as blocks:
        gr.Markdown(f"# {_TITLE}")
        with gr.Row():
            with gr.Column(scale=1):
                upload = _photo(examples[0])
                gr.Examples([[example] for example in examples], upload, label="Examples")
            with gr.Column(scale=2):
                with gr.Row():
                    preset = gr.Dropdown(names, value=names[0], label="Preset")
                    beside = gr.Dropdown([_NONE, *names], value=_NONE, label="Beside it")
                sliders = _sliders(own)
                with gr.Row():
                    level = gr.Slider(1, 5, 1, step=1, label="Pyramid level", info="of 1 and 2; 1 is the finest")
                    region = gr.Slider(1, 100, 1, step=1, label="RoI", info="of 5 to 7: a proposal, 1 is the best")
        with gr.Tabs():
            with gr.Tab("Step by step"), gr.Row():
                left = _column(first)
                right = _column(None)
            with gr.Tab("The four papers"):
                button = gr.Button("Walk through the four papers with this photo")
                cards = [_card() for _ in WORDS]
        controls = [upload, *sliders, level, region]
        show, changes = _shown(viewer), [upload.change, *(one.release for one in controls[1:])]
        one_at_a_time: dict[str, Any] = {"concurrency_id": "detectors", "concurrency_limit": 1}
        quiet: dict[str, Any] = {"show_progress": "minimal", "api_visibility": "private", **one_at_a_time}
        gr.on(changes, show, [preset, *controls], left, **{**quiet, "api_visibility": "public"}, api_name="stages")
        gr.on([beside.input, *changes], show, [beside, *controls], right, **quiet)
        chosen = preset.input(lambda name: _values(viewer, name), preset, sliders, api_visibility="private")
        chosen.then(show, [preset, *controls], left, **quiet).then(show, [beside, *controls], right, **quiet)
        button.click(
            _walked(viewer), upload, [part for card in cards for part in card], api_name="papers", **one_at_a_time
        )
    return gr.mount_gradio_app(
        fastapi.FastAPI(),
        blocks,
        "/",
        theme=gr.themes.Base(**_FONTS),
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        max_file_size=_UPLOAD,
        show_error=True,
    )


def _photo(example: str) -> gr.Image:
    """The photo, as the path of a file that nobody has looked into: `Viewer.read` does, and says what is wrong."""
    sources, buttons = ["upload", "webcam", "clipboard"], ["fullscreen"]
    component = gr.Image(example, type="filepath", sources=sources, label="Photo", height=320, buttons=buttons)
    # a subclass would do, but for each Gradio writes a .pyi file beside its source
    component.preprocess = lambda payload: None if payload is None else payload.path
    return component


def _sliders(own: Settings) -> list[gr.Slider]:
    """What can be changed of a detector, in the order of `_settings`."""
    with gr.Row():
        score = gr.Slider(0, 1, own.score, step=0.01, label="Score threshold", info="of the detections")
        iou = gr.Slider(0, 1, own.iou, step=0.05, label="NMS IoU", info="of the detections, within a class")
    with gr.Row():
        rpn_iou = gr.Slider(0, 1, _rpn_iou(own), step=0.05, label="NMS IoU of the RPN", info="of the proposals")
        proposals = gr.Slider(1, 2000, own.proposals, step=1, label="Proposals", info="that the box head looks at")
    return [score, iou, rpn_iou, proposals]


def _settings(score: float, iou: float, rpn_iou: float, proposals: float) -> Settings:
    return Settings(score=score, iou=iou, rpn_iou=rpn_iou, proposals=int(proposals))


def _values(viewer: Viewer, name: str) -> list[float]:
    """The sliders as a preset has them."""
    own = own_settings(viewer.models[name])
    return [own.score, own.iou, _rpn_iou(own), own.proposals]


def _rpn_iou(own: Settings) -> float:
    return 0.7 if own.rpn_iou is None else own.rpn_iou


def _column(view: View | None) -> list[Any]:
    """A detector's stages, in the order in which `_shown` answers."""
    with gr.Column(visible=view is not None) as column:
        summary = gr.Markdown(view.summary if view else "")
        pictures, scores = [], None
        with gr.Row():  # as many beside each other as there is room for
            for name, title, what in _STAGES:
                value = getattr(view, name) if view else None
                if name == "detections":  # the last one
                    scores = gr.Label(view.scores if view else None, num_top_classes=6, label=_SCORES, min_width=_WIDE)
                with gr.Column(min_width=_WIDE, visible=value is not None) as stage:
                    gr.Markdown(f"**{title}** {what}")
                    pictures += [stage, _picture(value)]
        with gr.Accordion("Numbers", open=False):
            numbers = gr.JSON(view.numbers if view else None)
    return [column, summary, *pictures, scores, numbers]


def _card() -> list[Any]:
    """A paper: its words, and for each picture a column, a caption and the picture."""
    parts: list[Any] = [gr.Markdown()]
    with gr.Row():
        for _ in range(MOST):
            with gr.Column(min_width=_WIDE, visible=False) as column:
                parts += [column, gr.Markdown(), _picture(None)]
    return parts


def _picture(value: np.ndarray | None) -> gr.Image:
    """A picture that can be enlarged and saved; Gradio's button to share it would send it to Hugging Face."""
    return gr.Image(value, show_label=False, interactive=False, height=_WIDE, buttons=["fullscreen", "download"])


def _shown(viewer: Viewer) -> Callable[..., list[Any]]:
    """What a column's controls do."""

    def show(
        name: str,
        path: str | None,
        score: float,
        iou: float,
        rpn_iou: float,
        proposals: float,
        level: float,
        region: float,
    ) -> list[Any]:
        if name == _NONE:
            return [gr.Column(visible=False), *[gr.skip()] * (2 * len(_STAGES) + 3)]
        with _readable():
            view = viewer.view(
                name, viewer.read(path), _settings(score, iou, rpn_iou, proposals), int(level), int(region)
            )
        pictures = [getattr(view, field) for field, _, _ in _STAGES]
        shown = [part for picture in pictures for part in (gr.Column(visible=picture is not None), picture)]
        return [gr.Column(visible=True), view.summary, *shown, view.scores, view.numbers]

    return show


def _walked(viewer: Viewer) -> Callable[[str | None], list[Any]]:
    """What the button of the papers does."""

    def walk(path: str | None) -> list[Any]:
        with _readable():
            found = papers(viewer, viewer.read(path))
        answer: list[Any] = []
        for paper in found:
            answer.append(paper.text)
            for picture, caption in paper.pictures:
                answer += [gr.Column(visible=True), caption, picture]
            answer += [gr.Column(visible=False), "", None] * (MOST - len(paper.pictures))
        return answer

    return walk


@contextlib.contextmanager
def _readable() -> Iterator[None]:
    """Errors that a user can do something about, as a message on the page."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise gr.Error(html.escape(str(error)), print_exception=False) from error
