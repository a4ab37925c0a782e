//! How a trunk refuses: the keys of `[[trunk]]` about replies.

use filter_common::abi::{
    DROPPED_WITHOUT_DAEMON, MODE_OBSERVE, PASSES_ON_SOME_INTERFACES, PASSES_WITHOUT_DAEMON,
    Profile, REPLY_PATH_AUTO, REPLY_PATH_DAEMON, REPLY_PATH_DRIVER,
};
use filter_common::answer::code::Code;
use serde::{Deserialize, Serialize};
use toml::Spanned;

use crate::config::error::{Mistake, wrong};
use crate::model::policy::Trunk;
use crate::model::redirect;
use crate::model::refuse::{NotOffered, Refuse};

/// Most replies to a trunk in a second, if the configuration has no number. A busy trunk has a few calls a second.
const PER_SECOND: u32 = 5_000;

/// A refusal as text, `"600"`, or as number.
#[derive(Clone, Deserialize)]
#[serde(untagged, expecting = "refuse: write a code such as \"600\", or \"drop\"")]
pub(crate) enum RefuseText {
    Text(String),
    Number(u64),
}

/// The sender of the replies, as it is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ReplyPath {
    #[default]
    Auto,
    Driver,
    Daemon,
}

impl ReplyPath {
    const fn number(self) -> u8 {
        match self {
            ReplyPath::Auto => REPLY_PATH_AUTO,
            ReplyPath::Driver => REPLY_PATH_DRIVER,
            ReplyPath::Daemon => REPLY_PATH_DAEMON,
        }
    }

    pub(crate) fn of(profile: &Profile) -> ReplyPath {
        match profile.reply_path {
            REPLY_PATH_DRIVER => ReplyPath::Driver,
            REPLY_PATH_DAEMON => ReplyPath::Daemon,
            _ => ReplyPath::Auto,
        }
    }
}

/// The fate of a call that the daemon should answer while no daemon runs, as it is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum WithoutDaemon {
    #[default]
    Pass,
    Drop,
}

impl WithoutDaemon {
    pub(crate) fn of(trunk: &Trunk) -> WithoutDaemon {
        if trunk.passes_without_daemon { WithoutDaemon::Pass } else { WithoutDaemon::Drop }
    }

    /// Returns the number in the kernel's maps, for a trunk with this refusal and path.
    const fn number(self, refuse: u8, path: ReplyPath) -> u8 {
        match (self, path) {
            (WithoutDaemon::Drop, _) | (_, ReplyPath::Driver) => DROPPED_WITHOUT_DAEMON,
            _ if refuse == 0 => DROPPED_WITHOUT_DAEMON,
            (WithoutDaemon::Pass, ReplyPath::Auto) => PASSES_ON_SOME_INTERFACES,
            (WithoutDaemon::Pass, ReplyPath::Daemon) => PASSES_WITHOUT_DAEMON,
        }
    }
}

/// The keys of a trunk about replies, as they are written.
pub(crate) struct ReplyFields<'a> {
    pub(crate) refuse: Option<&'a Spanned<RefuseText>>,
    pub(crate) redirect: Option<&'a Spanned<String>>,
    pub(crate) per_second: Option<u32>,
    pub(crate) without_checksum: Option<bool>,
    pub(crate) path: ReplyPath,
    pub(crate) without_daemon: WithoutDaemon,
    pub(crate) esinet: Option<&'a Spanned<bool>>,
    /// Whether `mode = "enforce"` is written.
    pub(crate) enforces: bool,
}

/// Reads the refusal of a block.
pub(crate) fn refusal(text: &Spanned<RefuseText>) -> Result<Refuse, Mistake> {
    read(text, Refuse::parse)
}

fn read(
    text: &Spanned<RefuseText>,
    parse: impl FnOnce(&str) -> Result<Refuse, NotOffered>,
) -> Result<Refuse, Mistake> {
    let name = match text.get_ref() {
        RefuseText::Text(name) => name.clone(),
        RefuseText::Number(number) => number.to_string(),
    };
    parse(&name).or_else(|error| wrong(text.span(), format!("refuse: {error}")))
}

