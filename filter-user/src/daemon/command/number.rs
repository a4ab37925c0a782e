//! Exports and erases all records about one number.

use std::sync::Arc;
use std::time::Duration;

use filter_common::abi::TOMBSTONE;
use filter_common::decide::is_live;
use filter_common::number::Number;

use crate::api::wire::{self, Problem, ProblemKind};
use crate::change_plan::allow::allow_of;
use crate::change_plan::checks::check_text;
use crate::daemon::convert::audit_row_of;
use crate::daemon::convert::block_of;
use crate::daemon::convert::call;
use crate::daemon::convert::evidence_of;
use crate::daemon::convert::report_of;
use crate::daemon::convert::review_of;
use crate::daemon::role::Principal;
use crate::daemon::state::{Control, problem};
use crate::model::policy::Subject;
use crate::store::{Counts, Entry, Kind, NumberRecords, Store};
use crate::sys::clock;

/// Interval of the attempts to empty the store's log while a reader uses it.
const LOG_RETRY: Duration = Duration::from_secs(10);
/// Shorter numbers can occur in a reason by chance.
const DIGITS_KNOWN: usize = 8;

/// The places that neither export nor erasure covers.
const NOT_SEARCHED: &str = "not searched: reasons, comments and notes that contain it, files that were \
     exported, backups, and notifications to consoles";

impl Control {
    /// Exports all records about a number.
    ///
    /// # Errors
    /// [`ProblemKind::Usage`] if the text is not a number; [`ProblemKind::Store`] if the store
    /// cannot be read; [`ProblemKind::Failed`] if a system call fails.
    pub async fn export_number(
        &self,
        who: &Principal,
        text: &str,
    ) -> Result<wire::NumberExport, Problem> {
        let number = self.one_number(text)?;
        let (person, names) = self
            .store_handle
            .read_long(move |reader| Ok((reader.person(number)?, reader.pseudonyms()?)))
            .await?;
        let NumberRecords { block, allow, calls, evidence, reports, reviews, audit } = person;
        let (now, ladder) = (clock::now(), &self.config().ladder);
        Ok(wire::NumberExport {
            number: number.to_string(),
            pseudonym: names.pseudonym(&number.to_string()),
            time: now,
            check: self.check(number)?,
            block: block.as_ref().map(block_of),
            allow: allow.as_ref().map(allow_of),
            kernel: self.remembered(number)?,
            calls: calls.into_iter().map(|(id, row)| call(id, row, who)).collect(),
            evidence: evidence.into_iter().map(|(id, row)| evidence_of(id, &row)).collect(),
            reports: reports
                .into_iter()
                .map(|(id, report)| report_of(Some(id), report, ladder, now))
                .collect(),
            reviews: reviews.into_iter().map(|(id, review)| review_of(Some(id), review)).collect(),
            audit: audit.into_iter().map(audit_row_of).collect(),
            notes: vec![NOT_SEARCHED.to_owned()],
        })
    }

    fn remembered(&self, number: Number) -> Result<wire::Remembered, Problem> {
        let maps = &self.maps;
        Ok(wire::Remembered {
            grant_until: maps.grant(number)?.map(|grant| clock::wall(grant.until)),
            grace_until: maps.grace(number)?.map(|grace| clock::wall(grace.until)),
            redial: maps.redial(number)?.map(|redial| wire::Redials {
                attempts: redial.count,
                first: clock::wall(redial.start),
                last: clock::wall(redial.last),
            }),
        })
    }

    /// Erases a number.
    ///
    /// # Errors
    /// [`ProblemKind::Usage`] if the text is not a number, or the reason is empty or has the number
    /// in it. [`ProblemKind::Refused`] if a block, an allow or a redial grant is in force for it.
    /// [`ProblemKind::NotFound`] if there is no record of it. [`ProblemKind::Store`] if the store
    /// takes no writes. Nothing is erased then.
    pub async fn erase_number(
        self: &Arc<Self>,
        who: &Principal,
        text: &str,
        reason: String,
        dry_run: bool,
    ) -> Result<wire::Erasure, Problem> {
        let number = self.one_number(text)?;
        if reason.trim().is_empty() {
            return problem(
                ProblemKind::Usage,
                "no reason: give one that says who asked for it, without names",
            );
        }
        check_text("reason", &reason)?;
        if names(&reason, number) {
            let message = "the reason has the number in it, and the audit keeps the reason";
            return problem(ProblemKind::Usage, message);
        }
        let pseudonym = self
            .store_handle
            .read(move |reader| Ok(reader.pseudonyms()?.pseudonym(&number.to_string())));
        let pseudonym = pseudonym.await?;
        let (control, author) = (Arc::clone(self), who.name.clone());
        // On the store's thread even in a dry run: a change in force that waits for the disk
        // counts.
        let (counts, is_clear) = self
            .store_handle
            .write_through(move |store| {
                control.may_be_erased(store, number)?;
                let counts = store.reader().counts(number)?;
                if counts.is_nothing() {
                    return nothing(number, &counts);
                }
                if dry_run {
                    return Ok((counts, true));
                }
                let entry =
                    Entry::new(clock::now(), &author, "erase").with("reason", reason.as_str());
                let counts = store.erase(number, entry)?;
                control.busiest.forget(number);
                // The number is erased, even if emptying the log fails.
                Ok((counts, store.clear_log().unwrap_or(false)))
            })
            .await?;
        if !is_clear {
            tokio::spawn(clear_log(Arc::clone(self)));
        }
        Ok(wire::Erasure {
            number: number.to_string(),
            pseudonym,
            calls: counts.calls,
            reports: counts.reports,
            reviews: counts.reviews,
            audit_rows: counts.audit,
            audit_rows_kept: counts.audit_records,
            dry_run,
            notes: notes(&counts, is_clear),
        })
    }

