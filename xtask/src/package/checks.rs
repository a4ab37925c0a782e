//! Checks that a package must pass before somebody installs it.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use super::source::{Made, Source, files};
use crate::shell;

/// The C library of RHEL 9; Debian 12 has 2.36.
const GLIBC: (u32, u32) = (2, 34);

/// Checks the binary, the man pages, the completions and both packages.
pub fn check(source: &Source, made: &Made) -> Result<()> {
    let symbols = shell::read(Command::new("objdump").arg("-T").arg(&made.binary))?;
    let newer = newer_symbols(&symbols);
    if !newer.is_empty() {
        let (major, minor) = GLIBC;
        bail!("the binary needs a glibc newer than {major}.{minor}:\n{}", newer.join("\n"));
    }
    no_trace(source, &made.binary)?;
    let tree = source.folder().join("tree");
    pages(&tree)?;
    completions(&tree)?;
    if on_path("lintian") {
        let mut lintian = Command::new("lintian");
        lintian.args(["--fail-on", "error,warning", "--tag-display-limit", "0", "--allow-root"]);
        shell::run(lintian.arg(&made.deb))?;
    }
    if on_path("rpm") {
        // Not that of this machine, which may not be there.
        shell::read(
            Command::new("rpm").args(["--query", "--package", "--scripts"]).arg(&made.rpm),
        )?;
        shell::read(Command::new("rpm").args(["--checksig", "--nosignature"]).arg(&made.rpm))?;
    }
    Ok(())
}

/// Symbols that the C library of RHEL 9 does not have.
fn newer_symbols(table: &str) -> Vec<&str> {
    let is_newer = |line: &&str| {
        let Some((_, version)) = line.split_once("GLIBC_") else { return false };
        let version = version.split(|c: char| !c.is_ascii_digit() && c != '.').next();
        let mut parts =
            version.unwrap_or_default().split('.').map(|part| part.parse().unwrap_or(0));
        let version: (u32, u32) = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        version > GLIBC
    };
    table.lines().filter(is_newer).collect()
}

/// Fails where the binary, which has the kernel program in it, names a folder of this machine.
fn no_trace(source: &Source, binary: &Path) -> Result<()> {
    let bytes = fs::read(binary)?;
    let home = std::env::home_dir().unwrap_or_default().join(".");
    for folder in [&source.root, shell::root(), &home] {
        let name = folder.as_os_str().as_encoded_bytes();
        let name = name.strip_suffix(b".").unwrap_or(name);
        let found = bytes.windows(name.len()).position(|window| window == name);
        if let Some(at) = found {
            let around = String::from_utf8_lossy(&bytes[at..bytes.len().min(at + 200)]);
            bail!("{} names a folder of this machine: {around}", binary.display());
        }
    }
    Ok(())
}

fn pages(tree: &Path) -> Result<()> {
    let man = tree.join("usr/share/man");
    let pages = [files(&man.join("man1"))?, files(&man.join("man5"))?].concat();
    ensure!(pages.len() > 30, "only {} man pages", pages.len());
    // mandoc takes the bytes of a packed page for its text.
    const LINT: &str = r#"set -e; for page; do gzip -dc "$page" > "$0/$(basename "$page" .gz)"; done
        mandoc -T lint -W warning "$0"/*"#;
    let folder = tree.with_file_name("pages");
    fs::create_dir_all(&folder)?;
    shell::run_as(
        &format!("mandoc -T lint -W warning …  # {} pages", pages.len()),
        Command::new("sh").args(["-c", LINT]).arg(&folder).args(&pages),
    )
}

/// Lets each shell load its completions, where it is there.
fn completions(tree: &Path) -> Result<()> {
    for (shell, script, path) in [
        (
            "bash",
            "source \"$1\" && complete -p palang",
            "usr/share/bash-completion/completions/palang",
        ),
        (
            "zsh",
            "autoload -U compinit && compinit -D -u && source \"$1\" && (( $+functions[_palang] ))",
            "usr/share/zsh/_palang",
        ),
        (
            "fish",
            "source $argv[2]; and complete -C 'palang overr' | string match -q 'override*'",
            "usr/share/fish/vendor_completions.d/palang.fish",
        ),
    ] {
        if on_path(shell) {
            let file = tree.join(path);
            shell::run(Command::new(shell).args(["-c", script, shell]).arg(file))
                .with_context(|| format!("the completions do not load in {shell}"))?;
        }
    }
    Ok(())
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_newer_than_red_hat_has() {
        let table = "\
0000000000000000      DF *UND*\t0000000000000000 (GLIBC_2.34) pthread_create
0000000000000000      DF *UND*\t0000000000000000 (GLIBC_2.2.5) read
0000000000000000  w   DF *UND*\t0000000000000000 (GLIBC_2.38) __isoc23_strtol
0000000000000000  w   DF *UND*\t0000000000000000  Base        gettid";
        let newer = newer_symbols(table);
        assert_eq!(newer.len(), 1, "{newer:?}");
        assert!(newer[0].ends_with("__isoc23_strtol"));
    }
}
