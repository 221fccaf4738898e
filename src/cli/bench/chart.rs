//! The report as a drawing: rates, CPU time and latency of each mode; lines over a size for a sweep.

use super::latency::Latency;
use super::plan::{Axis, Mode, Point};
use super::report::{ModeSummary, PointReport, Report};
use crate::cli::output::thousands;
use plotters::coord::Shift;
use plotters::prelude::*;

const PANEL: (u32, u32) = (900, 320);
const FONT: &str = "sans-serif";
/// What is drawn of a mode's latencies.
const LATENCIES: [&str; 2] = ["p50 ", "p99 "];
/// Room above the highest value.
const HEADROOM: f64 = 1.15;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Result<T> = std::result::Result<T, DrawingAreaErrorKind<std::io::Error>>;

/// A bar with the extremes of what it stands for.
struct Bar {
    mode: Mode,
    /// Stands before the value.
    note: &'static str,
    /// The mode's name stands below it.
    named: bool,
    value: f64,
    extremes: Option<(f64, f64)>,
}

/// The drawing as SVG text.
pub(super) fn draw(report: &Report) -> Result<String> {
    let axes = axes(&report.points);
    let points: Vec<_> = report.points.iter().filter(|point| point.point.sweep.is_none()).collect();
    let panels = points.len() * 2 + axes.len() + usize::from(!report.latency.is_empty());
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (PANEL.0, PANEL.1 * panels.max(1) as u32)).into_drawing_area();
        root.fill(&WHITE)?;
        let mut areas = root.split_evenly((panels.max(1), 1)).into_iter();
        let mut next = || areas.next().unwrap_or_else(|| root.clone());
        for point in points {
            bars(&next(), "records/s: median of the runs, lowest and highest", &rates(point))?;
            bars(&next(), "CPU seconds for a million records", &cpu(point))?;
        }
        for axis in axes {
            lines(&next(), axis, &report.points)?;
        }
        if !report.latency.is_empty() {
            let rate = thousands(report.latency[0].rate);
            bars(&next(), &format!("latency in ms at {rate} records/s"), &latency(&report.latency))?;
        }
        root.present()?;
    }
    Ok(svg)
}

fn axes(points: &[PointReport]) -> Vec<Axis> {
    let mut axes: Vec<Axis> = points.iter().filter_map(|point| point.point.sweep).collect();
    axes.dedup();
    axes
}

fn rates(point: &PointReport) -> Vec<Bar> {
    let bar = |mode: &ModeSummary| {
        let spread = mode.records_per_s;
        Bar { mode: mode.mode, note: "", named: true, value: spread.median, extremes: Some((spread.min, spread.max)) }
    };
    point.modes.iter().map(bar).collect()
}

fn cpu(point: &PointReport) -> Vec<Bar> {
    let bar = |mode: &ModeSummary| {
        let spread = mode.cpu_seconds_per_million;
        Bar { mode: mode.mode, note: "", named: true, value: spread.median, extremes: Some((spread.min, spread.max)) }
    };
    point.modes.iter().map(bar).collect()
}

fn latency(latencies: &[Latency]) -> Vec<Bar> {
    let bar = |mode, note, micros: u64| Bar {
        mode,
        note,
        named: note == LATENCIES[0],
        value: micros as f64 / 1000.0,
        extremes: None,
    };
    let each = |of: &Latency| [bar(of.mode, LATENCIES[0], of.p50_us), bar(of.mode, LATENCIES[1], of.p99_us)];
    latencies.iter().flat_map(each).collect()
}

fn color(mode: Mode) -> RGBColor {
    match mode {
        Mode::Consume => RGBColor(120, 120, 120),
        Mode::Direct => RGBColor(214, 126, 44),
        Mode::Receiver => RGBColor(38, 110, 180),
        Mode::ReceiverOs => RGBColor(92, 160, 211),
        Mode::ReceiverMemory => RGBColor(158, 202, 225),
    }
}

