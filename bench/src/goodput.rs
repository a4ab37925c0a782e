//! `bench goodput`: measures honest calls answered while a flood of blocked callers grows, with and
//! without the gate.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use comfy_table::{CellAlignment, Table, presets};
use plotters::prelude::*;

use crate::page;
use crate::veth::flood::Flood;
use crate::veth::gate::Gate;
use crate::veth::honest::{self, Answers};
use crate::veth::kamailio::Kamailio;
use crate::veth::{Bench, RECEIVER_CPU, cpu, is_installed};

/// Options of `bench goodput`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Short run that only prints.
    #[arg(long)]
    pub quick: bool,
}

/// Honest calls per second.
const HONEST: u32 = 500;
/// INVITEs of blocked callers per second.
const FLOODS: [u32; 9] = [0, 2_000, 8_000, 16_000, 32_000, 64_000, 128_000, 320_000, 640_000];
/// Flood of the short run.
const QUICK: [u32; 3] = [0, 32_000, 128_000];
/// The flood of the target, and the share of honest calls that must be answered in it.
const TARGET: (u32, f64) = (128_000, 0.99);
/// Share of a flood that must be sent for it to count as reached.
const REACHED: f64 = 0.9;
/// How often a caller without an answer sends the INVITE of a call (RFC 3261 §17.1.1.2).
const COPIES: u32 = 7;

/// One flood and the outcome of the honest calls in it.
struct Point {
    /// INVITEs per second to send.
    wanted: u32,
    /// INVITEs per second that were sent.
    flood: f64,
    answers: Answers,
    /// Share of the receiving CPU used by the kernel, Kamailio and the daemon.
    cpu: f64,
    /// Share of it used by the daemon.
    daemon: f64,
}

/// Measures, prints, and writes the page.
pub fn run(arguments: &Arguments) -> Result<()> {
    ensure!(is_installed("kamailio", "kamailio"), "kamailio is missing and cannot be installed");
    let (floods, time): (&[u32], _) = match arguments.quick {
        true => (&QUICK, Duration::from_secs(1)),
        false => (&FLOODS, Duration::from_secs(6)),
    };
    let bench = Bench::new()?;
    let mut flood = Flood::load(&bench.lab)?;
    let mut idle = cpu::Idle::new(Duration::from_secs(if arguments.quick { 1 } else { 60 }));
    let mut without = Vec::new();
    let mut with = Vec::new();
    for &wanted in floods {
        for (has_gate, points) in [(false, &mut without), (true, &mut with)] {
            idle.wait()?;
            let point = measure(&bench, &mut flood, wanted, has_gate, time);
            // Interrupted by the user, so its error is not reported.
            bench.go_on()?;
            let point = point?;
            let gate = if has_gate { "with" } else { "without" };
            eprintln!(
                "{:.0}/s {gate} the gate: {:.1} % answered, CPU {:.0} %",
                point.flood,
                point.answers.share() * 100.0,
                point.cpu * 100.0
            );
            points.push(point);
        }
    }
    drop(bench);
    let text = text(&without, &with) + &idle.remark();
    println!("{text}");
    if !arguments.quick {
        let folder = page::docs().join("performance");
        std::fs::create_dir_all(&folder)?;
        plot(&folder.join("goodput.svg"), &without, &with)?;
        page::write(
            "goodput",
            &format!("![Honest calls answered](performance/goodput.svg)\n\n{text}"),
        )?;
    }
    Ok(())
}

fn measure(
    bench: &Bench,
    flood: &mut Flood,
    wanted: u32,
    has_gate: bool,
    time: Duration,
) -> Result<Point> {
    let kamailio = Kamailio::start(&bench.lab)?;
    let gate = has_gate.then(|| Gate::start(&bench.lab, "native", RECEIVER_CPU)).transpose()?;
    let daemon = Vec::from_iter(gate.as_ref().map(Gate::pid));
    let mut flooding = (wanted > 0).then(|| flood.start(Some(wanted), COPIES)).transpose()?;
    if let Some(flooding) = &flooding {
        flooding.wait_for_first()?;
    }
    bench.wait(time / 6)?;
    let sent = || flooding.as_ref().map_or(Ok(0), |flooding| flooding.sent());
    let (sent_before, before) = (sent()?, bench.counts(&kamailio.pids())?);
    let daemon_before = bench.counts(&daemon)?;
    let answers = honest::call(bench, HONEST, time)?;
    let (counts, seconds) = bench.counts(&kamailio.pids())?.since(&before);
    let (daemon, _) = bench.counts(&daemon)?.since(&daemon_before);
    let sent = sent()? - sent_before;
    if let Some(flooding) = &mut flooding {
        flooding.stop()?;
    }
    let share = |nanoseconds: u64| nanoseconds as f64 / seconds / 1e9;
    Ok(Point {
        wanted,
        flood: sent as f64 / seconds,
        answers,
        cpu: share(counts.napi + counts.programs + daemon.programs),
        daemon: share(daemon.programs),
    })
}

