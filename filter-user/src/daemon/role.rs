//! TODO-DOC

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// Name of the user.
    pub name: String,
    /// What the user may do.
    pub role: Role,
}

/// What a user may do; each may what those before it may.
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

/// A number with its middle hidden: `6281*******90`.
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
