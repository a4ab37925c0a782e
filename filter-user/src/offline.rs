//! The way out without a daemon: root's hand on the pinned maps.
//!
//! What lets through and what takes the filter off works when the daemon is dead or hangs. The
//! kernel's maps come first; then a note is left, from which the daemon learns at its next start
//! who it was and why, also when the machine was restarted in between.

use crate::config::limits;
use crate::store::offline_journal::Note;
use crate::sys::lock;
use std::fs;
use std::io::{self};
use std::path::{Path, PathBuf};
use std::time::Duration;

use filter_common::abi::{self, RULE_DIRECT, TOMBSTONE};
use filter_common::plan::Plan;
use filter_common::sip::message::Reader;
use jiff::SignedDuration;

use crate::api::wire;
use crate::api::wire::{Change, Changed, Persisted};
use crate::config::{Config, Paths};
use crate::datapath;
use crate::datapath::{Maps, PassMaps, Pins, Program, loaded, slow_reader};
use crate::exit::{Exit, Failure};
use crate::inspect;
use crate::model::free_text;
use crate::model::number_text;
use crate::model::policy::Subject;
use crate::sys::clock;
use crate::sys::netlink;
use crate::sys::netlink::Link;

/// A line without an end is being written for so long.
pub(crate) const WRITING: Duration = Duration::from_secs(5);
/// After the name of the file: odd notes, and the time at which they were found.
pub(crate) const ASIDE: &str = ".odd-";
/// Configuration of the daemon, when it is not where it usually is.
const CONFIG_VARIABLE: &str = "PALANG_CONFIG";

/// The folders of pinned maps. During an upgrade there may be more than one, or only one of
/// another version, and which one judges is not known: what lets through goes into all.
pub(crate) struct Pinned {
    pub(crate) paths: Paths,
    folders: Vec<PathBuf>,
}

impl Pinned {
    pub(crate) fn find() -> Result<Pinned, Failure> {
        let paths = paths();
        let mut folders = Pins::new(&paths.pins).map_folders();
        // An upgrade that did not get far has folders without maps.
        folders.retain(|folder| fs::read_dir(folder).is_ok_and(|mut pins| pins.next().is_some()));
        if folders.is_empty() {
            let message = format!(
                "no maps are pinned under {}: no filter was loaded since this machine started",
                paths.pins.display()
            );
            return Err(Failure::new(Exit::Failed, message));
        }
        Ok(Pinned { paths, folders })
    }

    /// Does it with the maps in every folder, also when it fails with some.
    fn each(
        &self,
        mut act: impl FnMut(&PassMaps) -> Result<(), datapath::Error>,
    ) -> Result<(), Failure> {
        let mut done = Ok(());
        for folder in &self.folders {
            done = done.and(PassMaps::open(folder).and_then(|maps| act(&maps)));
        }
        done.map_err(Failure::from)
    }

    /// All maps of this version, and their folder.
    fn of_this_version(&self) -> Result<(PathBuf, Maps), Failure> {
        let ours = |folder: &&PathBuf| Pins::is_of_this_version(folder);
        let Some(folder) = self.folders.iter().rfind(ours) else {
            let message = format!(
                "the maps under {} are of another version of Palang, and the filter goes on by them; \
                 override, allow add and detach work. Start the daemon: it takes them over",
                self.paths.pins.display()
            );
            return Err(Failure::new(Exit::Failed, message));
        };
        Ok((folder.clone(), Maps::open(folder)?))
    }
}

/// Where the daemon's configuration says that things are, or where they usually are.
#[must_use]
pub fn paths() -> Paths {
    let path = std::env::var_os(CONFIG_VARIABLE).map_or_else(|| limits::PATH.into(), PathBuf::from);
    paths_of(&path)
}

/// The numbering plan of the profile `default`, where the maps do not tell it.
fn configured_plan() -> Result<Plan, Failure> {
    let path = std::env::var_os(CONFIG_VARIABLE).map_or_else(|| limits::PATH.into(), PathBuf::from);
    let config = Config::read(&path).map_err(|error| Failure::new(Exit::Usage, error))?;
    Ok(config.policy.trunks[0].profile.plan)
}

fn paths_of(path: &Path) -> Paths {
    Config::read(path).map(|config| config.paths).unwrap_or_default()
}

