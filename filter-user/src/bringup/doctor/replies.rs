//! Reports who sends the replies to refused calls of an interface, and why.

use filter_common::abi::{REPLY_PATH_DAEMON, REPLY_PATH_DRIVER};

use crate::bringup::doctor::check::Check;
use crate::model::policy::Trunk;
use crate::model::reply_path::{Facts, why_daemon};

/// The abilities of the kernel that replies need.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kernel {
    /// Whether it gives programs frames of several buffers, if that is known. Without these a driver sends no reply.
    pub(crate) frags: Option<bool>,
    /// Why it answers no refused call; `None`: it does, or that is unknown.
    pub(crate) no_replies: Option<String>,
}

/// Reports on an interface; `None`: no trunk answers refused calls.
pub(crate) fn check(kernel: &Kernel, facts: &Facts<'_>, trunks: &[Trunk]) -> Option<Check> {
    let answers = |trunk: &&Trunk| trunk.profile.refuse != 0;
    let of = |path: u8| {
        let names = trunks.iter().filter(answers).filter(|trunk| trunk.profile.reply_path == path);
        names.map(|trunk| trunk.name.as_str()).collect::<Vec<_>>().join(", ")
    };
    if !trunks.iter().any(|trunk| answers(&trunk)) {
        return None;
    }
    if let Some(why) = &kernel.no_replies {
        return Some(Check::warn(
            "replies",
            format!("nobody answers refused calls, so they end in silence: {why}"),
            "use Linux 5.10 or newer (on aarch64 6.0 or newer), or set refuse = \"drop\" for each trunk: docs/carriers.md",
        ));
    }
    let why = if kernel.frags == Some(false) {
        Some("this kernel puts no reply into a frame (Linux 5.18 does)".to_owned())
    } else {
        why_daemon(facts)
    };
    let (by_driver, by_daemon) = (of(REPLY_PATH_DRIVER), of(REPLY_PATH_DAEMON));
    let mut finding = match &why {
        Some(why) => format!("the daemon answers refused calls of trunks: {why}"),
        None => "the driver answers refused calls of trunks".to_owned(),
    };
    if !by_daemon.is_empty() && why.is_none() {
        finding += &format!("; the daemon those of {by_daemon} (reply_path = \"daemon\")");
    }
    if by_driver.is_empty() {
        return Some(Check::ok("replies", finding));
    }
    let Some(why) = why else {
        finding += &format!("; also those of {by_driver} (reply_path = \"driver\")");
        return Some(Check::ok("replies", finding));
    };
    let finding =
        format!("{by_driver}: reply_path = \"driver\", but replies may not leave by it: {why}");
    let mend = format!("delete reply_path in [[trunk]] {by_driver}, then: palang reload");
    Some(Check::warn("replies", finding, mend))
}

#[cfg(test)]
mod tests {
    use filter_common::abi::REPLY_PATH_AUTO;

    use super::*;
    use crate::bringup::doctor::check::State;
    use crate::model::policy::Policy;

    fn trunk(name: &str, refuse: u8, reply_path: u8) -> Trunk {
        let mut trunk = Policy::default().trunks[0].clone();
        trunk.name = name.to_owned();
        (trunk.profile.refuse, trunk.profile.reply_path) = (refuse, reply_path);
        trunk
    }

    #[test]
    fn path_of_each_trunk_has_its_reason() {
        let new = Kernel { frags: Some(true), no_replies: None };
        let old = Kernel { frags: Some(false), no_replies: None };
        let silent = Kernel { frags: Some(false), no_replies: Some("no tail calls".to_owned()) };
        let card = Facts { driver: Some("ixgbe"), ..Facts::default() };
        let veth = Facts { driver: Some("veth"), ..Facts::default() };
        let auto = trunk("a", 1, REPLY_PATH_AUTO);
        let daemon = trunk("b", 1, REPLY_PATH_DAEMON);
        let driver = trunk("c", 1, REPLY_PATH_DRIVER);
        let found = |kernel, facts, trunks: &[&Trunk]| {
            let trunks: Vec<_> = trunks.iter().map(|trunk| (*trunk).clone()).collect();
            let check = check(kernel, facts, &trunks).expect("a check");
            (check.state, format!("{}|{}", check.finding, check.mend.unwrap_or_default()))
        };
        for (kernel, facts, trunks, state, text) in [
            (&new, &card, vec![&auto], State::Ok, "the driver answers refused calls of trunks|"),
            (
                &new,
                &veth,
                vec![&auto],
                State::Ok,
                "the daemon answers refused calls of trunks: a reply of veth",
            ),
            (
                &old,
                &card,
                vec![&auto],
                State::Ok,
                "the daemon answers refused calls of trunks: this kernel puts no reply",
            ),
            (
                &new,
                &card,
                vec![&auto, &daemon],
                State::Ok,
                "the driver answers refused calls of trunks; the daemon those of b (reply_path",
            ),
            (
                &new,
                &card,
                vec![&driver],
                State::Ok,
                "the driver answers refused calls of trunks; also those of c (reply_path",
            ),
            (
                &old,
                &card,
                vec![&auto, &driver],
                State::Warn,
                "c: reply_path = \"driver\", but replies may not leave by it: this kernel",
            ),
            (&new, &veth, vec![&driver], State::Warn, "delete reply_path in [[trunk]] c"),
            (
                &silent,
                &card,
                vec![&auto],
                State::Warn,
                "nobody answers refused calls, so they end in silence: no tail calls|use Linux 5.10",
            ),
        ] {
            let (found, what) = found(kernel, facts, &trunks);
            assert_eq!(found, state, "{what}");
            assert!(what.contains(text), "{what}");
        }
    }

    #[test]
    fn trunks_without_replies_have_no_path() {
        let silent = [trunk("a", 0, REPLY_PATH_AUTO)];
        assert_eq!(check(&Kernel::default(), &Facts::default(), &silent), None);
    }
}