    /// Checks that nothing is in force for a number: each entry has its own purpose and command.
    fn may_be_erased(&self, store: &Store, number: Number) -> Result<(), Problem> {
        let subject = Subject::Number(number);
        let now = clock::boot();
        let live = |expires: u64| expires != TOMBSTONE && is_live(expires, now);
        let in_force = |what: &str| {
            let message = format!(
                "{what} {number} is in force and has its own purpose; nothing was erased: \
                 `palang {what} remove {number}` first"
            );
            problem(ProblemKind::Refused, message)
        };
        if store.reader().find(Kind::Block, subject)?.is_some()
            || self.maps.block(subject)?.is_some_and(|block| live(block.expires))
        {
            return in_force("block");
        }
        if store.reader().find(Kind::Allow, subject)?.is_some()
            || self.maps.pass_maps().allow(subject)?.is_some_and(|allow| live(allow.expires))
        {
            return in_force("allow");
        }
        // The grant would put the number on the review list again.
        if let Some(grant) = self.maps.grant(number)?.filter(|grant| now < grant.until) {
            let message = format!(
                "a redial grant lets {number} through until {}; nothing was erased: ask again then",
                clock::wall(grant.until)
            );
            return problem(ProblemKind::Refused, message);
        }
        Ok(())
    }

    fn one_number(&self, text: &str) -> Result<Number, Problem> {
        match self.subject(text)? {
            Subject::Number(number) => Ok(number),
            Subject::Prefix(_) => problem(
                ProblemKind::Usage,
                "give one number, not a prefix: a prefix is not a person",
            ),
        }
    }
}

/// Empties the store's log, which contains an erased number, as soon as no reader uses it.
async fn clear_log(control: Arc<Control>) {
    loop {
        tokio::time::sleep(LOG_RETRY).await;
        let done = control.store_handle.write_through(|store| Ok(store.clear_log()?)).await;
        if done.is_ok_and(|is_clear| is_clear) {
            return;
        }
    }
}

fn nothing<T>(number: Number, counts: &Counts) -> Result<T, Problem> {
    let kept = match counts.audit_records {
        0 => String::new(),
        rows => format!(", but for {rows} audit rows of an older version, which remain"),
    };
    problem(ProblemKind::NotFound, format!("there is no record of {number}{kept}"))
}

/// Describes where an erased number still occurs.
pub(crate) fn notes(counts: &Counts, is_clear: bool) -> Vec<String> {
    let mut notes = Vec::new();
    if counts.audit_records > 0 {
        notes.push(format!(
            "{} audit rows of an older version have the number in the record, and remain: without \
             them the chain would not hold",
            counts.audit_records
        ));
    }
    if !is_clear {
        notes.push(
            "a reader uses the store: the number leaves the store's log when the reader has ended"
                .to_owned(),
        );
    }
    notes.push(
        "the kernel's maps remember its last attempts and its grace until newer ones need their \
         place, or the machine restarts"
            .to_owned(),
    );
    notes.push(NOT_SEARCHED.to_owned());
    notes
}

/// Returns whether a text has a number in it, in any notation.
pub(crate) fn names(text: &str, number: Number) -> bool {
    let digits = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>();
    let number = digits(&number.to_string());
    // The end is the same with and without a country code.
    let end = number.len().checked_sub(DIGITS_KNOWN).map(|begin| &number[begin..]);
    end.is_some_and(|end| digits(text).contains(end))
}

#[cfg(test)]
mod tests {
    use filter_common::number::Digits;

    use super::*;

    #[test]
    fn number_in_a_reason_is_found() {
        let number = Number::e164(Digits::parse("6281234567890").unwrap());
        for text in ["0812-3456-7890 asked", "letter of +62 812 3456 7890", "6281234567890"] {
            assert!(names(text, number), "{text}");
        }
        for text in ["letter 12 of 2026-11-24", "", "3456"] {
            assert!(!names(text, number), "{text}");
        }
        let short = Number::local(Digits::parse("112").unwrap()).unwrap();
        assert!(!names("case 112", short));
    }

    #[test]
    fn notes_of_an_erasure_name_the_places_that_keep_the_number() {
        assert_eq!(notes(&Counts::default(), true).len(), 2);
        let old = notes(&Counts { audit_records: 3, ..Counts::default() }, false);
        assert_eq!(old.len(), 4);
        assert!(old[0].starts_with("3 audit rows of an older version"), "{old:?}");
        assert!(old[1].contains("store's log"), "{old:?}");
    }
}
