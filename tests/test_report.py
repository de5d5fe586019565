"""The report: one file that needs nothing beside it and says what the results say."""

from __future__ import annotations

import ast
import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest

import prise
from data.results import Row, write_results
from deploy.report.html import number
from deploy.report.making_sections import smoothed
from deploy.report.page import write_report
from deploy.report.plots import HEIGHT, WIDTH, Marker, Plot, Series, render
from deploy.report.run_files import EPISODES, RESULTS
from deploy.report.video import compose_frame
from tests.tiny_run import HOSTILE, NUM_FRAMES, write_run

VOID = {"meta", "br"}
MAX_BYTES = 15 * 2**20


class Document(HTMLParser):
    """Checks that tags close in order, and keeps text and addresses."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.links += [v for k, v in attributes if k in ("src", "href", "data", "poster") and v]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, text: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.words.append(text)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def html(run: Path) -> str:
    return write_report(run).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def document(html: str) -> Document:
    return Document(html)


def test_nothing_outside_the_file_is_needed(html: str, document: Document) -> None:
    assert document.links
    assert all(link.startswith("data:") for link in document.links)
    assert not re.search(r"url\(|@import|https?://", html)
    assert len(html.encode()) < MAX_BYTES


def test_what_stands_in_files_is_never_markup(html: str, document: Document) -> None:
    assert HOSTILE not in html
    assert HOSTILE in document.text


def test_it_says_what_the_results_say(document: Document) -> None:
    text = document.text
    assert "90 % success: vision + force" in text
    assert "9 / 10" in text
    assert "2 / 10" in text
    assert "+70 " in text  # points, the paired difference
    assert "8 over travel" in text
    assert "0 deadlines missed" in text
    assert "10 demonstrations" in text
    assert "22 times real time" in text  # 21.5
    assert "12.0" in text  # minutes


def test_timing_says_on_how_many_threads_and_beside_what(document: Document) -> None:
    assert "lock-step: 1 torch thread in each of 2 processes" in document.text


def test_videos_play(document: Document) -> None:
    videos = [link for link in document.links if link.startswith("data:video/mp4;base64,")]
    assert len(videos) == 2
    for video in videos:
        frames = iio.imread(base64.b64decode(video.split(",")[1]), extension=".mp4")
        assert len(frames) == NUM_FRAMES
        assert frames.shape[1:] == (120, 196, 3)


def test_video_shows_the_cameras_side_by_side_with_insets() -> None:
    red, blue = np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64, 3), np.uint8)
    red[..., 0], blue[..., 2] = 250, 250
    frame = compose_frame([red, blue], [blue], "0.0 s", 0.5)
    assert all(side % 2 == 0 for side in frame.shape[:2])
    assert frame[50, 5].tolist() == [250, 0, 0]
    assert frame[50, 100].tolist() == [0, 0, 250]
    assert frame[15, 15].tolist() == [0, 0, 250]  # what the policy sees, in the corner
    assert (frame[64, 20] != frame[64, 120]).any()  # the time bar has passed the first alone


def test_report_is_made_again_from_the_files_alone(
    run: Path, html: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "report.html").unlink()
    assert prise.main(["report", str(run)]) == 0
    assert capsys.readouterr().out.strip() == str(run / "report.html")
    assert (run / "report.html").read_text(encoding="utf-8") == html


def test_results_alone_are_enough(tmp_path: Path) -> None:
    rows = [Row("success", 0.0, 0.0, 0.4, 5, context={"obs": "force", "controller": "rti"})]
    write_results(tmp_path / RESULTS, "eval", rows, range(5))
    text = Document(write_report(tmp_path).read_text(encoding="utf-8")).text
    assert "0 % success: force only" in text
    assert "Episodes" not in text
    assert "Training" not in text


def test_results_without_any_row_make_a_page(tmp_path: Path) -> None:
    write_results(tmp_path / RESULTS, "bench tea", [], [])
    assert "prise bench tea" in Document(write_report(tmp_path).read_text(encoding="utf-8")).text


def test_folder_without_results_is_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prise.main(["report", str(tmp_path)]) == prise.BAD_INPUT
    assert "holds no results.json" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_missing_video_is_explained(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    (run / EPISODES / "a.mp4").unlink()
    with pytest.raises(FileNotFoundError, match=r"a\.mp4 is missing"):
        write_report(run)


def test_lines_stay_inside_their_plot() -> None:
    series = [Series([0, 5, 10], [-3.0, 1e4, 7.0], "a"), Series([2], [5], "b", 1)]
    for log in (False, True):
        svg = render(Plot(series, "x", "y", log_y=log, markers=[Marker(9.9, "a long word")]))
        points = re.findall(r'points="([^"]*)"', svg)
        for x, y in (p.split(",") for line in points for p in line.split()):
            assert 0 <= float(x) <= WIDTH
            assert 0 <= float(y) <= HEIGHT


@pytest.mark.parametrize("values", [[], [0.0, -1.0]])
def test_log_plot_of_nothing_positive_is_left_out(values: list[float]) -> None:
    assert render(Plot([Series(range(len(values)), values)], "x", "y", log_y=True)) == ""


def test_constant_line_is_drawn() -> None:
    assert "polyline" in render(Plot([Series([1, 1], [0, 0])], "x", "y"))


def test_smoothing_looks_back_only() -> None:
    values = np.concatenate([np.zeros(30), np.ones(30)])
    assert (smoothed(values)[:30] == 0).all()
    assert smoothed(values)[-1] == 1


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (5.678, "5.68"), (204.81, "205"), (12345.6, "12,346"), (0.012345, "0.0123")],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text


ROW_MAKERS = ("Row", "success_row", "percentile_rows", "_percentiles", "_ratio")


def test_every_row_is_documented() -> None:
    root = Path(prise.__file__).parent
    documented = (root / "docs" / "results.md").read_text(encoding="utf-8")
    names = set()
    for path in [p for package in prise.OUR_PACKAGES for p in (root / package).rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ROW_MAKERS and node.args:
                first = node.args[0]
                names |= {first.value} if isinstance(first, ast.Constant) else set()
    assert {"success", "tick_ms", "minutes", "loader_share"} <= names
    assert [name for name in sorted(map(str, names)) if f"`{name}`" not in documented] == []
