//! Plain English: words, beginnings of sentences and their length (CONTRIBUTING.md, "English").

use serde::Deserialize;

use super::finding::Finding;
use super::prose::{CODE, Passage, Word, passages};
use super::tree::Tree;

const WORD: &str = "word";
const SENTENCE: &str = "sentence";

/// The list of words.
const LIST: &str = "xtask/tidy/words.toml";

/// Most words of a sentence.
const WORDS_MAX: usize = 25;

/// The list.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    #[serde(default)]
    word: Vec<Entry>,
    /// Words that no sentence begins with.
    #[serde(default)]
    start: Vec<String>,
    #[serde(default)]
    exception: Vec<Exception>,
}

/// A word or phrase that is not used.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// All forms.
    find: Vec<String>,
    /// Better words.
    say: String,
    /// Phrases with the word that are good English.
    #[serde(default)]
    except: Vec<String>,
}

/// A place where a word is right.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Exception {
    file: String,
    find: String,
    reason: String,
}

/// Returns the words and sentences that an outsider would read twice.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let Some(file) = tree.file(LIST) else { return Vec::new() };
    let list: List = match toml::from_str(&file.text) {
        Ok(list) => list,
        Err(error) => {
            let line = error.span().map_or(1, |at| file.text[..at.start].lines().count());
            let what = error.message().to_owned();
            return vec![Finding::new(WORD, LIST, line, what, "see the head of this file")];
        }
    };
    let mut findings = Vec::new();
    let mut used = vec![false; list.exception.len()];
    for file in tree.files.iter().filter(|file| file.path != LIST) {
        for passage in passages(file) {
            words(&list, &passage, &mut used, &file.path, &mut findings);
            sentences(&list, &passage, &file.path, &mut findings);
        }
    }
    for (exception, used) in list.exception.iter().zip(used) {
        let Exception { file, find, reason } = exception;
        if !used || reason.is_empty() {
            let what =
                format!("the exception for \"{find}\" in {file} is not needed, or has no reason");
            findings.push(Finding::new(WORD, LIST, 1, what, "remove it, or say why it is there"));
        }
    }
    findings
}

/// Adds the words of the list that the passage has.
fn words(
    list: &List,
    passage: &Passage,
    used: &mut [bool],
    path: &str,
    findings: &mut Vec<Finding>,
) {
    for entry in &list.word {
        for (at, word) in passage.words.iter().enumerate() {
            let Some(found) = entry.find.iter().find(|find| begins(&passage.words[at..], find))
            else {
                continue;
            };
            if entry.except.iter().any(|phrase| surrounds(&passage.words, at, found, phrase)) {
                continue;
            }
            let exceptions = list.exception.iter().zip(used.iter_mut());
            let mut exceptions = exceptions
                .filter(|(exception, _)| exception.file == path && exception.find == *found);
            if let Some((_, used)) = exceptions.next() {
                *used = true;
                continue;
            }
            let what = format!("\"{found}\" {}", around(&passage.words, at));
            let advice = format!("say {}", entry.say);
            findings.push(Finding::new(WORD, path, word.line, what, advice));
        }
    }
}

/// Adds the sentences that begin with a word that none begins with, and those that are too long.
fn sentences(list: &List, passage: &Passage, path: &str, findings: &mut Vec<Finding>) {
    for sentence in passage.words.split_inclusive(|word| word.ends.is_some()) {
        let (Some(first), Some(last)) = (sentence.first(), sentence.last()) else { continue };
        let is_question = last.ends == Some('?');
        let start = list.start.iter().find(|start| {
            // "what" in lower case goes on with something: a list, a value.
            begins(sentence, start) && first.text.starts_with(char::is_uppercase)
        });
        if let Some(start) = start.filter(|_| !is_question && !passage.is_label && first.starts) {
            let what = format!("a sentence begins with \"{start}\" {}", around(sentence, 0));
            let advice = "begin with its subject: who or what does it";
            findings.push(Finding::new(SENTENCE, path, first.line, what, advice));
        }
        if sentence.len() > WORDS_MAX {
            let what = format!("a sentence of {} words {}", sentence.len(), around(sentence, 0));
            let advice = format!("one idea a sentence, at most {WORDS_MAX} words");
            findings.push(Finding::new(SENTENCE, path, first.line, what, advice));
        }
    }
}

