//! Changes the pinned maps as root, without a daemon.
//!
//! Commands that let calls through or detach the filter work while the daemon is dead or hangs.
//! They change the kernel's maps first and then leave a note. At its next start the daemon reads
//! author and reason from the note, even after a restart of the machine.

use std::io;
use std::path::{Path, PathBuf};

use filter_common::abi::{DROPPED_WITHOUT_DAEMON, Profile, RULE_DIRECT, TRUNKS_MAX};
use filter_common::handed_over::may_be_by_daemon;
use filter_common::plan::Plan;
use filter_common::sip::message::Reader;

use crate::api::wire::{self, Change, Changed, Persisted, Problem};
use crate::change_plan::allow::{AllowPlan, Asker, allow_entry, allow_of_map, asked_allow};
use crate::change_plan::override_switch::plan_override;
use crate::config::limits;
use crate::config::{Config, Paths};
use crate::datapath::{self, Heartbeat, Maps, PassMaps, Pins, Program, loaded, slow_reader};
use crate::exit::{Exit, Failure};
use crate::inspect;
use crate::model::number_text;
use crate::model::policy::Subject;
use crate::store::Decision;
use crate::store::offline_journal::Note;
use crate::sys::lock;
use crate::sys::netlink;
use crate::sys::netlink::Link;
use crate::sys::{clock, user};

/// Path of the daemon's configuration, if it is not the usual one.
const CONFIG_VARIABLE: &str = "PALANG_CONFIG";

/// The folders of pinned maps. During an upgrade there may be several, or one of another version,
/// and it is unknown which one judges. So each change that lets calls through goes into all.
pub(crate) struct Pinned {
    pub(crate) paths: Paths,
    folders: Vec<PathBuf>,
}

impl Pinned {
    pub(crate) fn find() -> Result<Pinned, Failure> {
        let paths = paths();
        let folders = Pins::new(&paths.pins).filled_map_folders();
        if folders.is_empty() {
            let message = format!(
                "no maps are pinned under {}: no filter was loaded since this machine started",
                paths.pins.display()
            );
            return Err(Failure::new(Exit::Failed, message));
        }
        Ok(Pinned { paths, folders })
    }

    /// Applies a change to the maps of every folder, and continues after a failure.
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

    /// Opens all maps of this version, and returns their folder.
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

/// Returns the paths of the daemon's configuration, or the usual ones.
#[must_use]
pub fn paths() -> Paths {
    let path = std::env::var_os(CONFIG_VARIABLE).map_or_else(|| limits::PATH.into(), PathBuf::from);
    paths_of(&path)
}

/// Reads the numbering plan of the profile `default`, if the maps do not have it.
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
/// `Usage` if it is too long or has no reason; `Refused` without permission; `Failed` if no maps
/// are pinned or a system call fails.
pub fn set_override(set: &wire::SetOverride) -> Result<wire::Override, Failure> {
    let pinned = Pinned::find()?;
    let now = clock::now();
    let plan = plan_override(set, now, clock::boot()).map_err(usage)?;
    let author = user::name();
    let mut persisted = Persisted::Yes;
    if !set.dry_run {
        pinned.each(|maps| maps.set_override(plan.deadline))?;
        let note = Note {
            incident: None,
            time: now,
            number: None,
            interface: None,
            until: plan.until,
            reason: plan.reason.clone(),
            author: author.clone(),
        };
        persisted = note.leave(&pinned.paths);
    }
    Ok(plan.answer(author, persisted, 0))
}

/// Reads the override in force.
///
/// # Errors
/// `Refused` without permission; `Failed` if no maps are pinned or a system call fails.
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
/// `Usage` if the number or a text is not valid; `Refused` without permission; `Failed` if no maps
/// are pinned or the map is full.
pub fn add_allow(add: &wire::AddAllow) -> Result<Changed<wire::Allow>, Failure> {
    let pinned = Pinned::find()?;
    let maps = pinned.of_this_version().ok().map(|(_, maps)| maps);
    let plan = match &maps {
        Some(maps) => maps.profile(0)?.plan,
        None => configured_plan()?,
    };
    let subject = number_text::typed(&add.number, &plan)
        .map_err(|message| Failure::new(Exit::Usage, message))?;
    let now = clock::now();
    let author = user::name();
    // The checks are those of the daemon, so that it can adopt the note.
    let asker = Asker { author: &author, origin: "direct", node: "" };
    let asked = Decision {
        id: uuid::Uuid::nil(),
        rule: RULE_DIRECT,
        ..asked_allow(add, subject, asker, now).map_err(usage)?
    };
    let mut there = None;
    pinned.each(|maps| {
        there = there.or(maps.allow(subject)?);
        Ok(())
    })?;
    let before = there.map(|there| allow_of_map(subject, &there, now));
    let plan = AllowPlan::new(asked, there, before, false);
    let mut persisted = Persisted::Yes;
    if !add.dry_run && plan.change != Change::Unchanged {
        pinned.each(|maps| maps.set_allow(subject, allow_entry(&plan.decision)))?;
        let note = Note {
            time: now,
            interface: None,
            number: Some(match subject {
                Subject::Number(number) if number.is_local() => number.to_string(),
                // A number with `+` is the same under any plan.
                Subject::Number(_) | Subject::Prefix(_) => format!("+{subject}"),
            }),
            until: plan.decision.expires,
            reason: plan.decision.reason.clone(),
            author,
            incident: plan.decision.incident.clone(),
        };
        persisted = note.leave(&pinned.paths);
    }
    let in_force = match (subject, &maps) {
        (Subject::Number(number), Some(maps)) => Some(inspect::check(maps, number)?),
        (Subject::Number(_), None) | (Subject::Prefix(_), _) => None,
    };
    let block = maps.as_ref().map(|maps| maps.block(subject)).transpose()?.flatten();
    let notes = plan.notes(block.as_ref(), clock::boot());
    Ok(plan.answer(add.dry_run, persisted, 0, in_force, notes))
}

/// Detaches the filter from an interface, or from all.
///
/// # Errors
/// `NotFound` if the filter is not on that interface; `Refused` without permission.
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
    // Detaching does not depend on the answer.
    let links = netlink(netlink::links()).unwrap_or_default();
    for name in names.iter().filter(|_| !dry_run) {
        let before = links.iter().find(|link| link.name == *name).and_then(|link| link.xdp);
        pins.detach(name)?;
        if let Some(before) = before {
            let _ = netlink(netlink::links_without(before.program, name));
        }
        let interface = Some(name.clone());
        // The change is in force even if no note can be left.
        let time = clock::now();
        let note = Note {
            incident: None,
            time,
            number: None,
            interface,
            until: None,
            reason: String::new(),
            author: user::name(),
        };
        note.leave(&paths);
    }
    let links = netlink(netlink::links())?;
    Ok(names.iter().map(|name| inspect::interface(name, &links, None)).collect())
}

