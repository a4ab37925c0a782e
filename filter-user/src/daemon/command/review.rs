//! Closes reviews, and extends or ends the blocks that they are about.

use std::sync::Arc;

use crate::api::wire::{self, Change, Changed, Persisted, Problem, ProblemKind};
use crate::change_plan::allow::describe;
use crate::change_plan::checks::{check_text, end};
use crate::daemon::convert::block_of;
use crate::daemon::convert::review_of;
use crate::daemon::role::Principal;
use crate::daemon::state::{Control, problem};
use crate::model::policy::Subject;
use crate::model::refuse::Refuse;
use crate::store::{Closed, Decision, Entry, Kind, Review};
use crate::sys::clock;

/// Returns an open review.
///
/// # Errors
/// [`ProblemKind::NotFound`] if it does not exist; [`ProblemKind::Refused`] if it is closed.
fn still_open(id: u64, found: Option<Review>) -> Result<Review, Problem> {
    match found {
        None => problem(ProblemKind::NotFound, format!("there is no review {id}")),
        Some(Review { closed: Some(before), .. }) => problem(
            ProblemKind::Refused,
            format!("{} closed review {id} at {}: {}", before.by, before.time, before.note),
        ),
        Some(review) => Ok(review),
    }
}

/// Returns the review that was closed after a change of its block.
pub(crate) fn settled(
    done: &str,
    closed: Result<wire::ReviewClosed, Problem>,
) -> Result<wire::Review, Problem> {
    closed.map(|closed| closed.review).map_err(|problem| Problem {
        message: format!("{done}, but the review is still open: {}", problem.message),
        ..problem
    })
}

impl Control {
    /// Closes a review.
    ///
    /// # Errors
    /// [`ProblemKind::NotFound`] if it does not exist; [`ProblemKind::Refused`] if it is closed;
    /// [`ProblemKind::Usage`] without a note; [`ProblemKind::Store`] if the store takes no writes.
    pub async fn close_review(
        &self,
        who: &Principal,
        id: u64,
        close: wire::CloseReview,
    ) -> Result<wire::ReviewClosed, Problem> {
        if close.note.trim().is_empty() {
            return problem(ProblemKind::Usage, "no note: say in a note what the result was");
        }
        check_text("note", &close.note)?;
        let closed = Closed { time: clock::now(), by: who.name.clone(), note: close.note };
        let before = if close.dry_run {
            self.store_handle.read(move |reader| reader.review(id)).await?
        } else {
            let entry = Entry::new(closed.time, &who.name, "review close")
                .with("note", closed.note.as_str());
            let closed = closed.clone();
            self.store_handle
                .write_through(move |store| Ok(store.close_review(id, &closed, entry)?))
                .await?
        };
        let review = still_open(id, before)?;
        Ok(wire::ReviewClosed {
            in_force: self.check(review.number)?,
            review: review_of(Some(id), Review { closed: Some(closed), ..review }),
            dry_run: close.dry_run,
        })
    }

    /// Extends the block that a review is about, and closes the review.
    ///
    /// # Errors
    /// Those of [`Control::close_review`] and [`Control::add_block`]; [`ProblemKind::NotFound`] if
    /// the number has no block; [`ProblemKind::Usage`] if its block ends later.
    pub async fn extend_review(
        self: &Arc<Self>,
        who: &Principal,
        id: u64,
        extend: wire::ExtendReview,
    ) -> Result<wire::ReviewSettled, Problem> {
        check_text("note", &extend.note)?;
        let found = self.store_handle.read(move |reader| reader.review(id)).await?;
        let subject = Subject::Number(still_open(id, found)?.number);
        let now = clock::now();
        let expires = end(now, Some(extend.seconds), None, false)?;
        self.within_role(who, subject, now, expires)?;
        let author = who.name.clone();
        // Decides about the block at its turn: it may have ended, or be another one by then.
        let longer = move |before: Option<&Decision>| {
            let Some(before) = before else {
                let message = format!("{subject} has no block of its own: see `palang block add`");
                return problem(ProblemKind::NotFound, message);
            };
            if before.expires.is_none() || before.expires >= expires {
                let message = format!("the block is not extended: there is {}", describe(before));
                return problem(ProblemKind::Usage, message);
            }
            let (author, origin) = (author.clone(), "operator".into());
            let flags = Refuse::without_redirect(before.flags);
            let decision =
                Decision { created: now, expires, author, origin, flags, ..before.clone() };
            Ok((decision, Change::Updated))
        };
        let before = self.find(Kind::Block, subject).await?;
        let (decision, change) = longer(before.as_ref())?;
        self.refuse_protected(subject).await?;
        let (order, decision, before, change) = if extend.dry_run {
            (0, decision, before, change)
        } else {
            self.put_block(who, subject, false, longer).await?
        };
        let note = match (extend.note.trim(), expires) {
            ("", Some(expires)) => format!("block extended until {expires}"),
            _ => extend.note,
        };
        let close = wire::CloseReview { note, dry_run: extend.dry_run };
        let closed = self.close_review(who, id, close).await;
        Ok(wire::ReviewSettled {
            review: settled("the block was extended", closed)?,
            block: Changed {
                change,
                now: block_of(&decision),
                before: before.as_ref().map(block_of),
                persisted: Persisted::Yes,
                dry_run: extend.dry_run,
                order,
                in_force: self.in_force(subject)?,
                notes: Vec::new(),
            },
        })
    }

    /// Ends the block that a review is about, and closes the review.
    ///
    /// # Errors
    /// Those of [`Control::close_review`]; [`ProblemKind::NotFound`] if the number has no block.
    pub async fn free_review(
        self: &Arc<Self>,
        who: &Principal,
        id: u64,
        free: wire::CloseReview,
    ) -> Result<wire::ReviewSettled, Problem> {
        if free.note.trim().is_empty() {
            return problem(ProblemKind::Usage, "no note: say in a note why");
        }
        check_text("note", &free.note)?;
        let found = self.store_handle.read(move |reader| reader.review(id)).await?;
        let subject = Subject::Number(still_open(id, found)?.number);
        let block = match self.unblock(who, subject, free.dry_run).await {
            Err(Problem { kind: ProblemKind::NotFound, .. }) => {
                let message = format!(
                    "{subject} has no block of its own: `palang review close` ends the review, and \
                     `palang explain` shows whether a prefix blocks it"
                );
                return problem(ProblemKind::NotFound, message);
            }
            done => done?,
        };
        let closed = self.close_review(who, id, free).await;
        Ok(wire::ReviewSettled { review: settled("the block has ended", closed)?, block })
    }
}
