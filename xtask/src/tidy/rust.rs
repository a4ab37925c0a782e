//! Tokens of Rust source text, with the lines that they are on.
//!
//! rustc's own lexer cuts the text, so a word in an identifier, in a string and in a comment are
//! never mistaken for each other.

use ra_ap_rustc_lexer::{DocStyle, FrontmatterAllowed, LiteralKind, TokenKind, tokenize};

/// Kinds of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Identifier or keyword, without `r#`.
    Word,
    /// Number.
    Number,
    /// String, byte string or C string, with its quotes.
    Text,
    /// `'a'`, `'label`.
    Other,
    /// One character of punctuation.
    Mark,
    /// `//`, `/* … */`.
    Comment,
    /// `///`, `/** … */`: describes what follows.
    OuterDoc,
    /// `//!`, `/*! … */`: describes what surrounds it.
    InnerDoc,
}

/// A token.
#[derive(Clone, Copy, Debug)]
pub struct Token<'a> {
    /// Its kind.
    pub kind: Kind,
    /// How it is written.
    pub text: &'a str,
    /// Line of its first character, from 1.
    pub line: usize,
    /// Whether nothing but space is before it on its line.
    pub first: bool,
    /// Whether it is inside an item with `#[cfg(test)]`.
    pub test: bool,
}

impl Token<'_> {
    /// Returns whether this is the word or the punctuation `text`.
    pub fn is(&self, text: &str) -> bool {
        matches!(self.kind, Kind::Word | Kind::Mark) && self.text == text
    }

    /// Returns whether this is a comment of any kind.
    pub fn is_comment(&self) -> bool {
        matches!(self.kind, Kind::Comment | Kind::OuterDoc | Kind::InnerDoc)
    }
}

/// Cuts Rust source text into tokens; space is left out.
pub fn lex(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let (mut start, mut line, mut first) = (0, 1, true);
    // "#!/usr/bin/env" is not a token.
    if let Some(shebang) = ra_ap_rustc_lexer::strip_shebang(text) {
        start = shebang;
    }
    for token in tokenize(&text[start..], FrontmatterAllowed::No) {
        let part = &text[start..start + token.len as usize];
        start += token.len as usize;
        if let Some((kind, part)) = kind(token.kind, part) {
            tokens.push(Token { kind, text: part, line, first, test: false });
            first = false;
        }
        let breaks = part.matches('\n').count();
        line += breaks;
        first |= breaks > 0;
    }
    mark_tests(&mut tokens);
    tokens
}

#[allow(clippy::wildcard_enum_match_arm, reason = "all other tokens are punctuation")]
fn kind(kind: TokenKind, text: &str) -> Option<(Kind, &str)> {
    let doc = |style| match style {
        None => Kind::Comment,
        Some(DocStyle::Outer) => Kind::OuterDoc,
        Some(DocStyle::Inner) => Kind::InnerDoc,
    };
    let kind = match kind {
        TokenKind::Whitespace | TokenKind::Eof => return None,
        TokenKind::LineComment { doc_style } | TokenKind::BlockComment { doc_style, .. } => {
            doc(doc_style)
        }
        TokenKind::Ident => Kind::Word,
        TokenKind::RawIdent => return Some((Kind::Word, text.trim_start_matches("r#"))),
        TokenKind::Literal {
            kind: LiteralKind::Int { .. } | LiteralKind::Float { .. }, ..
        } => Kind::Number,
        TokenKind::Literal {
            kind: LiteralKind::Char { .. } | LiteralKind::Byte { .. }, ..
        } => Kind::Other,
        TokenKind::Literal { .. } => Kind::Text,
        TokenKind::Lifetime { .. } => Kind::Other,
        _ if text.chars().count() == 1 => Kind::Mark,
        _ => Kind::Other,
    };
    Some((kind, text))
}

