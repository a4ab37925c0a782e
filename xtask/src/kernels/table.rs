//! The table of `docs/kernels.md`: no figure in it is typed by hand.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context as _, Result};

use super::arch::Arch;
use super::factor::Factor;
use super::outcome::{Load, Outcome};
use crate::shell;

const PAGE: &str = "docs/kernels.md";

/// Replaces the table of an architecture.
pub fn write(arch: Arch, outcomes: &[Outcome], factors: &[Factor]) -> Result<()> {
    let path = shell::root().join(PAGE);
    let page = fs::read_to_string(&path).with_context(|| format!("cannot read {PAGE}"))?;
    let page = replaced(&page, arch.debian(), &table(outcomes, factors))?;
    fs::write(&path, page).with_context(|| format!("cannot write {PAGE}"))?;
    eprintln!("written: the table for {} in {PAGE}", arch.debian());
    Ok(())
}

/// Replaces what is between two comments.
fn replaced(page: &str, name: &str, text: &str) -> Result<String> {
    let (begin, end) = (format!("<!-- {name}: begin -->\n"), format!("<!-- {name}: end -->"));
    let (before, rest) = page.split_once(&begin).with_context(|| format!("no `{begin}`"))?;
    let (_, after) = rest.split_once(&end).with_context(|| format!("no `{end}`"))?;
    Ok(format!("{before}{begin}{text}{end}{after}"))
}

/// Formats one row a kernel, one column a program; below, the median and how many times of it the most is.
pub fn table(outcomes: &[Outcome], factors: &[Factor]) -> String {
    let mut text = String::from("| kernel | from |");
    let programs = || factors.iter().map(|factor| &*factor.program);
    for program in programs() {
        let _ = write!(text, " `{program}` |");
    }
    text += " tests |\n|---|---|";
    text += &"--:|".repeat(factors.len());
    text += "---|\n";
    for outcome in outcomes {
        let _ = write!(text, "| {} | {} |", outcome.kernel, outcome.origin);
        for program in programs() {
            let _ = write!(text, " {} |", cell(outcome.load(program)));
        }
        let _ = writeln!(text, " {} |", outcome.result());
    }
    row(&mut text, "median", factors.iter().map(|factor| thousands(factor.median)));
    row(&mut text, "most / median", factors.iter().map(|factor| format!("{:.2}", factor.times())));
    text
}

fn row(text: &mut String, name: &str, cells: impl Iterator<Item = String>) {
    let _ = write!(text, "| **{name}** | |");
    for cell in cells {
        let _ = write!(text, " {cell} |");
    }
    *text += " |\n";
}

fn cell(load: Option<&Load>) -> String {
    match load {
        Some(Load::Verified(verified)) => thousands(*verified),
        Some(Load::NotReported) => "loads".into(),
        Some(Load::Refused(_)) => "refused".into(),
        None => "not tried".into(),
    }
}

/// Formats a number as "423,120".
fn thousands(number: u32) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy);
    groups.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::{replaced, table, thousands};
    use crate::kernels::factor::factors;
    use crate::kernels::outcome::Outcome;

    #[test]
    fn the_table_has_every_kernel_and_program() {
        let outcome = |kernel, log| Outcome::new(kernel, "a suite", "a log".into(), log, true);
        let passed = "test result: ok. 12 passed; 0 failed\nPALANG-EXIT=0";
        let full = "verified instructions of palang: 423120 of 480000";
        let slim = "verified instructions of palang_slim: 99 of 480000";
        let outcomes = [
            outcome(
                "5.10",
                &*format!("verified instructions of palang: refused (EINVAL)\n{slim}\n{passed}"),
            ),
            outcome(
                "6.1",
                &*format!("{full}\nverified instructions of palang_slim: not reported\n{passed}"),
            ),
            outcome("7.3", full),
        ];
        let expected = "\
| kernel | from | `palang` | `palang_slim` | tests |
|---|---|--:|--:|---|
| 5.10 | a suite | refused | 99 | FAILED: only the slim program loads |
| 6.1 | a suite | 423,120 | loads | ok: 12 passed |
| 7.3 | a suite | 423,120 | not tried | FAILED: ended too early |
| **median** | | 423,120 | 99 | |
| **most / median** | | 1.00 | 1.00 | |
";
        assert_eq!(table(&outcomes, &factors(&outcomes)), expected);
    }

    #[test]
    fn a_table_is_replaced_and_the_rest_stays() {
        let page = "a\n<!-- x: begin -->\nold\n<!-- x: end -->\nb\n";
        let expected = "a\n<!-- x: begin -->\nnew\n<!-- x: end -->\nb\n";
        assert_eq!(replaced(page, "x", "new\n").unwrap_or_default(), expected);
        assert!(replaced(page, "y", "new\n").is_err());
    }

    #[test]
    fn thousands_are_separated() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_000_001, "1,000,001")] {
            assert_eq!(thousands(number), text);
        }
    }
}
