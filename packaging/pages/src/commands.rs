//! Writes `palang(1)` and one page per command.

use anyhow::Result;
use clap::{Command, CommandFactory as _};
use clap_mangen::Man;
use palang::cli::Cli;

/// Exit codes, which clap does not know (`palang::exit`).
const EXIT_CODES: [(&str, &str); 12] = [
    ("0", "done; \\fBpalang check\\fR: the call would pass"),
    ("1", "failed"),
    ("2", "invalid command line or file"),
    ("3", "the daemon cannot be reached"),
    ("4", "not found"),
    ("5", "refused: permission, a protected or allowed number"),
    ("6", "partly done"),
    ("10", "\\fBpalang check\\fR: the call would be refused"),
    ("11", "\\fBpalang selftest\\fR: the filter works, but blocked callers are only observed"),
    ("12", "\\fBpalang selftest\\fR: the filter works, but the override is on"),
    ("13", "\\fBpalang selftest\\fR: the filter does not work"),
    ("70", "\\fBpalang daemon\\fR: a part of it broke; systemd starts it again"),
];

/// Files of an installation, which clap does not know.
const FILES: [(&str, &str); 5] = [
    ("/etc/palang/palang.toml", "configuration of the daemon, see \\fBpalang.toml\\fR(5)"),
    ("/var/lib/palang/palang.db", "the store: blocks, allows, call records, audit"),
    ("/run/palang/palang.sock", "socket of the daemon"),
    ("/sys/fs/bpf/palang", "maps and links of the filter; they outlive the daemon"),
    ("/usr/share/doc/palang", "guides: policy, runbook, privacy, packages"),
];

/// Formats the last sections of `palang(1)`.
fn end() -> String {
    let list = |style: &str, rows: &[(&str, &str)]| {
        rows.iter().fold(String::new(), |text, (name, about)| {
            text + &format!(".TP\n.{style} {name}\n{about}\n")
        })
    };
    let (codes, files) = (list("B", &EXIT_CODES), list("I", &FILES));
    format!(".SH \"EXIT STATUS\"\n{codes}.SH FILES\n{files}")
}

/// Returns the pages with their file names.
pub fn pages(date: &str) -> Result<Vec<(String, Vec<u8>)>> {
    let mut root = Cli::command().disable_help_subcommand(true);
    root.build();
    let mut pages = Vec::new();
    add(&root, "palang", None, date, &mut pages)?;
    Ok(pages)
}

fn add(
    command: &Command,
    name: &str,
    parent: Option<&str>,
    date: &str,
    pages: &mut Vec<(String, Vec<u8>)>,
) -> Result<()> {
    let children: Vec<_> = command.get_subcommands().filter(|each| !each.is_hide_set()).collect();
    let page = Man::new(command.clone().display_name(name.to_owned()))
        .title(name)
        .date(date)
        .source(format!("palang {}", env!("CARGO_PKG_VERSION")))
        .manual("Palang");
    let mut text = Vec::new();
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    page.render_options_section(&mut text)?;
    if !children.is_empty() {
        page.render_subcommands_section(&mut text)?;
    }
    if parent.is_none() {
        text.extend_from_slice(end().as_bytes());
    }
    text.extend_from_slice(see_also(name, parent, &children).as_bytes());
    pages.push((format!("{name}.1"), without_idle_breaks(&String::from_utf8(text)?)));
    for child in children {
        add(child, &format!("{name}-{}", child.get_name()), Some(name), date, pages)?;
    }
    Ok(())
}

/// Removes line ends of clap_mangen before blank lines.
fn without_idle_breaks(text: &str) -> Vec<u8> {
    let lines: Vec<_> = text.lines().collect();
    let near = |index: usize| lines.get(index).is_some_and(|line| line.is_empty());
    let mut kept = String::new();
    for (index, line) in lines.iter().enumerate() {
        let is_idle = near(index + 1) || index > 0 && near(index - 1);
        if *line != ".br" || !is_idle {
            kept += line;
            kept.push('\n');
        }
    }
    kept.into_bytes()
}

fn see_also(name: &str, parent: Option<&str>, children: &[&Command]) -> String {
    let parents = parent.map(|parent| (parent.to_owned(), 1)).into_iter();
    let children = children.iter().map(|child| (format!("{name}-{}", child.get_name()), 1));
    let pages = parents.chain(children).chain([("palang.toml".to_owned(), 5)]);
    let lines: Vec<_> = pages
        .map(|(page, section)| format!(".BR {} ({section})", page.replace('-', "\\-")))
        .collect();
    format!(".SH \"SEE ALSO\"\n{}\n", lines.join(",\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_has_a_page_that_leads_to_its_parent() {
        let pages = pages("2026-11-24").unwrap();
        let text = |name: &str| {
            let page = pages.iter().find(|(page, _)| page == name);
            String::from_utf8(page.unwrap().1.clone()).unwrap()
        };
        assert!(text("palang.1").contains("\n.TP\n.I /etc/palang/palang.toml\nconfiguration"));
        let add = text("palang-block-add.1");
        assert!(add.contains(".BR palang\\-block (1)") && add.contains("prank"), "{add}");
        assert!(pages.iter().all(|(name, _)| !name.contains("help")));
    }
}