/// Switches the override.
///
/// # Errors
/// No pinned maps, no permission, a failing system call.
pub fn set_override(set: &wire::SetOverride) -> Result<wire::Override, Failure> {
    let pinned = Pinned::find()?;
    free_text::text("reason", &set.reason).map_err(usage)?;
    let on = set.seconds > 0;
    let life = i64::try_from(set.seconds).map_or(SignedDuration::MAX, SignedDuration::from_secs);
    if life > wire::OVERRIDE_MAX {
        return Err(Failure::new(Exit::Usage, "an override lasts at most 7 days"));
    }
    let until = on.then(|| clock::now() + life);
    let author = user();
    let mut persisted = Persisted::Yes;
    if !set.dry_run {
        let deadline = if on { clock::boot() + set.seconds * 1_000_000_000 } else { TOMBSTONE };
        pinned.each(|maps| maps.set_override(deadline))?;
        let note = Note {
            incident: None,
            time: clock::now(),
            number: None,
            interface: None,
            until,
            reason: set.reason.clone(),
            author: author.clone(),
        };
        persisted = note.leave(&pinned.paths);
    }
    Ok(wire::Override {
        until,
        reason: on.then(|| set.reason.clone()),
        author: on.then_some(author),
        persisted,
        dry_run: set.dry_run,
        order: 0,
    })
}

/// The override in force.
///
/// # Errors
/// No pinned maps, no permission, a failing system call.
pub fn get_override() -> Result<wire::Override, Failure> {
    let pinned = Pinned::find()?;
    let mut until = 0;
    pinned.each(|maps| {
        until = maps.override_until()?.max(until);
        Ok(())
    })?;
    Ok(inspect::override_in_force(until))
}

/// Allows a number or prefix.
///
/// # Errors
/// A text that is no number, no pinned maps, no permission, a full map.
pub fn add_allow(add: &wire::AddAllow) -> Result<Changed<wire::Allow>, Failure> {
    // What the daemon could not adopt is not noted.
    free_text::text("comment", &add.comment).map_err(usage)?;
    let incident = add.incident.as_deref().map(free_text::incident).transpose().map_err(usage)?;
    let pinned = Pinned::find()?;
    let maps = pinned.of_this_version().ok().map(|(_, maps)| maps);
    let plan = match &maps {
        Some(maps) => maps.profile(0)?.plan,
        None => configured_plan()?,
    };
    let subject = number_text::typed(&add.number, &plan)
        .map_err(|message| Failure::new(Exit::Usage, message))?;
    let now = clock::now();
    let expires = match (add.seconds, add.expires) {
        (Some(seconds), None) => {
            let life =
                i64::try_from(seconds).map_or(SignedDuration::MAX, SignedDuration::from_secs);
            Some(now.checked_add(life).map_err(|error| Failure::new(Exit::Usage, error))?)
        }
        (None, expires) => expires,
        (Some(_), Some(_)) => {
            return Err(Failure::new(Exit::Usage, "say how long, or until when, not both"));
        }
    };
    if expires.is_some_and(|expires| expires <= now) {
        return Err(Failure::new(Exit::Usage, "that is over already"));
    }
    let mut before = None;
    pinned.each(|maps| {
        before = before.or(maps.allow(subject)?);
        Ok(())
    })?;
    let allow = abi::Allow {
        number: subject.raw(),
        expires: clock::kernel_expiry(now, expires, now),
        rule: RULE_DIRECT,
    };
    // An incident comes and goes: it takes nothing away that lasts longer.
    let stays = incident.as_ref().and(before).filter(|before| {
        before.expires == 0 || allow.expires != 0 && before.expires >= allow.expires
    });
    let mut persisted = Persisted::Yes;
    if !add.dry_run && stays.is_none() {
        pinned.each(|maps| maps.set_allow(subject, allow))?;
        let note = Note {
            time: now,
            interface: None,
            number: Some(match subject {
                Subject::Number(number) if number.is_local() => number.to_string(),
                // Read again under any plan.
                Subject::Number(_) | Subject::Prefix(_) => format!("+{subject}"),
            }),
            until: expires,
            reason: add.comment.clone(),
            author: user(),
            incident: incident.clone(),
        };
        persisted = note.leave(&pinned.paths);
    }
    let told = |expires, rule| wire::Allow {
        id: uuid::Uuid::nil(),
        rule,
        number: subject.to_string(),
        created: now,
        expires,
        comment: add.comment.clone(),
        author: user(),
        origin: "direct".into(),
        node: String::new(),
        incident: incident.clone().filter(|_| stays.is_none()),
    };
    let end = |allow: abi::Allow| (allow.expires != 0).then(|| clock::wall(allow.expires));
    Ok(Changed {
        change: match (stays, before) {
            (Some(_), _) => Change::Unchanged,
            (None, Some(_)) => Change::Updated,
            (None, None) => Change::Added,
        },
        now: match stays {
            Some(before) => told(end(before), before.rule),
            None => told(expires, RULE_DIRECT),
        },
        before: before.map(|before| told(end(before), before.rule)),
        persisted,
        dry_run: add.dry_run,
        order: 0,
        in_force: match (subject, maps) {
            (Subject::Number(number), Some(maps)) => Some(inspect::check(&maps, number)?),
            (Subject::Number(_), None) | (Subject::Prefix(_), _) => None,
        },
        notes: Vec::new(),
    })
}