/// Reads how a trunk refuses. Follows its other fields, because an ESInet observes.
pub(crate) fn replies(trunk: &mut Trunk, fields: &ReplyFields<'_>) -> Result<(), Mistake> {
    trunk.esinet = fields.esinet.is_some_and(|esinet| *esinet.get_ref());
    let mut refuse = if trunk.esinet { Refuse::Drop } else { Refuse::DEFAULT };
    if let Some(text) = fields.refuse {
        refuse = read(text, Refuse::named)?;
        if refuse == Refuse::Reply(Code::MovedTemporarily) && fields.redirect.is_none() {
            return wrong(
                text.span(),
                "refuse: 302 needs the place that callers are sent to: redirect = \"sip:announcement@192.0.2.9\"",
            );
        }
        if trunk.esinet {
            return wrong(
                text.span(),
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
    if let Some(text) = fields.redirect {
        profile.contact = redirect::contact(text.get_ref())
            .or_else(|error| wrong(text.span(), format!("redirect: {error}")))?;
    }
    profile.replies_per_second = fields.per_second.unwrap_or(PER_SECOND);
    profile.replies_without_checksum = fields.without_checksum.unwrap_or(false).into();
    profile.reply_path = fields.path.number();
    profile.without_daemon = fields.without_daemon.number(profile.refuse, fields.path);
    trunk.passes_without_daemon = fields.without_daemon == WithoutDaemon::Pass;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;
    use crate::config::file::parse;

    fn read(text: &str) -> Result<Config, String> {
        parse(text).map_err(|mistake| mistake.in_file(Path::new("palang.toml"), text).to_string())
    }

    #[test]
    fn trunk_answers_600_unless_it_has_another_refusal() {
        let trunk = "[[trunk]]\nname = \"a\"\nsources = [\"10.0.0.1\"]\n";
        let read_trunk = |keys: &str| read(&format!("interfaces = []\n{trunk}{keys}"));
        for (keys, refuse) in [
            ("", Refuse::Reply(Code::BusyEverywhere)),
            ("refuse = \"486\"", Refuse::Reply(Code::BusyHere)),
            ("refuse = 603", Refuse::Reply(Code::Decline)),
            ("refuse = \"drop\"", Refuse::Drop),
            ("redirect = \"sip:a@192.0.2.9\"", Refuse::DEFAULT),
            ("refuse = 302\nredirect = \"sip:a@192.0.2.9\"", Refuse::Reply(Code::MovedTemporarily)),
            ("esinet = true", Refuse::Drop),
            ("esinet = true\nmode = \"observe\"", Refuse::Drop),
            ("esinet = false\nmode = \"enforce\"", Refuse::DEFAULT),
        ] {
            let config = read_trunk(keys).unwrap();
            let [default, trunk] = &config.policy.trunks[..] else { panic!("two profiles") };
            assert_eq!(trunk.profile.refuse, refuse.number(), "{keys}");
            assert_eq!(default.profile.refuse, 0, "a source outside all trunks gets no reply");
            assert_eq!(trunk.profile.mode == MODE_OBSERVE, trunk.esinet, "{keys}");
            let effective = toml::to_string(&config.effective()).unwrap();
            assert_eq!(read(&effective), Ok(config), "{effective}");
        }
        for (keys, message) in [
            (
                "refuse = \"503\"",
                "5:10: refuse: 503 is not offered: a carrier that gets it takes the trunk",
            ),
            ("refuse = 607", "refuse: 607 is not offered: it puts the number on block lists"),
            ("refuse = \"302\"", "5:10: refuse: 302 needs the place that callers are sent to"),
            ("redirect = \"192.0.2.9\"", "5:12: redirect: \"192.0.2.9\" is no SIP URI"),
            ("refuse = true", "5:10: refuse: write a code such as \"600\", or \"drop\""),
            ("refuse = \"busy\"", "refuse: \"busy\" is no refusal: write \"600\""),
            ("esinet = true\nrefuse = \"600\"", "a trunk with esinet = true refuses no call"),
            ("esinet = true\nmode = \"enforce\"", "esinet: such a trunk refuses no call"),
            ("reply_path = \"card\"", "5:14: unknown variant `card`, expected one of `auto`"),
            ("without_daemon = \"wait\"", "5:18: unknown variant `wait`, expected `pass` or"),
            ("replies_per_second = -1", "5:22: invalid value: integer `-1`, expected u32"),
        ] {
            let error = read_trunk(keys).unwrap_err();
            assert!(error.contains(message), "{keys}: {error}");
        }
        for (keys, path, without_daemon) in [
            ("", REPLY_PATH_AUTO, PASSES_ON_SOME_INTERFACES),
            ("reply_path = \"daemon\"", REPLY_PATH_DAEMON, PASSES_WITHOUT_DAEMON),
            ("reply_path = \"driver\"", REPLY_PATH_DRIVER, DROPPED_WITHOUT_DAEMON),
            ("without_daemon = \"drop\"", REPLY_PATH_AUTO, DROPPED_WITHOUT_DAEMON),
            ("refuse = \"drop\"", REPLY_PATH_AUTO, DROPPED_WITHOUT_DAEMON),
            (
                "refuse = \"drop\"\nreply_path = \"daemon\"",
                REPLY_PATH_DAEMON,
                DROPPED_WITHOUT_DAEMON,
            ),
        ] {
            let config = read_trunk(keys).unwrap();
            let profile = &config.policy.trunks[1].profile;
            assert_eq!(
                (profile.reply_path, profile.without_daemon),
                (path, without_daemon),
                "{keys}"
            );
            let effective = toml::to_string(&config.effective()).unwrap();
            assert_eq!(read(&effective), Ok(config), "{effective}");
        }
        let error = read("interfaces = []\n[default]\nrefuse = \"600\"").unwrap_err();
        assert!(error.contains("unknown field `refuse`"), "{error}");
    }
}
