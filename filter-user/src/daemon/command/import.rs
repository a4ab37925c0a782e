//! Imports blocks: all or nothing, from one row to a million.

use std::collections::HashSet;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::mpsc::Sender;

use crate::api::wire::{BadRow, ImportNews, ImportRow, Problem, ProblemKind};
use crate::daemon::block_change::{PREFIXES_MAX, redial_of, refuse_flags};
use crate::daemon::decision::entry;
use crate::daemon::order::Key;
use crate::daemon::role::Principal;
use crate::daemon::state::{Control, problem};
use crate::model::free_text;
use crate::model::number_text;
use crate::model::policy::Subject;
use crate::store::{Decision, Kind, Store};
use crate::sys::clock;

/// Number of map entries between two lines of progress.
const STEP: u64 = 10_000;

/// Limit for the messages about bad rows, in bytes: they come in one line for a person.
const BAD_MAX: usize = 1 << 20;

/// Limit for the texts of all rows, in bytes: they are in memory until all are stored. A million
/// rows may have 268 bytes each.
const TEXTS_MAX: usize = 256 << 20;

/// Rows of an import, checked one by one as they come in.
pub struct Import {
    control: Arc<Control>,
    who: Principal,
    seen: HashSet<Subject>,
    good: Vec<Decision>,
    bad: Vec<BadRow>,
    bad_bytes: usize,
    /// Bytes of the texts in the good rows.
    text_bytes: usize,
    /// Why later rows are not read.
    given_up: Option<Problem>,
    /// Number of bad rows about a protected or allowed number.
    refused: usize,
    /// Number of good rows without an end.
    permanent: u64,
    /// The latest end of a good row.
    last_end: Option<Timestamp>,
    /// Number of good rows with a number of a length that its country does not use.
    impossible: u64,
}

impl Import {
    /// Creates an import without rows.
    #[must_use]
    pub fn new(control: Arc<Control>, who: Principal) -> Import {
        Import {
            control,
            who,
            seen: HashSet::new(),
            good: Vec::new(),
            bad: Vec::new(),
            bad_bytes: 0,
            text_bytes: 0,
            given_up: None,
            refused: 0,
            permanent: 0,
            last_end: None,
            impossible: 0,
        }
    }

    /// Reads a line of newline-delimited JSON. A line that is not a valid row is noted as bad.
    ///
    /// # Errors
    /// [`ProblemKind::Failed`] if a system call fails.
    pub fn line(&mut self, number: u64, line: &[u8]) -> Result<(), Problem> {
        if self.given_up.is_some() {
            return Ok(());
        }
        match serde_json::from_slice::<ImportRow>(line) {
            Ok(row) => self.row(row),
            Err(error) => {
                self.bad(number, error.to_string());
                Ok(())
            }
        }
    }

    fn bad(&mut self, line: u64, message: String) {
        self.bad_bytes += message.len();
        self.bad.push(BadRow { line, message });
        if self.bad_bytes > BAD_MAX {
            let rows = self.bad.len();
            let message = format!(
                "{rows} rows are bad, and those after line {line} were not looked at: is this the \
                 right file? Nothing was changed"
            );
            self.given_up = Some(Problem { kind: ProblemKind::Usage, message });
        }
    }

    fn row(&mut self, row: ImportRow) -> Result<(), Problem> {
        let line = row.line;
        match self.decision(row) {
            Ok(decision) => {
                let Decision { reason, author, origin, .. } = &decision;
                self.text_bytes += reason.len() + author.len() + origin.len();
                self.good.push(decision);
                if self.text_bytes > TEXTS_MAX {
                    let message = format!(
                        "the reasons, authors and origins up to line {line} are longer than \
                         {TEXTS_MAX} bytes together; nothing was stored. Import the rows in parts"
                    );
                    self.given_up = Some(Problem { kind: ProblemKind::Usage, message });
                }
                let (rows, room) =
                    (self.good.len() as u64, u64::from(self.control.config().blocks));
                if rows > room + PREFIXES_MAX {
                    let message = format!(
                        "full: more than {rows} rows, and room for {room} blocked numbers; nothing \
                         was stored. Raise [limits] blocks and restart the daemon"
                    );
                    self.given_up = Some(Problem { kind: ProblemKind::Full, message });
                }
                Ok(())
            }
            Err(problem) if problem.kind == ProblemKind::Failed => Err(problem),
            Err(problem) => {
                self.refused += usize::from(problem.kind == ProblemKind::Refused);
                self.bad(line, problem.message);
                Ok(())
            }
        }
    }

    fn decision(&mut self, row: ImportRow) -> Result<Decision, Problem> {
        let wrong = |message: &str| problem(ProblemKind::Usage, message);
        let subject = self.control.subject(&row.number)?;
        let now = clock::now();
        if row.expires.is_some_and(|expires| expires <= now) {
            return wrong("it is over already");
        }
        self.control.within_role(&self.who, subject, now, row.expires)?;
        if row.reason.trim().is_empty() {
            return wrong("it has no reason");
        }
        free_text::text("reason", &row.reason)
            .and_then(|()| free_text::name("author", &row.author))
            .and_then(|()| free_text::name("origin", &row.origin))
            .map_err(|error| Problem { kind: ProblemKind::Usage, message: error.to_string() })?;
        let (redial, mut flags) = redial_of(row.redial, row.no_redial, row.observe)?;
        flags |= refuse_flags(row.refuse.as_deref())?;
        self.control.refuse_protected_now(subject)?;
        if !self.seen.insert(subject) {
            return wrong("this number is in an earlier row");
        }
        match row.expires {
            None => self.permanent += 1,
            Some(expires) => self.last_end = self.last_end.max(Some(expires)),
        }
        if let Subject::Number(number) = subject
            && !number_text::is_possible(number)
        {
            self.impossible += 1;
        }
        let or = |text: String, other: &str| if text.is_empty() { other.to_owned() } else { text };
        Ok(Decision {
            id: uuid::Uuid::now_v7(),
            rule: 0,
            kind: Kind::Block,
            subject,
            created: now,
            expires: row.expires,
            reason: row.reason,
            author: or(row.author, &self.who.name),
            origin: or(row.origin, "import"),
            node: self.control.node().to_owned(),
            flags,
            redial,
            epoch: 0,
            incident: None,
        })
    }

