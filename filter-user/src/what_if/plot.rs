//! Refusals and grants over time as a picture: SVG, whose text the viewer sets, so that no fonts
//! are needed here.

use std::error::Error;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use plotters::prelude::{
    BLACK, ChartBuilder, IntoDrawingArea as _, IntoFont as _, LineSeries, PathElement, RGBColor,
    SVGBackend, SeriesLabelPosition, WHITE,
};
use plotters::style::{Color as _, ShapeStyle};

use super::timeline::{Step, Timeline};

/// Width and height in pixels.
const SIZE: (u32, u32) = (1000, 460);
/// Also told apart by who sees no difference of red and green (Okabe and Ito), and by their width.
const REFUSED: RGBColor = RGBColor(213, 94, 0);
const GRANTED: RGBColor = RGBColor(0, 114, 178);

/// What it counts, of the policy (0) or the baseline (1).
type Line = (&'static str, usize, RGBColor, fn(&Step) -> [u64; 2]);

/// Draws the policy in thick lines and, where it has a name, the baseline in thin ones.
///
/// # Errors
/// What cannot be drawn.
pub fn svg(timeline: &Timeline, baseline: Option<&str>) -> Result<String, Box<dyn Error>> {
    let steps: Vec<_> = timeline.steps().collect();
    let width = timeline.seconds();
    let first = steps.first().map_or(0, |(time, _)| *time);
    let last = steps.last().map_or(0, |(time, _)| *time) + width;
    let highest = steps.iter().flat_map(|(_, step)| [step.refused, step.granted].concat()).max();
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let caption = format!("calls refused and let in by a redial grant, per {}", length(width));
        let mut chart = ChartBuilder::on(&area)
            .caption(caption, ("sans-serif", 18).into_font())
            .margin(12)
            .x_label_area_size(36)
            .y_label_area_size(56)
            .build_cartesian_2d(first..last, 0..highest.unwrap_or(0).max(1) + 1)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(8)
            .x_label_formatter(&|seconds| label(*seconds, last - first))
            .y_label_formatter(&|count| count.to_string())
            .y_desc("calls")
            .draw()?;
        let lines: [Line; 4] = [
            ("refused", 1, REFUSED, |step| step.refused),
            ("let in", 1, GRANTED, |step| step.granted),
            ("refused", 0, REFUSED, |step| step.refused),
            ("let in", 0, GRANTED, |step| step.granted),
        ];
        for (what, side, colour, counts) in lines {
            let (whose, style) = match (side, baseline) {
                (0, _) => ("policy", colour.stroke_width(3)),
                (_, Some(name)) => (name, colour.mix(0.6).stroke_width(1)),
                (_, None) => continue,
            };
            // A stair: what came in a step is as high from its beginning to its end.
            let corners = steps.iter().flat_map(|(time, step)| {
                let count = counts(step)[side];
                [(*time, count), (*time + width, count)]
            });
            chart
                .draw_series(LineSeries::new(corners, style))?
                .label(format!("{what}, {whose}"))
                .legend(move |(x, y)| legend(x, y, style));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE.mix(0.85))
            .border_style(BLACK.mix(0.3))
            .draw()?;
        area.present()?;
    }
    Ok(text)
}

fn legend(x: i32, y: i32, style: ShapeStyle) -> PathElement<(i32, i32)> {
    PathElement::new(vec![(x, y), (x + 18, y)], style)
}

/// A time in the local zone, as precise as the whole picture needs it.
fn label(seconds: u64, span: u64) -> String {
    let time = Timestamp::from_second(i64::try_from(seconds).unwrap_or(i64::MAX));
    let local = time.unwrap_or_default().to_zoned_datetime(TimeZone::system());
    let format = match span {
        0..=600 => "%H:%M:%S",
        601..=86_400 => "%H:%M",
        86_401..=1_209_600 => "%m-%d %H:%M",
        _ => "%Y-%m-%d",
    };
    local.strftime(format).to_string()
}

/// `15 min`: the width of a step, which is a round one.
fn length(seconds: u64) -> String {
    match seconds {
        s if s.is_multiple_of(86_400) => format!("{} d", s / 86_400),
        s if s.is_multiple_of(3600) => format!("{} h", s / 3600),
        s if s.is_multiple_of(60) => format!("{} min", s / 60),
        s => format!("{s} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_a_line_for_each_policy() {
        let mut timeline = Timeline::default();
        timeline.add(1_700_000_000_000_000_000, [true, false], [false, false]);
        timeline.add(1_700_000_020_000_000_000, [false, true], [true, false]);
        let alone = svg(&timeline, None).unwrap();
        let both = svg(&timeline, Some("old.toml")).unwrap();
        assert!(alone.starts_with("<svg") && alone.trim_end().ends_with("</svg>"), "{alone}");
        // The axes have lines, too.
        let lines = |text: &str| text.matches("<polyline").count();
        assert!(lines(&both) > lines(&alone));
        assert!(both.contains("refused, policy") && both.contains("let in, old.toml"), "{both}");
        assert!(!alone.contains("old.toml"));
        assert!(svg(&Timeline::default(), None).is_ok());
    }
}
