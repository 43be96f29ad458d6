"""The figures of a run: what is drawn, where, and that the bytes are a sound PNG file."""

from __future__ import annotations

import io
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import StepPatch
from matplotlib.text import Text
from PIL import Image
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_curve

from xray_classifier.report import figures, words
from xray_classifier.report.decision_figures import coverage_figure, net_benefit_figure
from xray_classifier.report.film_sheet import sheet_figure
from xray_classifier.report.loss_figure import TEST_LABEL, loss_figure
from xray_classifier.report.loss_frame import loss_frame
from xray_classifier.report.outcome_figures import matrix_figure, regression_figure
from xray_classifier.report.probability_figures import calibration_figure, histogram_figure
from xray_classifier.report.ranking_figures import pr_figure, roc_figure

if TYPE_CHECKING:
    from collections.abc import Callable

STEPS = [10, 20, 30, 40]
LABELS = np.array([0, 0, 1, 1, 0, 1, 1, 0])
SCORES = np.array([0.1, 0.4, 0.35, 0.8, 0.3, 0.9, 0.6, 0.7])
FILMS = np.arange(3 * 8 * 8, dtype=np.uint8).reshape(3, 8, 8)

ALL: dict[str, Callable[[], bytes]] = {
    "loss_curves": lambda: figures.loss_curves(STEPS, [4, 3, 2, 1], [4, 3, 3, 4]),
    "roc_curve_figure": lambda: figures.roc_curve_figure(
        [0, 0.5, 1], [0, 0.5, 1], auroc=0.5, n_sick=4, n_healthy=4
    ),
    "precision_recall_figure": lambda: figures.precision_recall_figure(
        [1, 0], [0.5, 1], average_precision=0.5, n_sick=4, n_healthy=4
    ),
    "reliability_figure": lambda: figures.reliability_figure(
        [0.2, 0.8], [0.1, 0.9], [3, 5], ece=0.1, brier=0.2
    ),
    "confusion_figure": lambda: figures.confusion_figure(3, 1, 2, 4, threshold=0.5, split="test"),
    "score_histogram_figure": lambda: figures.score_histogram_figure([0.1, 0.2], [0.9], 0.5),
    "scatter_figure": lambda: figures.scatter_figure([1.0, 2.0], [1.5, 1.5]),
    "decision_curve_figure": lambda: figures.decision_curve_figure(
        [0.1, 0.5, 0.9], [0.4, 0.3, 0.2], [0.4, 0.0, -4.0]
    ),
    "risk_coverage_figure": lambda: figures.risk_coverage_figure([0.5, 1.0], [0.1, 0.2]),
    "film_sheet": lambda: figures.film_sheet(FILMS, ["healthy", "sick", "sick"]),
}


def line(axes: Axes, label: str) -> Line2D:
    """The one line whose legend entry starts with `label`."""
    (found,) = [item for item in axes.get_lines() if str(item.get_label()).startswith(label)]
    return found


def texts(figure: Figure | SubFigure | None) -> str:
    """All words on a figure."""
    assert figure is not None
    return "\n".join(item.get_text() for item in figure.findobj(Text) if isinstance(item, Text))


def stairs(axes: Axes) -> list[StepPatch]:
    """The step histograms of the axes."""
    return [item for item in axes.patches if isinstance(item, StepPatch)]


def xy(item: Line2D) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in np.asarray(item.get_xydata())]


@pytest.mark.parametrize("name", ALL)
def test_a_figure_is_a_png_that_is_the_same_each_time_it_is_drawn(name: str) -> None:
    first = ALL[name]()
    with Image.open(io.BytesIO(first)) as image:
        image.load()
        assert image.format == "PNG"
        assert image.width >= 640
        assert np.asarray(image.convert("L")).min() < 70
        assert np.asarray(image.convert("L")).max() == 255
        assert "Software" not in image.info
    assert ALL[name]() == first


