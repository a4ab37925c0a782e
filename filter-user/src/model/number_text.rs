//! Parses numbers and prefixes that people write. filter-common makes the key, as for a number in a
//! message.

use filter_common::bytes::Slice;
use filter_common::number::{Digits, Number};
use filter_common::plan::{FORMAT_E164, Plan};
use filter_common::reason::Reason;
use filter_common::sip::fields::Form;
use filter_common::sip::uri::{self, Unread};
use rlibphonenumber::{NumberLengthType, PHONE_NUMBER_UTIL, PhoneNumberFormat};

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
    /// A number that went through a spreadsheet as a decimal: `628123456789.0`, `6.28123E+11`.
    #[error(
        "{0:?} is not a number: a spreadsheet wrote it as a decimal, and digits may be lost. Give the column the \
         format Text, and paste the numbers again"
    )]
    Decimal(String),
    /// A SIP or tel URI whose user the plan does not read as a number.
    #[error("{text:?} is not the address of a number: {reason}")]
    Address {
        /// The text.
        text: String,
        /// Why the gate would not read a caller from it.
        reason: &'static str,
    },
    /// A number without `+` of a length that its country does not use.
    #[error(
        "{text:?} is not a whole number of any plan here: it would be {readings}. Write the number that you mean \
         with + and its country code"
    )]
    Doubtful {
        /// The text.
        text: String,
        /// The numbers that it may mean.
        readings: String,
    },
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

