//! The sentences that people read: in comments, documentation, messages and pages.

use super::rust::{Kind, Token, lex};
use super::tree::File;

/// Takes the place of code, a value or an address in a sentence.
pub const CODE: &str = "`";

/// One paragraph, list item, heading, table cell or message.
#[derive(Debug, Default)]
pub struct Passage {
    /// Its words, without punctuation.
    pub words: Vec<Word>,
    /// Whether it is a heading or a cell of a table, which need not be a sentence.
    pub is_label: bool,
}

/// A word of a passage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// As it is written, or [`CODE`].
    pub text: String,
    /// Line, from 1.
    pub line: usize,
    /// Whether a sentence begins with it.
    pub starts: bool,
    /// The mark that ends the sentence after it: `.`, `!` or `?`.
    pub ends: Option<char>,
    /// Whether a mark of punctuation is between it and the next word.
    pub pause: bool,
}

/// A line of text and its number.
type Line<'a> = (usize, &'a str);

/// Returns all passages of a file.
pub fn passages(file: &File) -> Vec<Passage> {
    if file.is_rust() {
        return rust(file);
    }
    let lines: Vec<Line<'_>> = (1..).zip(file.text.lines()).collect();
    if file.path.ends_with(".md") {
        return paragraphs(&lines);
    }
    if file.path.ends_with(".txt") || file.path.ends_with(".json") {
        // Screens, licences, dashboards.
        return Vec::new();
    }
    let mut passages = Vec::new();
    let whole = |text: &str| text.trim_start().starts_with('#');
    let comments = lines.iter().filter_map(|&(line, text)| Some((line, hash_comment(text)?)));
    let (own, after_code): (Vec<_>, Vec<_>) =
        comments.partition(|(line, _)| whole(lines[line - 1].1));
    for group in groups(own.into_iter()) {
        passages.extend(paragraphs(&group));
    }
    for comment in after_code {
        passages.extend(paragraphs(&[comment]));
    }
    if file.path.ends_with(".yml") {
        // The texts of alerts.
        let texts = lines.iter().filter_map(|&(line, text)| {
            let text = text
                .trim()
                .strip_prefix("summary:")
                .or_else(|| text.trim().strip_prefix("description:"))?;
            Some((line, text.trim().trim_matches('\'')))
        });
        for line in texts {
            passages.extend(paragraphs(&[line]));
        }
    }
    passages
}

/// Returns the text of a comment that begins with `#`.
fn hash_comment(line: &str) -> Option<&str> {
    let trimmed = line.trim_start();
    if trimmed.starts_with("#!") {
        return None;
    }
    match trimmed.strip_prefix('#') {
        Some(text) => Some(text.trim_start_matches('#')),
        None => line.split_once(" # ").map(|(_, text)| text),
    }
}

/// Joins lines that follow each other.
fn groups<'a>(lines: impl Iterator<Item = Line<'a>>) -> Vec<Vec<Line<'a>>> {
    let mut groups = Vec::<Vec<Line<'a>>>::new();
    for (line, text) in lines {
        match groups.last_mut() {
            Some(group) if group.last().is_some_and(|(last, _)| last + 1 == line) => {
                group.push((line, text));
            }
            _ => groups.push(vec![(line, text)]),
        }
    }
    groups
}

/// Returns the passages of comments and of messages.
fn rust(file: &File) -> Vec<Passage> {
    let tokens = lex(&file.text);
    let mut passages = Vec::new();
    for comment in comments(&tokens) {
        passages.extend(paragraphs(&comment));
    }
    // Tests repeat messages to compare them.
    let messages = tokens.iter().filter(|token| token.kind == Kind::Text && !token.test);
    for token in messages.filter(|_| !file.is_test()) {
        if let Some(text) = message(token.text) {
            let lines: Vec<_> =
                text.iter().map(|(line, text)| (token.line + line, text.as_str())).collect();
            passages.extend(paragraphs(&lines));
        }
    }
    passages
}

/// Joins the comments of a file whose lines follow each other and that are of one kind.
pub fn comments<'a>(tokens: &[Token<'a>]) -> Vec<Vec<Line<'a>>> {
    let mut comments = Vec::<(Kind, bool, Vec<Line<'a>>)>::new();
    for token in tokens.iter().filter(|token| token.is_comment()) {
        let lines = token.text.lines().enumerate();
        let lines = lines.map(|(index, text)| (token.line + index, comment_text(text)));
        match comments.last_mut() {
            // A comment after code belongs to that code alone.
            Some((kind, true, before))
                if *kind == token.kind
                    && token.first
                    && before.last().is_some_and(|(line, _)| line + 1 == token.line) =>
            {
                before.extend(lines);
            }
            _ => comments.push((token.kind, token.first, lines.collect())),
        }
    }
    comments.into_iter().map(|(_, _, lines)| lines).collect()
}

