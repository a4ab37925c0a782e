//! Changes of a message, such as an attacker or a bad line makes them.

use proptest::prelude::*;
use proptest::sample::{Index, select};

/// A change of a message.
#[derive(Clone, Debug)]
pub enum Change {
    /// Another byte.
    Set(Index, u8),
    /// Bytes more.
    Insert(Index, Vec<u8>),
    /// This many bytes less.
    Remove(Index, u8),
    /// A line that is somewhere else as well.
    RepeatLine(Index, Index),
    /// A line less.
    RemoveLine(Index),
    /// The end missing.
    Cut(Index),
}

/// Makes any change.
pub fn change() -> impl Strategy<Value = Change> {
    // Bytes that the reader looks for, more often than by chance.
    let tokens = [
        "\r\n",
        "\n",
        "\r",
        "\r\n ",
        "\r\n\r\n",
        "<",
        ">",
        "\"",
        "\\",
        ";tag=",
        ";",
        ":",
        "@",
        ",",
        "%2B",
        "%40",
        "+",
        "0",
        "62",
        "f: ",
        "From: ",
        "To: ",
        "i:",
        "sip:",
        "tel:",
        " ",
        "\t",
        "\0",
        ";phone-context=+62",
        "P-Asserted-Identity: <tel:+628111>",
        "\nReplaces: ",
        ";ext=",
        ";isub=1",
        "a=\"",
        "=",
        "é",
    ];
    prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        (any::<Index>(), select(tokens.to_vec()))
            .prop_map(|(at, token)| Change::Insert(at, token.as_bytes().to_vec())),
        (any::<Index>(), 1..20u8).prop_map(|(at, len)| Change::Remove(at, len)),
        (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Change::RepeatLine(from, to)),
        any::<Index>().prop_map(Change::RemoveLine),
        any::<Index>().prop_map(Change::Cut),
    ]
}

/// Makes a change.
///
/// # Panics
/// Never on a message that has bytes.
pub fn apply(message: &mut Vec<u8>, change: &Change) {
    let lines = |message: &[u8]| -> Vec<Vec<u8>> {
        message.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
    };
    if message.is_empty() {
        return;
    }
    match change {
        Change::Set(at, byte) => {
            let at = at.index(message.len());
            message[at] = *byte;
        }
        Change::Insert(at, token) => {
            let at = at.index(message.len());
            message.splice(at..at, token.iter().copied());
        }
        Change::Remove(at, len) => {
            let at = at.index(message.len());
            let end = (at + usize::from(*len)).min(message.len());
            message.drain(at..end);
        }
        Change::RepeatLine(from, to) => {
            let mut lines = lines(message);
            let line = lines[from.index(lines.len())].clone();
            let to = to.index(lines.len());
            lines.insert(to, line);
            *message = lines.concat();
        }
        Change::RemoveLine(at) => {
            let mut lines = lines(message);
            lines.remove(at.index(lines.len()));
            *message = lines.concat();
        }
        Change::Cut(at) => message.truncate(at.index(message.len())),
    }
}
