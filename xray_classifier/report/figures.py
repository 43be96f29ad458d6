"""The figures of a run: each function takes plain arrays and gives the bytes of a PNG file.

The arguments are those of the function that is named on the right, and documented there.
All may be called from any thread; a test reaches the matplotlib figure through `__wrapped__`.
"""

from xray_classifier.report.bowl_figure import bowl_figure, valley_figure
from xray_classifier.report.canvas import as_png
from xray_classifier.report.decision_figures import coverage_figure, net_benefit_figure
from xray_classifier.report.evidence_figure import evidence_figure, map_scores_figure
from xray_classifier.report.film_sheet import sheet_figure
from xray_classifier.report.flow_figure import flow_figure
from xray_classifier.report.landscape_figure import landscape_figure
from xray_classifier.report.loss_figure import loss_figure
from xray_classifier.report.neuron_figure import neuron_figure
from xray_classifier.report.outcome_figures import matrix_figure, regression_figure
from xray_classifier.report.probability_figures import calibration_figure, histogram_figure
from xray_classifier.report.ranking_figures import pr_figure, roc_figure
from xray_classifier.report.stress_figure import stress_figure
from xray_classifier.report.training_figures import parting_figure, rates_figure, sweep_figure

loss_curves = as_png(loss_figure)
roc_curve_figure = as_png(roc_figure)
precision_recall_figure = as_png(pr_figure)
reliability_figure = as_png(calibration_figure)
confusion_figure = as_png(matrix_figure)
score_histogram_figure = as_png(histogram_figure)
scatter_figure = as_png(regression_figure)
film_sheet = as_png(sheet_figure)
stress_curves = as_png(stress_figure)
decision_curve_figure = as_png(net_benefit_figure)
risk_coverage_figure = as_png(coverage_figure)
landscape_maps = as_png(landscape_figure)
bowl_maps = as_png(bowl_figure)
valley_maps = as_png(valley_figure)
neuron_sheet = as_png(neuron_figure)
evidence_sheet = as_png(evidence_figure)
map_scores_chart = as_png(map_scores_figure)
sweep_curve = as_png(sweep_figure)
rate_curves = as_png(rates_figure)
parting_curves = as_png(parting_figure)
flow_chart = as_png(flow_figure)
