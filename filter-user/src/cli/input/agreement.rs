//! Asks the person at the terminal.

use std::io::{self, BufRead, IsTerminal as _, Write as _};

use crate::exit::{Exit, Failure};

/// Returns whether a person can be asked.
pub(crate) fn is_possible() -> bool {
    io::stdin().is_terminal()
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

/// Asks a question and returns the answer without white space at its ends.
///
/// # Errors
/// `Usage` if the input ends before an answer.
pub(crate) fn answer(question: &str) -> Result<String, Failure> {
    let failed = |error| Failure::new(Exit::Failed, error);
    let mut stderr = io::stderr();
    stderr.write_all(question.as_bytes()).and_then(|()| stderr.flush()).map_err(failed)?;
    line_of(&mut io::stdin().lock())
}

/// Returns one line. An input that ends (Ctrl-D) is no answer: an empty line would choose the default.
fn line_of(input: &mut impl BufRead) -> Result<String, Failure> {
    let mut line = String::new();
    let read = input.read_line(&mut line).map_err(|error| Failure::new(Exit::Failed, error))?;
    if read == 0 {
        let message = "nothing was changed: the input ended before an answer";
        return Err(Failure::new(Exit::Usage, message));
    }
    Ok(line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_that_ends_is_no_answer() {
        let mut input = &b" SG \n\n"[..];
        assert_eq!(line_of(&mut input).unwrap(), "SG");
        assert_eq!(line_of(&mut input).unwrap(), "");
        let failure = line_of(&mut input).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.message.starts_with("nothing was changed"), "{}", failure.message);
    }
}
