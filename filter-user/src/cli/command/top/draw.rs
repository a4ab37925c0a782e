//! Draws the screen of `palang top` from a [`View`].

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span as Text};
use ratatui::widgets::{Paragraph, Wrap};

use crate::api::wire::{Health, Top};
use crate::cli::command::top::tables::{callers, figures, interfaces, table, trunks};
use crate::cli::command::top::view::{Connection, View};
use crate::cli::output::clean;

/// Smallest terminal.
const WIDTH: u16 = 80;
const HEIGHT: u16 = 24;
/// Number of findings on the smallest terminal.
const FINDINGS: usize = 2;
/// Number of trunks on the smallest terminal.
const TRUNKS: usize = 4;

/// Draws the screen.
pub fn draw(view: &View, frame: &mut Frame<'_>) {
    let area = frame.area();
    let Some(top) = view.latest() else { return };
    if area.width < WIDTH || area.height < HEIGHT {
        let (width, height) = (area.width, area.height);
        let text = format!(
            "too small: this terminal is {width}x{height}, palang top needs {WIDTH}x{HEIGHT} (q quits)"
        );
        frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }), area);
        return;
    }
    // The extra lines of a larger terminal are for trunks and callers.
    let more = usize::from(area.height - HEIGHT);
    let findings = findings(view, top, FINDINGS + more / 8, area.width);
    let interfaces = interfaces(top);
    let trunks = trunks(view, top, TRUNKS + more / 3);
    let height = |rows: usize| Constraint::Length(rows as u16);
    let parts: [Rect; 7] = Layout::vertical([
        height(1),
        height(1),
        height(findings.len()),
        height(7),
        height(interfaces.len() + 1),
        height(trunks.len() + 1),
        Constraint::Fill(1),
    ])
    .areas(area);
    let [head, state, found, figures_at, interfaces_at, trunks_at, callers_at] = parts;
    frame.render_widget(title(view, top, area.width), head);
    frame.render_widget(banner(view, top), state);
    frame.render_widget(Paragraph::new(findings), found);
    frame.render_widget(figures(view, top), figures_at);
    let widths = [Constraint::Length(15), Constraint::Length(10), Constraint::Fill(1)];
    let columns = ["interface", "xdp", "state"];
    frame.render_widget(table(columns, widths, interfaces), interfaces_at);
    let widths = [
        Constraint::Fill(1),
        Constraint::Length(11),
        Constraint::Length(12),
        Constraint::Length(12),
        Constraint::Length(12),
        Constraint::Length(12),
    ];
    let columns = ["trunk", "attempts/s", "attempts", "refused", "unread", "passed"];
    frame.render_widget(table(columns, widths, trunks), trunks_at);
    frame.render_widget(callers(view, top), callers_at);
}

fn title(view: &View, top: &Top, width: u16) -> Paragraph<'static> {
    let version = clean(&top.status.version).into_owned();
    let left = format!(" palang top  daemon {version}");
    let zone = top.time.to_zoned_datetime(view.zone.clone()).strftime("%:::z").to_string();
    let right = format!("{} {zone}  q quits ", view.date(top.time));
    let gap = usize::from(width).saturating_sub(left.len() + right.len());
    let style = Style::new().add_modifier(Modifier::REVERSED);
    Paragraph::new(format!("{left}{}{right}", " ".repeat(gap))).style(style)
}

/// Describes what the gate does with blocked callers now; first a colour and a word.
fn state(view: &View, top: &Top) -> (Color, &'static str, String) {
    let status = &top.status;
    let since = || view.time(top.time);
    match &view.connection {
        Connection::Gone(_) => {
            let text = format!("the filter continues as it was at {}", since());
            return (Color::Red, "NO DAEMON", text);
        }
        Connection::Silent => {
            let seconds = view.silent_for;
            let text = format!("for {seconds} s; the filter continues as it was at {}", since());
            return (Color::Red, "DAEMON SILENT", text);
        }
        Connection::Up => {}
    }
    if status.interfaces.iter().all(|interface| interface.xdp.is_none()) {
        return (Color::Red, "NOT ATTACHED", "every call passes: palang attach IFACE".into());
    }
    if let Some(until) = status.r#override.until {
        let mut text = format!("no call is refused until {}", view.date(until));
        if let Some(reason) = &status.r#override.reason {
            text += &format!(": {reason}");
        }
        if let Some(author) = &status.r#override.author {
            text += &format!(" ({author})");
        }
        return (Color::Yellow, "OVERRIDE", text);
    }
    if status.mode.mode != "enforce" {
        return (Color::Yellow, "OBSERVE", "no call is refused".into());
    }
    let until = status.mode.until.map(|until| view.date(until));
    let until = until.map_or_else(String::new, |until| format!(" until {until}, then observe"));
    (Color::Green, "ENFORCE", format!("blocked callers are refused{until}"))
}

