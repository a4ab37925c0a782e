//! Formats the tables of the page.

use std::fmt::Write as _;

use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, Table};

use super::cases::{Attempts, Case};
use super::measured::{Measured, Size};
use super::programs::Program;

/// The plots, below the tables.
pub const PLOTS: &str = "\
![ns per packet of each program](performance/kernel-programs.svg)

![ns per packet by size of the list](performance/kernel-sizes.svg)
";

/// Returns all tables.
pub fn text(measured: &Measured) -> String {
    let mut text = String::new();
    let mut part = |title: &str, table: &Table| {
        let _ = writeln!(text, "**{title}**\n\n{table}\n");
    };
    part("Targets", &targets(measured));
    part("Programs side by side, ns per packet: an innocent number", &programs(measured));
    part("Verdicts of the filter, ns per packet", &verdicts(measured));
    part("The second look, ns per packet to a socket", &second_look(measured));
    part("A reply beside a drop, ns for a call, each a test run of its own", &replies(measured));
    part(
        "By size of the list, ns: each call from another number, each a new attempt",
        &sizes(measured),
    );
    part("Memory of the maps", &memory(measured));
    for numbers in &measured.left_out {
        let _ = writeln!(text, "No memory here for a list of {numbers} numbers.");
    }
    text
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Returns the cost of a program above the test run, or above drawing a frame.
pub fn own(measured: &Measured, program: Program, drawn: bool) -> f64 {
    let of = |program| find(measured, program, drawn).map_or(f64::NAN, |case| case.rounds.min());
    of(program) - of(Program::Null)
}

/// Returns the case of a program, on the fixed INVITE or on drawn ones.
pub fn find(measured: &Measured, program: Program, drawn: bool) -> Option<&Case> {
    measured.programs.iter().find(|case| case.program == program && case.is_drawn == drawn)
}

/// Returns the cost of a verdict above its base.
fn above(measured: &Measured, case: &Case) -> f64 {
    let [null, copy, copy_number] = &measured.bases;
    let base = match (case.is_drawn, case.numbers) {
        (false, _) => null,
        (true, 0) => copy,
        (true, _) => copy_number,
    };
    case.rounds.min() - base.rounds.min()
}

fn verdict(measured: &Measured, name: &str, attempts: Attempts) -> f64 {
    let mut cases = measured.verdicts.iter();
    let case = cases.find(|case| case.name == name && case.attempts == attempts);
    case.map_or(f64::NAN, |case| above(measured, case))
}

/// Returns the ns of a case of a list, above drawing the frame.
pub fn of_size(size: &Size, case: usize) -> f64 {
    size.cases[case].rounds.min() - size.cases[0].rounds.min()
}

fn targets(measured: &Measured) -> Table {
    let mut table =
        table(&["ratio, of least rounds above null or above drawing", "here", "target", "met"]);
    let mut row = |name: &str, value: f64, sign: &str, target: f64| {
        let met = match sign {
            _ if value.is_nan() || target.is_nan() => "–",
            "≤" if value <= target => "yes",
            "≥" if value >= target => "yes",
            _ => "**no**",
        };
        let target = if target.is_nan() { "–".to_owned() } else { format!("{sign} {target}") };
        table.add_row([name.to_owned(), format!("{value:.2}"), target, met.to_owned()]);
    };
    let oracle = own(measured, Program::Oracle, false);
    let innocent = own(measured, Program::Palang, false);
    row("filter / oracle, innocent number, repeated", innocent / oracle, "≤", 1.5);
    let blocked = verdict(measured, "blocked → drop", Attempts::Repeated);
    row("filter, blocked → drop, repeated / the same oracle", blocked / oracle, "≤", 3.0);
    let blocked = verdict(measured, "blocked → drop", Attempts::New);
    row(
        "filter, blocked → drop, new attempt and its event / the same oracle",
        blocked / oracle,
        "≤",
        3.0,
    );
    let naive = own(measured, Program::Naive, true) / own(measured, Program::Palang, true);
    row("naive / filter, innocent numbers, drawn", naive, "≥", 6.0);
    let null = find(measured, Program::Null, false).map_or(f64::NAN, |case| case.rounds.min());
    let headers = find(measured, Program::ScanFull, false).map_or(0, |case| case.corpus[0].headers);
    let full = own(measured, Program::ScanFull, false);
    let per_kib = full * 1024.0 / headers as f64;
    row("full reader per KiB of headers / null", per_kib / null, "≤", 60.0);
    let fast = own(measured, Program::Scan, false);
    row("full reader alone / fast reader alone", full / fast, "", f64::NAN);
    let of = |numbers| measured.sizes.iter().find(|size| size.numbers == numbers);
    for (numbers, name, target) in [(1_000_000, "1 M", 1.5), (10_000_000, "10 M", 2.0)] {
        let (Some(large), Some(small)) = (of(numbers), of(1_000)) else { continue };
        for (case, who) in [(1, "innocent"), (2, "blocked")] {
            let ratio = of_size(large, case) / of_size(small, case);
            row(&format!("whole filter at {name} numbers / 1 k, {who}"), ratio, "≤", target);
        }
    }
    table
}

fn programs(measured: &Measured) -> Table {
    let mut table = table(&[
        "program",
        "fixed: least (median)",
        "above null",
        "drawn: least (median)",
        "above drawing",
        "of the oracle",
        "machine code, bytes",
        "verified instructions",
    ]);
    for program in Program::ALL {
        let cell = |drawn| find(measured, program, drawn).map_or("–".to_owned(), least_and_median);
        let above = |drawn| number(own(measured, program, drawn));
        let ratio = own(measured, program, false) / own(measured, Program::Oracle, false);
        let loaded = measured.loaded.iter().find(|(name, _)| *name == program.name());
        let (jited, verified) =
            loaded.map_or((0, 0), |(_, loaded)| (loaded.jited, loaded.verified));
        table.add_row([
            title(program).to_owned(),
            cell(false),
            above(false),
            cell(true),
            above(true),
            format!("{ratio:.2}"),
            jited.to_string(),
            verified.to_string(),
        ]);
    }
    table
}

/// Returns the label of a program on the page.
pub const fn title(program: Program) -> &'static str {
    match program {
        Program::Null => "null",
        Program::Parse => "parse",
        Program::Lookup => "parse + one look-up",
        Program::Scan => "fast reader alone",
        Program::ScanFull => "full reader alone",
        Program::Oracle => "oracle",
        Program::Naive => "naive",
        Program::Palang => "filter",
    }
}