fn text(without: &[Point], with: &[Point]) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header([
        "flood sent, INVITEs/s",
        "answered without",
        "with the gate",
        "set-up delay ms without: median / 99 %",
        "with the gate",
        "CPU without",
        "with the gate (daemon)",
    ]);
    for (without, with) in without.iter().zip(with) {
        table.add_row([
            if with.wanted == 0 { "0".to_owned() } else { format!("{:.1} k", with.flood / 1000.0) },
            percent(without.answers.share()),
            percent(with.answers.share()),
            delays(&without.answers),
            delays(&with.answers),
            format!("{:.0} %", without.cpu * 100.0),
            format!("{:.0} % ({:.0})", with.cpu * 100.0, with.daemon * 100.0),
        ]);
    }
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let point = with.iter().find(|point| point.wanted == TARGET.0);
    let target = point.map_or_else(String::new, |point| {
        let share = point.answers.share();
        let word = match (share >= TARGET.1, point.flood >= REACHED * f64::from(TARGET.0)) {
            (true, true) => "met",
            (false, _) => "missed",
            (true, false) => "not proved: the sender did not reach this flood",
        };
        format!(
            "Target: {} of the honest calls answered at {} k/s with the gate: {} ({word}).\n\n",
            percent(TARGET.1),
            TARGET.0 / 1000,
            percent(share)
        )
    });
    format!(
        "{table}\n\n{target}{HONEST} honest calls a second to a Kamailio that answers 404, beside a flood of blocked callers. Each of their \
         calls comes {COPIES} times in a row, as often as from a phone that gets no answer. Without the gate Kamailio has the same list in its own memory and \
         drops the same callers. Answered: within {} ms, when the caller would send again. The CPU is the one that receives: \
         kernel, Kamailio (one worker) and Palang's daemon share it.\n",
        honest::IN_TIME.as_millis()
    )
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn delays(answers: &Answers) -> String {
    let milliseconds = |percent| {
        let delay = answers.percentile(percent);
        delay.map_or_else(|| "–".to_owned(), |delay| format!("{:.2}", delay.as_secs_f64() * 1e3))
    };
    format!("{} / {}", milliseconds(50), milliseconds(99))
}

const SIZE: (u32, u32) = (760, 840);
const FONT: (&str, u32) = ("sans-serif", 13);
const GREEN: RGBColor = RGBColor(0, 120, 60);

/// Plots answered share, set-up delay and CPU.
fn plot(path: &Path, without: &[Point], with: &[Point]) -> Result<()> {
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let share = |point: &Point| point.answers.share() * 100.0;
    let delay =
        |point: &Point| point.answers.percentile(50).map_or(0.0, |delay| delay.as_secs_f64() * 1e3);
    let cpu = |point: &Point| point.cpu * 100.0;
    let longest = without.iter().chain(with).map(delay).fold(1.0, f64::max);
    for (area, chart) in area.split_evenly((3, 1)).iter().zip([
        Chart { name: "honest calls answered, %", top: 105.0, value: &share },
        Chart { name: "set-up delay, median, ms", top: longest * 1.1, value: &delay },
        Chart { name: "receiving CPU busy, %", top: 105.0, value: &cpu },
    ]) {
        chart.draw(area, without, with)?;
    }
    area.present().with_context(|| format!("cannot write {}", path.display()))
}

struct Chart<'a> {
    name: &'a str,
    /// End of the axis.
    top: f64,
    value: &'a dyn Fn(&Point) -> f64,
}

impl Chart<'_> {
    fn draw(
        &self,
        area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
        without: &[Point],
        with: &[Point],
    ) -> Result<()> {
        let last = with.len().saturating_sub(1) as f64;
        let mut chart = ChartBuilder::on(area)
            .margin(14)
            .margin_right(32)
            .x_label_area_size(40)
            .y_label_area_size(60)
            .build_cartesian_2d(0.0..last, 0.0..self.top)?;
        // One step per flood, because 0 has no place on a logarithmic axis.
        let floods = |x: &f64| {
            let point = with.get(x.round() as usize);
            point.map_or_else(String::new, |point| match point.wanted {
                0 => "0".to_owned(),
                wanted => format!("{} k", wanted / 1000),
            })
        };
        chart
            .configure_mesh()
            .x_labels(with.len())
            .x_label_formatter(&floods)
            .x_desc("INVITEs of blocked callers a second")
            .y_desc(self.name)
            .y_labels(6)
            .y_label_formatter(&|y| {
                if self.top < 10.0 { format!("{y:.1}") } else { format!("{y:.0}") }
            })
            .label_style(FONT)
            .axis_desc_style(FONT)
            .max_light_lines(0)
            .draw()?;
        for (points, name, color) in [(with, "with the gate", GREEN), (without, "without", RED)] {
            let line: Vec<_> = points
                .iter()
                .enumerate()
                .map(|(x, point)| (x as f64, (self.value)(point)))
                .collect();
            chart.draw_series(line.iter().map(|&at| Circle::new(at, 3, color.filled())))?;
            chart.draw_series(LineSeries::new(line, color.stroke_width(2)))?.label(name).legend(
                move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)),
            );
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::MiddleLeft)
            .background_style(WHITE.mix(0.9))
            .border_style(RGBColor(200, 200, 200))
            .label_font(FONT)
            .draw()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(wanted: u32, flood: f64, answered: usize) -> Point {
        let delays = vec![Duration::from_millis(2); answered];
        let answers = Answers { calls: 1000, delays };
        Point { wanted, flood, answers, cpu: 0.5, daemon: 0.1 }
    }

    #[test]
    fn the_target_is_met_only_by_a_flood_that_was_sent() {
        let verdict = |flood, answered| text(&[], &[point(TARGET.0, flood, answered)]);
        assert!(verdict(128_000.0, 995).contains("99.5 % (met)"));
        assert!(verdict(128_000.0, 985).contains("98.5 % (missed)"));
        assert!(verdict(64_000.0, 995).contains("not proved"));
    }

    #[test]
    fn the_plot_shows_all_floods() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("plot.svg");
        let points = [0, 2000, 128_000].map(|flood| point(flood, f64::from(flood), 990));
        plot(&path, &points, &points)?;
        let plot = std::fs::read_to_string(path)?;
        for label in ["2 k", "128 k", "with the gate", "honest calls", "delay", "CPU"] {
            assert!(plot.contains(label), "{label}");
        }
        Ok(())
    }
}
