//! The hand-written INVITEs of `invites.toml`.

use std::collections::BTreeMap;

use filter_common::abi::ATTEMPT_ALL;
use filter_common::number::Digits;
use filter_common::plan::{
    FORMAT_BARE_NATIONAL, FORMAT_E164, FORMAT_NATIONAL, FORMAT_OWN_E164, FORMAT_SUBSCRIBER,
    IDENTITY_FROM, IDENTITY_PAI, IDENTITY_PAI_ELSE_FROM, NamedContext, Prefix, context_name, mcc,
};
use palang::model::plan::lengths;
use palang::model::plan::presets;
use palang::model::policy::{Policy, set_international};
use serde::Deserialize;

/// Marks a line of a message that ends with LF alone.
const LF_ALONE: &str = "␊";

/// An INVITE, and what the gate must read in it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invite {
    /// Its name.
    pub name: String,
    /// The purpose of the message.
    pub why: String,
    /// The trunk's plan where it is not the default.
    #[serde(default)]
    pub plan: Plan,
    /// The canonical number.
    pub caller: Option<String>,
    /// Both numbers of two asserted identities, the lower one first.
    pub callers: Option<[String; 2]>,
    /// The header that carried the number.
    pub identity: Option<String>,
    /// The reason with an empty policy.
    pub reason: String,
    message: String,
}

/// A trunk's plan.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Plan {
    country: String,
    country_code: String,
    trunk_prefix: String,
    international_prefixes: Vec<String>,
    national_lengths: Vec<String>,
    leading_zero: bool,
    formats: Vec<String>,
    phone_contexts: BTreeMap<String, String>,
    imsi_mcc: Vec<String>,
    strip_prefixes: Vec<String>,
    area_code: String,
    short_number_digits: u8,
    identity: String,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan {
            country: String::new(),
            country_code: "62".into(),
            trunk_prefix: "0".into(),
            international_prefixes: Vec::new(),
            national_lengths: Vec::new(),
            leading_zero: false,
            formats: vec!["e164".into(), "national".into()],
            phone_contexts: BTreeMap::new(),
            imsi_mcc: Vec::new(),
            strip_prefixes: Vec::new(),
            area_code: String::new(),
            short_number_digits: 6,
            identity: "from".into(),
        }
    }
}

/// Returns all hand-written INVITEs.
///
/// # Panics
/// When the file is not as it should be.
#[must_use]
pub fn all() -> Vec<Invite> {
    #[derive(Deserialize)]
    struct File {
        invite: Vec<Invite>,
    }
    let path = crate::fixtures().join("invites.toml");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    let file: File = toml::from_str(&text).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    assert!(file.invite.len() >= 40);
    file.invite
}

impl Invite {
    /// Returns the datagram.
    #[must_use]
    pub fn message(&self) -> Vec<u8> {
        let text = self.message.replace(&format!("{LF_ALONE}\n"), LF_ALONE);
        let text = String::from_utf8(crate::common::packet::crlf(&text)).unwrap_or_default();
        text.replace(LF_ALONE, "\n").into_bytes()
    }

    /// Returns an empty policy with this INVITE's plan.
    ///
    /// # Panics
    /// When the plan holds what no plan has.
    #[must_use]
    pub fn policy(&self) -> Policy {
        let digits = |text: &str| Digits::parse(text).unwrap();
        let mut policy = Policy::default();
        let profile = &mut policy.trunks[0].profile;
        profile.attempt_identity = ATTEMPT_ALL;
        if self.plan.country.is_empty() {
            self.settings(&mut profile.plan, digits);
        } else {
            profile.plan = presets::of(&self.plan.country).unwrap().plan();
        }
        let contexts = profile.plan.contexts.iter_mut().zip(&self.plan.phone_contexts);
        for (slot, (name, format)) in contexts {
            let (name, formats) = (context_name(name.as_bytes()), self.format(format));
            *slot = NamedContext { name, formats, ..NamedContext::default() };
        }
        for (slot, code) in profile.plan.imsi.iter_mut().zip(&self.plan.imsi_mcc) {
            *slot = mcc(code).unwrap();
        }
        for (slot, prefix) in profile.plan.strip.iter_mut().zip(&self.plan.strip_prefixes) {
            *slot = digits(prefix);
        }
        profile.identity = match self.plan.identity.as_str() {
            "from" => IDENTITY_FROM,
            "pai" => IDENTITY_PAI,
            "pai-else-from" => IDENTITY_PAI_ELSE_FROM,
            other => panic!("{}: identity {other}", self.name),
        };
        policy
    }

    /// Writes single settings into a plan.
    fn settings(&self, plan: &mut filter_common::plan::Plan, digits: impl Fn(&str) -> Digits) {
        plan.country = digits(&self.plan.country_code);
        plan.trunk_prefix = digits(&self.plan.trunk_prefix);
        plan.area = digits(&self.plan.area_code);
        let prefixes = self.plan.international_prefixes.iter();
        let prefixes = prefixes.map(|text| Prefix::parse(text).unwrap()).collect();
        set_international(plan, prefixes).unwrap();
        plan.formats = self.plan.formats.iter().fold(0, |bits, name| bits | self.format(name));
        plan.short_digits = self.plan.short_number_digits;
        plan.leading_zero = self.plan.leading_zero.into();
        for (index, text) in self.plan.national_lengths.iter().enumerate() {
            lengths::add(&mut plan.no_lengths, text, index == 0).unwrap();
        }
    }

    fn format(&self, name: &str) -> u8 {
        match name {
            "e164" => FORMAT_E164,
            "own-e164" => FORMAT_OWN_E164,
            "national" => FORMAT_NATIONAL,
            "bare-national" => FORMAT_BARE_NATIONAL,
            "subscriber" => FORMAT_SUBSCRIBER,
            other => panic!("{}: format {other}", self.name),
        }
    }
}
