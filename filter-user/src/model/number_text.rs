//! Parses numbers and prefixes that people write. filter-common makes the key, as for a number in a
//! message.

use filter_common::bytes::Slice;
use filter_common::number::{Digits, Number};
use filter_common::plan::{FORMAT_E164, Plan};
use filter_common::reason::Reason;
use filter_common::sip::fields::Form;
use filter_common::sip::uri::{self, Unread};
use rlibphonenumber::{PHONE_NUMBER_UTIL, PhoneNumberFormat};

use crate::model::policy::Subject;

/// Reasons why a text is not a number or prefix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NumberError {
    /// A text with `*` that is not a prefix.
    #[error("{0:?} is not a prefix: write 1 to 15 digits of an E.164 number, such as +62811*")]
    Prefix(String),
    /// A text with a parameter or an escape.
    #[error("{0:?} is not a number")]
    NotANumber(String),
    /// An empty text.
    #[error("the number is empty")]
    Empty,
    /// A text with more digits than a number has.
    #[error("{0:?} has more than 15 digits")]
    TooManyDigits(String),
    /// A text with several readings or none under the plan of this country.
    #[error(
        "{text:?} is ambiguous or not a valid number for country code {country}. Write it with + and \
         its country code, such as +{country}…"
    )]
    Ambiguous {
        /// The text.
        text: String,
        /// Country code of the plan.
        country: Digits,
    },
    /// A text with `+` and a country code that no number follows.
    #[error(
        "{0:?} is not a number: the country code is not followed by a national number. If national \
         numbers of that country begin with 0, set leading_zero (docs/plans.md)"
    )]
    Impossible(String),
    /// A text with other characters.
    #[error("{0:?} is not a number: use only digits, a leading +, spaces and - . ( )")]
    Characters(String),
    /// A text with letters.
    #[error("{0:?} has letters: write only digits")]
    Letters(String),
    /// A text that the plan and the usual spelling read as different numbers.
    #[error("{text:?} is ambiguous: +{plan} or +{spelling}. Write it with + and the country code")]
    TwoReadings {
        /// The text.
        text: String,
        /// The number under the plan.
        plan: Subject,
        /// The number by the usual spelling.
        spelling: Subject,
    },
}

/// Parses a number, or a prefix that ends with `*`, under a plan.
///
/// # Errors
/// [`NumberError::Prefix`] if it ends with `*` and is not a prefix; otherwise the error of [`number`].
pub fn subject(text: &str, plan: &Plan) -> Result<Subject, NumberError> {
    if !text.trim_end().ends_with('*') {
        return number(text, plan).map(Subject::Number);
    }
    let digits: String = text
        .chars()
        .filter(|c| !c.is_whitespace() && !matches!(c, '-' | '.' | '(' | ')'))
        .collect();
    match plan.prefix(&digits) {
        Some(prefix) if !prefix.is_empty() => Ok(Subject::Prefix(prefix)),
        _ => Err(NumberError::Prefix(text.to_owned())),
    }
}

/// Parses a number under a plan: `0812-3456-7890`, `+62 812 3456 7890`, `112`.
///
/// # Errors
/// [`NumberError`] if the text is not a number, or is ambiguous under the plan.
pub fn number(text: &str, plan: &Plan) -> Result<Number, NumberError> {
    let digits: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    if digits.contains([';', ',', '%']) {
        return Err(NumberError::NotANumber(text.to_owned()));
    }
    // The reader stops after the URI.
    let ended = format!("{digits} ");
    let read = uri::read::<_, true>(&Slice::from(ended.as_bytes()), 0, Form::TelBare as u8)
        .map_err(Unread::reason)
        .and_then(|dialled| plan.resolve(&dialled));
    read.map_err(|reason| {
        if reason == Reason::NoUser {
            NumberError::Empty
        } else if reason == Reason::TooManyDigits {
            NumberError::TooManyDigits(text.to_owned())
        } else if reason == Reason::AmbiguousNumber && digits.starts_with('+') {
            NumberError::Impossible(text.to_owned())
        } else if reason == Reason::AmbiguousNumber {
            NumberError::Ambiguous { text: text.to_owned(), country: plan.country }
        } else {
            NumberError::Characters(text.to_owned())
        }
    })
}

/// Parses what an operator typed, like [`subject`]. It also accepts spellings of a number in use that
/// the plan alone cannot parse: `(+62) (0)812…`, `0062…`, digits of other scripts. An E.164 number
/// without `+` is accepted, too, because records print it so. If several readings give a number, they must agree: a block must
/// never hit another person.
///
/// # Errors
/// [`NumberError`] if the text is not a number, is ambiguous, or has letters, which a keypad maps to
/// digits.
pub fn typed(text: &str, plan: &Plan) -> Result<Subject, NumberError> {
    if text.chars().any(char::is_alphabetic) {
        return Err(NumberError::Letters(text.to_owned()));
    }
    let by_plan = subject(text, plan);
    if let Ok(Subject::Number(number)) = by_plan
        && number.is_local()
    {
        return by_plan;
    }
    let others = [by_spelling(text, plan), as_printed(text, plan)];
    others.into_iter().flatten().fold(by_plan, |reading, other| {
        match (reading, subject(&other, plan)) {
            (Ok(plan), Ok(spelling)) if plan != spelling => {
                Err(NumberError::TwoReadings { text: text.to_owned(), plan, spelling })
            }
            (Err(NumberError::TwoReadings { text, plan, spelling }), _) => {
                Err(NumberError::TwoReadings { text, plan, spelling })
            }
            (Err(_), Ok(spelling)) => Ok(spelling),
            (reading, _) => reading,
        }
    })
}

