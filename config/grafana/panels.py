"""Panels as the dashboards want them: one question each, a unit, and what to make of the answer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from grafana_foundation_sdk.builders import (
    common,
    dashboard,
    heatmap,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.models.common import GraphDrawStyle, StackingMode
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    FieldColorModeId,
    Threshold,
    ThresholdsMode,
    VariableRefresh,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from names import BUILD, BUNDLE, CAMERA_PRODUCT, STARTED, THRESHOLD

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
_ROW, _WIDTH = 8, 12
Query = tuple[str, str]  # expression, legend
P = TypeVar("P", timeseries.Panel, stat.Panel, statetimeline.Panel)


def graph(title: str, about: str, unit: str, *queries: Query, stacked: bool = False) -> timeseries.Panel:
    """Lines over time; stacked where they are parts of a whole."""
    panel = timeseries.Panel().title(title).description(about).unit(unit).min(0).datasource(SOURCE)
    panel = panel.height(_ROW).span(_WIDTH).line_width(1).fill_opacity(40 if stacked else 8)
    panel = panel.draw_style(GraphDrawStyle.LINE)
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    return _with_targets(panel, queries)


def number(title: str, about: str, unit: str, query: Query, *, good: float | None = None) -> stat.Panel:
    """One number for each series; green from `good` on, red below."""
    panel = stat.Panel().title(title).description(about).unit(unit).datasource(SOURCE).height(4).span(4)
    if good is not None:
        steps = [Threshold(value=None, color="red"), Threshold(value=good, color="green")]
        panel = panel.thresholds(dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
        panel = panel.color_scheme(dashboard.FieldColor().mode(FieldColorModeId.THRESHOLDS))
    return _with_targets(panel, [query])


def states(title: str, about: str, query: Query) -> statetimeline.Panel:
    """When something was 1 (green) and when 0 (red)."""
    steps = [Threshold(value=None, color="red"), Threshold(value=1, color="green")]
    panel = statetimeline.Panel().title(title).description(about).datasource(SOURCE).height(_ROW).span(_WIDTH)
    panel = panel.thresholds(dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
    panel = panel.color_scheme(dashboard.FieldColor().mode(FieldColorModeId.THRESHOLDS))
    return _with_targets(panel, [query])


def buckets(title: str, about: str, unit: str, query: str) -> heatmap.Panel:
    """How a histogram changes over time."""
    panel = heatmap.Panel().title(title).description(about).unit(unit).datasource(SOURCE).height(_ROW).span(_WIDTH)
    target = prometheus.Dataquery().expr(query).legend_format("{{le}}").format(PromQueryFormat.HEATMAP)
    return panel.with_target(target.range().exemplar(True).ref_id("A"))


def rows(title: str, about: str, query: str) -> table.Panel:
    """A table of the labels that hold now."""
    panel = table.Panel().title(title).description(about).datasource(SOURCE).height(_ROW).span(_WIDTH)
    target = prometheus.Dataquery().expr(query).format(PromQueryFormat.TABLE).instant().ref_id("A")
    return panel.with_target(target)


def page(uid: str, title: str, about: str, *, one_line: bool, panels: Iterable[object]) -> Dashboard:
    """A dashboard with the choice of data source and line, and the marks of changeovers and restarts."""
    built = Dashboard(title).uid(uid).description(about).tags(["rejectd"]).time("now-6h", "now").refresh("30s")
    built = built.tooltip(DashboardCursorSync.CROSSHAIR).timezone("browser")
    built = built.with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    lines = dashboard.QueryVariable("line").label("Line").datasource(SOURCE).query(f"label_values({BUILD}, line)")
    lines = lines.refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
    if not one_line:
        lines = lines.multi(True).include_all(True).all_value(".*")
    built = built.with_variable(lines)
    for name, color, query in marks():
        mark = dashboard.AnnotationQuery().name(name).datasource(SOURCE).icon_color(color).enable(True).expr(query)
        built = built.annotation(mark)
    for panel in panels:
        built = built.with_panel(panel)  # type: ignore[arg-type]  # each kind is a builder of a panel
    return built


def marks() -> list[tuple[str, str, str]]:
    """What happened to a line, to be seen in every graph: name, colour, query."""
    line = 'line=~"$line"'
    return [
        ("Restart", "red", f"changes({STARTED}{{{line}}}[1m]) > 0"),
        ("Threshold changed", "orange", f"changes({THRESHOLD}{{{line}}}[1m]) > 0"),
        ("Changeover", "purple", f"{CAMERA_PRODUCT}{{{line}}} unless {CAMERA_PRODUCT}{{{line}}} offset 1m"),
        ("Bundle changed", "blue", f"{BUNDLE}{{{line}}} unless {BUNDLE}{{{line}}} offset 1m"),
    ]


def _with_targets(panel: P, queries: Iterable[Query]) -> P:
    for letter, (query, legend) in zip("ABCDEFGH", queries, strict=False):
        panel = panel.with_target(prometheus.Dataquery().expr(query).legend_format(legend).range().ref_id(letter))
    return panel
