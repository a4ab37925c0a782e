//! The hand-written INVITEs of `invites.toml`.

use filter_common::number::Digits;
use filter_common::plan::{
    FORMAT_BARE_NATIONAL, FORMAT_E164, FORMAT_NATIONAL, FORMAT_SUBSCRIBER, IDENTITY_FROM,
    IDENTITY_PAI, IDENTITY_PAI_ELSE_FROM,
};
use palang::model::policy::Policy;
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
    country_code: String,
    trunk_prefix: String,
    international_prefixes: Vec<String>,
    formats: Vec<String>,
    area_code: String,
    short_number_digits: u8,
    identity: String,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan {
            country_code: "62".into(),
            trunk_prefix: "0".into(),
            international_prefixes: Vec::new(),
            formats: vec!["e164".into(), "national".into()],
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
        profile.plan.country = digits(&self.plan.country_code);
        profile.plan.trunk_prefix = digits(&self.plan.trunk_prefix);
        profile.plan.area = digits(&self.plan.area_code);
        let mut prefixes = self.plan.international_prefixes.clone();
        prefixes.sort_by_key(|prefix| std::cmp::Reverse(prefix.len()));
        for (slot, prefix) in profile.plan.international.iter_mut().zip(&prefixes) {
            *slot = digits(prefix);
        }
        profile.plan.formats = self.plan.formats.iter().fold(0, |formats, name| {
            formats
                | match name.as_str() {
                    "e164" => FORMAT_E164,
                    "national" => FORMAT_NATIONAL,
                    "bare-national" => FORMAT_BARE_NATIONAL,
                    "subscriber" => FORMAT_SUBSCRIBER,
                    other => panic!("{}: format {other}", self.name),
                }
        });
        profile.plan.short_digits = self.plan.short_number_digits;
        profile.identity = match self.plan.identity.as_str() {
            "from" => IDENTITY_FROM,
            "pai" => IDENTITY_PAI,
            "pai-else-from" => IDENTITY_PAI_ELSE_FROM,
            other => panic!("{}: identity {other}", self.name),
        };
        policy
    }
}
