//! How a trunk refuses: the keys of `[[trunk]]` about replies.

use filter_common::abi::MODE_OBSERVE;
use serde::Deserialize;
use toml::Spanned;

use crate::config::error::{Mistake, wrong};
use crate::model::policy::Trunk;
use crate::model::refuse::Refuse;

/// Most replies to a trunk in a second, if the configuration has no number. A busy trunk has a few calls a second.
const PER_SECOND: u32 = 5_000;

/// A refusal as text, `"600"`, or as number.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum RefuseText {
    Text(String),
    Number(u64),
}

/// The keys of a trunk about replies, as they are written.
pub(crate) struct ReplyFields<'a> {
    pub(crate) refuse: Option<&'a Spanned<RefuseText>>,
    pub(crate) per_second: Option<u32>,
    pub(crate) without_checksum: Option<bool>,
    pub(crate) esinet: Option<&'a Spanned<bool>>,
    /// Whether `mode = "enforce"` is written.
    pub(crate) enforces: bool,
}

/// Reads how a trunk refuses. Follows its other fields, because an ESInet observes.
pub(crate) fn replies(trunk: &mut Trunk, fields: &ReplyFields<'_>) -> Result<(), Mistake> {
    trunk.esinet = fields.esinet.is_some_and(|esinet| *esinet.get_ref());
    let mut refuse = if trunk.esinet { Refuse::Drop } else { Refuse::DEFAULT };
    if let Some(text) = fields.refuse {
        let at = text.span();
        let name = match text.get_ref() {
            RefuseText::Text(name) => name.clone(),
            RefuseText::Number(number) => number.to_string(),
        };
        refuse =
            Refuse::parse(&name).or_else(|error| wrong(at.clone(), format!("refuse: {error}")))?;
        if trunk.esinet {
            return wrong(
                at,
                "refuse: a trunk with esinet = true refuses no call; delete one of both",
            );
        }
    }
    if let Some(esinet) = fields.esinet
        && trunk.esinet
        && fields.enforces
    {
        return wrong(
            esinet.span(),
            "esinet: such a trunk refuses no call; delete mode = \"enforce\"",
        );
    }
    let profile = &mut trunk.profile;
    if trunk.esinet {
        profile.mode = MODE_OBSERVE;
    }
    profile.refuse = refuse.number();
    profile.replies_per_second = fields.per_second.unwrap_or(PER_SECOND);
    profile.replies_without_checksum = fields.without_checksum.unwrap_or(false).into();
    Ok(())
}