@pytest.mark.parametrize("name", sorted(set(ALL) - {"film_sheet"}))
def test_every_axis_says_what_it_shows(name: str) -> None:
    figure = {
        "loss_curves": lambda: loss_figure(STEPS, [4, 3, 2, 1], None),
        "roc_curve_figure": lambda: roc_figure([0, 1], [0, 1], auroc=0.5, n_sick=4, n_healthy=4),
        "precision_recall_figure": lambda: pr_figure(
            [1, 0], [0.5, 1], average_precision=0.5, n_sick=4, n_healthy=4
        ),
        "reliability_figure": lambda: calibration_figure([0.2], [0.1], [3], ece=0.1, brier=0.2),
        "confusion_figure": lambda: matrix_figure(3, 1, 2, 4, threshold=0.5, split="test"),
        "score_histogram_figure": lambda: histogram_figure([0.1], [0.9], 0.5),
        "scatter_figure": lambda: regression_figure([1.0], [1.5]),
        "decision_curve_figure": lambda: net_benefit_figure([0.1, 0.9], [0.4, 0.2], [0.4, -4.0]),
        "risk_coverage_figure": lambda: coverage_figure([0.5, 1.0], [0.1, 0.2]),
    }[name]()
    assert any(axes.get_xlabel() for axes in figure.axes)
    assert all(axes.get_ylabel() for axes in figure.axes)


def test_matplotlib_is_loaded_by_the_first_drawing_and_pyplot_never() -> None:
    code = (
        "import sys\n"
        "from xray_classifier.report import figures, page\n"
        "assert not {'matplotlib', 'jinja2'} & set(sys.modules), 'loaded at import'\n"
        "figures.loss_curves([1, 2], [1.0, 0.5], None)\n"
        "assert 'matplotlib.pyplot' not in sys.modules, 'pyplot'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_threads_draw_what_one_thread_draws() -> None:
    names = ["loss_curves", "confusion_figure", "film_sheet", "loss_curves"] * 2
    alone = {name: ALL[name]() for name in names[:3]}
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda name: ALL[name](), names))
    assert all(png == alone[name] for name, png in zip(names, together, strict=True))


def test_drawing_leaves_the_global_settings_alone() -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    for draw in ALL.values():
        draw()
    assert dict(mpl.rcParams) == before


def test_a_dark_global_style_changes_no_paper() -> None:
    import matplotlib as mpl

    with mpl.rc_context({"axes.facecolor": "black", "figure.facecolor": "black"}):
        figure = loss_figure(STEPS, [4, 3, 2, 1], None)
    assert figure.get_facecolor() == (1.0, 1.0, 1.0, 1.0)
    assert figure.axes[0].get_facecolor() == (1.0, 1.0, 1.0, 1.0)


# Loss curves


def test_each_split_is_drawn_against_the_steps_and_the_marks_stand_where_asked() -> None:
    figure = loss_figure(
        STEPS, [4, 3, 2, 1], [5, 4, 3, 4], [6, 5, 4, 5],
        best_step=30, stop_step=40, stop_reason="val_loss has not improved for 1 epoch",
    )  # fmt: skip
    (axes,) = figure.axes
    assert xy(line(axes, "train")) == [(10, 4), (20, 3), (30, 2), (40, 1)]
    assert xy(line(axes, "validation")) == [(10, 5), (20, 4), (30, 3), (40, 4)]
    assert xy(line(axes, TEST_LABEL)) == [(10, 6), (20, 5), (30, 4), (40, 5)]
    assert xy(line(axes, "best epoch")) == [(30, 3)]
    assert line(axes, "_best").get_xdata() == [30, 30]
    assert line(axes, "_stopped").get_xdata() == [40, 40]
    assert axes.get_xlabel() == "training iterations (steps)"
    assert "BCE loss" in axes.get_ylabel()
    legend = axes.get_legend()
    assert legend is not None
    named = [item.get_text() for item in legend.get_texts()]
    assert named == ["train", "validation", "test (drawn, never used)", "best epoch"]
    seen = texts(figure)
    assert "4 epochs, best at step 30, stopped at step 40: val_loss has not improved" in seen
    assert "best, step 30" in seen
    assert "stopped, step 40" in seen


def test_lines_differ_in_more_than_colour() -> None:
    (axes,) = loss_figure(STEPS, [4, 3, 2, 1], [5, 4, 3, 4], [6, 5, 4, 5]).axes
    markers = {str(item.get_marker()) for item in axes.get_lines()}
    assert len(markers) == 3


def test_without_validation_the_ring_sits_on_the_training_line() -> None:
    (axes,) = loss_figure(STEPS, [4, 3, 2, 1], None, best_step=40).axes
    assert xy(line(axes, "best epoch")) == [(40, 1)]
    assert len([item for item in axes.get_lines() if item.get_label() == "validation"]) == 0