/// Returns an E.164 number without `+` with one, if it is in use. A plan that reads such numbers needs no help.
fn as_printed(text: &str, plan: &Plan) -> Option<String> {
    if plan.formats & FORMAT_E164 != 0 || text.starts_with('+') {
        return None;
    }
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    let number = PHONE_NUMBER_UTIL.parse(format!("+{digits}"), None).ok()?;
    let is_whole = number.format_as(PhoneNumberFormat::E164).trim_start_matches('+') == digits;
    (is_whole && number.is_valid()).then(|| format!("+{digits}"))
}

/// Parses a text by the rules of libphonenumber and returns the number in E.164, if it is in use.
fn by_spelling(text: &str, plan: &Plan) -> Option<String> {
    let country = plan.country.to_string().parse().ok()?;
    let region = PHONE_NUMBER_UTIL.get_region_for_country_code(country)?;
    let number = PHONE_NUMBER_UTIL.parse(text, Some(region)).ok()?;
    let has_extension = number.extension.is_some();
    (!has_extension && number.is_valid())
        .then(|| number.format_as(PhoneNumberFormat::E164).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::policy::Policy;

    #[test]
    fn subject_accepts_common_spellings() {
        let plan = Policy::default().trunks[0].profile.plan;
        for (text, expected) in [
            ("0812-3456-7890", "6281234567890"),
            ("+62 812 3456 7890", "6281234567890"),
            ("(021) 555.1234", "62215551234"),
            ("112", "112"),
            ("+62811*", "62811*"),
            ("0811 *", "62811*"),
            ("62-811-*", "62811*"),
        ] {
            let subject = subject(text, &plan).map(|subject| subject.to_string());
            assert_eq!(subject.as_deref(), Ok(expected), "{text}");
        }
    }

    proptest::proptest! {
        /// Checks that a printed number parses as the same number.
        #[test]
        fn printed_number_parses_as_the_same(text in "[+]?[0-9]{1,16}") {
            let plan = Policy::default().trunks[0].profile.plan;
            if let Ok(number) = number(&text, &plan) {
                let printed = number.to_string();
                proptest::prop_assert_eq!(super::number(&printed, &plan), Ok(number), "{}", printed);
            }
        }

        /// Checks that no text causes a panic.
        #[test]
        fn any_text_causes_no_panic(text in ".*") {
            let plan = Policy::default().trunks[0].profile.plan;
            let _ = subject(&text, &plan);
            let _ = plan.prefix(&text);
        }
    }

    #[test]
    fn typed_accepts_more_spellings() {
        let plan = Policy::default().trunks[0].profile.plan;
        for (text, expected) in [
            ("0812-3456-7890", "6281234567890"),
            ("(+62) 812 3456 7890", "6281234567890"),
            ("008 62 812 3456 7890", "6281234567890"),
            ("+62 (0)21 3456789", "62213456789"),
            ("٠٨١٢٣٤٥٦٧٨٩٠", "6281234567890"),
            ("+1 650-253-0000", "16502530000"),
            ("112", "112"),
            ("2502", "2502"),
            ("+62811*", "62811*"),
        ] {
            let subject = typed(text, &plan).map(|subject| subject.to_string());
            assert_eq!(subject.as_deref(), Ok(expected), "{text}");
        }
        for text in ["+3367a829916", "0812-CALL-ME", "0812 3456 7890 ext 5", "", "00812", "+0812"] {
            assert!(typed(text, &plan).is_err(), "{text}");
        }
    }

    proptest::proptest! {
        /// Checks that both functions agree if both parse a text, and that no text causes a panic.
        #[test]
        fn typed_text_parses_as_under_the_plan_or_fails(text in "[+0-9() .*-]{0,20}|.*") {
            let plan = Policy::default().trunks[0].profile.plan;
            if let (Ok(typed), Ok(subject)) = (typed(&text, &plan), subject(&text, &plan)) {
                proptest::prop_assert_eq!(typed, subject);
            }
        }
    }

    #[test]
    fn subject_rejects_other_text() {
        let plan = Policy::default().trunks[0].profile.plan;
        for text in [
            "",
            "+",
            "*",
            "alice",
            "0812a",
            "+0812",
            "00812",
            "08;12",
            "1234567890123456",
            "+*",
            "a*",
        ] {
            assert!(subject(text, &plan).is_err(), "{text}");
        }
    }
}
