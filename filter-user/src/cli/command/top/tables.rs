//! The tables on the screen of `palang top`.

use ratatui::layout::Constraint;
use ratatui::style::{Modifier, Style};
use ratatui::widgets::{Row, Table};

use crate::api::wire::{BusyCaller, Interface, Top};
use crate::cli::command::top::view::{Attempts, Measuring, Span, View};
use crate::cli::output::{clean, known, thousands};

/// Largest number of interfaces.
const INTERFACES: usize = 3;

/// Returns the rates and counts of packets and attempts.
pub(crate) fn figures(view: &View, top: &Top) -> Table<'static> {
    let (second, minute) = (view.second(), view.minute());
    let both = |format: fn(Span) -> String| [second, minute].map(|span| known(span.map(format)));
    let total = Attempts::of(&top.status.packets);
    let status = &top.status;
    let (refused, passed) = (thousands(status.refused_lost), thousands(status.passed_lost));
    let thinned = match status.refused_thinned() {
        0 => String::new(),
        thinned => format!(", {} thinned", thousands(thinned)),
    };
    let measured = match (second, &view.measuring) {
        (Some(Span { packet_ns: Some(_), .. }), _) => "measured while this is open".to_owned(),
        (_, Measuring::Off(why)) => why.clone(),
        (Some(Span { packets: 0, .. }), Measuring::On) => "no packets".to_owned(),
        (Some(_), Measuring::On) => "nothing measured".to_owned(),
        (None, Measuring::On) => "-".to_owned(),
    };
    let rows = [
        (
            "packets/s",
            both(|span| rate(span, span.packets)),
            thousands(status.packets.values().sum()),
        ),
        ("attempts/s", both(|span| rate(span, span.attempts.all())), thousands(total.all())),
        ("refused", both(|span| share(span, span.attempts.refused)), thousands(total.refused)),
        ("unread", both(|span| share(span, span.attempts.unread)), thousands(total.unread)),
        ("ns per packet", both(|span| known(span.packet_ns.map(thousands))), measured),
        (
            "events lost/s",
            both(|span| rate(span, span.lost)),
            format!("{refused} refused, {passed} passed{thinned}"),
        ),
    ];
    let rows = rows
        .into_iter()
        .map(|(name, [second, minute], note)| vec![name.to_owned(), second, minute, note])
        .collect();
    let widths = [
        Constraint::Length(15),
        Constraint::Length(11),
        Constraint::Length(11),
        Constraint::Fill(1),
    ];
    table(["", "now", "1 min", "since the maps were made"], widths, rows)
}

fn rate(span: Span, count: u64) -> String {
    let rate = count as f64 / span.seconds;
    // A rate of one call per minute must not be shown as 0.
    if rate >= 100.0 { thousands(rate.round() as u64) } else { format!("{rate:.1}") }
}

fn share(span: Span, count: u64) -> String {
    let all = span.attempts.all();
    if all == 0 {
        return "-".to_owned();
    }
    format!("{:.1} %", count as f64 * 100.0 / all as f64)
}

/// Returns the interfaces, those with a problem first.
pub(crate) fn interfaces(top: &Top) -> Vec<Vec<String>> {
    let mut interfaces: Vec<&Interface> = top.status.interfaces.iter().collect();
    interfaces.sort_by_key(|interface| interface.problem.is_none());
    if interfaces.is_empty() {
        return vec![vec!["-".into(), "-".into(), "no interface has the filter".into()]];
    }
    let others = interfaces.len().saturating_sub(INTERFACES);
    let row = |interface: &Interface| {
        let state = match &interface.problem {
            Some(problem) => format!("PROBLEM: {problem}"),
            None => format!("attached, program {}", known(interface.program)),
        };
        vec![interface.name.clone(), known(interface.xdp.as_ref()), state]
    };
    let mut rows: Vec<_> = interfaces.into_iter().take(INTERFACES).map(row).collect();
    if others > 0
        && let Some(state) = rows.last_mut().and_then(|row| row.last_mut())
    {
        *state += &format!("  (and {others} more)");
    }
    rows
}

/// Returns the trunks, most attempts first.
pub(crate) fn trunks(view: &View, top: &Top, room: usize) -> Vec<Vec<String>> {
    let mut trunks: Vec<_> =
        top.trunks.iter().map(|trunk| (&trunk.name, Attempts::of(&trunk.packets))).collect();
    trunks.sort_by_key(|(_, attempts)| std::cmp::Reverse(attempts.all()));
    let others = trunks.len().saturating_sub(room);
    let mut rows: Vec<_> = trunks
        .iter()
        .take(room)
        .map(|(name, attempts)| {
            let rate = view.trunk_rate(name).map(|rate| format!("{rate:.1}"));
            let counts = [attempts.all(), attempts.refused, attempts.unread, attempts.passed];
            let mut row = vec![(*name).clone(), known(rate)];
            row.extend(counts.map(thousands));
            row
        })
        .collect();
    if others > 0
        && let Some(name) = rows.last_mut().and_then(|row| row.first_mut())
    {
        *name += &format!(" (+{others})");
    }
    rows
}

/// Returns the blocked callers who called most in the last 5 minutes.
pub(crate) fn callers(view: &View, top: &Top) -> Table<'static> {
    let row = |caller: &BusyCaller| {
        vec![
            caller.number.clone(),
            thousands(caller.attempts),
            thousands(caller.refused),
            view.time(caller.last),
            caller.reason.clone(),
            known(caller.trunk.as_ref()),
        ]
    };
    let mut rows: Vec<_> = top.busiest.iter().map(row).collect();
    if top.uncounted > 0 {
        let more = format!("+ {} of others", thousands(top.uncounted));
        rows.insert(0, vec![more]);
    }
    if rows.is_empty() {
        rows.push(vec!["none".to_owned()]);
    }
    let widths = [
        Constraint::Length(22),
        Constraint::Length(10),
        Constraint::Length(10),
        Constraint::Length(9),
        Constraint::Length(15),
        Constraint::Fill(1),
    ];
    table(["blocked caller, 5 min", "attempts", "refused", "last", "why", "trunk"], widths, rows)
}

/// Creates a table with an underlined header, which is also visible without colours.
pub(crate) fn table<const COLUMNS: usize>(
    columns: [&'static str; COLUMNS],
    widths: [Constraint; COLUMNS],
    rows: Vec<Vec<String>>,
) -> Table<'static> {
    let head = Row::new(columns).style(Style::new().add_modifier(Modifier::UNDERLINED));
    let rows = rows
        .into_iter()
        .map(|row| Row::new(row.iter().map(|cell| clean(cell).into_owned()).collect::<Vec<_>>()));
    Table::new(rows, widths).header(head)
}