def test_a_best_step_that_is_no_epoch_still_has_its_line_but_no_ring() -> None:
    (axes,) = loss_figure(STEPS, [4, 3, 2, 1], [4, 3, 2, 1], best_step=35).axes
    assert line(axes, "_best").get_xdata() == [35, 35]
    assert "best epoch" not in {str(item.get_label()) for item in axes.get_lines()}


def test_values_that_are_not_finite_leave_gaps_and_are_explained() -> None:
    val: list[Any] = [5, None, float("inf"), 4]
    figure = loss_figure(STEPS, [4, float("nan"), 2, 1], val)
    (axes,) = figure.axes
    assert (
        np.isnan(np.asarray(line(axes, "train").get_ydata())).tolist()
        == [False, True] + [False] * 2
    )
    assert np.isnan(np.asarray(line(axes, "validation").get_ydata())).tolist() == [
        False, True, True, False,
    ]  # fmt: skip
    assert "not finite" in texts(figure)
    assert "not finite" not in texts(loss_figure(STEPS, [4, 3, 2, 1], None))


def test_a_point_between_two_gaps_of_a_long_run_gets_a_marker() -> None:
    nan = float("nan")
    values = [1.0] * 50
    values[10], values[12] = nan, nan
    values[20] = nan
    (axes,) = loss_figure(range(1, 51), values, None).axes
    assert line(axes, "train").get_markevery() == [11]


@pytest.mark.parametrize(
    ("steps", "train", "val"),
    [
        ([7], [0.7], [0.6]),
        ([], [], None),
        ([], [], []),
        ([7], [float("nan")], [float("nan")]),
        ([7, 14], [0.0, 0.0], [0.0, 0.0]),
        ([7, 14], [1e308, 1e-308], [float("-inf"), -5.0]),
    ],
)
def test_odd_histories_are_drawn(
    steps: list[int], train: list[float], val: list[float] | None
) -> None:
    png = figures.loss_curves(
        steps, train, val, best_step=7, stop_step=7, stop_reason="$x^ \udcff 日本 " * 30
    )
    with Image.open(io.BytesIO(png)) as image:
        assert image.width == 1440


def test_curves_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="validation"):
        loss_figure(STEPS, [4, 3, 2, 1], [1, 2])


def test_auroc_has_its_own_panel_on_the_same_steps() -> None:
    upper, lower = loss_figure(
        STEPS, [4, 3, 2, 1], None, val_auroc=[0.45, 0.7, 0.8, 0.9], best_step=40
    ).axes
    assert xy(lower.get_lines()[0]) == [(10, 0.45), (20, 0.7), (30, 0.8), (40, 0.9)]
    assert lower.get_xlim() == upper.get_xlim()
    assert lower.get_ylim()[0] == pytest.approx(0.4)
    assert "AUROC" in lower.get_ylabel()
    assert line(lower, "_best").get_xdata() == [40, 40]


def test_an_explosion_at_the_start_is_left_above_the_frame_and_told() -> None:
    train = [54_000.0, 1.0, 0.8, 0.7, 0.6]
    figure = loss_figure([1, 2, 3, 4, 5], train, None)
    (axes,) = figure.axes
    assert 1.0 < axes.get_ylim()[1] < 3.0
    assert axes.get_yscale() == "linear"
    assert "54,000" in texts(figure)


def test_the_note_on_an_explosion_is_dropped_where_the_headroom_holds_it() -> None:
    frame = loss_frame([np.array([11.0, 1.0, 1e-9])])
    assert frame.high > 11
    assert frame.peak_outside is None


def test_an_explosion_at_the_end_stays_in_the_frame() -> None:
    frame = loss_frame([np.array([1.0, 0.8, 0.7, 0.6, 54_000.0])])
    assert frame.high >= 54_000
    assert frame.log
    assert frame.peak_outside is None


@pytest.mark.parametrize(("smallest", "log"), [(1 / 49, False), (1 / 51, True), (0.0, False)])
def test_the_axis_is_logarithmic_only_beyond_a_factor_of_50(smallest: float, log: bool) -> None:
    values = np.array([1.0, 1.0, smallest])
    assert loss_frame([values]).log is log
    (axes,) = loss_figure([1, 2, 3], values, None).axes
    assert axes.get_yscale() == ("log" if log else "linear")