/// Returns whether the words begin with the words of a phrase, in upper or lower case.
fn begins(words: &[Word], phrase: &str) -> bool {
    let mut words = words.iter();
    let mut pause = false;
    phrase.split(' ').all(|part| {
        // A comma inside of it makes it another phrase.
        let was_pause = pause;
        words.next().is_some_and(|word| {
            pause = word.pause;
            !was_pause && word.text.to_lowercase() == part.to_lowercase()
        })
    })
}

/// Returns whether the word at `at` is part of a phrase that is good English.
fn surrounds(words: &[Word], at: usize, found: &str, phrase: &str) -> bool {
    let parts: Vec<_> = phrase.split(' ').collect();
    let first = found.split(' ').next().unwrap_or(found);
    let places = parts.iter().enumerate().filter(|(_, part)| part.eq_ignore_ascii_case(first));
    places.into_iter().any(|(before, _)| {
        at.checked_sub(before).is_some_and(|start| {
            let mut words = words[start..].iter();
            parts.iter().all(|part| {
                words
                    .next()
                    .is_some_and(|word| *part == "*" || word.text.eq_ignore_ascii_case(part))
            })
        })
    })
}

/// Returns the words around a place, to find it again.
fn around(words: &[Word], at: usize) -> String {
    let part = &words[at.saturating_sub(2)..words.len().min(at + 5)];
    let part = part.iter().map(|word| if word.text == CODE { "`…`" } else { &word.text });
    format!("in \"{}\"", part.collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: &str = "start = [\"Who\", \"What\", \"The same\"]\n\
        [[word]]\nfind = [\"tell\", \"tells\"]\nsay = \"reports\"\n\
        [[word]]\nfind = [\"else\"]\nsay = \"otherwise\"\nexcept = [\"something else\", \"else branch\"]\n\
        [[word]]\nfind = [\"so many\"]\nsay = \"N\"\n\
        [[exception]]\nfile = \"a/src/x.rs\"\nfind = \"tell\"\nreason = \"the name of a bird\"\n";

    fn found(path: &str, text: &str) -> Vec<(usize, String)> {
        // The exception is used, so that it is not a finding.
        let tree = Tree::of(&[(LIST, WORDS), (path, text), ("a/src/x.rs", "// tell")]);
        check(&tree).into_iter().map(|finding| (finding.line, finding.what)).collect()
    }

    #[test]
    fn check_word_of_the_list_is_found_in_comment_message_and_page() {
        for (path, text) in [
            ("a/src/a.rs", "\n/// It tells of it."),
            ("a/src/a.rs", "\nfn f() { print(\"it tells of {x}\") }"),
            ("a/src/a.rs", "#[command(\nabout = \"it tells it\")]"),
            ("a.md", "\nIt tells it."),
            ("a.toml", "\nx = 1 # it tells it"),
            ("a.yml", "\n  summary: 'It tells it'"),
        ] {
            let found = found(path, text);
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            assert!(found[0].0 == 2 && found[0].1.starts_with("\"tells\" in"), "{found:?}");
        }
    }

    #[test]
    fn check_identifiers_code_and_good_phrases_are_right() {
        for text in [
            "fn tells() { tell::else_() }",
            "// `tells` is a function.",
            "// Do something else.",
            "// The else branch.",
            "// So, many are here.",
            "// Intelligent, teller.",
        ] {
            assert_eq!(found("a/src/a.rs", text), [], "{text}");
        }
    }

    #[test]
    fn check_phrase_over_two_lines_is_found() {
        assert_eq!(found("a/src/a.rs", "// It has so\n// many of them.").len(), 1);
    }

    #[test]
    fn check_beginning_of_a_sentence_is_found() {
        assert_eq!(found("a.md", "All is well. What calls is refused.").len(), 1);
        assert_eq!(
            found("a.md", "The same is done."),
            [(1, "a sentence begins with \"The same\" in \"The same is done\"".to_owned())]
        );
        assert_eq!(found("a.md", "What does it do? It is known by whoever asks."), []);
        assert_eq!(found("a.md", "# What it does\n\n| Who calls |\n"), []);
    }

    #[test]
    fn check_long_sentence_is_found() {
        let short = format!("Word{}.", " word".repeat(24));
        assert_eq!(found("a.md", &short), []);
        let long = format!("All.\nWord{}.", " word".repeat(25));
        assert_eq!(found("a.md", &long)[0].0, 2);
    }

    #[test]
    fn check_exception_that_is_not_needed_is_found() {
        let tree = Tree::of(&[(LIST, WORDS)]);
        assert_eq!(check(&tree).len(), 1);
    }
}
