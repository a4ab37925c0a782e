//! Holds what the handlers of the API share, and computes the status.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use tokio::sync::broadcast;

use crate::api::wire::{self, Health, Problem, ProblemKind};
use crate::config::Config;
use crate::daemon::accounts::Accounts;
use crate::daemon::attachments::Attachments;
use crate::daemon::evidence::Evidence;
use crate::daemon::reply_sender::ReplySender;
use crate::daemon::state::Control;
use crate::daemon::task::asserted::Asserted;
use crate::daemon::task::grant_watch::Reviews;
use crate::daemon::task::machine_redials::{self, MachineRedials};
use crate::daemon::task::unread::Unread;
use crate::datapath::ReplyCounters;
use crate::inspect;
use crate::model::plan::asserted;
use crate::model::policy::Subject;
use crate::model::refuse::Refuse;
use crate::store::{CallRow, Kind};
use crate::sys::clock;

/// The state that the handlers share.
#[derive(Clone)]
pub struct App {
    /// The state of the daemon, with its commands.
    pub control: Arc<Control>,
    /// The interfaces of the filter.
    pub attachments: Arc<Attachments>,
    /// Which attempts have a record.
    pub accounts: Arc<Accounts>,
    /// Redial grants, as they are given.
    pub reviews: Reviews,
    /// Calls, as they are judged.
    pub live: broadcast::Sender<CallRow>,
    /// INVITEs of refused calls, for their readers.
    pub evidence: Arc<Evidence>,
    /// Counters of replies.
    pub reply_counters: Arc<ReplyCounters>,
    /// The sender of the replies that the driver cannot send.
    pub reply_sender: Arc<ReplySender>,
    /// Calls that could not be read.
    pub unread: Unread,
    /// Calls whose asserted caller is not read.
    pub asserted: Asserted,
    /// Carriers that call again by machine.
    pub machines: MachineRedials,
    /// Start of the daemon.
    pub since: Timestamp,
    /// Problem of the configuration when it was last read.
    pub config_problem: Arc<std::sync::Mutex<Option<String>>>,
}

pub(crate) fn usage(message: impl ToString) -> Problem {
    Problem { kind: ProblemKind::Usage, message: message.to_string() }
}

impl App {
    pub(crate) fn check(&self, number: &str, headers: &HeaderMap) -> Result<Response, Problem> {
        let Subject::Number(number) = self.control.subject(number)? else {
            return Err(usage("check a number, not a prefix"));
        };
        let check = self.control.check(number)?;
        let plain = headers
            .get(header::ACCEPT)
            .and_then(|accept| accept.to_str().ok())
            .is_some_and(|accept| accept.starts_with("text/plain"));
        if plain {
            return Ok(format!("{} {}\n", check.verdict, check.reason).into_response());
        }
        Ok(Json(check).into_response())
    }

    /// Returns how each trunk refuses, and its replies. The profile `default` refuses in silence.
    ///
    /// # Errors
    /// [`ProblemKind::Failed`] if a system call fails.
    pub(crate) fn replies(&self, config: &Config) -> Result<Vec<wire::Replies>, Problem> {
        let trunks = (0..).zip(&config.policy.trunks).skip(1);
        let replies = trunks.map(|(index, trunk)| {
            let stats = self.reply_counters.of_both(index)?;
            let by_daemon = self.reply_counters.by_daemon(index)?;
            let path = self.attachments.reply_path(&trunk.profile);
            let answers = path != "none";
            Ok(wire::Replies {
                trunk: trunk.name.clone(),
                refuse: match trunk.esinet {
                    true => "none".to_owned(),
                    false => Refuse::of_number(trunk.profile.refuse).name(),
                },
                path: path.to_owned(),
                sent: stats.sent,
                by_daemon: by_daemon.sent,
                repeated: stats.repeated,
                acks: stats.acks,
                limited: stats.limited,
                damaged: stats.damaged,
                impossible: stats.impossible,
                without_daemon: stats.without_daemon,
                failed: stats.lost + by_daemon.failed + by_daemon.late,
                moved: self.control.replies.is_moved(&trunk.name, &trunk.profile),
                problem: self.control.replies.problem(&trunk.name).filter(|_| answers),
            })
        });
        replies.collect()
    }

