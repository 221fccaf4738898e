//! `forebay bench rate`: how the two controllers answer when a pipeline becomes faster, slower or busier.
//!
//! Promises: a simulation, the same each time; nothing is measured. What is said of a response is read off its points.

use super::args::RateArgs;
use crate::cli::exit::{Failure, OK};
use crate::cli::output::{Format, print, screen, table, thousands};
use crate::rate::simulate::{Load, Point, step_response};
use crate::rate::{Kind, Settings};
use plotters::prelude::*;
use serde::Serialize;
use std::time::Duration;

const INTERVAL: Duration = Duration::from_millis(500);
/// Before the step, and after it.
const BATCHES: usize = 40;
/// What counts as having arrived.
const BAND: f64 = 0.1;
const PANEL: (u32, u32) = (900, 320);
const FONT: &str = "sans-serif";

/// One answer to one step.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Response {
    /// What changed.
    pub step: &'static str,
    controller: &'static str,
    /// The first batch from which on the rate stays within 10 % of what can be sustained; none: it never does.
    pub settled_at_batch: Option<i64>,
    /// How often the rate went from one side of that band to the other.
    pub overshoots: usize,
    points: Vec<Place>,
}

/// One batch of it.
#[derive(Clone, Copy, Debug, Serialize)]
struct Place {
    batch: i64,
    rate: f64,
    sustainable: f64,
    records: u64,
    processing_s: f64,
    scheduling_s: f64,
}

/// Runs the command.
pub(super) fn run(args: &RateArgs) -> Result<i32, Failure> {
    let responses = responses();
    if let Some(file) = &args.svg {
        let svg = draw(&responses).map_err(|error| anyhow::anyhow!("cannot draw the responses: {error}"))?;
        super::save(file, &svg)?;
    }
    match args.output {
        Format::Table => print(&screen(&rows(&responses)))?,
        Format::Json => {
            let json = serde_json::json!({ "schema": "forebay.bench.rate/1", "responses": responses });
            print(&format!("{json:#}\n"))?;
        }
        Format::Jsonl => {
            let lines: Vec<_> = responses.iter().map(|one| format!("{}\n", serde_json::json!(one))).collect();
            print(&lines.concat())?;
        }
    }
    Ok(OK)
}

/// Both controllers on each step, five times each.
fn responses() -> Vec<Response> {
    let load = |capacity| Load { capacity, fixed: Duration::from_millis(20), offered: None, noise: 0.03 };
    let (slow, fast) = (load(20_000.0), load(100_000.0));
    let part = |of: f64| Load { offered: Some(of * fast.sustainable(INTERVAL)), ..fast };
    let steps = [("capacity × 5", slow, fast), ("capacity ÷ 5", fast, slow), ("load × 5", part(0.25), part(1.25))];
    let answer = |(step, before, after): (&'static str, Load, Load)| {
        [("pid", Kind::Pid), ("self-tuning", Kind::SelfTuning)].map(|(controller, kind)| {
            let points = step_response(&Settings::new(kind, INTERVAL), &before, &after, BATCHES);
            let (settled_at_batch, overshoots) = judge(&points);
            let points = points.iter().map(Place::from).collect();
            Response { step, controller, settled_at_batch, overshoots, points }
        })
    };
    steps.into_iter().flat_map(answer).collect()
}

impl From<&Point> for Place {
    fn from(point: &Point) -> Self {
        Self {
            batch: point.batch,
            rate: point.rate,
            sustainable: point.sustainable,
            records: point.records,
            processing_s: point.processing,
            scheduling_s: point.scheduling,
        }
    }
}

/// When the rate has arrived for good, and how often it changed sides.
fn judge(points: &[Point]) -> (Option<i64>, usize) {
    let after: Vec<_> = points.iter().filter(|point| point.batch >= 0).collect();
    let side = |point: &&Point| {
        let ratio = point.rate / point.sustainable;
        i32::from(ratio > 1.0 + BAND) - i32::from(ratio < 1.0 - BAND)
    };
    let outside = after.iter().rposition(|point| side(point) != 0);
    let settled = after.get(outside.map_or(0, |last| last + 1)).map(|point| point.batch);
    let sides: Vec<_> = after.iter().map(side).filter(|side| *side != 0).collect();
    (settled, sides.windows(2).filter(|pair| pair[0] != pair[1]).count())
}