/// Takes the filter off an interface, or off all.
///
/// # Errors
/// It is not on that interface; no permission.
pub fn detach(interface: Option<&str>, dry_run: bool) -> Result<Vec<wire::Interface>, Failure> {
    let paths = paths();
    let pins = Pins::new(&paths.pins);
    let there = pins.links();
    let names = match interface {
        None => pins.interfaces(),
        Some(name) if there.iter().any(|other| other == name) => vec![name.to_owned()],
        Some(name) => {
            let message = format!(
                "the filter is not on {name}: no link is pinned at {}",
                pins.link(name).display()
            );
            return Err(Failure::new(Exit::NotFound, message));
        }
    };
    // The way out does not depend on the answer.
    let links = netlink(netlink::links()).unwrap_or_default();
    for name in names.iter().filter(|_| !dry_run) {
        let before = links.iter().find(|link| link.name == *name).and_then(|link| link.xdp);
        pins.detach(name)?;
        if let Some(before) = before {
            let _ = netlink(netlink::links_without(before.program, name));
        }
        let interface = Some(name.clone());
        // In force all the same where it cannot be left.
        let time = clock::now();
        let note = Note {
            incident: None,
            time,
            number: None,
            interface,
            until: None,
            reason: String::new(),
            author: user(),
        };
        note.leave(&paths);
    }
    let links = netlink(netlink::links())?;
    Ok(names.iter().map(|name| inspect::interface(name, &links, None)).collect())
}

/// Takes the filter off all interfaces and removes the maps: nothing of Palang is left in the
/// kernel. Needs no store and no configuration.
///
/// # Errors
/// A daemon that runs; a pin that cannot be removed.
pub fn unpin(dry_run: bool) -> Result<Vec<wire::Interface>, Failure> {
    let paths = paths();
    // It would make them anew.
    let locks = [paths.lock(), paths.pins.clone()];
    let _locks = locks
        .iter()
        .filter(|lock| lock.exists())
        .map(|lock| lock::lock(lock))
        .collect::<Result<Vec<_>, _>>()?;
    let detached = detach(None, dry_run)?;
    if !dry_run {
        Pins::new(&paths.pins).remove()?;
    }
    Ok(detached)
}

/// What can be told without a daemon.
///
/// # Errors
/// No pinned maps, no permission, a failing system call.
pub fn status() -> Result<wire::Status, Failure> {
    let pinned = Pinned::find()?;
    let links = netlink(netlink::links())?;
    let names = Pins::new(&pinned.paths.pins).links();
    let interfaces: Vec<_> =
        names.iter().map(|name| inspect::interface(name, &links, None)).collect();
    let slow = interfaces.iter().filter_map(|interface| interface.program).any(is_slow);
    let (folder, maps) = pinned.of_this_version()?;
    let mut status = inspect::of_maps(&maps, Maps::capacity(&folder)?, interfaces, None)?;
    if slow {
        status.find_slow_reader(&slow_reader(&[]));
    }
    status.find(
        wire::Colour::Red,
        "the daemon does not answer: the filter goes on as it was (systemctl status palang)",
    );
    Ok(status)
}

fn usage(message: String) -> Failure {
    Failure::new(Exit::Usage, message)
}

/// Whether this is our program with the slim reader.
fn is_slow(program: u32) -> bool {
    let found = loaded(program).ok().flatten();
    let ours = found.and_then(|found| Program::of_kernel_name(&found.name));
    ours.is_some_and(|program| program.reader == Reader::Slim)
}

fn netlink(ask: impl Future<Output = io::Result<Vec<Link>>>) -> Result<Vec<Link>, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Failed, error))?;
    runtime
        .block_on(ask)
        .map_err(|error| Failure::new(Exit::Failed, format!("cannot ask for interfaces: {error}")))
}

/// Who is at the keyboard: with sudo the user behind root.
fn user() -> String {
    let is_name = |name: &String| !name.is_empty() && free_text::name("", name).is_ok();
    let sudo = std::env::var("SUDO_USER").ok().filter(is_name);
    sudo.or_else(|| {
        let user = nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten();
        user.map(|user| user.name)
    })
    .unwrap_or_else(|| "root".into())
}