    /// Computes the status.
    ///
    /// # Errors
    /// [`ProblemKind::Failed`] if a system call fails.
    pub async fn status(&self) -> Result<wire::Status, Problem> {
        let control = &self.control;
        let config = control.config();
        let stats = control.maps.event_stats()?;
        let attempts = Some(self.accounts.attempts(stats));
        let counts = control.maps.counts()?;
        let interfaces = self.attachments.seen();
        let mut status =
            inspect::of_maps(&control.maps, config.blocks, interfaces, attempts, &counts)?;
        status.daemon = true;
        status.since = Some(self.since);
        status.r#override = control.get_override().await?;
        status.drift = control.drift.load(Ordering::Relaxed);
        status.reattached = control.reattached.load(Ordering::Relaxed).into();
        for finding in self.unread.findings(&config.policy.trunks, &counts, stats.judged_again) {
            status.find(Health::Amber, finding);
        }
        let others = self.asserted.last_hour();
        for (trunk, calls) in &others {
            let finding = asserted::finding(trunk, *calls);
            status.find(Health::Amber, format!("{finding}; {}", asserted::MEND));
        }
        status.asserted_others = others;
        for (trunk, machine) in self.machines.found() {
            let Some(finding) = machine_redials::finding(&config, &trunk, machine) else {
                continue;
            };
            status.find(Health::Amber, finding.clone());
            let (gap_ms, separate) = (machine.gap, machine.separate());
            status.machine_redials.push(wire::MachineRedial { trunk, gap_ms, separate, finding });
        }
        if self.accounts.is_flood() {
            let message = "a flood: refusals above [records] per_trunk are only counted; `palang top` shows who calls";
            status.find(Health::Amber, message);
        }
        let stored = control
            .store_handle
            .read_soon(|reader| {
                let head = reader.audit_head()?;
                let newest = reader.newest()?;
                let reviews = reader.open_reviews()?;
                let counts = (reader.count(Kind::Block)?, reader.count(Kind::Allow)?);
                Ok((counts, head, newest, reviews, reader.size()?))
            })
            .await;
        match stored {
            Ok(((blocks, allows), head, newest, reviews, size)) => {
                if let Some(finding) = control.limit.finding(size) {
                    status.find(Health::Amber, finding);
                }
                status.reviews = Some(reviews);
                status.blocks = Some(blocks);
                status.allows = Some(allows);
                status.audit_head = Some(head.to_string());
                if blocks * 10 > status.blocks_capacity * 9 {
                    status.find(
                        Health::Amber,
                        format!("{blocks} of {} blocks: nearly full", status.blocks_capacity),
                    );
                }
                if let Some(newest) = newest
                    && newest > clock::now() + jiff::SignedDuration::from_secs(5)
                {
                    let message = format!(
                        "the clock is earlier than the store's newest record, {newest}: set the clock"
                    );
                    status.find(Health::Red, message);
                }
            }
            Err(problem) => status.find(Health::Red, format!("store: {}", problem.message)),
        }
        if let Some(finding) = control.held.finding() {
            status.find(Health::Red, finding);
        }
        if let Some(problem) = control.comparison() {
            let message = format!(
                "store and kernel maps are out of sync; the filter remains in force: {problem}"
            );
            status.find(Health::Red, message);
        }
        if let Some(finding) = control.audit_change.finding() {
            status.find(Health::Red, finding);
        }
        if let Some(problem) = control.store_handle.problem() {
            let message =
                format!("the store takes no writes; the filter remains in force: {problem}");
            status.find(Health::Red, message);
        }
        let unsaved = control.store_handle.unsaved();
        if unsaved > 0 {
            let message = format!("{unsaved} changes are in force and not on disk");
            status.find(Health::Amber, message);
        }
        let lock = self.config_problem.lock();
        if let Some(problem) = lock.unwrap_or_else(std::sync::PoisonError::into_inner).as_ref() {
            status.find(
                Health::Amber,
                format!("the configuration was not reloaded, the old one is in force: {problem}"),
            );
        }
        for problem in control.chores.problems() {
            status.find(Health::Amber, problem);
        }
        if let Some(problem) = self.reviews.problem() {
            status.find(Health::Amber, problem);
        }
        if let Some(why) = self.attachments.slow_reader() {
            status.find_slow_reader(why);
        }
        status.replies = self.replies(&config)?;
        if let Some(problem) = self.reply_sender.problem(&config) {
            status.find(Health::Amber, problem);
        }
        if let Some(why) = self.attachments.no_replies() {
            if config.policy.trunks.iter().any(|trunk| trunk.profile.refuse != 0) {
                status.find_no_replies(why);
            }
        } else {
            let problems =
                config.policy.trunks.iter().map(|trunk| control.replies.problem(&trunk.name));
            for problem in problems.flatten() {
                status.find(Health::Amber, problem);
            }
        }
        if let Some(why) = self.attachments.addresses_problem() {
            let message = format!("the addresses of this machine could not be written: {why}");
            status.find(Health::Amber, message);
        }
        if let Some(why) = self.attachments.no_second_look() {
            status.find_no_second_look(&why);
        }
        if let Some(why) = self.attachments.no_forwarded() {
            let message = format!(
                "this machine forwards packets, and calls in fragments that it only forwards pass unread: {why}; \
                 `palang doctor` says what to do"
            );
            status.find(Health::Amber, message);
        }
        if status.drift > 0 {
            let message = format!("{} differences of store and maps were repaired", status.drift);
            status.find(Health::Amber, message);
        }
        Ok(status)
    }
}
