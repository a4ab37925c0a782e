//! Writes `palang.toml(5)` from docs/palang.toml, the only place where settings are documented.

use std::fmt::Write as _;

use anyhow::{Result, ensure};

/// A paragraph of the example: the text before a setting, its line, and the text after it.
#[derive(Debug, Default, PartialEq)]
struct Setting {
    /// `country_code = "62"`, or the header of a table.
    line: String,
    /// The text before and after it.
    says: Vec<String>,
}

/// Returns the page and its file name.
///
/// # Errors
/// Returns an error if the example has too few settings.
pub fn page(example: &str, date: &str) -> Result<(String, Vec<u8>)> {
    let (head, settings) = read(example);
    ensure!(settings.len() > 20, "docs/palang.toml has only {} settings?", settings.len());
    let mut text = format!(
        ".TH palang.toml 5 \"{date}\" \"palang {}\" Palang\n.SH NAME\npalang.toml \\- configuration of the \
         Palang daemon\n.SH SYNOPSIS\n.I /etc/palang/palang.toml\n.SH DESCRIPTION\n{}\n\
         .SH SETTINGS\n",
        env!("CARGO_PKG_VERSION"),
        roff(&head.join(" "))
    );
    for Setting { line, says } in &settings {
        if line.starts_with('[') {
            let _ = writeln!(text, ".SS \"{}\"", roff(line));
            if !says.is_empty() {
                let _ = writeln!(text, "{}", roff(&says.join(" ")));
            }
        } else {
            let _ = write!(text, ".TP\n.B {}\n{}\n", roff(line), text_of(says));
        }
    }
    text +=
        ".SH \"SEE ALSO\"\n.BR palang (1),\n.BR palang\\-config (1),\n.BR palang\\-daemon (1)\n";
    Ok(("palang.toml.5".to_owned(), text.into_bytes()))
}

/// Splits the file into the text about itself and its settings, in order.
fn read(example: &str) -> (Vec<String>, Vec<Setting>) {
    let (mut head, mut settings, mut says) = (None, Vec::<Setting>::new(), Vec::new());
    for line in example.lines() {
        let comment = line.strip_prefix('#').map(|text| text.strip_prefix(' ').unwrap_or(text));
        if let Some((line, behind)) = setting(comment.unwrap_or(line)) {
            says.extend(behind);
            settings.push(Setting { line, says: std::mem::take(&mut says) });
            continue;
        }
        match comment {
            // The text after the previous setting continues.
            Some(text) if text.starts_with("      ") && says.is_empty() && !settings.is_empty() => {
                if let Some(last) = settings.last_mut() {
                    let behind = last.says.pop().unwrap_or_default();
                    let behind = behind.strip_suffix('.').unwrap_or(&behind);
                    last.says.push(format!("{behind} {}.", text.trim()));
                }
            }
            Some(text) => says.push(text.trim().to_owned()),
            // The first paragraph describes the file.
            None if head.is_none() => head = Some(std::mem::take(&mut says)),
            None => {}
        }
    }
    (head.unwrap_or_default(), settings)
}

/// Splits a line into a setting or table header and the text after it.
fn setting(line: &str) -> Option<(String, Option<String>)> {
    let key = line.split_once(" = ").map(|(key, _)| key);
    let is_key = key.is_some_and(|key| {
        !key.is_empty() && key.chars().all(|c| c.is_ascii_lowercase() || c == '_')
    });
    let is_table = line.starts_with('[') && line.trim_end().ends_with(']');
    if !is_key && !is_table {
        return None;
    }
    let (setting, behind) = match line.split_once('#') {
        Some((setting, behind)) => (setting, behind.split('#').map(str::trim).collect::<Vec<_>>()),
        None => (line, Vec::new()),
    };
    let says = behind.iter().map(|part| match part.strip_prefix("= ") {
        Some(default) => format!(
            "Default: {}.",
            default
                .strip_prefix("these")
                .map_or_else(|| default.to_owned(), |rest| format!("as here{rest}"))
        ),
        None => format!("{part}."),
    });
    let says: Vec<_> = says.collect();
    Some((setting.trim().to_owned(), (!says.is_empty()).then(|| says.join(" "))))
}

/// Returns the text about a setting; `\&` for no text, because roff needs one.
fn text_of(says: &[String]) -> String {
    if says.is_empty() { "\\&".to_owned() } else { roff(&says.join(" ")) }
}

/// Escapes a text for roff, so that nothing in it is a request.
fn roff(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-").replace('"', "\\(dq");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "# About the file.\n# More.\n\n# What it is.\nports = [5060]  # UDP # = [5060]\n\n\
        [limits]\n# blocks = 7  # = 9; up to\n#               sixteen\n";

    #[test]
    fn settings_with_what_is_said_of_them() {
        let (head, settings) = read(EXAMPLE);
        assert_eq!(head, ["About the file.", "More."]);
        let setting = |line: &str, says: &[&str]| Setting {
            line: line.to_owned(),
            says: says.iter().map(|text| (*text).to_owned()).collect(),
        };
        assert_eq!(
            settings,
            [
                setting("ports = [5060]", &["What it is.", "UDP. Default: [5060]."]),
                setting("[limits]", &[]),
                setting("blocks = 7", &["Default: 9; up to sixteen."]),
            ]
        );
    }

    #[test]
    fn each_setting_of_the_example_is_on_the_page() {
        let example = include_str!("../../../docs/palang.toml");
        let (_, text) = page(example, "2026-11-24").unwrap();
        let text = String::from_utf8(text).unwrap();
        let table: toml::Table = example.parse().unwrap();
        for (key, value) in &table {
            let in_table = value.as_table().map(|table| table.keys().cloned().collect());
            let names: Vec<_> = in_table.unwrap_or_else(|| vec![key.clone()]);
            for name in names {
                assert!(text.contains(&format!(".B {name} = ")), "{name}");
            }
        }
    }
}