    /// Puts the good rows into force and reports the progress; the last line has the outcome.
    pub async fn finish(self, skip_bad: bool, dry_run: bool, news: Sender<ImportNews>) {
        let Import { control, who, good, bad, seen, given_up, refused, .. } = self;
        let (permanent, last_end, impossible) = (self.permanent, self.last_end, self.impossible);
        if let Some(problem) = given_up {
            let _ = news.send(ImportNews::Refused { problem, bad }).await;
            return;
        }
        if !bad.is_empty() && !skip_bad {
            let message = format!("{} of {} rows are bad; nothing was changed", bad.len(), {
                bad.len() + good.len()
            });
            // If rows cannot be read either, the file must be corrected first.
            let kind = if refused == bad.len() { ProblemKind::Refused } else { ProblemKind::Usage };
            let problem = Problem { kind, message };
            let _ = news.send(ImportNews::Refused { problem, bad }).await;
            return;
        }
        let progress = news.clone();
        let worker = Arc::clone(&control);
        let write = move |store: &mut Store, first: u64| {
            write(&worker, store, good, first, &who.name, dry_run, &progress)
        };
        // A dry run has no subjects for which an unblock would count.
        let subjects = if dry_run { HashSet::new() } else { seen };
        let last = match control.order.queue_bulk(subjects, write).await {
            Ok(Written { added, updated, unchanged, superseded }) => ImportNews::Done {
                added,
                updated,
                unchanged,
                superseded,
                permanent,
                last_end,
                impossible,
                bad,
                dry_run,
            },
            Err(problem) => ImportNews::Refused { problem, bad },
        };
        let _ = news.send(last).await;
    }
}

/// Number of rows for each change.
#[derive(Default)]
struct Written {
    added: u64,
    updated: u64,
    unchanged: u64,
    superseded: u64,
}

/// Writes decisions into the store and then into the maps. Their rules are their places in the
/// order, starting with `first`. Runs on the store's thread.
fn write(
    control: &Control,
    store: &mut Store,
    mut good: Vec<Decision>,
    first: u64,
    author: &str,
    dry_run: bool,
    news: &Sender<ImportNews>,
) -> Result<Written, Problem> {
    let mut written = Written::default();
    let Written { added, updated, unchanged, superseded } = &mut written;
    let mut more = [0, 0];
    let mut failed = None;
    // One element for each remaining row.
    let mut is_new = Vec::new();
    for (place, decision) in (first..).zip(&mut good) {
        decision.rule = place;
    }
    let check = |decision: &Decision| {
        control.order.turn().check(Key::Block(decision.subject), decision.rule)
    };
    // In place: a million decisions are not held twice.
    good.retain_mut(|decision| {
        if !dry_run && check(decision).is_err() {
            *superseded += 1;
            return false;
        }
        match store.reader().find(Kind::Block, decision.subject) {
            Ok(Some(before))
                if before.expires == decision.expires
                    && before.reason == decision.reason
                    && before.flags == decision.flags
                    && before.redial == decision.redial =>
            {
                *unchanged += 1;
                return false;
            }
            Ok(Some(before)) => {
                decision.id = before.id;
                decision.epoch = before.epoch;
                *updated += 1;
                is_new.push(false);
            }
            Ok(None) => {
                *added += 1;
                is_new.push(true);
                more[usize::from(matches!(decision.subject, Subject::Prefix(_)))] += 1;
            }
            Err(error) => failed = Some(error),
        }
        true
    });
    if let Some(error) = failed {
        return Err(error.into());
    }
    let changed = good;
    if let Some(first) =
        changed.iter().find(|decision| matches!(decision.subject, Subject::Number(_)))
    {
        control.make_room(store, first.subject, more[0])?;
    }
    if let Some(first) =
        changed.iter().find(|decision| matches!(decision.subject, Subject::Prefix(_)))
    {
        control.make_room(store, first.subject, more[1])?;
    }
    if dry_run {
        return Ok(written);
    }
    store.put(&changed, |decision, before| {
        let action = if before.is_some() { "block move" } else { "block add" };
        entry(action, author, decision, before).with("import", true)
    })?;
    let total = changed.len() as u64;
    for ((done, decision), is_new) in (1..).zip(&changed).zip(is_new) {
        let turn = control.order.turn();
        if turn.check(Key::Block(decision.subject), decision.rule).is_err() {
            // The later change reaches the store next.
            written.superseded += 1;
            *(if is_new { &mut written.added } else { &mut written.updated }) -= 1;
            continue;
        }
        control.maps.set_block(decision.subject, control.block_entry(decision)).map_err(|error| Problem {
            kind: ProblemKind::Failed,
            message: format!(
                "{error}; {} of {total} blocks are in force, the others are stored and will be within \
                 minutes",
                done - 1
            ),
        })?;
        drop(turn);
        if done % STEP == 0 {
            // The reader may be slow, or gone.
            let _ = news.try_send(ImportNews::Progress { done, total });
        }
    }
    Ok(written)
}