/// Detaches the filter from all interfaces and removes the maps: nothing of Palang is left in the
/// kernel. Needs no store and no configuration.
///
/// # Errors
/// `Failed` if a daemon runs or a pin cannot be removed.
pub fn unpin(dry_run: bool) -> Result<Vec<wire::Interface>, Failure> {
    let paths = paths();
    // A running daemon would create them again.
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

/// Computes the part of the status that needs no daemon.
///
/// # Errors
/// `Refused` without permission; `Failed` if no maps are pinned or a system call fails.
pub fn status() -> Result<wire::Status, Failure> {
    let pinned = Pinned::find()?;
    let links = netlink(netlink::links())?;
    let pins = Pins::new(&pinned.paths.pins);
    let names = pins.links();
    let interfaces: Vec<_> =
        names.iter().map(|name| inspect::interface(name, &links, None)).collect();
    let slow = interfaces.iter().filter_map(|interface| interface.program).any(is_slow);
    let (folder, maps) = pinned.of_this_version()?;
    let mut status =
        inspect::of_maps(&maps, Maps::capacity(&folder)?, interfaces, None, &maps.counts()?)?;
    if slow {
        status.find_slow_reader(&slow_reader(&[]));
    }
    if !names.is_empty() && !pins.has_second_look() {
        status.find_no_second_look("the second look is not attached");
    }
    for finding in unanswered(&maps, &folder)? {
        status.find(wire::Health::Red, finding);
    }
    status.find(
        wire::Health::Red,
        "the daemon does not answer: the filter goes on as it was (systemctl status palang)",
    );
    Ok(status)
}

/// Returns what happens to blocked calls that the daemon would have to answer, while it sends no reply.
fn unanswered(maps: &Maps, folder: &Path) -> Result<Vec<&'static str>, datapath::Error> {
    if Heartbeat::open(folder)?.get()? > clock::boot() {
        return Ok(Vec::new());
    }
    let profiles = (0..TRUNKS_MAX).map(|trunk| maps.profile(trunk));
    let profiles: Vec<_> = profiles.collect::<Result<_, _>>()?;
    let is_any = |drops: bool| {
        let is_so = |profile: &Profile| (profile.without_daemon == DROPPED_WITHOUT_DAEMON) == drops;
        profiles.iter().any(|profile| may_be_by_daemon(profile) && is_so(profile))
    };
    let fates = [
        (
            false,
            "blocked calls that the daemon has to answer pass (without_daemon = \"pass\", docs/carriers.md)",
        ),
        (
            true,
            "blocked calls that the daemon has to answer end in silence (without_daemon = \"drop\", docs/carriers.md)",
        ),
    ];
    Ok(fates.into_iter().filter(|(drops, _)| is_any(*drops)).map(|(_, text)| text).collect())
}

/// Returns the failure of a request that the plan refuses.
fn usage(problem: Problem) -> Failure {
    Failure::new(Exit::Usage, problem.message)
}

/// Returns whether this is our program with the slim reader.
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
