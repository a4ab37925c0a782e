//! The user of this process.

use nix::unistd::{User, getuid};

/// Returns the name of the user; with sudo, the user who called sudo.
#[must_use]
pub fn name() -> String {
    sudo().unwrap_or_else(|| {
        let user = User::from_uid(getuid()).ok().flatten();
        user.map_or_else(|| getuid().to_string(), |user| user.name)
    })
}

/// Returns the user who called sudo; `None`: this process is not root, or was not started by sudo.
#[must_use]
pub fn sudo() -> Option<String> {
    let name = std::env::var("SUDO_USER").ok()?;
    (getuid().is_root() && is_name(&name)).then_some(name)
}

/// Returns whether a text may be the name of a user: 1 to 256 visible ASCII characters. A header carries no others, and
/// names of a directory are longer than the 32 of useradd(8).
#[must_use]
pub fn is_name(text: &str) -> bool {
    (1..=256).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_of_a_user_has_visible_ascii_characters() {
        for (text, is) in [
            ("siti", true),
            ("PSAP\\siti", true),
            ("", false),
            ("a b", false),
            ("é", false),
            ("a\n", false),
        ] {
            assert_eq!(is_name(text), is, "{text:?}");
        }
        assert!(!is_name(&"a".repeat(257)));
    }
}
