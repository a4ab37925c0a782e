//! The way out without a daemon: root's hand on the pinned maps.
//!
//! What lets through and what takes the filter off works when the daemon is dead or hangs. The
//! kernel's maps come first; then a note is left, from which the daemon learns at its next start
//! who it was and why, also when the machine was restarted in between.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use filter_common::abi::{self, LIFTED, RULE_DIRECT};
use filter_common::plan::Plan;
use filter_common::sip::message::Reader;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::config::{self, Config, Paths};
use crate::daemon;
use crate::datapath::{self, Maps, Pins, Program, WayOut, loaded, slow_reader};
use crate::exit::{Exit, Failure};
use crate::free_text;
use crate::netlink::{self, Link};
use crate::number_text;
use crate::policy::Subject;
use crate::status;
use crate::wire::{self, Change, Changed, Persisted};

/// How long an answer waits for the disk.
const PATIENCE: Duration = Duration::from_secs(1);
/// A line without an end is being written for so long.
const WRITING: Duration = Duration::from_secs(5);
/// After the name of the file: odd notes, and the time at which they were found.
const ASIDE: &str = ".odd-";
/// Configuration of the daemon, when it is not where it usually is.
const CONFIG_VARIABLE: &str = "PALANG_CONFIG";

/// What was done on the maps while no daemon answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// When.
    pub time: Timestamp,
    /// The number or prefix that was allowed.
    pub number: Option<String>,
    /// The interface that the filter was taken off; with neither it is about the override.
    pub interface: Option<String>,
    /// Until when; null: without end, or the override was switched off.
    pub until: Option<Timestamp>,
    /// Why.
    pub reason: String,
    /// Who.
    pub author: String,
    /// The live incident that it was made for.
    #[serde(default)]
    pub incident: Option<String>,
}

impl Note {
    /// The file of notes in the daemon's folder.
    #[must_use]
    pub fn file(paths: &Paths) -> PathBuf {
        paths.state.join("direct.jsonl")
    }

    /// What is odd about it, so that it could not be adopted.
    ///
    /// # Errors
    /// In words.
    fn check(&self) -> Result<(), String> {
        free_text::text("reason", &self.reason)?;
        free_text::name("author", &self.author)?;
        free_text::name("number", self.number.as_deref().unwrap_or_default())?;
        free_text::name("interface", self.interface.as_deref().unwrap_or_default())?;
        if self.number.is_some() && self.interface.is_some() {
            return Err("it is about a number and an interface".to_owned());
        }
        match &self.incident {
            Some(incident) if free_text::incident(incident)? != *incident => {
                Err("incident: white space at its ends".to_owned())
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Whether it is about the override.
    #[must_use]
    pub fn is_override(&self) -> bool {
        self.number.is_none() && self.interface.is_none()
    }

    fn append(&self, file: &Path) -> io::Result<()> {
        let mut file = OpenOptions::new().append(true).create(true).open(file)?;
        let line = serde_json::to_string(self)? + "\n";
        file.write_all(line.as_bytes())?;
        file.sync_all()
    }

    /// Leaves it for the daemon, after the maps have what it tells.
    fn leave(self, paths: &Paths) -> Persisted {
        let file = Note::file(paths);
        let path = file.clone();
        let (answer, wait) = channel();
        // A disk may never answer.
        thread::spawn(move || answer.send(self.append(&path)));
        match wait.recv_timeout(PATIENCE) {
            Ok(Ok(())) => Persisted::Yes,
            Ok(Err(error)) => Persisted::No(format!("{}: {error}", file.display())),
            Err(_) => Persisted::Pending,
        }
    }
}

/// The notes that were left, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// Those that can be adopted.
    pub list: Vec<Note>,
    /// What is wrong with the others, by the number of the line. What they are about is in the maps
    /// all the same.
    pub odd: Vec<(usize, String)>,
    file: PathBuf,
    length: usize,
}

impl Notes {
    /// Reads them. A line that is being written is left for the next time.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn read(paths: &Paths) -> io::Result<Notes> {
        let file = Note::file(paths);
        let mut notes = Notes { file, ..Notes::default() };
        let bytes = match fs::read(&notes.file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(notes),
            read => read?,
        };
        let written = notes.file.metadata()?.modified()?;
        if !bytes.ends_with(b"\n") && written.elapsed().is_ok_and(|ago| ago < WRITING) {
            return Ok(notes);
        }
        notes.length = bytes.len();
        for (number, line) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
            let read = |line| {
                let note: Note = serde_json::from_slice(line).map_err(|error| error.to_string())?;
                note.check().map(|()| note)
            };
            match read(line) {
                _ if line.is_empty() => {}
                Ok(note) => notes.list.push(note),
                Err(why) => notes.odd.push((number, why)),
            }
        }
        Ok(notes)
    }