fn bars(area: &Area<'_>, title: &str, bars: &[Bar]) -> Result<()> {
    let top = bars.iter().map(|bar| bar.extremes.map_or(bar.value, |(_, max)| max)).fold(0.0, f64::max) * HEADROOM;
    let mut chart = ChartBuilder::on(area)
        .caption(title, (FONT, 18))
        .margin(12)
        .x_label_area_size(30)
        .y_label_area_size(90)
        .build_cartesian_2d(0.0..bars.len().max(1) as f64, 0.0..top.max(f64::MIN_POSITIVE))?;
    let name = |place: &f64| {
        let bar = bars.get(place.floor() as usize).filter(|_| (place.fract() - 0.5).abs() < 1e-6);
        bar.filter(|bar| bar.named).map(|bar| bar.mode.name().to_string()).unwrap_or_default()
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(WHITE)
        .x_labels(bars.len() * 2 + 1)
        .y_labels(6)
        .x_label_formatter(&name)
        .y_label_formatter(&|value| number(*value))
        .label_style((FONT, 13))
        .draw()?;
    for (place, bar) in bars.iter().enumerate() {
        let (left, middle) = (place as f64 + 0.2, place as f64 + 0.5);
        let corners = [(left, 0.0), (left + 0.6, bar.value)];
        chart.draw_series([Rectangle::new(corners, color(bar.mode).filled())])?;
        if let Some((min, max)) = bar.extremes {
            chart.draw_series([PathElement::new([(middle, min), (middle, max)], BLACK.stroke_width(2))])?;
        }
        let label = format!("{}{}", bar.note, number(bar.value));
        chart.draw_series([Text::new(label, (left + 0.02, bar.value + top * 0.06), (FONT, 12))])?;
    }
    Ok(())
}

/// Records a second over the size that the sweep varies.
fn lines(area: &Area<'_>, axis: Axis, points: &[PointReport]) -> Result<()> {
    let points: Vec<_> = points.iter().filter(|point| point.point.sweep == Some(axis)).collect();
    let place = |point: &Point| match axis {
        Axis::RecordBytes => point.record_bytes,
        Axis::Partitions => point.partitions,
        Axis::Receivers => point.receivers,
        Axis::BlockBytes => point.block_bytes.unwrap_or_default(),
    } as f64;
    let xs: Vec<f64> = points.iter().map(|point| place(&point.point)).collect();
    let (low, high) = (xs.iter().copied().fold(f64::MAX, f64::min), xs.iter().copied().fold(1.0, f64::max));
    let rates = points.iter().flat_map(|point| point.modes.iter().map(|mode| mode.records_per_s.max));
    let top = rates.fold(1.0, f64::max) * HEADROOM;
    let mut chart = ChartBuilder::on(area)
        .caption(format!("records/s over {}", axis.name()), (FONT, 18))
        .margin(12)
        .x_label_area_size(30)
        .y_label_area_size(90)
        .build_cartesian_2d((low * 0.9..high * 1.1).log_scale(), 0.0..top)?;
    let label = (FONT, 13);
    let number = |value: &f64| number(*value);
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .y_labels(6)
        .x_label_formatter(&number)
        .y_label_formatter(&number)
        .label_style(label)
        .draw()?;
    let mut modes: Vec<Mode> = points.iter().flat_map(|point| point.modes.iter().map(|mode| mode.mode)).collect();
    modes.sort_unstable();
    modes.dedup();
    for mode in modes {
        let rate = |point: &&PointReport| {
            let found = point.modes.iter().find(|summary| summary.mode == mode)?;
            Some((place(&point.point), found.records_per_s.median))
        };
        let line: Vec<_> = points.iter().filter_map(rate).collect();
        let style = color(mode).stroke_width(2);
        let dots: Vec<_> = line.iter().map(|at| Circle::new(*at, 4, color(mode).filled())).collect();
        let series = chart.draw_series(LineSeries::new(line, style))?.label(mode.name());
        series.legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], style));
        chart.draw_series(dots)?;
    }
    chart.configure_series_labels().position(SeriesLabelPosition::LowerRight).label_font(label).draw()
}

fn number(value: f64) -> String {
    if value >= 100.0 || value.fract() == 0.0 { thousands(value.round() as u64) } else { format!("{value:.2}") }
}