@pytest.mark.parametrize(
    ("values", "low"), [([0.7, 0.1], 0.0), ([0.7, 0.0], -0.056), ([0.7, 0.6], 0.592)]
)
def test_a_linear_axis_starts_at_zero_where_the_values_come_near_it(
    values: list[float], low: float
) -> None:
    assert loss_frame([np.array(values)]).low == pytest.approx(low)


@settings(max_examples=150, deadline=None)
@example(np.array([2528.0, 1.405746344286321e-305]))  # their quotient overflows
@given(
    st.lists(st.floats(allow_nan=True, allow_infinity=True, width=64), min_size=0, max_size=30).map(
        np.array
    )
)
def test_the_frame_is_never_empty_and_holds_all_late_values(values: np.ndarray[Any, Any]) -> None:
    frame = loss_frame([values.astype(float)])
    assert np.isfinite([frame.low, frame.high]).all()
    assert frame.low < frame.high
    assert frame.low > 0 or not frame.log
    late = values[-(-len(values) // 5) :] if len(values) >= 3 else values
    late = late[np.abs(late) < 1e100]
    assert ((late >= frame.low) & (late <= frame.high)).all()
    if frame.peak_outside is not None:
        assert frame.peak_outside > frame.high


# Evaluation


def test_roc_draws_the_curve_chance_and_the_operating_point() -> None:
    fpr, tpr, _ = roc_curve(LABELS, SCORES)
    figure = roc_figure(
        fpr, tpr, auroc=0.8125, ci=(0.4, 0.96), n_sick=4, n_healthy=4,
        operating_point=(0.25, 0.75), threshold=0.5, split="test",
    )  # fmt: skip
    (axes,) = figure.axes
    assert xy(line(axes, "AUROC")) == list(zip(fpr, tpr, strict=True))
    assert xy(line(axes, "chance")) == [(0, 0), (1, 1)]
    assert xy(line(axes, "threshold 0.5")) == [(0.25, 0.75)]
    seen = texts(figure)
    assert "AUROC 0.812 (95 % CI 0.400 to 0.960)" in seen
    assert "sensitivity 0.750, specificity 0.750" in seen
    assert "test split: 4 sick and 4 healthy images" in seen


def test_one_class_gives_a_figure_that_says_so() -> None:
    figure = roc_figure([0, 1], [np.nan] * 2, auroc=None, ci=(None, None), n_sick=0, n_healthy=2)
    assert "one class only" in texts(figure)
    assert "AUROC not defined" in texts(figure)


@pytest.mark.parametrize("rising", [False, True])
def test_the_area_under_the_drawn_precision_steps_is_the_average_precision(rising: bool) -> None:
    precision, recall, _ = precision_recall_curve(LABELS, SCORES)
    if rising:
        precision, recall = precision[::-1], recall[::-1]
    (axes,) = pr_figure(recall, precision, average_precision=0.5, n_sick=4, n_healthy=4).axes
    drawn = axes.get_lines()[0]
    x, y = np.array(xy(drawn)).T
    steps_before = drawn.get_drawstyle() == "steps-pre"
    heights = y[1:] if steps_before else y[:-1]
    area = float(np.sum(np.abs(np.diff(x)) * heights))
    assert area == pytest.approx(average_precision_score(LABELS, SCORES))


def test_precision_recall_has_the_prevalence_as_baseline() -> None:
    figure = pr_figure(
        [1, 0], [0.2, 1], average_precision=0.4, n_sick=20, n_healthy=80,
        operating_point=(0.5, 0.3), threshold=0.37,
    )  # fmt: skip
    (axes,) = figure.axes
    assert line(axes, "blind guess").get_ydata() == [0.2, 0.2]
    assert xy(line(axes, "threshold 0.37")) == [(0.5, 0.3)]


def test_reliability_draws_filled_bins_their_intervals_and_counts() -> None:
    nan = float("nan")
    upper, lower = calibration_figure(
        [0.1, nan, 0.9], [0.2, nan, 0.8], [30, 0, 10], ece=0.1, brier=0.25,
        low=[0.1, 0.0, 0.5], high=[0.4, 1.0, 0.9], edges=[0, 0.3, 0.6, 1],
    ).axes  # fmt: skip
    assert xy(line(upper, "bins")) == [(0.1, 0.2), (0.9, 0.8)]
    (bars,) = upper.collections
    drawn = [np.asarray(path.vertices).tolist() for path in bars.get_paths()]
    assert drawn == [[[0.1, 0.1], [0.1, 0.4]], [[0.9, 0.5], [0.9, 0.9]]]
    (counts,) = stairs(lower)
    heights, borders, _ = counts.get_data()
    assert heights.tolist() == [30, 0, 10]
    assert borders.tolist() == [0, 0.3, 0.6, 1]
    assert upper.get_xlim() == lower.get_xlim()
    seen = texts(upper.get_figure())
    assert "ECE 0.100, Brier score 0.250" in seen
    assert "40 images" in seen


def test_confusion_puts_counts_and_row_shares_in_their_cells() -> None:
    (axes,) = matrix_figure(tp=189, fp=30, tn=87, fn=6, threshold=0.37, split="test").axes
    cells: dict[tuple[float, int], list[str]] = {}
    for item in axes.texts:
        x, y = item.get_position()
        cells.setdefault((x, int(y)), []).append(item.get_text())
    assert cells == {
        (0.5, 0): ["87", "74.4 % of the row", "correct"],
        (1.5, 0): ["30", "25.6 % of the row", "false alarm"],
        (0.5, 1): ["6", "3.1 % of the row", "missed"],
        (1.5, 1): ["189", "96.9 % of the row", "correct"],
    }
    assert axes.get_ylim() == (2, 0)
    assert [item.get_text() for item in axes.get_xticklabels()] == ["called healthy", "called sick"]
    named = [item.get_text() for item in axes.get_yticklabels()]
    assert named == ["healthy\nn = 117", "sick\nn = 195"]
    assert "p_sick >= 0.37" in texts(axes.get_figure())


def test_confusion_without_a_class_divides_by_nothing() -> None:
    figure = matrix_figure(tp=0, fp=1, tn=2, fn=0, threshold=0.5, split="val")
    assert texts(figure).count("no image") == 2


def test_score_histogram_gives_each_class_its_own_hundred_percent() -> None:
    (axes,) = histogram_figure([0.0, 0.01, 0.99, 1.0], [0.5], 0.3).axes
    healthy, sick = stairs(axes)
    shares = healthy.get_data()[0]
    assert shares.sum() == 100
    assert shares[[0, -1]].tolist() == [50, 50]
    assert sick.get_data()[0].max() == 100
    assert line(axes, "threshold").get_xdata() == [0.3, 0.3]


def test_scatter_shares_one_scale_and_draws_equality() -> None:
    figure = regression_figure([1.0, 3.0], [2.0, 5.0], mse=2.5, r2=-1.5, quantity="age (years)")
    (axes,) = figure.axes
    assert xy(line(axes, "images")) == [(1, 2), (3, 5)]
    assert axes.get_xlim() == axes.get_ylim()
    assert all(x == y for x, y in xy(line(axes, "equal")))
    assert axes.get_xlabel() == "true age (years)"
    assert "R² -1.500, MSE 2.500" in texts(figure)


@pytest.mark.parametrize(
    "draw",
    [
        lambda: roc_figure([0, 1], [0], auroc=0.5, n_sick=1, n_healthy=1),
        lambda: regression_figure([1.0], [1.0, 2.0]),
        lambda: calibration_figure([0.1], [0.1], [1, 2], ece=0.1, brier=0.1),
        lambda: sheet_figure(FILMS, ["one"]),
        lambda: sheet_figure(FILMS[:0], []),
        lambda: sheet_figure(FILMS.astype(np.float32), ["a", "b", "c"]),
    ],
)
def test_arrays_that_do_not_fit_are_refused(draw: Callable[[], Figure]) -> None:
    with pytest.raises(ValueError, match=r"shape|want"):
        draw()


# Films


def test_films_stand_in_reading_order_with_their_captions() -> None:
    figure = sheet_figure(FILMS, ["first\nhealthy", "second", "third"], columns=2)
    (axes,) = figure.axes
    shown = axes.get_images()
    assert [np.asarray(item.get_array()).tolist() for item in shown] == FILMS.tolist()
    assert {item.get_clim() for item in shown} == {(0, 255)}
    lefts = [item.get_extent()[0] for item in shown]
    tops = [item.get_extent()[3] for item in shown]
    assert lefts[0] == lefts[2] < lefts[1]
    assert tops[0] == tops[1] > tops[2]
    placed = {item.get_text(): item.get_position()[0] for item in axes.texts}
    assert placed == {"first\nhealthy": lefts[0], "second": lefts[1], "third": lefts[2]}


def test_captions_show_hostile_names_as_text() -> None:
    png = figures.film_sheet(FILMS[:1], ["$\\frac{\udcff 日本\u202e\x00" + "x" * 99])
    assert png.startswith(b"\x89PNG")


@given(st.text(max_size=40))
@settings(max_examples=60, deadline=None)
def test_drawable_text_keeps_its_length_and_the_letters_it_knows(text: str) -> None:
    shown = words.drawable(text)
    assert len(shown) == len(text)
    assert all(after in (before, "?") for before, after in zip(text, shown, strict=True))
    assert words.drawable("Grüße, 95 % ≥ µ") == "Grüße, 95 % ≥ µ"


@given(st.text(max_size=80), st.integers(4, 40))
@settings(max_examples=60, deadline=None)
def test_shortened_text_fits(text: str, columns: int) -> None:
    cut = words.shortened(text, columns)
    assert len(cut) <= columns
    assert cut == text or cut.endswith("…")


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.9125, "0.912"), (None, "not defined"), (float("nan"), "not defined"), (12345.6, "12,346")],
)
def test_numbers_are_worded_for_people(value: float | None, shown: str) -> None:
    assert words.number_text(value) == shown