    /// Removes them, unless there are more by now. Where some are odd the file is put aside for
    /// somebody to look at.
    pub fn remove(&self) {
        let is_all = |length| length == self.length as u64;
        if self.length == 0 || !self.file.metadata().is_ok_and(|file| is_all(file.len())) {
            return;
        }
        if self.odd.is_empty() {
            let _ = fs::remove_file(&self.file);
            return;
        }
        let now = clock::now().strftime("%Y%m%dT%H%M%S%.3fZ");
        let mut aside = self.file.clone().into_os_string();
        aside.push(format!("{ASIDE}{now}"));
        let _ = fs::rename(&self.file, aside);
    }

    /// A file with odd notes that nobody has looked at yet.
    #[must_use]
    pub fn put_aside(paths: &Paths) -> Option<PathBuf> {
        let file = Note::file(paths);
        let begin = format!("{}{ASIDE}", file.file_name()?.to_string_lossy());
        let entries = fs::read_dir(&paths.state).ok()?;
        entries
            .flatten()
            .find(|entry| entry.file_name().to_string_lossy().starts_with(&begin))
            .map(|entry| entry.path())
    }
}

/// The folders of pinned maps. During an upgrade there may be more than one, or only one of
/// another version, and which one judges is not known: what lets through goes into all.
struct Pinned {
    paths: Paths,
    folders: Vec<PathBuf>,
}

