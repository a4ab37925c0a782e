//! Defines the roles of users, and hides numbers from users who may not see them.

use crate::api::wire::{Problem, ProblemKind};

/// The user who sent a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// Name of the user.
    pub name: String,
    /// The user's role.
    pub role: Role,
}

/// A role; each includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Nothing.
    None,
    /// Look, with masked numbers.
    Read,
    /// Report calls.
    Report,
    /// Block, allow, override.
    Operate,
    /// Everything.
    Admin,
}

impl Principal {
    /// Checks that the user has a role.
    ///
    /// # Errors
    /// [`ProblemKind::Refused`] if the role is missing.
    pub fn may(&self, role: Role) -> Result<(), Problem> {
        if self.role >= role {
            return Ok(());
        }
        let needed = match role {
            Role::None => return Ok(()),
            Role::Read => "read",
            Role::Report => "report",
            Role::Operate => "operate",
            Role::Admin => "admin",
        };
        Err(refused(&format!(
            "{} needs the role {needed}: see [roles] in palang.toml for its groups",
            self.name
        )))
    }

    /// Returns a number as this user may see it.
    #[must_use]
    pub fn mask(&self, number: String) -> String {
        if self.role >= Role::Operate { number } else { masked(&number) }
    }

    /// Returns a text of a message as this user may see it: that of an unread caller, or a Call-ID.
    #[must_use]
    pub fn mask_text(&self, text: String) -> String {
        if self.role >= Role::Operate { text } else { masked_text(&text) }
    }
}

/// Returns the problem of a user who may not do something.
pub(crate) fn refused(message: &str) -> Problem {
    Problem { kind: ProblemKind::Refused, message: message.to_owned() }
}

/// Hides the middle of a number: `6281*******90`.
#[must_use]
pub fn masked(number: &str) -> String {
    let digits = number.chars().filter(char::is_ascii_digit).count();
    let (head, tail) = if digits > 8 { (4, 2) } else { (1, 0) };
    let mut index = 0;
    number
        .chars()
        .map(|c| {
            if !c.is_ascii_digit() {
                return c;
            }
            index += 1;
            if index > head && index <= digits - tail { '*' } else { c }
        })
        .collect()
}

/// Hides the letters and digits of the text of an unread caller, but the schemes: `"xxxx" <sip:+########x@xx>`.
/// The rest shows why it was not read.
#[must_use]
fn masked_text(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let scheme = ["sips:", "sip:", "tel:"].into_iter().find(|scheme| {
            rest.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
                && !masked.ends_with(|last: char| last.is_alphanumeric())
        });
        let len = scheme.map_or(c.len_utf8(), str::len);
        match (scheme, c) {
            (Some(scheme), _) => masked.push_str(scheme),
            (None, c) if c.is_numeric() => masked.push('#'),
            // A name or a number can also be written in characters that are not letters.
            (None, c) if c.is_alphabetic() || !c.is_ascii() => masked.push('x'),
            (None, c) => masked.push(c),
        }
        rest = &rest[len..];
    }
    masked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_is_masked_shows_no_name_and_no_number() {
        for (text, masked) in [
            ("\"Budi S.\" <sip:+62812-34a@x.id>;tag=7", "\"xxxx x.\" <sip:+#####-##x@x.xx>;xxx=#"),
            ("<TEL:0812>", "<tel:####>"),
            ("sips:é1@x", "sips:x#@x"),
            ("\u{202e}\u{e0031}٣", "xx#"),
            ("gossip:tel", "xxxxxx:xxx"),
            ("", ""),
        ] {
            assert_eq!(masked_text(text), masked, "{text}");
        }
    }

    #[test]
    fn number_that_is_masked_hides_its_middle() {
        assert_eq!(masked("6281234567890"), "6281*******90");
        assert_eq!(masked("112"), "1**");
        assert_eq!(masked("62431*"), "6*****");
    }

    #[test]
    fn role_includes_those_before_it() {
        let who = |role| Principal { name: "siti".into(), role };
        assert!(who(Role::Admin).may(Role::Read).is_ok());
        assert!(who(Role::Operate).may(Role::Operate).is_ok());
        let refused = who(Role::Read).may(Role::Operate).unwrap_err();
        assert!(refused.message.contains("siti") && refused.message.contains("operate"));
        assert!(who(Role::None).may(Role::Read).is_err());
    }
}