fn banner(view: &View, top: &Top) -> Paragraph<'static> {
    let (colour, word, text) = state(view, top);
    let style = coloured(view, colour).add_modifier(Modifier::REVERSED | Modifier::BOLD);
    let word = Text::styled(format!(" {word} "), style);
    let text = Text::styled(format!(" {}", clean(&text)), coloured(view, colour));
    Paragraph::new(Line::from(vec![word, text]))
}

fn coloured(view: &View, colour: Color) -> Style {
    if view.colours { Style::new().fg(colour) } else { Style::new() }
}

/// Returns the findings, worst first. The first may take two lines. If there are more than `room`, the
/// last line counts the others.
fn findings(view: &View, top: &Top, room: usize, width: u16) -> Vec<Line<'static>> {
    let line = |colour: Health, text: &str| {
        let (word, paint) = match colour {
            Health::Green => ("GREEN", Color::Green),
            Health::Amber => ("AMBER", Color::Yellow),
            Health::Red => ("RED", Color::Red),
        };
        let style = coloured(view, paint).add_modifier(Modifier::BOLD);
        let word = Text::styled(format!(" {word:<6}"), style);
        let (text, rest) = broken(&clean(text), usize::from(width) - 7);
        let mut lines = vec![Line::from(vec![word, Text::raw(text)])];
        lines.extend(rest.map(|rest| Line::raw(format!("       {rest}"))));
        lines
    };
    if let Connection::Gone(why) = &view.connection {
        return line(Health::Red, &format!("reconnecting: {why}"));
    }
    let findings = &top.status.findings;
    let Some(first) = findings.first() else {
        return line(top.status.colour, "no problems found");
    };
    let mut lines = line(first.colour, &first.message);
    let shown = if findings.len() > room { room - 1 } else { findings.len() };
    for found in findings.iter().take(shown).skip(1) {
        lines.extend(line(found.colour, &found.message).into_iter().take(1));
    }
    if let Some(next) = findings.get(shown) {
        let text = format!("and {} more: palang status", findings.len() - shown);
        lines.extend(line(next.colour, &text));
    }
    lines
}