impl Pinned {
    fn find() -> Result<Pinned, Failure> {
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
        mut act: impl FnMut(&WayOut) -> Result<(), datapath::Error>,
    ) -> Result<(), Failure> {
        let mut done = Ok(());
        for folder in &self.folders {
            done = done.and(WayOut::open(folder).and_then(|maps| act(&maps)));
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
    let path = std::env::var_os(CONFIG_VARIABLE).map_or_else(|| config::PATH.into(), PathBuf::from);
    paths_of(&path)
}

/// The numbering plan of the profile `default`, where the maps do not tell it.
fn configured_plan() -> Result<Plan, Failure> {
    let path = std::env::var_os(CONFIG_VARIABLE).map_or_else(|| config::PATH.into(), PathBuf::from);
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
        let deadline = if on { clock::boot() + set.seconds * 1_000_000_000 } else { LIFTED };
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
    Ok(status::override_in_force(until))
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
            (None, Some(_)) => Change::Moved,
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
            (Subject::Number(number), Some(maps)) => Some(status::check(&maps, number)?),
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
    Ok(names.iter().map(|name| status::interface(name, &links, None)).collect())
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
        .map(|lock| daemon::lock(lock))
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
        names.iter().map(|name| status::interface(name, &links, None)).collect();
    let slow = interfaces.iter().filter_map(|interface| interface.program).any(is_slow);
    let (folder, maps) = pinned.of_this_version()?;
    let mut status = status::of_maps(&maps, Maps::capacity(&folder)?, interfaces, None)?;
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::{Decision, Entry, Kind, Store};

    fn paths() -> (tempfile::TempDir, Paths) {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths { state: folder.path().to_owned(), ..Paths::default() };
        (folder, paths)
    }

    fn note() -> Note {
        Note {
            time: Timestamp::from_second(1_800_000_000).unwrap(),
            number: Some("+6281200000001".to_owned()),
            interface: None,
            until: None,
            reason: "in need".to_owned(),
            author: "siti".to_owned(),
            incident: Some("2026-118".to_owned()),
        }
    }

    #[test]
    fn odd_lines_are_named_and_put_aside_and_the_others_are_read() {
        let (_folder, paths) = paths();
        assert_eq!(Notes::read(&paths).unwrap().list, []);
        let file = Note::file(&paths);
        note().append(&file).unwrap();
        let long = "x".repeat(free_text::TEXT_MAX + 1);
        for odd in [
            Note { incident: Some(String::new()), ..note() },
            Note { incident: Some(" 118".to_owned()), ..note() },
            Note { reason: long.clone(), ..note() },
            Note { author: long, ..note() },
            Note { interface: Some("eth0".to_owned()), ..note() },
        ] {
            odd.append(&file).unwrap();
        }
        note().append(&file).unwrap();
        let mut raw = OpenOptions::new().append(true).open(&file).unwrap();
        raw.write_all(b"{\"time\": 3}\n\xff\xfe\n\n").unwrap();
        let notes = Notes::read(&paths).unwrap();
        assert_eq!(notes.list, [note(), note()]);
        let lines: Vec<_> = notes.odd.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [2, 3, 4, 5, 6, 8, 9]);
        assert!(notes.odd[0].1.contains("an incident is named"), "{:?}", notes.odd);
        assert_eq!(Notes::put_aside(&paths), None);
        notes.remove();
        assert!(!file.exists());
        let aside = Notes::put_aside(&paths).unwrap();
        assert_eq!(fs::read(aside).unwrap().len(), notes.length);
    }

    #[test]
    fn a_line_that_is_being_written_waits() {
        let (_folder, paths) = paths();
        let file = Note::file(&paths);
        note().append(&file).unwrap();
        let mut text = OpenOptions::new().append(true).open(&file).unwrap();
        text.write_all(b"{\"time\":").unwrap();
        let notes = Notes::read(&paths).unwrap();
        assert_eq!((notes.list.len(), notes.odd.len()), (0, 0));
        notes.remove();
        assert!(file.exists());
        // Nobody writes it any more.
        let long_ago = std::time::SystemTime::now() - 2 * WRITING;
        text.set_modified(long_ago).unwrap();
        let notes = Notes::read(&paths).unwrap();
        assert_eq!((notes.list.len(), notes.odd.len()), (1, 1));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever is in the file: a note that is read can be stored, and reading never fails.
        #[test]
        fn a_note_that_is_read_can_be_adopted(
            reason in prop_oneof![".{0,20}", ".{300,1200}"],
            author in ".{0,300}",
            incident in prop::option::of(".{0,120}"),
            until in prop::option::of(any::<i32>()),
            cut in 0usize..400,
        ) {
            let (folder, paths) = paths();
            let until = until.map(|at| Timestamp::from_second(at.into()).unwrap());
            let line = serde_json::to_string(&Note { reason, author, incident, until, ..note() });
            let line = line.unwrap();
            let cut: String = line.chars().take(cut).collect();
            fs::write(Note::file(&paths), format!("{cut}\n{line}\n")).unwrap();
            let notes = Notes::read(&paths).unwrap();
            prop_assert_eq!(notes.list.len() + notes.odd.len(), 2 - usize::from(cut.is_empty()));
            let mut store = Store::open(&folder.path().join("palang.db")).unwrap();
            for note in notes.list {
                let decision = Decision {
                    id: uuid::Uuid::now_v7(),
                    rule: store.max_rule().unwrap() + 1,
                    kind: Kind::Allow,
                    subject: Subject::of_prefix_entry(filter_common::number::Number(1)),
                    created: clock::now(),
                    expires: note.until,
                    reason: note.reason,
                    author: note.author,
                    origin: "direct".into(),
                    node: "edge1".into(),
                    flags: 0,
                    redial: None,
                    epoch: 0,
                    incident: note.incident,
                };
                let entry = |decision: &Decision, _: Option<&Decision>| {
                    Entry::new(clock::now(), &decision.author, "allow adopt")
                };
                store.put([&decision], entry).unwrap();
            }
        }
    }
}
