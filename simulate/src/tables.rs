//! Formats the results as Markdown tables.

use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, Table};

use crate::year::{Need, Outcome, Whose};

/// Formats what each policy stops and what it costs.
#[must_use]
pub fn costs<'a>(rows: impl Iterator<Item = (&'a str, &'a Outcome)>) -> Table {
    let mut table = table(&[
        "policy",
        "prank attempts refused",
        "pranks answered / day",
        "emergencies of blocked numbers / year",
        "passed at 1st / 2nd / 3rd / later",
        "delay median / 95 %",
        "lost / year",
        "lost",
        "second calls lost / year",
    ]);
    for (name, outcome) in rows {
        let needs: Vec<_> = emergencies(outcome).collect();
        let again = outcome.needs.iter().filter(|need| need.again);
        let lost_again = again.filter(|need| need.passed.is_none()).count();
        let lost = lost(outcome);
        let (median, most) = delays(&needs);
        table.add_row([
            name.to_owned(),
            percent(outcome.pranks_refused, outcome.prank_attempts),
            format!("{:.0}", outcome.pranks_answered as f64 / outcome.years / 365.0),
            per_year(needs.len(), outcome),
            passed_at(&needs),
            if median.is_nan() { "–".to_owned() } else { format!("{median:.0} s / {most:.0} s") },
            per_year(lost, outcome),
            percent(lost as u64, needs.len() as u64),
            per_year(lost_again, outcome),
        ]);
    }
    table
}

/// Formats the effects on innocent people, one row per policy.
#[must_use]
pub fn innocents<'a>(rows: impl Iterator<Item = (&'a str, &'a Outcome)>) -> Table {
    let mut table = table(&[
        "policy",
        "strikes / year",
        "false: forged / year",
        "false: mistaken / year",
        "blocks by forgery / year",
        "hours each",
        "blocks by mistake / year",
        "hours each",
        "lost: misused / forged / other numbers, a year",
    ]);
    for (name, outcome) in rows {
        let of = |whose: Whose| {
            let of = emergencies(outcome).filter(|need| need.whose == whose);
            per_year(of.filter(|need| need.passed.is_none()).count(), outcome)
        };
        let lost = [Whose::Misused, Whose::Forged, Whose::Other].map(of).join(" / ");
        let (forged, mistaken) = (outcome.forged, outcome.mistaken);
        table.add_row([
            name.to_owned(),
            per_year(outcome.strikes as usize, outcome),
            per_year(outcome.strikes_forged as usize, outcome),
            per_year(outcome.strikes_mistaken as usize, outcome),
            per_year(forged.0 as usize, outcome),
            each(forged),
            per_year(mistaken.0 as usize, outcome),
            each(mistaken),
            lost,
        ]);
    }
    table
}

/// Formats what the machines of carriers open, and when the gate finds them.
#[must_use]
pub fn machines<'a>(rows: impl Iterator<Item = (&'a str, &'a Outcome)>) -> Table {
    let mut table = table(&[
        "policy",
        "calls of the machine that passed by a grant / day",
        "centres where the machine was found",
        "hours until then",
    ]);
    for (name, outcome) in rows {
        let found = outcome.machine_found;
        table.add_row([
            name.to_owned(),
            format!("{:.1}", outcome.machine_passed as f64 / outcome.years / 365.0),
            found.0.to_string(),
            each(found),
        ]);
    }
    table
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Returns the emergency calls from blocked numbers that are not the second call of an emergency.
pub fn emergencies(outcome: &Outcome) -> impl Iterator<Item = &Need> {
    outcome.needs.iter().filter(|need| !need.again)
}

/// Returns the emergencies whose callers gave up.
#[must_use]
pub fn lost(outcome: &Outcome) -> usize {
    emergencies(outcome).filter(|need| need.passed.is_none()).count()
}

/// Returns the median and 95th percentile in seconds of callers who were refused first and passed later.
fn delays(needs: &[&Need]) -> (f64, f64) {
    let late = needs.iter().filter(|need| need.passed.is_some() && need.seconds > 0.0);
    let mut seconds: Vec<_> = late.map(|need| need.seconds).collect();
    seconds.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let index = (seconds.len() as f64 * share) as usize;
        seconds.get(index).copied().unwrap_or(f64::NAN)
    };
    (at(0.5), at(0.95))
}

fn passed_at(needs: &[&Need]) -> String {
    let count = |is: &dyn Fn(u32) -> bool| {
        let passed = needs.iter().filter(|need| need.passed.is_some_and(is)).count();
        percent(passed as u64, needs.len() as u64)
    };
    let each = [count(&|at| at == 1), count(&|at| at == 2), count(&|at| at == 3)];
    format!("{} / {}", each.join(" / "), count(&|at| at > 3))
}

fn per_year(count: usize, outcome: &Outcome) -> String {
    let rate = count as f64 / outcome.years;
    if rate < 10.0 { format!("{rate:.1}") } else { format!("{rate:.0}") }
}

fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        "–".to_owned()
    } else {
        format!("{:.0} %", part as f64 / whole as f64 * 100.0)
    }
}

fn each((count, hours): (u64, f64)) -> String {
    if count == 0 { "–".to_owned() } else { format!("{:.0}", hours / count as f64) }
}