/// Marks the tokens of items with `#[cfg(test)]`, the attribute included.
fn mark_tests(tokens: &mut [Token<'_>]) {
    let code: Vec<usize> = (0..tokens.len()).filter(|&at| !tokens[at].is_comment()).collect();
    let mut at = 0;
    while at < code.len() {
        let Some(end) = attribute_end(tokens, &code, at) else {
            at += 1;
            continue;
        };
        if is_cfg_test(tokens, &code[at..end]) {
            let last = item_end(tokens, &code, end);
            let range = code[at]..=code[last.min(code.len() - 1)];
            for token in &mut tokens[range] {
                token.test = true;
            }
            at = last + 1;
        } else {
            at = end;
        }
    }
}

/// Returns the index after an attribute `#[…]` that begins at `at`.
fn attribute_end(tokens: &[Token<'_>], code: &[usize], at: usize) -> Option<usize> {
    let is = |at: usize, text| code.get(at).is_some_and(|&token| tokens[token].is(text));
    (is(at, "#") && is(at + 1, "[")).then(|| closing(tokens, code, at + 1) + 1)
}

/// Returns whether the tokens are `#[cfg(test)]` or a `cfg` that needs `test` to be set.
fn is_cfg_test(tokens: &[Token<'_>], attribute: &[usize]) -> bool {
    let has = |text| attribute.iter().any(|&token| tokens[token].is(text));
    attribute.get(2).is_some_and(|&token| tokens[token].is("cfg"))
        && has("test")
        && !has("not")
        && !has("any")
}

/// Returns the index of the last token of the item (or field) that begins at `at`.
fn item_end(tokens: &[Token<'_>], code: &[usize], mut at: usize) -> usize {
    while let Some(end) = attribute_end(tokens, code, at) {
        at = end;
    }
    const ITEMS: [&str; 10] =
        ["pub", "fn", "mod", "use", "impl", "struct", "enum", "trait", "const", "static"];
    let is_item =
        code.get(at).is_some_and(|&token| ITEMS.iter().any(|item| tokens[token].is(item)));
    while at < code.len() {
        let token = &tokens[code[at]];
        if token.is("{") {
            return closing(tokens, code, at);
        }
        if token.is(";") || (!is_item && token.is(",")) {
            return at;
        }
        if token.is("(") || token.is("[") {
            at = closing(tokens, code, at);
        }
        at += 1;
    }
    code.len().saturating_sub(1)
}

/// Returns the index of the bracket that closes the one at `at`, or of the last token.
fn closing(tokens: &[Token<'_>], code: &[usize], at: usize) -> usize {
    let mut depth = 0_usize;
    for (index, &token) in code.iter().enumerate().skip(at) {
        let token = &tokens[token];
        if ["(", "[", "{"].iter().any(|open| token.is(open)) {
            depth += 1;
        } else if [")", "]", "}"].iter().any(|close| token.is(close)) {
            depth = depth.saturating_sub(1);
            if depth == 0 {
                return index;
            }
        }
    }
    code.len().saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lex_identifier_string_and_comment_are_apart() {
        let tokens = lex("let told = \"told\"; // told\n/// told\nfn r#else() {}");
        let kinds: Vec<_> = tokens.iter().map(|token| (token.kind, token.text)).collect();
        assert_eq!(kinds[1], (Kind::Word, "told"));
        assert_eq!(kinds[3], (Kind::Text, "\"told\""));
        assert_eq!(kinds[5], (Kind::Comment, "// told"));
        assert_eq!(kinds[6], (Kind::OuterDoc, "/// told"));
        assert_eq!(kinds[8], (Kind::Word, "else"));
        assert_eq!(tokens[6].line, 2);
    }

    #[test]
    fn lex_string_with_line_breaks_counts_lines() {
        let tokens = lex("a(\"x\ny\");\nb");
        assert_eq!(tokens.last().map(|token| token.line), Some(3));
    }

    #[test]
    fn lex_item_of_tests_is_marked() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests { fn b(x: [u8; 2]) { c(); } }\nfn d() {}";
        let test: Vec<_> =
            lex(text).iter().filter(|token| token.test).map(|token| token.text).collect();
        assert!(test.contains(&"b") && test.contains(&"c"));
        assert!(!test.contains(&"a") && !test.contains(&"d"));
    }

    #[test]
    fn lex_item_not_of_tests_is_not_marked() {
        let text = "#[cfg(not(test))]\nfn a() {}\n#[cfg(any(test, unix))]\nfn b() {}";
        assert!(lex(text).iter().all(|token| !token.test));
    }

    #[test]
    fn lex_test_module_in_a_file_of_its_own_ends_at_the_semicolon() {
        let tokens = lex("#[cfg(test)]\nmod lab;\nmod real;");
        assert!(tokens.iter().any(|token| token.is("lab") && token.test));
        assert!(tokens.iter().any(|token| token.is("real") && !token.test));
    }
}
