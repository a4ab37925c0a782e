//! Reads the ladder from its TOML file.

use std::io::ErrorKind;
use std::path::Path;

use serde::Deserialize;
use toml::Spanned;

use crate::config::error::{self, ConfigError, Mistake, wrong};
use crate::config::units::length;
use crate::model::duration;
use crate::model::ladder::{
    BLOCK_MAX, FADES_MAX, HOUR, HUNDREDTHS_MAX, Ladder, MINUTE, RUNGS_MAX, Rung,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    pub(crate) fades: Option<Spanned<String>>,
    pub(crate) silent_longest: Option<Spanned<String>>,
    #[serde(default)]
    pub(crate) weights: Weights,
    rung: Option<Vec<Spanned<RungTable>>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Weights {
    pub(crate) prank: Option<Spanned<f64>>,
    pub(crate) abusive: Option<Spanned<f64>>,
    pub(crate) silent: Option<Spanned<f64>>,
    pub(crate) test: Option<Spanned<f64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RungTable {
    pub(crate) strikes: Spanned<f64>,
    pub(crate) block: Option<Spanned<String>>,
    #[serde(default)]
    pub(crate) review: bool,
}

fn read_rungs(tables: &[Spanned<RungTable>]) -> Result<Vec<Rung>, Mistake> {
    let mut rungs: Vec<Rung> = Vec::new();
    for table in tables {
        let RungTable { strikes, block, review } = table.get_ref();
        if rungs.len() == RUNGS_MAX {
            return wrong(strikes.span(), format!("more than {RUNGS_MAX} rungs"));
        }
        let rung = Rung {
            strikes: hundredths(strikes, "strikes", 1)?,
            block: match block {
                Some(block) => Some(seconds(block, "block", MINUTE, BLOCK_MAX)?),
                None => None,
            },
            review: *review,
        };
        if let Some(below) = rungs.last() {
            if rung.strikes <= below.strikes {
                return wrong(strikes.span(), "strikes: must be more than in the rung before");
            }
            if rung.block < below.block {
                let at = block.as_ref().map_or_else(|| strikes.span(), Spanned::span);
                return wrong(at, "block: must not be shorter than in the rung before");
            }
            if below.review && !rung.review {
                let message = "review: must be true, as in the rung before";
                return wrong(strikes.span(), message);
            }
        }
        rungs.push(rung);
    }
    Ok(rungs)
}

/// Converts a number with at most two decimals to hundredths.
pub(crate) fn hundredths(number: &Spanned<f64>, name: &str, least: u32) -> Result<u32, Mistake> {
    let given = *number.get_ref();
    let found =
        (least..=HUNDREDTHS_MAX).find(|wanted| (given * 100.0 - f64::from(*wanted)).abs() < 1e-6);
    found.map_or_else(
        || {
            let least = if least == 0 { "0" } else { "0.01" };
            wrong(number.span(), format!("{name}: {least} to 100, with at most two decimals"))
        },
        Ok,
    )
}

/// Parses a length of time such as `24h` into whole seconds.
pub(crate) fn seconds(
    text: &Spanned<String>,
    name: &str,
    least: u64,
    most: u64,
) -> Result<u64, Mistake> {
    match duration::seconds(text.get_ref()) {
        Some(seconds) if (least..=most).contains(&seconds) => Ok(seconds),
        Some(_) | None => wrong(
            text.span(),
            format!(
                "{name}: {:?} is not {} to {}, such as 24h or 3d",
                text.get_ref(),
                length(least),
                length(most)
            ),
        ),
    }
}

impl Ladder {
    /// Reads a ladder from a file. Missing settings are those of the default.
    ///
    /// # Errors
    /// `Unreadable` if the file cannot be read; `Invalid` at its first mistake.
    pub fn read(path: &Path) -> Result<Ladder, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| {
            let hint = if source.kind() == ErrorKind::PermissionDenied {
                "; a running daemon reads ladders only from folders that were configured when it started"
            } else {
                ""
            };
            ConfigError::Unreadable { path: path.to_owned(), source, hint }
        })?;
        Ladder::parse(&text).map_err(|mistake| mistake.in_file(path, &text))
    }

    /// Parses the text of a ladder.
    ///
    /// # Errors
    /// Returns the first mistake.
    pub(crate) fn parse(text: &str) -> Result<Ladder, Mistake> {
        let file: File = error::toml(text)?;
        let mut ladder = Ladder::default();
        if let Some(fades) = &file.fades {
            ladder.fades = seconds(fades, "fades", HOUR, FADES_MAX)?;
        }
        if let Some(longest) = &file.silent_longest {
            ladder.silent_longest = seconds(longest, "silent_longest", MINUTE, BLOCK_MAX)?;
        }
        let Weights { prank, abusive, silent, test } = file.weights;
        for (weight, given) in ladder.weights.iter_mut().zip([prank, abusive, silent, test]) {
            if let Some(given) = given {
                *weight = hundredths(&given, "a weight", 0)?;
            }
        }
        if let Some(rungs) = file.rung {
            ladder.rungs = read_rungs(&rungs)?;
        }
        Ok(ladder)
    }
}
