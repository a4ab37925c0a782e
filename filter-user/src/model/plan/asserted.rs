//! Compares a `P-Asserted-Identity` that a trunk does not read with the caller number of `From`.

use filter_common::abi::UNREAD_MAX;
use filter_common::number::Number;
use filter_common::plan::Plan;

use crate::model::plan::explain::read;

/// The advice to the finding.
pub const MEND: &str =
    "if the trunk asserts callers, set identity = \"pai-else-from\" (docs/policy.md)";

/// Returns the finding about a trunk that reads `From` although calls of the last hour assert another caller.
#[must_use]
pub fn finding(trunk: &str, calls: u64) -> String {
    format!(
        "trunk {trunk} reads From, but P-Asserted-Identity names another caller ({calls} calls in the \
         last hour)"
    )
}

/// Returns whether the value of a `P-Asserted-Identity` names another number than `number`, and not this one.
/// A name is no number. The end of a text of [`UNREAD_MAX`] bytes may be cut off, so it does not count.
#[must_use]
pub fn names_other(value: &[u8], number: Number, plan: &Plan) -> bool {
    let text = String::from_utf8_lossy(value);
    // The first text is a display name, or a URI without angle brackets.
    let mut parts = text.split('<');
    let before = parts.next().unwrap_or_default();
    let mut uris: Vec<&str> = parts.filter_map(|part| Some(part.split_once('>')?.0)).collect();
    let is_cut = value.len() >= UNREAD_MAX - 1;
    if !text.contains('<') && !is_cut {
        uris.extend(before.split(';').next());
    }
    let numbers: Vec<Number> = uris.iter().filter_map(|uri| read(uri, plan).ok()).collect();
    !numbers.is_empty() && !numbers.contains(&number)
}

#[cfg(test)]
mod tests {
    use filter_common::number::Digits;

    use super::*;
    use crate::model::policy::Policy;

    #[test]
    fn another_number_in_any_form_is_found() {
        let plan = &Policy::default().trunks[0].profile.plan;
        let number = Number::e164(Digits::parse("6281200000001").unwrap());
        for (value, is_other) in [
            ("<tel:+6281200000002>", true),
            ("<sip:081200000002@ims.example;user=phone>", true),
            ("\"Siti\" <sip:+6281200000002@x>, <tel:+6281200000002>", true),
            ("tel:+6281200000002", true),
            ("sip:+6281200000002@x;tag=1", true),
            ("<tel:+6281200000001>", false),
            ("<sip:0812-0000-0001@x>", false),
            ("<sip:siti@x>, <tel:+6281200000001>", false),
            ("<tel:+6281200000002>, <sip:+6281200000001@x>", false),
            ("<sip:siti@x>", false),
            ("\"+6281200000002\" <sip:siti@x>", false),
            ("", false),
        ] {
            assert_eq!(names_other(value.as_bytes(), number, plan), is_other, "{value}");
        }
    }

    #[test]
    fn cut_value_counts_up_to_its_last_whole_uri() {
        let plan = &Policy::default().trunks[0].profile.plan;
        let number = Number::e164(Digits::parse("6281200000001").unwrap());
        let cut = |text: &str| text.as_bytes()[..UNREAD_MAX - 1].to_vec();
        let name = "x".repeat(200);
        assert!(!names_other(&cut(&format!("{name} <tel:+6281200000002>")), number, plan));
        let whole = format!("<tel:+6281200000002>, <sip:{name}@x>");
        assert!(names_other(&cut(&whole), number, plan));
        assert!(!names_other(&cut(&format!("tel:+62812000000{}", "0".repeat(200))), number, plan));
    }
}
