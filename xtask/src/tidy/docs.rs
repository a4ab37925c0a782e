//! The first line of a function's documentation says what the function does: "Returns the live block
//! for a number."

use super::finding::Finding;
use super::rust::{Kind, Token, lex};
use super::tree::Tree;

const CHECK: &str = "doc";

/// Words that end in "s" and are no verb in the third person that says what a function does.
const OTHERS: [&str; 12] =
    ["This", "Its", "Is", "Was", "Has", "As", "Always", "Others", "Does", "Us", "Whose", "Yes"];

/// Returns the functions whose documentation begins with anything but a verb.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.files.iter().filter(|file| file.is_rust()) {
        let tokens = lex(&file.text);
        for at in 0..tokens.len() {
            let starts = tokens[at].kind == Kind::OuterDoc
                && at.checked_sub(1).is_none_or(|before| tokens[before].kind != Kind::OuterDoc);
            if !starts || !is_function(&tokens[at..]) {
                continue;
            }
            let text = tokens[at].text.trim_start_matches('/').trim();
            let word = text.split_whitespace().next().unwrap_or_default();
            let word = word.trim_end_matches([',', ';', ':', '.']);
            if is_verb(word) {
                continue;
            }
            let what = format!("the documentation of a function begins with \"{word}\"");
            let advice = "begin with a verb in the third person: \"Returns …\", \"Adds …\"";
            findings.push(Finding::new(CHECK, &file.path, tokens[at].line, what, advice));
        }
    }
    findings
}

fn is_verb(word: &str) -> bool {
    word.starts_with(char::is_uppercase)
        && word.ends_with('s')
        && !word.ends_with("ss")
        && word.chars().all(char::is_alphabetic)
        && !OTHERS.contains(&word)
}

/// Returns whether a function follows after documentation and attributes.
fn is_function(tokens: &[Token<'_>]) -> bool {
    let mut depth = 0_usize;
    for token in tokens {
        match token.text {
            "[" => depth += 1,
            "]" => depth = depth.saturating_sub(1),
            _ if depth > 0 || token.is_comment() => {}
            "fn" => return true,
            "#" | "pub" | "(" | ")" | "crate" | "super" | "in" | "const" | "async" | "unsafe"
            | "extern" => {}
            // `extern "C" fn`
            _ if token.kind == Kind::Text => {}
            _ => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> usize {
        check(&Tree::of(&[("a/src/a.rs", text)])).len()
    }

    #[test]
    fn check_function_with_a_verb_is_right() {
        assert_eq!(found("/// Returns it.\n/// The rest.\n#[must_use]\npub const fn f() {}"), 0);
        assert_eq!(found("impl A { /// Closes it.\n pub(crate) async unsafe fn f() {} }"), 0);
    }

    #[test]
    fn check_function_without_a_verb_is_found() {
        for text in ["Whether it is.", "The number.", "Is there one?", "Process it.", "`x` of it."]
        {
            assert_eq!(found(&format!("/// {text}\n#[inline(never)]\nfn f() {{}}")), 1, "{text}");
        }
    }

    #[test]
    fn check_documentation_of_a_type_is_not_read() {
        assert_eq!(
            found(
                "/// The number.\n#[repr(C)]\npub struct A {\n/// One.\n a: u8 }\n/// Two.\nconst A: u8 = 0;"
            ),
            0
        );
    }
}