/// Splits a text into the part that fits a line and the rest.
fn broken(text: &str, width: usize) -> (String, Option<String>) {
    let Some((end, _)) = text.char_indices().nth(width) else { return (text.to_owned(), None) };
    let end = text[..end].rfind(' ').unwrap_or(end);
    (text[..end].to_owned(), Some(text[end..].trim_start().to_owned()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::Timestamp;
    use jiff::tz::TimeZone;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::api::wire::{BusyCaller, Finding, Interface, Status, TrunkPackets};
    use crate::cli::command::top::view::Measuring;

    fn packets(counts: &[(&str, u64)]) -> BTreeMap<String, u64> {
        counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    fn interface(name: &str, problem: Option<&str>) -> Interface {
        Interface {
            name: name.into(),
            index: Some(3),
            xdp: problem.is_none().then(|| "native".into()),
            program: problem.is_none().then_some(42),
            problem: problem.map(str::to_owned),
            carrier: Some(true),
            replies_by_daemon: None,
        }
    }

    fn at(second: u64) -> Timestamp {
        Timestamp::from_second(1_795_546_800 + second as i64).unwrap()
    }

    fn caller(number: &str, attempts: u64, trunk: &str) -> BusyCaller {
        BusyCaller {
            number: number.into(),
            attempts,
            refused: attempts,
            last: at(59),
            reason: "blocked-number".into(),
            trunk: Some(trunk.into()),
        }
    }

    /// News of a gate with 100 refused, 60 passed and 2 unread attempts per second.
    fn top(second: u64) -> Top {
        let telkom = packets(&[
            ("blocked-number", 1_000 + 100 * second),
            ("not-blocked", 40_000 + 50 * second),
            ("from-missing", 2 * second),
        ]);
        let default = packets(&[("not-blocked", 7 + 10 * second), ("in-dialog", 9)]);
        let mut all = telkom.clone();
        *all.get_mut("not-blocked").unwrap() += 7 + 10 * second;
        all.insert("in-dialog".into(), 9);
        Top {
            time: at(second),
            boot_ns: 1_000_000_000 * (100 + second),
            status: Status {
                since: Some(at(0)),
                interfaces: vec![interface("ens1", None)],
                blocks: Some(2),
                packets: all,
                passed_lost: 12,
                ..Status::sample()
            },
            trunks: vec![
                TrunkPackets { name: "default".into(), packets: default },
                TrunkPackets { name: "telkom".into(), packets: telkom },
            ],
            run_time_ns: 162 * 700 * second,
            run_count: 162 * second,
            busiest: vec![
                caller("6281234567890", 5_400, "telkom"),
                caller("6281234567891", 600, "telkom"),
            ],
            uncounted: 0,
        }
    }

    fn view() -> View {
        let mut view = View::new(Measuring::On, true, TimeZone::UTC);
        view.hear(top(0));
        view.hear(top(59));
        view.hear(top(60));
        view
    }

    /// Returns a view after one change of the latest news.
    fn changed(change: impl FnOnce(&mut Top)) -> View {
        let mut view = view();
        let mut top = top(61);
        change(&mut top);
        view.hear(top);
        view
    }

    fn screen_of(view: &View, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(view, frame)).unwrap();
        let buffer = terminal.backend().buffer();
        let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        (0..height).map(|y| line(y).trim_end().to_owned()).collect()
    }

    fn screen(view: &View) -> Vec<String> {
        screen_of(view, WIDTH, HEIGHT)
    }

    #[test]
    fn a_whole_screen() {
        let expected = "\
palang top  daemon 0.1.0                      2026-11-24 19:01:00 +00  q quits
 ENFORCE  blocked callers are refused
 GREEN no problems found
                now         1 min       since the maps were made
packets/s       162         162         50,736
attempts/s      162         162         50,727
refused         61.7 %      61.7 %      7,000
unread          1.2 %       1.2 %       120
ns per packet   700         700         measured while this is open
events lost/s   0.0         0.0         0 refused, 12 passed
interface       xdp        state
ens1            native     attached, program 42
trunk            attempts/s  attempts     refused      unread       passed
telkom           152.0       50,120       7,000        120          43,000
default          10.0        607          0            0            607
blocked caller, 5 min  attempts   refused    last      why             trunk
6281234567890          5,400      5,400      19:00:59  blocked-number  telkom
6281234567891          600        600        19:00:59  blocked-number  telkom";
        assert_eq!(screen(&view()).join("\n").trim(), expected);
    }

    #[test]
    fn each_state_has_its_word() {
        let found = |colour, message: &str| Finding { colour, message: message.into() };
        let observe = changed(|top| top.status.mode.mode = "observe".into());
        let until = changed(|top| top.status.mode.until = Some(at(3600)));
        let over = changed(|top| {
            top.status.r#override.until = Some(at(3600));
            top.status.r#override.reason = Some("flood\u{9b}2J".into());
            top.status.r#override.author = Some("siti".into());
        });
        let off = changed(|top| {
            top.status.interfaces = vec![interface("ens1", Some("the filter is not on it"))];
            top.status.colour = Health::Red;
            top.status.findings = vec![
                found(Health::Red, "ens1: the filter is not on it"),
                found(Health::Amber, "one"),
                found(Health::Amber, "two"),
            ];
        });
        let mut gone = view();
        let why = "cannot reach the daemon at /run/palang/palang.sock: nothing listens on the \
                   socket: the daemon does not run";
        gone.connection = Connection::Gone(why.into());
        let mut silent = view();
        (silent.connection, silent.silent_for) = (Connection::Silent, 7);
        let banners = [&view(), &observe, &until, &over, &off, &gone, &silent]
            .map(|view| screen(view)[1].clone());
        assert_eq!(
            banners,
            [
                " ENFORCE  blocked callers are refused",
                " OBSERVE  no call is refused",
                " ENFORCE  blocked callers are refused until 2026-11-24 20:00:00, then observe",
                " OVERRIDE  no call is refused until 2026-11-24 20:00:00: flood\u{fffd}2J (siti)",
                " NOT ATTACHED  every call passes: palang attach IFACE",
                " NO DAEMON  the filter continues as it was at 19:01:00",
                " DAEMON SILENT  for 7 s; the filter continues as it was at 19:01:00",
            ]
        );
        let off = screen(&off);
        assert_eq!(off[2], " RED   ens1: the filter is not on it");
        assert_eq!(off[3], " AMBER and 2 more: palang status");
        assert!(
            off.contains(&"ens1            -          PROBLEM: the filter is not on it".into())
        );
        // The latest data stays visible, but without rates.
        let gone = screen(&gone);
        let why = " RED   reconnecting: cannot reach the daemon at /run/palang/palang.sock:";
        assert_eq!(gone[2], why);
        assert_eq!(gone[3], "       nothing listens on the socket: the daemon does not run");
        assert!(gone.iter().any(|line| line.starts_with("6281234567890")), "{gone:#?}");
        assert!(
            gone.iter().any(|line| line.starts_with("attempts/s      -           -")),
            "{gone:#?}"
        );
    }

    #[test]
    fn without_colours_nothing_has_one() {
        let has_colour = |view: &View| {
            let mut terminal = Terminal::new(TestBackend::new(WIDTH, HEIGHT)).unwrap();
            terminal.draw(|frame| draw(view, frame)).unwrap();
            let cells = terminal.backend().buffer().content();
            cells.iter().any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset)
        };
        let mut view = view();
        assert!(has_colour(&view));
        view.colours = false;
        assert!(!has_colour(&view));
    }

    #[test]
    fn missing_time_per_packet_is_explained() {
        let line = |view: &View| {
            let lines = screen(view).into_iter();
            lines.filter(|line| line.starts_with("ns per packet")).collect::<String>()
        };
        let quiet = |top: &mut Top| (top.run_time_ns, top.run_count) = (162 * 700 * 60, 162 * 60);
        assert!(line(&changed(quiet)).ends_with("  nothing measured"));
        let mut off = changed(quiet);
        off.measuring = Measuring::Off("needs root: sudo palang top".into());
        assert!(line(&off).contains("-           700         needs root"), "{}", line(&off));
        // Another process measures.
        let mut theirs = view();
        theirs.measuring = off.measuring;
        assert!(line(&theirs).contains("700         700         measured"), "{}", line(&theirs));
    }

    #[test]
    fn restart_or_other_maps_give_no_rate() {
        let anew = changed(|top| top.status.packets = packets(&[("not-blocked", 3)]));
        assert_eq!((anew.second(), anew.trunk_rate("telkom")), (None, None));
        let restarted = changed(|top| top.status.since = Some(at(61)));
        assert_eq!(restarted.second(), None);
        let minute = changed(|_| ()).minute().unwrap();
        assert!((minute.seconds - 2.0).abs() < 1e-6, "samples older than a minute do not count");
    }

    #[test]
    fn more_items_than_room_are_counted() {
        let crowded = changed(|top| {
            top.trunks = (0..9)
                .map(|index| TrunkPackets {
                    name: format!("trunk{index}"),
                    packets: packets(&[("blocked-number", index)]),
                })
                .collect();
            let problems = [None, None, None, Some("it is down"), None];
            top.status.interfaces = problems.iter().map(|one| interface("ens", *one)).collect();
            top.busiest = vec![caller("6281234567890", 5, "telkom"); 50];
            top.uncounted = 1_234;
        });
        let lines = screen(&crowded);
        assert!(lines.iter().any(|line| line.starts_with("trunk8  ")), "{lines:#?}");
        assert!(lines.iter().any(|line| line.starts_with("trunk5 (+5)")), "{lines:#?}");
        assert!(lines.iter().any(|line| line.contains("PROBLEM: it is down")), "{lines:#?}");
        assert!(lines.iter().any(|line| line.ends_with("(and 2 more)")), "{lines:#?}");
        assert!(lines.iter().any(|line| line.starts_with("+ 1,234 of others")), "{lines:#?}");
        assert!(lines.last().unwrap().starts_with("6281234567890"), "{lines:#?}");
        let small = screen_of(&crowded, 60, 24).join(" ");
        assert!(small.starts_with("too small: this terminal is 60x24"), "{small}");
        let _ = screen_of(&crowded, 1, 1);
    }
}