fn rows(responses: &[Response]) -> comfy_table::Table {
    let mut table = table(["step", "controller", "within 10 % from batch", "overshoots"]);
    for response in responses {
        let settled = response.settled_at_batch.map_or("never".to_string(), |batch| batch.to_string());
        let overshoots = response.overshoots.to_string();
        table.add_row([response.step.to_string(), response.controller.to_string(), settled, overshoots]);
    }
    table
}

/// One panel a step: both rates and what can be sustained, batch by batch.
fn draw(responses: &[Response]) -> Result<String, DrawingAreaErrorKind<std::io::Error>> {
    let steps: Vec<_> = responses.chunk_by(|a, b| a.step == b.step).collect();
    let mut svg = String::new();
    {
        let size = (PANEL.0, PANEL.1 * steps.len().max(1) as u32);
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        root.fill(&WHITE)?;
        for (area, step) in root.split_evenly((steps.len().max(1), 1)).iter().zip(steps) {
            let places = || step.iter().flat_map(|response| &response.points);
            let top = places().map(|place| place.rate.min(place.sustainable * 2.0)).fold(1.0, f64::max) * 1.15;
            let (first, last) = (places().map(|p| p.batch).min(), places().map(|p| p.batch).max());
            let batches = first.unwrap_or(0) as f64..last.unwrap_or(0) as f64;
            let mut chart = ChartBuilder::on(area)
                .caption(format!("records/s batch by batch, {} at batch 0", step[0].step), (FONT, 18))
                .margin(12)
                .x_label_area_size(30)
                .y_label_area_size(90)
                .build_cartesian_2d(batches, 0.0..top)?;
            let number = |value: &f64| thousands(value.round() as u64);
            let label = (FONT, 13);
            let batch = |value: &f64| format!("{value:.0}");
            chart
                .configure_mesh()
                .light_line_style(WHITE)
                .y_labels(6)
                .x_label_formatter(&batch)
                .y_label_formatter(&number)
                .label_style(label)
                .draw()?;
            let sustainable = step[0].points.iter().map(|place| (place.batch as f64, place.sustainable));
            let gray = RGBColor(150, 150, 150).stroke_width(4);
            let series = chart.draw_series(LineSeries::new(sustainable, gray))?.label("sustainable");
            series.legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], gray));
            for (response, color) in step.iter().zip([RGBColor(214, 126, 44), RGBColor(38, 110, 180)]) {
                let line = response.points.iter().map(|place| (place.batch as f64, place.rate.min(top)));
                let style = color.stroke_width(2);
                let series = chart.draw_series(LineSeries::new(line, style))?.label(response.controller);
                series.legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], style));
            }
            chart.configure_series_labels().position(SeriesLabelPosition::MiddleRight).label_font(label).draw()?;
        }
        root.present()?;
    }
    Ok(svg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_controllers_settle_by_the_tenth_batch_with_one_overshoot_at_most() {
        for response in responses() {
            let name = (response.step, response.controller);
            assert!(response.settled_at_batch.is_some_and(|batch| batch <= 10), "{name:?} {response:?}");
            assert!(response.overshoots <= 1, "{name:?}");
        }
        assert!(draw(&responses()).unwrap().contains("self-tuning"));
    }

    #[test]
    fn a_response_is_judged_by_its_points() {
        let at = |(batch, rate): (i64, f64)| Point {
            batch,
            at: 0.0,
            rate,
            sustainable: 100.0,
            records: 1,
            processing: 0.1,
            scheduling: 0.0,
        };
        let judged = |rates: &[f64]| judge(&(-1..).zip(rates.iter().copied()).map(at).collect::<Vec<_>>());
        assert_eq!(judged(&[20.0, 20.0, 95.0, 105.0]), (Some(1), 0));
        assert_eq!(judged(&[20.0, 20.0, 150.0, 60.0, 100.0]), (Some(3), 2));
        assert_eq!(judged(&[20.0, 100.0, 20.0]), (None, 0));
        assert_eq!(judged(&[500.0, 100.0, 100.0]), (Some(0), 0));
    }
}
