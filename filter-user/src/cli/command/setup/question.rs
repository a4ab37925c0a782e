//! Asks the user of `palang setup` on the terminal.

use std::io::{self, IsTerminal as _, Write as _};

use crate::exit::{Exit, Failure};

/// Default country code: Indonesia.
const COUNTRY_CODE: &str = "62";

/// Asks for the country code.
///
/// # Errors
/// `Usage` if there is no terminal, or the user may not be asked.
pub(crate) fn country_code(may_ask: bool) -> Result<String, Failure> {
    if !may_ask || !io::stdin().is_terminal() {
        let message = format!(
            "the country code of the numbers is missing: add --country-code CC ({COUNTRY_CODE} is \
             Indonesia)"
        );
        return Err(Failure::new(Exit::Usage, message));
    }
    match answer(&format!("country code of the numbers [{COUNTRY_CODE}]: "))?.as_str() {
        "" => Ok(COUNTRY_CODE.to_owned()),
        code => Ok(code.to_owned()),
    }
}

/// Asks whether to carry out the plan.
///
/// # Errors
/// `Usage` if there is no terminal, or the user may not be asked.
pub(crate) fn agreed() -> Result<bool, Failure> {
    if !io::stdin().is_terminal() {
        let message = "nothing was changed: cannot ask without a terminal; add --yes";
        return Err(Failure::new(Exit::Usage, message));
    }
    Ok(matches!(answer("continue? [y/N] ")?.to_lowercase().as_str(), "y" | "yes"))
}

fn answer(question: &str) -> Result<String, Failure> {
    let failed = |error| Failure::new(Exit::Failed, error);
    let mut stderr = io::stderr();
    stderr.write_all(question.as_bytes()).and_then(|()| stderr.flush()).map_err(failed)?;
    let mut line = String::new();
    io::stdin().read_line(&mut line).map_err(failed)?;
    Ok(line.trim().to_owned())
}
