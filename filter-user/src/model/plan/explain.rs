//! How a plan reads a text, step by step; if it does not, which setting would.
//!
//! Every step asks the gate's own reader with one part of the plan. So an explanation cannot differ from the
//! kernel's reading.

use filter_common::bytes::Slice;
use filter_common::number::Number;
use filter_common::plan::{
    Context, Dialled, FORMAT_SUBSCRIBER, MCC_MAX, NamedContext, Plan, Prefix, STRIP_MAX,
    context_name,
};
use filter_common::reason::Reason;
use filter_common::sip::fields::Form;
use filter_common::sip::uri::{self, Unread};
use serde::Serialize;

use crate::model::plan::format::Format;
use crate::model::plan::lengths;
use crate::model::plan::presets;
use crate::model::policy::set_international;

/// How one text is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The text.
    pub text: String,
    /// The number, without `+`.
    pub number: Option<String>,
    /// Whether it is a short number that only means something here.
    pub local: bool,
    /// Why it is not a number, from the closed list of reasons.
    pub reason: Option<&'static str>,
    /// The steps, in the gate's order.
    pub steps: Vec<Step>,
    /// Settings that would read a text which is not read.
    pub settings: Vec<Setting>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// The part of the plan.
    pub step: String,
    /// The reading of the text in this step.
    pub result: String,
}

/// A setting, and the number that it would read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// The line of the configuration.
    pub setting: String,
    /// The number, without `+`.
    pub number: String,
}

/// The digits of a text, and the name of its context.
struct Digits {
    dialled: Result<Dialled, Reason>,
    context: Option<String>,
}

/// Explains how a plan reads a text: digits as people write them, or a SIP or tel URI with or without
/// angle brackets. `contexts` are the names of the plan's contexts.
#[must_use]
pub fn explain(text: &str, plan: &Plan, contexts: &[String]) -> Explanation {
    let Digits { dialled, context } = digits(text);
    let result = dialled.and_then(|dialled| plan.resolve(&dialled));
    let number = result.ok();
    let mut explanation = Explanation {
        text: text.to_owned(),
        number: number.map(|number| number.to_string()),
        local: number.is_some_and(Number::is_local),
        reason: result.err().map(Reason::name),
        steps: Vec::new(),
        settings: Vec::new(),
    };
    let mut step = |step: &str, result: String| {
        explanation.steps.push(Step { step: step.to_owned(), result });
    };
    let dialled = match dialled {
        Ok(dialled) => dialled,
        Err(reason) => {
            step("digits", unreadable(reason).to_owned());
            return explanation;
        }
    };
    step("digits", digits_of(&dialled));
    if let Some(name) = &context {
        step("phone-context", context_of(name, dialled.context, plan, contexts));
    }
    let (rest, rest_plan) = match plan.stripped(&dialled) {
        None => (dialled, *plan),
        Some((len, rest)) => {
            let prefix: String = text_of(&dialled).chars().take(len as usize).collect();
            step("strip_prefixes", format!("{prefix} is removed: {}", text_of(&rest)));
            (rest, Plan { strip: [filter_common::number::Digits::EMPTY; STRIP_MAX], ..*plan })
        }
    };
    for (part, result) in readings(&rest, &rest_plan) {
        step(&part, result);
    }
    if number.is_none() {
        explanation.settings = settings(&dialled, context.as_deref(), plan);
    }
    explanation
}

/// Reads a text as the gate does.
///
/// # Errors
/// The [`Reason`] why it is not a number.
pub fn read(text: &str, plan: &Plan) -> Result<Number, Reason> {
    digits(text).dialled.and_then(|dialled| plan.resolve(&dialled))
}