fn comment_text(line: &str) -> &str {
    let line = line.trim();
    for start in ["///", "//!", "//", "/**", "/*!", "/*", "* "] {
        if let Some(text) = line.strip_prefix(start) {
            return text.trim_end_matches("*/");
        }
    }
    line.trim_end_matches("*/")
}

/// Returns the lines of a string that holds a sentence, counted from its first line; [`CODE`] in
/// the place of values.
fn message(literal: &str) -> Option<Vec<(usize, String)>> {
    let start = literal.find('"')?;
    let is_raw = literal[..start].contains('r');
    let text = literal[start + 1..].trim_end_matches('#').strip_suffix('"')?;
    let mut lines = vec![(0, String::new())];
    let (mut line, mut depth) = (0, 0_usize);
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let next = characters.peek().copied();
        let mut push = |text: &str| {
            if let Some((_, last)) = lines.last_mut() {
                last.push_str(text);
            }
        };
        match character {
            '\\' if !is_raw => match characters.next() {
                Some('n') => lines.push((line, String::new())),
                Some('\n') => {
                    line += 1;
                    while let Some(space) = characters.next_if(|next| next.is_whitespace()) {
                        line += usize::from(space == '\n');
                    }
                    // The rest of the sentence is on another line of the file.
                    lines.push((line, "\\".to_owned()));
                }
                Some('t') => push(" "),
                Some(other) => push(&other.to_string()),
                None => {}
            },
            '\n' => {
                line += 1;
                lines.push((line, String::new()));
            }
            '{' if next == Some('{') => {
                characters.next();
            }
            '{' => {
                depth += 1;
                push(" `x` ");
            }
            '}' => depth = depth.saturating_sub(1),
            _ if depth > 0 => {}
            other => push(&other.to_string()),
        }
    }
    let whole: Vec<&str> = lines.iter().flat_map(|(_, text)| text.split_whitespace()).collect();
    let is_word = |word: &&&str| word.chars().all(|c| c.is_alphabetic() || ",.;:'’".contains(c));
    let words = whole.iter().filter(is_word).filter(|word| word.len() > 1).count();
    const SQL: [&str; 9] =
        ["SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "ALTER", "PRAGMA", "WITH", "DROP"];
    let is_sql = whole.first().is_some_and(|first| SQL.contains(first));
    (words >= 2 && !is_sql).then_some(lines)
}

