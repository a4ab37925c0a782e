//! Checks what is in force now: the pinned maps, the daemon, and whether the program on an interface
//! is the one of this binary.

use std::io;
use std::path::Path;

use filter_common::abi::ABI_VERSION;

use crate::api::client;
use crate::api::client::Client;
use crate::api::wire::Status;
use crate::bringup::doctor::check::Check;
use crate::config::Paths;
use crate::datapath::{Error, Maps, Pins, loaded, map_id};

const RESTART: &str = "systemctl restart palang";
/// Name of a map that every layout has.
const EVERY_LAYOUT_HAS: &str = "OVERRIDE";

/// Owner of the program on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    /// Ours, and the one in this binary as far as can be known.
    Ours,
    /// Ours, from another build.
    OtherBuild,
    /// Not ours.
    Others,
}

/// Determines the owner of a program. `tag` is that of the program in this binary, if it could be
/// loaded.
pub(crate) fn whose(program: u32, folder: &Path, tag: Option<u64>) -> Whose {
    let pins = Pins::new(folder);
    let maps: Vec<_> = pins
        .map_folders()
        .iter()
        .filter_map(|folder| map_id(folder, EVERY_LAYOUT_HAS).ok())
        .collect();
    let found = loaded(program).ok().flatten();
    match found {
        Some(found) if !maps.is_empty() => {
            if !maps.iter().any(|map| found.maps.contains(map)) {
                Whose::Others
            } else if tag.is_some_and(|tag| tag != found.tag) {
                Whose::OtherBuild
            } else {
                Whose::Ours
            }
        }
        // The owner is unknown; without any pin the program cannot be ours.
        Some(_) | None if holds_something(folder) => Whose::Ours,
        Some(_) | None => Whose::Others,
    }
}

/// Checks whether the folder of pins has any entry.
fn holds_something(pins: &Path) -> bool {
    std::fs::read_dir(pins).is_ok_and(|mut entries| entries.next().is_some())
}

/// Checks the pinned maps and links.
pub(crate) fn pins(folder: &Path) -> Check {
    let place = folder.display();
    match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Check::warn("pins", format!("{place}: {error}"), "sudo palang doctor");
        }
        Ok(_) | Err(_) => {}
    }
    let pins = Pins::new(folder);
    let holds_maps = |folder: &std::path::PathBuf| holds_something(folder);
    let folders: Vec<_> = pins.map_folders().into_iter().filter(holds_maps).collect();
    if folders.is_empty() {
        let finding = format!("{place} has no maps: no filter is in force");
        return Check::warn("pins", finding, "systemctl start palang");
    }
    let Some(ours) = folders.iter().rfind(|folder| Pins::is_of_this_version(folder)) else {
        let finding = format!(
            "the maps in {place} have a different layout than this palang (v{ABI_VERSION}); the filter \
             still uses them"
        );
        return Check::warn("pins", finding, RESTART);
    };
    let read = Maps::open(ours).and_then(|maps| maps.settings());
    let settings = match read {
        Ok(settings) => settings,
        Err(error @ Error::Permission) => {
            return Check::fail("pins", error.to_string(), "sudo palang doctor");
        }
        Err(error) => {
            let mend = format!("palang detach; rm -r {}; {RESTART}; palang attach", ours.display());
            return Check::fail("pins", error.to_string(), mend);
        }
    };
    if settings.abi_version != ABI_VERSION {
        let finding = format!("the maps in {} have no settings: every call passes", ours.display());
        return Check::fail("pins", finding, RESTART);
    }
    let links = pins.links();
    let maps = ours.file_name().unwrap_or_default().to_string_lossy();
    if links.is_empty() {
        let finding = format!("maps {maps}, but no interface has the filter");
        return Check::warn("pins", finding, "palang attach IFACE");
    }
    Check::ok("pins", format!("maps {maps}, links {}", links.join(", ")))
}

/// Checks that the daemon answers and has the version of this binary.
pub(crate) fn engine(paths: &Paths) -> Check {
    let asked: Result<Status, _> =
        Client::new(&paths.socket()).get(&client::path(&["status"], &[]), client::SHORT);
    let ours = env!("CARGO_PKG_VERSION");
    match asked {
        Ok(status) if status.version == ours => {
            Check::ok("engine", format!("the daemon answers, version {ours}"))
        }
        Ok(status) => {
            let finding = format!("the daemon is version {}, this palang {ours}", status.version);
            Check::warn("engine", finding, RESTART)
        }
        Err(client::Error::Silent(why)) => {
            let mend = "systemctl restart palang; journalctl -u palang -n 20";
            if Pins::new(&paths.pins).links().is_empty() {
                return Check::warn("engine", format!("the daemon does not answer: {why}"), mend);
            }
            let finding =
                format!("the daemon does not answer, but the filter stays in force: {why}");
            Check::fail("engine", finding, mend)
        }
        // A refusal is an answer, too.
        Err(error) => {
            let answer = crate::exit::Failure::from(error).message;
            Check::ok("engine", format!("the daemon answers: {answer}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bringup::doctor::check::State;

    #[test]
    fn missing_filter_is_reported() {
        let folder = std::env::temp_dir().join(format!("palang-none-{}", std::process::id()));
        let none = pins(&folder);
        assert_eq!(none.state, State::Warn);
        assert!(none.finding.contains("no filter is in force"), "{}", none.finding);
        assert_eq!(whose(u32::MAX, &folder, None), Whose::Others);
        let paths = Paths { runtime: folder.clone(), pins: folder, ..Paths::default() };
        let silent = engine(&paths);
        assert_eq!((silent.check, silent.state), ("engine", State::Warn));
    }
}
