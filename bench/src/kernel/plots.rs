//! Draws plots as SVG.

use std::path::Path;

use anyhow::{Context as _, Result};
use plotters::prelude::*;

use super::measured::Measured;
use super::programs::Program;
use super::tables::{of_size, own, title};

const SIZE: (u32, u32) = (760, 400);
const FONT: (&str, u32) = ("sans-serif", 13);

/// Plots the cost of each program above null, on the fixed INVITE and on drawn ones.
pub fn programs(path: &Path, measured: &Measured) -> Result<()> {
    let programs = Program::ALL.into_iter().filter(|program| *program != Program::Null);
    let programs: Vec<_> = programs.collect();
    let both = |program| [own(measured, program, false), own(measured, program, true)];
    let all = programs.iter().flat_map(|program| both(*program));
    let top = all.filter(|ns| ns.is_finite()).fold(1.0, f64::max);
    make_folder(path)?;
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(14)
        .x_label_area_size(40)
        .y_label_area_size(130)
        .build_cartesian_2d(0.0..top * 1.15, 0.0..programs.len() as f64)?;
    chart
        .configure_mesh()
        .x_label_formatter(&|ns| format!("{ns:.0}"))
        .x_desc("ns per packet above null (fixed) and above drawing a frame (drawn)")
        .disable_y_axis()
        .disable_y_mesh()
        .label_style(FONT)
        .axis_desc_style(FONT)
        .max_light_lines(0)
        .draw()?;
    for (row, program) in programs.iter().enumerate() {
        let middle = (programs.len() - row) as f64 - 0.5;
        for (bar, (ns, color)) in both(*program).into_iter().zip([BLUE, RED]).enumerate() {
            if !ns.is_finite() {
                continue;
            }
            let high = middle + 0.36 - 0.36 * bar as f64;
            let bar =
                Rectangle::new([(0.0, high), (ns.max(0.0), high - 0.34)], color.mix(0.6).filled());
            chart.draw_series([bar])?;
            let label = EmptyElement::at((ns.max(0.0), high))
                + Text::new(format!("{ns:.0}"), (4, 3), FONT.into_font());
            chart.draw_series([label])?;
        }
        let name = EmptyElement::at((0.0, middle))
            + Text::new(title(*program), (-125, -6), FONT.into_font());
        chart.plotting_area().draw(&name)?;
    }
    for (name, color) in [("fixed", BLUE), ("drawn", RED)] {
        let style = color.mix(0.6).filled();
        chart
            .draw_series(std::iter::empty::<Rectangle<(f64, f64)>>())?
            .label(name)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 14, y + 5)], style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE)
        .border_style(RGBColor(200, 200, 200))
        .label_font(FONT)
        .draw()?;
    area.present().with_context(|| format!("cannot write {}", path.display()))
}

/// Plots the cost of the whole filter by the size of the list.
pub fn sizes(path: &Path, measured: &Measured) -> Result<()> {
    let points = |case| -> Vec<(f64, f64)> {
        let sizes = measured.sizes.iter();
        sizes.map(|size| (f64::from(size.numbers), of_size(size, case))).collect()
    };
    let lines = [("innocent", points(1), BLUE), ("blocked → drop", points(2), RED)];
    let all = lines.iter().flat_map(|(_, points, _)| points);
    let top = all.map(|(_, ns)| *ns).fold(1.0, f64::max);
    make_folder(path)?;
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(14)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d((700.0..15_000_000.0).log_scale(), 0.0..top * 1.2)?;
    chart
        .configure_mesh()
        .x_desc("blocked numbers")
        .x_label_formatter(&|numbers| format!("{numbers:.0}"))
        .y_label_formatter(&|ns| format!("{ns:.0}"))
        .y_desc("ns per packet above drawing a frame")
        .label_style(FONT)
        .axis_desc_style(FONT)
        .max_light_lines(0)
        .draw()?;
    for (name, points, color) in lines {
        let circles = points.iter().map(|at| Circle::new(*at, 3, color.filled()));
        chart.draw_series(circles)?;
        chart
            .draw_series(LineSeries::new(points, color.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE)
        .border_style(RGBColor(200, 200, 200))
        .label_font(FONT)
        .draw()?;
    area.present().with_context(|| format!("cannot write {}", path.display()))
}

fn make_folder(path: &Path) -> Result<()> {
    let folder = path.parent().context("no folder")?;
    std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))
}