/// Splits lines of Markdown into passages; code blocks are left out.
fn paragraphs(lines: &[Line<'_>]) -> Vec<Passage> {
    let mut passages = Vec::new();
    let mut open = Vec::<Line<'_>>::new();
    let mut is_code = false;
    for &(line, text) in lines {
        let trimmed = text.trim();
        let is_fence = trimmed.starts_with("```") || trimmed.starts_with("~~~");
        is_code ^= is_fence;
        if let Some(rest) = text.strip_prefix('\\').filter(|_| !open.is_empty()) {
            open.push((line, rest));
            continue;
        }
        let is_item = ["- ", "* ", "+ "].iter().any(|mark| trimmed.starts_with(mark))
            || trimmed.split_once(". ").is_some_and(|(number, _)| {
                !number.is_empty() && number.chars().all(|digit| digit.is_ascii_digit())
            });
        let is_heading = trimmed.starts_with('#');
        let is_row = trimmed.starts_with('|');
        if is_fence || is_code || trimmed.is_empty() || is_item || is_heading || is_row {
            passages.push(passage(&open, false));
            open.clear();
        }
        if is_fence || is_code {
            continue;
        }
        if is_heading {
            passages.push(passage(&[(line, trimmed.trim_start_matches('#'))], true));
        } else if is_row {
            // A bar inside code ends no cell, but a cell more does no harm.
            for cell in trimmed.split('|') {
                passages.push(passage(&[(line, cell)], true));
            }
        } else if is_item {
            let text = trimmed.split_once(' ').map_or("", |(_, text)| text);
            open.push((line, text));
        } else if !trimmed.is_empty() {
            open.push((line, trimmed.trim_start_matches("> ")));
        }
    }
    passages.push(passage(&open, false));
    passages.retain(|passage| !passage.words.is_empty());
    passages
}

/// Cuts the lines of one passage into words.
fn passage(lines: &[Line<'_>], is_label: bool) -> Passage {
    let mut words: Vec<Word> = Vec::new();
    let mut starts = true;
    for (line, text) in without_code(lines) {
        for raw in text.split_whitespace() {
            let trimmed =
                raw.trim_start_matches(|c: char| !c.is_alphanumeric() && c != '`' && c != '§');
            let word = trimmed.trim_end_matches(|c: char| !c.is_alphanumeric() && c != '`');
            let tail = &trimmed[word.len()..];
            // `x`s, `x`-like: the code with an ending.
            let text = if word.contains('`') || word.contains("://") { CODE } else { word };
            if text.is_empty() {
                // A mark of its own, such as a dash.
                if let Some(last) = words.last_mut() {
                    last.pause = true;
                }
                continue;
            }
            let ends = tail.chars().find(|c| ".!?…".contains(*c)).filter(|_| !is_short(word));
            let pause = !tail.is_empty();
            words.push(Word { text: text.to_owned(), line, starts, ends, pause });
            starts = ends.is_some();
        }
    }
    Passage { words, is_label }
}

/// Returns whether a full stop after this word ends no sentence.
fn is_short(word: &str) -> bool {
    ["e.g", "i.e", "etc", "cf", "vs", "No", "approx", "incl", "resp"].contains(&word)
}

/// Puts [`CODE`] in the place of code spans, and takes the targets of links out.
fn without_code(lines: &[Line<'_>]) -> Vec<(usize, String)> {
    let mut is_code = false;
    let mut result = Vec::new();
    for (line, text) in lines {
        let mut out = String::new();
        let mut characters = text.chars().peekable();
        while let Some(character) = characters.next() {
            match character {
                '`' => {
                    while characters.next_if(|next| *next == '`').is_some() {}
                    is_code = !is_code;
                    // The span as a whole is one word, with what is written against it.
                    if is_code {
                        out.push('`');
                    }
                }
                _ if is_code => {}
                ']' if characters.peek() == Some(&'(') => {
                    let mut depth = 0_usize;
                    for next in characters.by_ref() {
                        depth += usize::from(next == '(');
                        depth -= usize::from(next == ')');
                        if depth == 0 {
                            break;
                        }
                    }
                }
                '[' | ']' => {}
                other => out.push(other),
            }
        }
        result.push((*line, out));
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> File {
        File { path: path.to_owned(), text: text.to_owned() }
    }

    /// Sentences as words with their lines, `/` between sentences.
    fn read(path: &str, text: &str) -> Vec<String> {
        let passages = passages(&file(path, text));
        let sentence = |passage: Passage| {
            let words = passage.words.into_iter().map(|word| {
                let end = if word.ends.is_some() { " /" } else { "" };
                format!("{}{end}", word.text)
            });
            words.collect::<Vec<_>>().join(" ")
        };
        passages.into_iter().map(sentence).collect()
    }

    #[test]
    fn passages_comment_over_lines_is_one() {
        let text = "/// One `x` is\n/// here. Two\nfn f() {} // Three.\n// Four.\n";
        assert_eq!(read("a/src/a.rs", text), ["One ` is here / Two", "Three /", "Four /"]);
        let words = &passages(&file("a/src/a.rs", text))[0].words;
        assert_eq!((words[3].text.as_str(), words[3].line), ("here", 2));
        assert!(words[0].starts && words[4].starts && !words[3].starts);
    }

    #[test]
    fn passages_messages_are_read_and_other_strings_are_not() {
        let text = "f(\"cannot open {path}: it \\\n   is {} gone\"); g(\"key\"); h(\"SELECT a FROM b ELSE c\");\n\
            #[cfg(test)] fn t() { f(\"told in a test\"); }";
        assert_eq!(read("a/src/a.rs", text), ["cannot open ` it is ` gone"]);
        let words = &passages(&file("a/src/a.rs", text))[0].words;
        assert_eq!(words[4].line, 2);
        assert_eq!(read("tests/a.rs", "f(\"told in a test\");"), [""; 0]);
    }

    #[test]
    fn passages_page_is_split_at_items_rows_and_headings() {
        let text = "# A head\nText [with a link](a/b.md#c), e.g. this.\n- item\n  goes on\n\n| a | b c |\n```\ncode told\n```\n";
        let found = read("a.md", text);
        assert_eq!(found, ["A head", "Text with a link e.g this /", "item goes on", "a", "b c"]);
    }

    #[test]
    fn passages_comments_with_a_hash_are_read() {
        let text = "#!/bin/sh\n# One\n# two.\nx = 1 # three\n";
        assert_eq!(read("a.sh", text), ["One two /", "three"]);
        assert_eq!(read("a.toml", "a = \"x\" # y"), ["y"]);
    }
}