/// Reads the digits of a text.
fn digits(text: &str) -> Digits {
    let text = text.trim();
    let inner = text.split_once('<').map(|(_, uri)| uri.split('>').next().unwrap_or(uri));
    let text = inner.unwrap_or(text);
    let lower = text.to_ascii_lowercase();
    let scheme = ["sip:", "sips:", "tel:"].into_iter().find(|scheme| lower.starts_with(scheme));
    let (form, body) = match scheme {
        Some("tel:") => (Form::Tel, &text[4..]),
        // In a header, a `;` without angle brackets is the header's; here it is the user part's.
        Some(scheme) => (Form::Sip, &text[scheme.len()..]),
        None => (Form::Tel, text),
    };
    let is_plain = scheme.is_none();
    let body: String = body.chars().filter(|c| !(is_plain && c.is_whitespace())).collect();
    let context = lower.split(';').skip(1).find_map(|part| {
        let value = part.strip_prefix("phone-context=")?;
        Some(value.split(['@', '>', ' ']).next().unwrap_or(value).to_owned())
    });
    let ended = format!("{body}>");
    let read = uri::read::<_, true>(&Slice::from(ended.as_bytes()), 0, form as u8);
    Digits { dialled: read.map_err(Unread::reason), context }
}

fn unreadable(reason: Reason) -> &'static str {
    if reason == Reason::NoUser {
        "there is no user part: nothing before the @, or no @ at all"
    } else if reason == Reason::UriTooLong {
        "the user part is longer than the gate follows it"
    } else if reason == Reason::Extension {
        "an extension or a subaddress (ext, isub) makes another number"
    } else {
        "a character is no digit, no + at the beginning and none of - . ( ): a name, or a code"
    }
}

/// Returns the digits in words.
fn digits_of(dialled: &Dialled) -> String {
    let plus = if dialled.plus { "+" } else { "" };
    format!("{plus}{}, {} digits", text_of(dialled), dialled.count)
}

fn text_of(dialled: &Dialled) -> String {
    let nibbles = u128::from(dialled.high) << 64 | u128::from(dialled.low);
    let kept = dialled.count.min(32);
    (0..kept).rev().map(|i| char::from(b'0' + (nibbles >> (4 * i) & 0xF) as u8)).collect()
}

/// Returns what the plan knows of a context.
fn context_of(name: &str, context: Context, plan: &Plan, contexts: &[String]) -> String {
    match context {
        Context::Global(digits) if digits == plan.country => {
            format!("{name} is the country code: a number as people dial it there")
        }
        Context::Global(_) => {
            format!("{name} is another place: how numbers are dialled there is unknown")
        }
        Context::Named(hash) => {
            let index = plan.contexts.iter().position(|each| each.name == hash);
            match index.filter(|index| *index < contexts.len()) {
                Some(index) => {
                    format!("{name} is in phone_contexts: {}", names(plan.contexts[index].formats))
                }
                None => format!("{name} is not in phone_contexts"),
            }
        }
        Context::None | Context::Unknown => format!("{name} cannot be read"),
    }
}

/// Returns formats as a list of names.
fn names(bits: u8) -> String {
    Format::of_bits(bits).map(Format::name).collect::<Vec<_>>().join(", ")
}

/// Returns what each part of the plan makes of the digits.
fn readings(dialled: &Dialled, plan: &Plan) -> Vec<(String, String)> {
    let outcome = |plan: &Plan, dialled: &Dialled| match plan.resolve(dialled) {
        Ok(number) if number.is_local() => format!("local {number}"),
        Ok(number) => format!("+{number}"),
        Err(Reason::TooManyDigits) => "no: more than 15 digits".to_owned(),
        Err(_) => "no".to_owned(),
    };
    let mut steps = Vec::new();
    if plan.resolve(dialled) == Err(Reason::NotANumber) {
        let step = ("imsi_mcc".to_owned(), "an IMSI, and not a number".to_owned());
        return vec![step];
    }
    if dialled.plus {
        let result = match plan.resolve(dialled) {
            Ok(number) => format!("+{number}"),
            Err(Reason::TooManyDigits) => "no: more than 15 digits".to_owned(),
            Err(_) => why_no_e164(dialled, plan),
        };
        return vec![("+ and country code".to_owned(), result)];
    }
    if let Some(len) = plan.international_prefix(dialled) {
        let prefix: String = text_of(dialled).chars().take(len as usize).collect();
        let result = if len == 0 {
            "two prefixes fit, so it can be meant in two ways".to_owned()
        } else {
            format!("{prefix}: it decides alone: {}", outcome(plan, dialled))
        };
        return vec![("international_prefixes".to_owned(), result)];
    }
    steps.push(("international_prefixes".to_owned(), "it begins with none".to_owned()));
    let formats = match dialled.context {
        Context::None => plan.formats,
        Context::Named(name) => plan
            .contexts
            .iter()
            .find(|context| context.name == name)
            .map_or(0, |context| context.formats),
        Context::Global(_) => {
            steps.push(("phone-context".to_owned(), outcome(plan, dialled)));
            0
        }
        Context::Unknown => 0,
    };
    for format in Format::of_bits(formats) {
        let alone = Plan { formats: format.bit(), ..*plan };
        let plain = Dialled { context: Context::None, ..*dialled };
        steps.push((format!("format {}", format.name()), outcome(&alone, &plain)));
    }
    steps
}

