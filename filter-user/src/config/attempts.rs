//! Reads the keys of `[[trunk]]` about attempts.

use filter_common::abi::SEPARATE;
use filter_common::decide::separation;
use toml::Spanned;

use crate::config::error::{Mistake, wrong};
use crate::model::attempt_identity::AttemptIdentity;
use crate::model::duration;
use crate::model::policy::Trunk;
use crate::model::redial::{RedialPolicy, short};

/// Longest time between attempts that are one, in seconds.
const SEPARATE_MAX: u32 = 600;

/// Reads how far apart the attempts of a caller are. With `redial` it is possible to reach a grant.
///
/// # Errors
/// Returns the mistake if the length is out of range, or no caller could reach a grant.
pub(crate) fn separate(
    trunk: &mut Trunk,
    text: Option<&Spanned<String>>,
    redial: RedialPolicy,
) -> Result<(), Mistake> {
    let Some(text) = text else { return Ok(()) };
    let seconds = duration::seconds(text.get_ref()).and_then(|seconds| u32::try_from(seconds).ok());
    let Some(seconds) = seconds.filter(|seconds| (SEPARATE..=SEPARATE_MAX).contains(seconds))
    else {
        let message = format!(
            "separate: {:?} is not {} to {} in whole seconds, such as 35s",
            text.get_ref(),
            short(SEPARATE),
            short(SEPARATE_MAX)
        );
        return wrong(text.span(), message);
    };
    let RedialPolicy { attempts, window, .. } = redial;
    let most = separation(seconds, u64::from(window) * 1_000_000_000, attempts) / 1_000_000_000;
    if attempts != 0 && most < u64::from(seconds) {
        let message = format!(
            "separate: with {} a caller may not reach attempt {attempts} within {} ([redial]); write {most}s or less, or a \
             longer window",
            short(seconds),
            short(window)
        );
        return wrong(text.span(), message);
    }
    trunk.profile.separate = seconds;
    Ok(())
}

/// Reads the identities of attempts that the trunk is trusted for. They are looked for in an order of their own.
pub(crate) fn identities(trunk: &mut Trunk, identities: &[AttemptIdentity]) {
    trunk.profile.attempt_identity =
        identities.iter().fold(0, |bits, identity| bits | identity.bit());
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::Config;
    use crate::config::file::parse;
    use crate::model::policy::Trunk;

    fn read(keys: &str, redial: &str) -> Result<Config, String> {
        let text = format!(
            "interfaces = []\n[[trunk]]\nname = \"a\"\nsources = [\"10.0.0.1\"]\n{keys}\n[redial]\n{redial}"
        );
        parse(&text).map_err(|mistake| mistake.in_file(Path::new("palang.toml"), &text).to_string())
    }

    #[test]
    fn attempts_are_separate_after_5_s_unless_the_trunk_has_another_time() {
        for (keys, redial, seconds) in [
            ("", "", 5),
            ("separate = \"5s\"", "", 5),
            ("separate = \"35s\"", "", 35),
            ("separate = \"150s\"", "", 150),
            ("separate = \"10m\"", "window = \"40m\"", 600),
            // Without redial grants nothing has to be reached.
            ("separate = \"10m\"", "attempts = 0", 600),
            ("separate = \"37s\"", "attempts = 8", 37),
        ] {
            let config = read(keys, redial).unwrap();
            let [default, trunk] = &config.policy.trunks[..] else { panic!("two profiles") };
            assert_eq!(trunk.profile.separate, seconds, "{keys}");
            assert_eq!(default.profile.separate, 5);
            let effective = toml::to_string(&config.effective()).unwrap();
            let again = parse(&effective).map_err(|mistake| mistake.message);
            assert_eq!(again, Ok(config), "{effective}");
        }
    }

    #[test]
    fn summary_warns_of_silence_without_a_longer_time() {
        let warns = |keys: &str, redial: &str| {
            let lines = read(keys, redial).unwrap().summary();
            lines.iter().any(|line| line.starts_with("trunk a: refused in silence, so its carrier"))
        };
        assert!(warns("refuse = \"drop\"", ""));
        for (keys, redial) in [
            ("", ""),
            ("esinet = true", ""),
            ("refuse = \"drop\"\nseparate = \"35s\"", ""),
            ("refuse = \"drop\"\nattempt_identity = [\"icid\"]", ""),
            ("refuse = \"drop\"", "attempts = 0"),
        ] {
            assert!(!warns(keys, redial), "{keys}");
        }
    }

    #[test]
    fn identity_of_an_attempt_is_read_from_trunks_that_say_so() {
        for (keys, bits) in [
            ("", 0),
            ("attempt_identity = []", 0),
            ("attempt_identity = [\"icid\"]", 2),
            ("attempt_identity = [\"session-id\", \"emergency-call-id\"]", 5),
            ("attempt_identity = [\"emergency-call-id\", \"icid\", \"session-id\"]", 7),
        ] {
            let config = read(keys, "").unwrap();
            let [default, trunk] = &config.policy.trunks[..] else { panic!("two profiles") };
            let of = |trunk: &Trunk| trunk.profile.attempt_identity;
            assert_eq!((of(trunk), of(default)), (bits, 0), "{keys}");
            let effective = toml::to_string(&config.effective()).unwrap();
            let again = parse(&effective).map_err(|mistake| mistake.message);
            assert_eq!(again, Ok(config), "{effective}");
        }
        for (keys, message) in [
            (
                "attempt_identity = [\"call-id\"]",
                "5:21: unknown variant `call-id`, expected one of `emergency-call-id`",
            ),
            (
                "attempt_identity = \"icid\"",
                "5:20: invalid type: string \"icid\", expected a sequence",
            ),
        ] {
            let error = read(keys, "").unwrap_err();
            assert!(error.contains(message), "{keys}: {error}");
        }
        let error = parse("interfaces = []\n[default]\nattempt_identity = [\"icid\"]").unwrap_err();
        assert!(error.message.contains("unknown field `attempt_identity`"), "{}", error.message);
    }

    #[test]
    fn summary_shows_the_time_that_counts_where_the_window_is_short() {
        let line = |redial: &str| {
            let lines = read("", redial).unwrap().summary();
            lines.into_iter().find(|line| line.contains("attempts are separate after"))
        };
        assert_eq!(line(""), None);
        assert_eq!(line("attempts = 0\nwindow = \"1m\""), None);
        let text = line("attempts = 8\nwindow = \"1m\"").expect("a line");
        assert_eq!(
            text,
            "trunk a: attempts are separate after 4s, not after 5s: attempt 8 has to be possible within 1m"
        );
    }

    #[test]
    fn time_that_no_caller_could_reach_is_refused() {
        for (keys, redial, message) in [
            ("separate = \"4s\"", "", "5:12: separate: \"4s\" is not 5s to 10m in whole seconds"),
            ("separate = \"11m\"", "", "is not 5s to 10m"),
            ("separate = \"0\"", "", "is not 5s to 10m"),
            ("separate = \"5500ms\"", "", "is not 5s to 10m"),
            ("separate = 35", "", "5:12: invalid type: integer `35`, expected a string"),
            (
                "separate = \"10m\"",
                "",
                "5:12: separate: with 10m a caller may not reach attempt 2 within 10m ([redial]); write 150s or less",
            ),
            (
                "separate = \"38s\"",
                "attempts = 8",
                "may not reach attempt 8 within 10m ([redial]); write 37s or less",
            ),
        ] {
            let error = read(keys, redial).unwrap_err();
            assert!(error.contains(message), "{keys}: {error}");
        }
    }
}