/// Parses what an operator typed or pasted, like [`subject`]. It also accepts spellings of a number in use that
/// the plan alone cannot parse: `(+62) (0)812…`, `0062…`, digits of other scripts. An E.164 number
/// without `+` is accepted, too, because records print it so. An address is read as in a header:
/// `sip:+62812…@host`, `"Budi" <tel:0812…>`. If several readings give a number, they must agree: a block must
/// never hit another person.
///
/// # Errors
/// [`NumberError`] if the text is not a number, is ambiguous, is a decimal, or has letters, which a keypad maps to
/// digits.
pub fn typed(text: &str, plan: &Plan) -> Result<Subject, NumberError> {
    if let Some((form, uri)) = address(text) {
        return of_address(text, form, uri, plan);
    }
    if is_decimal(text) {
        return Err(NumberError::Decimal(text.to_owned()));
    }
    if text.chars().any(char::is_alphabetic) {
        return Err(NumberError::Letters(text.to_owned()));
    }
    let by_plan = subject(text, plan);
    // The library does not know prefixes, and skips what it does not know.
    let is_spelling = |c: char| c.is_numeric() || c.is_whitespace() || "-.()+".contains(c);
    let is_local = matches!(by_plan, Ok(Subject::Number(number)) if number.is_local());
    if is_local || !text.chars().all(is_spelling) {
        return by_plan;
    }
    let abroad = if by_plan.is_err() { as_dialled_abroad(text, plan) } else { None };
    let others = [by_spelling(text, plan), as_printed(text, plan), abroad];
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

/// Returns form and content of the address in a text: what is in its angle brackets, or the text itself.
fn address(text: &str) -> Option<(Form, &str)> {
    let text = text.trim();
    // After the display name.
    let uri = match text.rsplit_once('<') {
        Some((_, uri)) => uri.strip_suffix('>').unwrap_or(uri),
        None => text,
    };
    let (scheme, rest) = uri.split_once(':')?;
    match scheme.to_ascii_lowercase().as_str() {
        "sip" | "sips" => Some((Form::Sip, rest)),
        "tel" => Some((Form::Tel, rest)),
        _ => None,
    }
}

/// Reads the number of an address as the gate does.
fn of_address(text: &str, form: Form, uri: &str, plan: &Plan) -> Result<Subject, NumberError> {
    let schemes = ["sip:", "sips:", "tel:"];
    let lower = text.to_ascii_lowercase();
    if schemes.iter().map(|scheme| lower.matches(scheme).count()).sum::<usize>() > 1 {
        return Err(NumberError::Address {
            text: text.to_owned(),
            reason: "it has several addresses",
        });
    }
    // The reader stops after the URI.
    let ended = format!("{uri}>");
    uri::read::<_, true>(&Slice::from(ended.as_bytes()), 0, form as u8)
        .map_err(Unread::reason)
        .and_then(|dialled| plan.resolve(&dialled))
        .map(Subject::Number)
        .map_err(|reason| NumberError::Address { text: text.to_owned(), reason: reason.name() })
}

/// Returns whether a text looks like a decimal of a spreadsheet: many digits and a fraction of zeros, or an exponent.
fn is_decimal(text: &str) -> bool {
    let text = text.trim();
    let all_digits =
        |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if let Some((mantissa, exponent)) = text.split_once(['e', 'E']) {
        let mut parts = mantissa.splitn(2, ['.', ',']);
        return parts.all(|part| all_digits(part.trim_start_matches(['+', '-'])))
            && all_digits(exponent.trim_start_matches(['+', '-']));
    }
    text.rsplit_once(['.', ',']).is_some_and(|(whole, fraction)| {
        let whole = whole.trim_start_matches('+');
        whole.len() >= 7
            && all_digits(whole)
            && !fraction.is_empty()
            && fraction.bytes().all(|byte| byte == b'0')
    })
}

/// Checks a number that was written without `+`: its length must be one that its country uses. Records may have any
/// number, so with `+` any length is accepted.
///
/// # Errors
/// [`NumberError::Doubtful`] with its readings.
pub fn check_length(text: &str, subject: Subject, plan: &Plan) -> Result<(), NumberError> {
    let Subject::Number(number) = subject else { return Ok(()) };
    if text.trim().starts_with('+') || address(text).is_some() || is_possible(number) {
        return Ok(());
    }
    let country = plan.country.to_string();
    let national = number.to_string().strip_prefix(&country).map(str::to_owned);
    let other = match national {
        Some(_) => String::new(),
        None => format!(", or +{country}{number} if it is national"),
    };
    Err(NumberError::Doubtful { text: text.to_owned(), readings: format!("+{number}{other}") })
}

/// Returns whether an E.164 number has a length that its country uses. A local number is always possible.
#[must_use]
pub fn is_possible(number: Number) -> bool {
    number.is_local()
        || PHONE_NUMBER_UTIL.parse(format!("+{number}"), None).is_ok_and(|number| {
            number.is_possible_with_reason() == Ok(NumberLengthType::IsPossible)
        })
}

/// Returns a number of our country after the usual international prefix `00` in E.164, if it is in use. Other countries
/// have prefixes such as `001`, after which the number begins later.
fn as_dialled_abroad(text: &str, plan: &Plan) -> Option<String> {
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    let digits = digits.strip_prefix("00").filter(|_| !text.starts_with('+'))?;
    if !digits.starts_with(&plan.country.to_string()) {
        return None;
    }
    let number = PHONE_NUMBER_UTIL.parse(format!("+{digits}"), None).ok()?;
    let is_whole = number.format_as(PhoneNumberFormat::E164).trim_start_matches('+') == digits;
    (is_whole && number.is_valid()).then(|| format!("+{digits}"))
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
            ("0062 812 3456 7890", "6281234567890"),
            ("+626112345*", "626112345*"),
            ("sip:+6281234567890@10.0.0.1:5060;transport=udp", "6281234567890"),
            ("  <sip:0812-3456-7890@ims.example;user=phone>", "6281234567890"),
            ("\"Budi\" <tel:+62-812-3456-7890;cpc=ordinary>;tag=1", "6281234567890"),
            ("From: <SIPS:%2b6281234567890@x>", "6281234567890"),
            ("TEL:0812.3456.7890", "6281234567890"),
        ] {
            let subject = typed(text, &plan).map(|subject| subject.to_string());
            assert_eq!(subject.as_deref(), Ok(expected), "{text}");
        }
        for text in
            ["+3367a829916", "0812-CALL-ME", "0812 3456 7890 ext 5", "", "00812", "+0812", "sip:"]
        {
            assert!(typed(text, &plan).is_err(), "{text}");
        }
    }

    #[test]
    fn text_that_lost_digits_or_names_nobody_is_refused_with_the_reason() {
        let plan = Policy::default().trunks[0].profile.plan;
        for (text, part) in [
            ("628123456789.0", "a spreadsheet wrote it as a decimal"),
            ("81312345678.00", "a spreadsheet wrote it as a decimal"),
            ("+628123456789,0", "a spreadsheet wrote it as a decimal"),
            ("6.28123E+11", "a spreadsheet wrote it as a decimal"),
            ("6,28E11", "a spreadsheet wrote it as a decimal"),
            ("sip:alice@example.org", "not the address of a number: not-a-number"),
            ("<sip:10.0.0.1>", "not the address of a number: no-user"),
            ("tel:+6281234567890;ext=7", "not the address of a number: extension"),
            ("sip:+62811@a,sip:+62812@b", "it has several addresses"),
            ("From: <sip:+6281234567890@a>\nTo: <sip:112@b>", "it has several addresses"),
            ("0062812345678*", "not a prefix"),
            ("0062812345678,9", "not a number"),
            ("0812345678\u{fffd}", "not a number"),
            // Singapore after the prefix 001, or the United States after 00.
            ("001 65 8345 6789", "ambiguous"),
        ] {
            let error = typed(text, &plan).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn number_without_plus_is_one_that_its_country_may_have() {
        let plan = Policy::default().trunks[0].profile.plan;
        for (text, readings) in [
            ("5550123", Some("+5550123, or +625550123 if it is national")),
            ("08123", Some("+628123.")),
            ("0812-3456-7890", None),
            ("6281234567890", None),
            ("16502530000", None),
            ("112", None),
            ("+5550123", None),
            ("sip:+5550123@x", None),
            ("62811*", None),
        ] {
            let subject = typed(text, &plan).unwrap();
            match (check_length(text, subject, &plan), readings) {
                (Ok(()), None) => {}
                (Err(error), Some(readings)) => {
                    assert!(error.to_string().contains(readings), "{error}");
                }
                (found, _) => panic!("{text}: {found:?}"),
            }
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