/// Returns why digits after a `+` are no number.
fn why_no_e164(dialled: &Dialled, plan: &Plan) -> String {
    let text = text_of(dialled);
    let national = text.strip_prefix(&plan.country.to_string());
    if text.starts_with('0') {
        "no: no country code begins with 0".to_owned()
    } else if national.is_some_and(|national| national.starts_with('0')) {
        format!("no: after +{}, no national number begins with 0", plan.country)
    } else {
        "no: too few digits".to_owned()
    }
}

/// Returns the settings that would read these digits, most likely first.
fn settings(dialled: &Dialled, context: Option<&str>, plan: &Plan) -> Vec<Setting> {
    let mut settings: Vec<Setting> = Vec::new();
    let mut try_plan = |setting: String, changed: &Plan| {
        let read = changed.resolve(dialled).ok().filter(|number| !number.is_local());
        if let Some(number) = read {
            settings.push(Setting { setting, number: number.to_string() });
        }
    };
    if let (Some(name), Context::Named(hash)) = (context, dialled.context) {
        for format in Format::ALL.into_iter().filter(|format| *format != Format::Subscriber) {
            let mut changed = *plan;
            changed.contexts[0] =
                NamedContext { name: hash, formats: format.bit(), ..NamedContext::default() };
            debug_assert_eq!(context_name(name.as_bytes()), hash);
            try_plan(format!("phone_contexts = {{ {name:?} = {:?} }}", format.name()), &changed);
        }
    }
    if plan.leading_zero == 0 {
        try_plan("leading_zero = true".to_owned(), &Plan { leading_zero: 1, ..*plan });
    }
    for prefix in likely_prefixes(plan) {
        let mut changed = *plan;
        let known = plan.international.into_iter().filter(|prefix| !prefix.is_empty());
        let prefixes = known.chain([prefix]).collect();
        if set_international(&mut changed, prefixes).is_ok() {
            try_plan(format!("international_prefixes with \"{prefix}\""), &changed);
        }
    }
    if dialled.context == Context::None && !dialled.plus {
        // A format more, or one less where two disagree.
        for format in Format::ALL {
            let is_on = plan.formats & format.bit() != 0;
            let formats = plan.formats ^ format.bit();
            let possible = formats != 0
                && (format.bit() != FORMAT_SUBSCRIBER || !plan.area.is_empty() || is_on);
            if possible {
                try_plan(Format::setting(formats), &Plan { formats, ..*plan });
            }
        }
    }
    if plan.no_lengths != lengths::ANY {
        let changed = Plan { no_lengths: lengths::ANY, ..*plan };
        try_plan("national_lengths = [] (any length)".to_owned(), &changed);
    }
    if plan.imsi != [0; MCC_MAX] {
        try_plan("imsi_mcc = []".to_owned(), &Plan { imsi: [0; MCC_MAX], ..*plan });
    }
    settings
}

