//! Asks the user of `palang setup` on the terminal.

use std::path::PathBuf;

use crate::bringup::setup::{Sends, WantedTrunk};
use crate::cli::command::setup::carrier::{Carriers, source};
use crate::cli::input::agreement::answer;
use crate::cli::input::plan::{format, identity};
use crate::exit::{Exit, Failure};
use crate::model::plan::preset::Preset;
use crate::model::plan::presets;

/// Times that a question is asked again.
const TRIES: usize = 5;

/// Default country: Indonesia.
const COUNTRY: &str = "ID";

/// The numbers that a person named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Country {
    /// Two letters of a preset.
    Preset(&'static Preset),
    /// A country code, with the plan of the file.
    Code(String),
}

/// Asks for the country, and shows its preset.
///
/// # Errors
/// `Usage` if nobody may be asked.
pub(crate) fn country(may_ask: bool) -> Result<Country, Failure> {
    if !may_ask {
        let message = format!(
            "the country of the numbers is missing: add --country CC, such as {COUNTRY}, or --country-code N"
        );
        return Err(Failure::new(Exit::Usage, message));
    }
    let question = format!("country of the numbers, two letters or a country code [{COUNTRY}]: ");
    let country = valid(&question, |text| {
        let text = if text.is_empty() { COUNTRY } else { text };
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(Country::Code(text.to_owned()));
        }
        presets::of(text)
            .map(Country::Preset)
            .ok_or_else(|| format!("{text:?} has no preset (`palang plan show --all` lists them)"))
    })?;
    if let Country::Preset(preset) = &country {
        eprintln!("{}", described(preset));
    }
    Ok(country)
}

/// Returns a preset in words.
fn described(preset: &Preset) -> String {
    let formats: Vec<_> = preset.formats.iter().map(|format| format.name()).collect();
    let or_none = |text: String| if text.is_empty() { "none".to_owned() } else { text };
    format!(
        "preset {}: country code {}, trunk prefix {}, international prefixes {}, formats {}",
        preset.country,
        preset.code,
        or_none(preset.trunk_prefix.to_owned()),
        or_none(preset.international.join(" ")),
        formats.join(" ")
    )
}

/// Asks for the trunks, and for what each sends. Without a trunk, asks what every source sends.
///
/// # Errors
/// `Failed` if the terminal cannot be read, or closes before an answer is valid.
pub(crate) fn carriers() -> Result<Carriers, Failure> {
    let mut carriers = Carriers::default();
    loop {
        let more = if carriers.trunks.is_empty() { "every source is one" } else { "no more" };
        let sources = valid(
            &format!("source addresses of a trunk, such as 192.0.2.0/24 [{more}]: "),
            |text| words(text).map(source).collect::<Result<Vec<_>, _>>(),
        )?;
        if sources.is_empty() {
            break;
        }
        let name = format!("trunk{}", carriers.trunks.len() + 1);
        let named = answer(&format!("its name [{name}]: "))?;
        let name = if named.is_empty() { name } else { named };
        carriers.trunks.push(WantedTrunk { name, sources, sends: sends()? });
    }
    if carriers.trunks.is_empty() {
        carriers.sends = sends()?;
    }
    Ok(carriers)
}

fn sends() -> Result<Sends, Failure> {
    let identity =
        valid("header that names its callers, from, pai or pai-else-from [from]: ", |text| {
            Some(text).filter(|text| !text.is_empty()).map(identity).transpose()
        })?;
    let formats =
        valid("formats of numbers without +, such as national [those of the country]: ", |text| {
            words(text).map(format).collect::<Result<Vec<_>, _>>()
        })?;
    Ok(Sends { identity, formats })
}

/// Asks for a capture.
///
/// # Errors
/// `Failed` if the terminal cannot be read.
pub(crate) fn captures() -> Result<Vec<PathBuf>, Failure> {
    let path = answer("capture of calls to check this on [none]: ")?;
    Ok(Some(PathBuf::from(path)).filter(|path| !path.as_os_str().is_empty()).into_iter().collect())
}

/// Returns the words of a list with spaces or commas.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split([' ', ',']).filter(|word| !word.is_empty())
}

/// Asks until the answer is valid.
fn valid<T>(question: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<T, Failure> {
    for _ in 0..TRIES {
        match read(&answer(question)?) {
            Ok(found) => return Ok(found),
            Err(problem) => eprintln!("{problem}"),
        }
    }
    Err(Failure::new(Exit::Usage, "nothing was changed: no valid answer"))
}
