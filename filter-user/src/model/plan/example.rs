//! An example of each format of a plan.

use filter_common::plan::Plan;
use rlibphonenumber::{PHONE_NUMBER_UTIL, PhoneNumberType, Region};
use serde::Serialize;

use crate::model::plan::explain::explain;
use crate::model::plan::format::Format;

/// A text in one format, and its reading.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Example {
    /// Name of the format.
    pub format: String,
    /// The text as a trunk sends it.
    pub text: String,
    /// The number that the plan reads, without `+`.
    pub number: Option<String>,
    /// Whether it is a local number.
    pub local: bool,
}

impl Example {
    /// Returns the reading in words.
    #[must_use]
    pub fn reading(&self) -> String {
        match &self.number {
            Some(number) if self.local => format!("local {number}"),
            Some(number) => format!("+{number}"),
            None => "no number: it has two readings or none, so the call passes".to_owned(),
        }
    }
}

/// Returns an example of each format of a plan, with a number that libphonenumber gives as an example.
/// `contexts` are the names of the plan's contexts.
#[must_use]
pub fn examples(plan: &Plan, country: Option<&str>, contexts: &[String]) -> Vec<Example> {
    let code = plan.country.to_string();
    let national = national_number(&code, country);
    let mut examples = Vec::new();
    let mut add = |format: String, text: String| {
        let explanation = explain(&text, plan, contexts);
        let (number, local) = (explanation.number, explanation.local);
        examples.push(Example { format, text, number, local });
    };
    add("with +".to_owned(), format!("+{code}{national}"));
    for prefix in plan.international.iter().filter(|prefix| !prefix.is_empty()).take(1) {
        let prefix = prefix.to_string().replace('x', "0");
        add("international prefix".to_owned(), format!("{prefix}{code}{national}"));
    }
    for format in Format::of_bits(plan.formats) {
        if let Some(text) = spell(plan, format, &code, &national) {
            add(format.name().to_owned(), text);
        }
    }
    for (name, context) in contexts.iter().zip(&plan.contexts) {
        for format in Format::of_bits(context.formats).take(1) {
            if let Some(text) = spell(plan, format, &code, &national) {
                add(format!("context {name}"), format!("tel:{text};phone-context={name}"));
            }
        }
    }
    if plan.short_digits >= 3 {
        add("short number".to_owned(), "112".to_owned());
    }
    examples
}

/// Writes a national number in a format; `None` if the plan lacks what the format needs.
fn spell(plan: &Plan, format: Format, code: &str, national: &str) -> Option<String> {
    match format {
        Format::E164 | Format::OwnE164 => Some(format!("{code}{national}")),
        Format::National if plan.trunk_prefix.is_empty() => None,
        Format::National => Some(format!("{}{national}", plan.trunk_prefix)),
        Format::BareNational => Some(national.to_owned()),
        Format::Subscriber => {
            let area = plan.area.to_string();
            Some(national.strip_prefix(&area).unwrap_or("5551234").to_owned())
        }
    }
}

/// Returns a national number of a country; made up if the library knows none.
fn national_number(code: &str, country: Option<&str>) -> String {
    let region = match country {
        Some(country) => Region::from_code(country).ok(),
        None => {
            code.parse().ok().and_then(|code| PHONE_NUMBER_UTIL.get_region_for_country_code(code))
        }
    };
    let example = |kind| {
        let number =
            PHONE_NUMBER_UTIL.get_example_number_for_type_and_region(region?, kind).ok()?;
        Some(number.get_national_significant_number())
    };
    example(PhoneNumberType::Mobile)
        .or_else(|| example(PhoneNumberType::FixedLine))
        .unwrap_or_else(|| "81234567890".to_owned())
}