/// Returns the international prefixes of the countries with this country code that a plan lacks.
fn likely_prefixes(plan: &Plan) -> Vec<Prefix> {
    let code = plan.country.to_string();
    let presets = presets::all().iter().filter(|preset| preset.code == code);
    let mut prefixes: Vec<Prefix> = presets
        .flat_map(|preset| preset.international)
        .filter_map(|text| Prefix::parse(text))
        .filter(|prefix| !plan.international.iter().any(|known| known.digits == prefix.digits))
        .collect();
    prefixes.sort_by_key(|prefix| (prefix.digits, prefix.mask));
    prefixes.dedup();
    prefixes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::policy::Policy;

    fn explained(text: &str, plan: &Plan) -> Explanation {
        explain(text, plan, &[])
    }

    fn settings_of(text: &str, plan: &Plan) -> Vec<String> {
        let explanation = explained(text, plan);
        explanation
            .settings
            .into_iter()
            .map(|setting| format!("{} → +{}", setting.setting, setting.number))
            .collect()
    }

    #[test]
    fn text_is_explained_as_the_gate_reads_it() {
        let plan = Policy::default().trunks[0].profile.plan;
        for (text, number) in [
            ("+62 812-3456-7890", Some("6281234567890")),
            ("081234567890", Some("6281234567890")),
            ("<sip:+6281234567890@x;user=phone>", Some("6281234567890")),
            ("sip:081234567890;phone-context=+62@x", Some("6281234567890")),
            ("tel:81234567890;phone-context=+62", Some("6281234567890")),
            ("<tel:+6281234567890;cpc=ordinary>", Some("6281234567890")),
            ("SIP:%2B6281234567890@x", Some("6281234567890")),
            ("112", Some("112")),
            ("sip:alice@x", None),
            ("sip:x.example", None),
            ("+62 0812 3456 7890", None),
            ("", None),
        ] {
            let explanation = explained(text, &plan);
            assert_eq!(explanation.number.as_deref(), number, "{text}");
            assert_eq!(explanation.reason.is_none(), number.is_some(), "{text}");
            assert!(!explanation.steps.is_empty(), "{text}");
        }
        assert!(explained("112", &plan).local);
    }

    #[test]
    fn settings_that_would_read_a_text_are_named() {
        let america = presets::of("US").unwrap().plan();
        let plain = Plan { formats: Format::National.bit(), no_lengths: lengths::ANY, ..america };
        let bare = "formats = [\"national\", \"bare-national\"] → +16505550000";
        assert!(settings_of("6505550000", &plain).iter().any(|setting| setting == bare));
        let italy = Plan { leading_zero: 0, ..presets::of("IT").unwrap().plan() };
        assert!(settings_of("+390255501234", &italy)[0].starts_with("leading_zero = true → +39"));
        let indonesia = Policy::default().trunks[0].profile.plan;
        let all = settings_of("0016581234567", &indonesia);
        assert!(
            all.contains(&"international_prefixes with \"001\" → +6581234567".to_owned()),
            "{all:?}"
        );
        let all = settings_of("tel:81234567890;phone-context=national", &indonesia);
        let context = "phone_contexts = { \"national\" = \"bare-national\" } → +6281234567890";
        assert!(all.contains(&context.to_owned()), "{all:?}");
    }

    #[test]
    fn prefix_that_is_removed_is_a_step() {
        let mut plan = presets::of("ID").unwrap().plan();
        plan.strip[0] = filter_common::number::Digits::parse("99").unwrap();
        let explanation = explained("99081234567890", &plan);
        assert_eq!(explanation.number.as_deref(), Some("6281234567890"));
        let step = &explanation.steps[1];
        assert_eq!(step.step, "strip_prefixes");
        assert_eq!(step.result, "99 is removed: 081234567890");
        let has_step =
            |text| explained(text, &plan).steps.iter().any(|step| step.step == "strip_prefixes");
        assert!(!has_step("081234567890") && !has_step("+99081234567890"));
    }

    #[test]
    fn readings_that_disagree_are_shown() {
        let plan = Policy::default().trunks[0].profile.plan;
        let formats = Format::bits(&[Format::E164, Format::BareNational]);
        let explanation = explained("73995550104", &Plan { formats, ..plan });
        assert_eq!(explanation.reason, Some("ambiguous-number"));
        let results: Vec<_> = explanation.steps.iter().map(|step| step.result.as_str()).collect();
        assert!(
            results.contains(&"+73995550104") && results.contains(&"+6273995550104"),
            "{results:?}"
        );
    }
}
