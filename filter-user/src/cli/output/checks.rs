//! The table of the doctor's checks, for `palang doctor` and `palang setup`.

use comfy_table::{ContentArrangement, Table, presets};

use crate::bringup::doctor::{Check, State};

/// Counts the checks in a state.
pub(crate) fn count(checks: &[Check], state: State) -> usize {
    checks.iter().filter(|check| check.state == state).count()
}

/// Formats the checks as a table, followed by the number of results of each state.
#[must_use]
pub fn table(checks: &[Check]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    for check in checks {
        let name = match &check.interface {
            Some(interface) => format!("{interface} {}", check.check),
            None => check.check.to_owned(),
        };
        let mend = check.mend.as_ref().map_or_else(String::new, |mend| format!("; fix: {mend}"));
        table.add_row([check.state.name(), &name, &format!("{}{mend}", check.finding)]);
    }
    let counts = [State::Ok, State::Warn, State::Fail]
        .map(|state| format!("{} {}", count(checks, state), state.name()));
    format!("{}\n\n{}\n", table.trim_fmt(), counts.join(", "))
}