fn verdicts(measured: &Measured) -> Table {
    let mut table = table(&["packet", "attempt", "least (median)", "above its base"]);
    for case in measured.bases.iter().chain(&measured.verdicts) {
        let attempts = match (case.program.decides(), case.attempts) {
            (false, _) | (_, Attempts::None) => "–",
            (_, Attempts::Repeated) => "repeated",
            (_, Attempts::New) => "new",
        };
        table.add_row([
            case.name.clone(),
            attempts.to_owned(),
            least_and_median(case),
            if case.program.decides() { number(above(measured, case)) } else { "base".to_owned() },
        ]);
    }
    table
}

fn replies(measured: &Measured) -> Table {
    let mut table = table(&["call", "median", "× drop"]);
    let medians: Vec<_> = measured.replies.iter().map(|row| (row.name, row.median())).collect();
    let drop =
        medians.iter().find(|(name, _)| name.ends_with("drop")).map_or(f64::NAN, |row| row.1);
    for (name, median) in medians {
        table.add_row([name.to_owned(), format!("{median:.0}"), format!("{:.2}", median / drop)]);
    }
    table
}

fn second_look(measured: &Measured) -> Table {
    let mut table = table(&["packet", "least (median)", "above null", "of null"]);
    let null = measured.second_look.first().map_or(f64::NAN, |row| row.rounds.min());
    for row in &measured.second_look {
        let rounds = format!("{} ({})", number(row.rounds.min()), number(row.rounds.median()));
        let ratio = format!("{:.2}", row.rounds.min() / null);
        table.add_row([row.name.to_owned(), rounds, number(row.rounds.min() - null), ratio]);
    }
    table
}

fn sizes(measured: &Measured) -> Table {
    let mut table = table(&[
        "blocked numbers",
        "drawing",
        "innocent: least (median)",
        "above drawing",
        "of the first",
        "blocked → drop: least (median)",
        "above drawing",
        "of the first",
    ]);
    for size in &measured.sizes {
        let mut row = vec![size.numbers.to_string(), least_and_median(&size.cases[0])];
        for case in [1, 2] {
            let first = measured.sizes.first().map_or(f64::NAN, |size| of_size(size, case));
            row.push(least_and_median(&size.cases[case]));
            row.push(number(of_size(size, case)));
            row.push(format!("{:.2}", of_size(size, case) / first));
        }
        table.add_row(row);
    }
    table
}

fn memory(measured: &Measured) -> Table {
    let names = ["BLOCKED_NUMBERS", "ATTEMPTS", "REDIALS"];
    let mut table = table(&[
        "blocked numbers",
        "list, MiB",
        "attempts, MiB",
        "redials, MiB",
        "all maps, MiB",
        "bytes per number",
    ]);
    for size in &measured.sizes {
        let mib = |bytes: u64| format!("{:.1}", bytes as f64 / 1024.0 / 1024.0);
        let all: u64 = size.memory.iter().map(|(_, bytes)| bytes).sum();
        let of = |name: &str| {
            size.memory.iter().find(|(map, _)| map == name).map_or(0, |(_, bytes)| *bytes)
        };
        let mut row = vec![size.numbers.to_string()];
        row.extend(names.map(|name| mib(of(name))));
        row.push(mib(all));
        row.push((all / u64::from(size.numbers)).to_string());
        table.add_row(row);
    }
    table
}

fn least_and_median(case: &Case) -> String {
    format!("{} ({})", number(case.rounds.min()), number(case.rounds.median()))
}

fn number(ns: f64) -> String {
    if ns.is_nan() { "–".to_owned() } else { format!("{ns:.0}") }
}