def test_the_decision_curve_has_the_model_its_band_and_both_blind_policies() -> None:
    x = [0.1, 0.3, 0.5]
    figure = net_benefit_figure(
        x, [0.4, 0.3, 0.2], [0.44, 0.28, 0.0],
        low=[0.3, 0.2, 0.1], high=[0.5, 0.4, 0.3], threshold=0.35, prevalence=0.5, split="test",
    )  # fmt: skip
    (axes,) = figure.axes
    assert xy(line(axes, "the model")) == [(0.1, 0.4), (0.3, 0.3), (0.5, 0.2)]
    assert xy(line(axes, "call everyone sick")) == [(0.1, 0.44), (0.3, 0.28), (0.5, 0.0)]
    assert list(line(axes, "call nobody sick").get_ydata()) == [0, 0]
    assert list(line(axes, "stored threshold 0.35").get_xdata()) == [0.35, 0.35]
    (band,) = axes.collections
    assert band.get_datalim(axes.transData).extents.tolist() == pytest.approx([0.1, 0.1, 0.5, 0.5])
    assert "test split: prevalence 0.5" in texts(figure)


def test_the_fall_of_calling_everyone_sick_does_not_squeeze_the_model() -> None:
    x = np.arange(1, 100) / 100
    everyone = 0.1 - 0.9 * x / (1 - x)
    (axes,) = net_benefit_figure(x, np.full(99, 0.05), everyone).axes
    low, high = axes.get_ylim()
    assert -0.1 < low < 0
    assert 0.09 < high < 0.2


def test_risk_and_coverage_are_drawn_as_given_with_the_refer_band() -> None:
    figure = coverage_figure(
        [0.2, 0.6, 1.0], [0.0, 0.1, 0.2], operating_point=(0.6, 0.1), split="test"
    )
    (axes,) = figure.axes
    assert xy(line(axes, "errors among")) == [(0.2, 0.0), (0.6, 0.1), (1.0, 0.2)]
    assert xy(line(axes, "with the refer band: 0.600 answered, 0.100 wrong")) == [(0.6, 0.1)]
    assert axes.get_ylim()[0] == 0
    assert axes.get_ylim()[1] > 0.2


def test_a_curve_without_any_error_still_has_an_axis() -> None:
    (axes,) = coverage_figure([0.5, 1.0], [0.0, 0.0]).axes
    assert axes.get_ylim() == (0.0, 1.0)


@pytest.mark.parametrize("draw", [net_benefit_figure, coverage_figure])
def test_a_band_of_another_length_is_refused(draw: Callable[..., Figure]) -> None:
    curves = ([0.1, 0.2],) * (3 if draw is net_benefit_figure else 2)
    with pytest.raises(ValueError, match="share one shape"):
        draw(*curves, low=[0.1], high=[0.2])
