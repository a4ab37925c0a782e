//! Plots as SVG.

use std::path::Path;

use anyhow::{Context as _, Result};
use plotters::prelude::*;

use crate::cases::{Case, Series};
use crate::tables::{emergencies, lost};
use crate::year::Outcome;

const SIZE: (u32, u32) = (760, 440);
const FONT: (&str, u32) = ("sans-serif", 13);
const GREEN: RGBColor = RGBColor(0, 120, 60);
const GREY: RGBColor = RGBColor(150, 150, 150);

/// Plots prank attempts refused against emergencies lost: one point per policy.
///
/// # Errors
/// Returns an error if the file cannot be written.
pub fn trade(path: &Path, runs: &[(Case, Outcome)]) -> Result<()> {
    let points: Vec<_> = runs
        .iter()
        .filter(|(case, _)| !matches!(case.series, Series::Centres | Series::Forgery))
        // Without blocks there is no point.
        .filter(|(case, _)| !case.rules.ladder.rungs.is_empty())
        .map(|(case, outcome)| {
            let refused = outcome.pranks_refused as f64 / outcome.prank_attempts.max(1) as f64;
            (case, refused * 100.0, lost(outcome) as f64 / outcome.years)
        })
        .collect();
    let right = points.iter().map(|point| point.1).fold(0.0, f64::max) + 2.0;
    let left = points.iter().map(|point| point.1).fold(right, f64::min) - 2.0;
    let top = points.iter().map(|point| point.2).fold(1.0, f64::max);
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(14)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(left..right, (1.0..top * 1.3).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("prank attempts refused, %")
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_desc("emergencies lost in a year (1: or fewer)")
        .y_label_formatter(&|y| format!("{y:.0}"))
        .label_style(FONT)
        .axis_desc_style(FONT)
        .max_light_lines(0)
        .draw()?;
    for (case, refused, lost) in &points {
        let attempts = case.rules.redial.attempts;
        let (color, label, above) = match case.series {
            Series::Ends => (RED, format!("default: N = {attempts}"), false),
            Series::Attempts if attempts == 0 => (BLUE, "redial off".to_owned(), true),
            Series::Attempts => (BLUE, format!("N = {attempts}"), attempts == 8),
            Series::Times if !case.rules.doubles => {
                (BLUE, format!("N = {attempts}, never doubled"), true)
            }
            Series::Times => (GREY, String::new(), false),
            Series::Ladders => (GREEN, case.name.clone(), false),
            Series::Centres | Series::Machines | Series::Forgery => continue,
        };
        let at = (*refused, lost.max(1.0));
        let size = if label.is_empty() { 2 } else { 4 };
        chart.draw_series([Circle::new(at, size, color.filled())])?;
        if label.is_empty() {
            continue;
        }
        // Labels of ladders are to the left of their points, where other labels are rare.
        let left = label.chars().count() as i32 * 6 + 10;
        let offset = match (case.series, above) {
            (Series::Ladders, _) => (-left, -6),
            (_, true) => (-10, -19),
            (_, false) => (5, 4),
        };
        let label = EmptyElement::at(at) + Text::new(label, offset, FONT.into_font().color(&color));
        chart.draw_series([label])?;
    }
    area.present().with_context(|| format!("cannot write {}", path.display()))
}

/// Plots the share of emergencies of blocked numbers that have passed over time, for each N.
///
/// # Errors
/// Returns an error if the file cannot be written.
pub fn delays(path: &Path, runs: &[(Case, Outcome)]) -> Result<()> {
    const LAST: f64 = 600.0;
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(14)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..LAST, 0.0..100.0)?;
    chart
        .configure_mesh()
        .x_desc("seconds since the first attempt")
        .y_desc("emergencies of blocked numbers that have passed, %")
        .label_style(FONT)
        .axis_desc_style(FONT)
        .max_light_lines(0)
        .draw()?;
    let with_attempts = runs.iter().enumerate().filter(|(index, (case, _))| {
        *index == 0 || case.series == Series::Attempts && case.rules.redial.attempts != 0
    });
    let colors = [RED, BLUE, GREEN, MAGENTA, RGBColor(120, 80, 0)];
    for ((_, (case, outcome)), color) in with_attempts.zip(colors.into_iter().cycle()) {
        let whole = emergencies(outcome).count().max(1) as f64;
        let after = |seconds: f64| {
            let passed = emergencies(outcome)
                .filter(|need| need.passed.is_some() && need.seconds <= seconds);
            passed.count() as f64 / whole * 100.0
        };
        let line = (0..=120).map(|step| f64::from(step) * LAST / 120.0);
        let line: Vec<_> = line.map(|seconds| (seconds, after(seconds))).collect();
        let name = format!("N = {}", case.rules.redial.attempts);
        chart
            .draw_series(LineSeries::new(line, color.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.9))
        .border_style(RGBColor(200, 200, 200))
        .label_font(FONT)
        .draw()?;
    area.present().with_context(|| format!("cannot write {}", path.display()))
}
