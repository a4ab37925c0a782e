//! Keeps the notes of offline commands, which the daemon adopts later.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::api::wire::Persisted;
use crate::config::Paths;
use crate::model::free_text;
use crate::sys::clock;

/// A line without a line end counts as unfinished for this long.
const WRITING: Duration = Duration::from_secs(5);
/// Separates the name of the file with odd notes from the time at which they were found.
const ASIDE: &str = ".odd-";
/// How long an answer waits for the disk.
const PATIENCE: Duration = Duration::from_secs(1);

/// A change of the maps that was made while no daemon answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// Time of the change.
    pub time: Timestamp,
    /// The number or prefix that was allowed.
    pub number: Option<String>,
    /// The interface that the filter was detached from. A note without number and interface is
    /// about the override.
    pub interface: Option<String>,
    /// The end; null: no end, or the override was switched off.
    pub until: Option<Timestamp>,
    /// The reason.
    pub reason: String,
    /// The user.
    pub author: String,
    /// The live incident that it was made for.
    #[serde(default)]
    pub incident: Option<String>,
}

impl Note {
    /// Returns the file of notes in the daemon's folder.
    #[must_use]
    pub fn file(paths: &Paths) -> PathBuf {
        paths.state.join("direct.jsonl")
    }

    /// Checks that the daemon can adopt the note.
    ///
    /// # Errors
    /// [`NoteError`] if a text is not valid, or the note is about two objects.
    pub(crate) fn check(&self) -> Result<(), NoteError> {
        let number = self.number.as_deref().unwrap_or_default();
        let interface = self.interface.as_deref().unwrap_or_default();
        free_text::text("reason", &self.reason)
            .and_then(|()| free_text::name("author", &self.author))
            .and_then(|()| free_text::name("number", number))
            .and_then(|()| free_text::name("interface", interface))
            .map_err(|error| NoteError::Text(error.to_string()))?;
        if self.number.is_some() && self.interface.is_some() {
            return Err(NoteError::TwoObjects);
        }
        let Some(incident) = &self.incident else { return Ok(()) };
        let trimmed = free_text::incident(incident);
        match trimmed.map_err(|error| NoteError::Text(error.to_string()))? == *incident {
            true => Ok(()),
            false => Err(NoteError::Untrimmed),
        }
    }

    /// Returns whether the note is about the override.
    #[must_use]
    pub fn is_override(&self) -> bool {
        self.number.is_none() && self.interface.is_none()
    }

    pub(crate) fn append(&self, file: &Path) -> io::Result<()> {
        let mut file = OpenOptions::new().append(true).create(true).open(file)?;
        let line = serde_json::to_string(self)? + "\n";
        file.write_all(line.as_bytes())?;
        file.sync_all()
    }

    /// Leaves the note for the daemon, after the change is in the maps.
    pub(crate) fn leave(self, paths: &Paths) -> Persisted {
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

/// Why a note cannot be adopted.
#[derive(Debug, thiserror::Error)]
pub enum NoteError {
    /// The line is not the JSON of a note.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// A text is too long or empty.
    #[error("{0}")]
    Text(String),
    /// The note is about a number and an interface.
    #[error("it is about a number and an interface")]
    TwoObjects,
    /// The name of the incident has white space at its ends.
    #[error("incident: white space at its ends")]
    Untrimmed,
}

/// The notes that were left, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// Those that can be adopted.
    pub list: Vec<Note>,
    /// Problems of the other notes, by line number. Their changes are in the maps in any case.
    pub odd: Vec<(usize, String)>,
    file: PathBuf,
    pub(crate) length: usize,
}

impl Notes {
    /// Reads the notes. An unfinished line is left for the next time.
    ///
    /// # Errors
    /// Returns an error if the file exists and cannot be read.
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
                let note: Note = serde_json::from_slice(line)?;
                note.check().map(|()| note)
            };
            match read(line) {
                _ if line.is_empty() => {}
                Ok(note) => notes.list.push(note),
                Err(error) => notes.odd.push((number, error.to_string())),
            }
        }
        Ok(notes)
    }

    /// Removes the notes that were read. If there are more by now, the file remains. If some are
    /// odd, the file is renamed for a person to look at.
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

    /// Returns a file with odd notes that still exists.
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

#[cfg(test)]
mod tests {
    use crate::config::Paths;
    use crate::model::free_text;
    use crate::model::policy::Subject;
    use jiff::Timestamp;
    use proptest::prelude::*;
    use std::fs;
    use std::fs::OpenOptions;
    use std::io::Write as _;

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
    fn odd_lines_are_named_and_put_aside_and_others_are_read() {
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
        assert!(notes.odd[0].1.contains("the name of an incident"), "{:?}", notes.odd);
        assert_eq!(Notes::put_aside(&paths), None);
        notes.remove();
        assert!(!file.exists());
        let aside = Notes::put_aside(&paths).unwrap();
        assert_eq!(fs::read(aside).unwrap().len(), notes.length);
    }

    #[test]
    fn unfinished_line_waits() {
        let (_folder, paths) = paths();
        let file = Note::file(&paths);
        note().append(&file).unwrap();
        let mut text = OpenOptions::new().append(true).open(&file).unwrap();
        text.write_all(b"{\"time\":").unwrap();
        let notes = Notes::read(&paths).unwrap();
        assert_eq!((notes.list.len(), notes.odd.len()), (0, 0));
        notes.remove();
        assert!(file.exists());
        // The line will not be finished.
        let long_ago = std::time::SystemTime::now() - 2 * WRITING;
        text.set_modified(long_ago).unwrap();
        let notes = Notes::read(&paths).unwrap();
        assert_eq!((notes.list.len(), notes.odd.len()), (1, 1));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Checks for any file that reading never fails, and that a note that is read can be
        /// stored.
        #[test]
        fn note_that_is_read_can_be_adopted(
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
                    rule: store.reader().max_rule().unwrap() + 1,
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
