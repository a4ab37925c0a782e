//! Draws refusals and grants over time as SVG. The viewer renders the text, so no fonts are needed.

use std::error::Error;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use plotters::prelude::{
    BLACK, BindKeyPoints as _, ChartBuilder, IntoDrawingArea as _, IntoFont as _, LineSeries,
    PathElement, RGBColor, SVGBackend, SeriesLabelPosition, WHITE,
};
use plotters::style::{Color as _, ShapeStyle};

use crate::what_if::timeline::{Step, Timeline};

/// Width and height in pixels.
const SIZE: (u32, u32) = (1000, 460);
/// Colours that colour-blind readers can distinguish (Okabe and Ito); the lines also differ in width.
const REFUSED: RGBColor = RGBColor(213, 94, 0);
const GRANTED: RGBColor = RGBColor(0, 114, 178);

/// Maximum number of labels on the time axis.
const TICKS_MAX: u64 = 8;
/// Possible distances between two labels, in seconds.
const TICKS: [u64; 16] = [
    1, 5, 10, 30, 60, 300, 600, 1800, 3600, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800,
    2_419_200,
];

/// Label, index (0 policy, 1 baseline), colour and count of a line.
type Line = (&'static str, usize, RGBColor, fn(&Step) -> [u64; 2]);

/// Draws the policy in thick lines and, if it has a name, the baseline in thin lines.
///
/// # Errors
/// Returns the error of the drawing library.
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
        let caption =
            format!("calls refused and let through by a redial grant, per {}", length(width));
        let mut chart = ChartBuilder::on(&area)
            .caption(caption, ("sans-serif", 18).into_font())
            .margin(12)
            .x_label_area_size(36)
            .y_label_area_size(56)
            .build_cartesian_2d(
                (first..last).with_key_points(ticks(first, last)),
                0..highest.unwrap_or(0).max(1) + 1,
            )?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .label_style(("sans-serif", 13).into_font())
            .x_label_formatter(&|seconds| label(*seconds, last - first))
            .y_label_formatter(&|count| count.to_string())
            .y_desc("calls")
            .draw()?;
        let lines: [Line; 4] = [
            ("refused", 1, REFUSED, |step| step.refused),
            ("let through", 1, GRANTED, |step| step.granted),
            ("refused", 0, REFUSED, |step| step.refused),
            ("let through", 0, GRANTED, |step| step.granted),
        ];
        for (what, side, colour, counts) in lines {
            let (whose, style) = match (side, baseline) {
                (0, _) => ("policy", colour.stroke_width(3)),
                (_, Some(name)) => (name, colour.mix(0.6).stroke_width(1)),
                (_, None) => continue,
            };
            // A staircase: the count of a step is drawn from its beginning to its end.
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
            .label_font(("sans-serif", 13).into_font())
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

/// Returns round times of the local zone in a range, at most [`TICKS_MAX`].
fn ticks(first: u64, last: u64) -> Vec<u64> {
    let span = last - first;
    let round = TICKS.into_iter().find(|tick| span / tick < TICKS_MAX);
    let tick = round.unwrap_or_else(|| span / TICKS_MAX + 1);
    let start = Timestamp::from_second(i64::try_from(first).unwrap_or(i64::MAX));
    let zone = TimeZone::system().to_offset(start.unwrap_or_default()).seconds();
    let past = first.saturating_add_signed(zone.into()) % tick;
    let begin = if past == 0 { first } else { first - past + tick };
    (0..TICKS_MAX).map(|index| begin + index * tick).take_while(|time| *time <= last).collect()
}

/// Formats a time in the local zone, as precisely as the length of the picture needs.
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

/// Formats the width of a step, which is round: `15 min`.
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
    fn labels_are_at_round_times() {
        for (first, span) in [(1_700_000_000, 1), (1_700_000_000, 86_400 * 7), (0, 1 << 33), (7, 0)]
        {
            let last = first + span;
            let ticks = ticks(first, last);
            assert!(ticks.len() <= 8 && ticks.iter().all(|time| (first..=last).contains(time)));
            assert!(!ticks.is_empty(), "{first} {span}");
        }
        let week = ticks(1_700_000_000, 1_700_000_000 + 86_400 * 6);
        assert!(week.iter().all(|time| label(*time, 86_400 * 6).ends_with("00:00")), "{week:?}");
    }

    #[test]
    fn picture_has_a_line_for_each_policy() {
        let mut timeline = Timeline::default();
        timeline.add(1, 1_700_000_000_000_000_000, [true, false], [false, false]);
        timeline.add(1, 1_700_000_020_000_000_000, [false, true], [true, false]);
        let alone = svg(&timeline, None).unwrap();
        let both = svg(&timeline, Some("old.toml")).unwrap();
        assert!(alone.starts_with("<svg") && alone.trim_end().ends_with("</svg>"), "{alone}");
        // The axes are lines, too.
        let lines = |text: &str| text.matches("<polyline").count();
        assert!(lines(&both) > lines(&alone));
        assert!(
            both.contains("refused, policy") && both.contains("let through, old.toml"),
            "{both}"
        );
        assert!(!alone.contains("old.toml"));
        assert!(svg(&Timeline::default(), None).is_ok());
    }
}
