//! Tests whether the carrier of a trunk follows a reply 302, and keeps untested trunks from answering with it.

use std::sync::Arc;

use filter_common::abi::{MODE_ENFORCE, MODE_OBSERVE};
use filter_common::answer::code::Code;

use crate::api::wire::{self, Problem, ProblemKind, RedirectTest, RedirectTested};
use crate::change_plan::checks::{check_text, end, usage};
use crate::config::Config;
use crate::daemon::role::Principal;
use crate::daemon::state::{Control, problem};
use crate::daemon::store_thread::StoreHandle;
use crate::inspect;
use crate::model::number_text;
use crate::model::policy::{Subject, Trunk};
use crate::model::refuse::Refuse;
use crate::store::{Decision, Entry, Kind};
use crate::sys::clock;

/// Problem for the status: a trunk does not answer as configured.
pub const UNTESTED: &str = "a redirection is not in force";

/// Longest test, in seconds.
const TEST_MAX: u64 = 1800;

const REDIRECTS: Refuse = Refuse::Reply(Code::MovedTemporarily);

/// Returns why a configuration may not be put into force: a trunk would answer with an untested 302.
pub async fn untested(store: &StoreHandle, config: &Config) -> Option<String> {
    config.redirecting().next()?;
    let asked = config.clone();
    let found = store.read(move |reader| reader.untested_redirects(&asked)).await;
    let untested = match found {
        Ok(untested) => untested,
        Err(problem) => {
            return Some(format!(
                "refuse = \"302\": the store cannot be read: {}",
                problem.message
            ));
        }
    };
    let (trunk, why) = untested.first()?;
    Some(format!(
        "refuse = \"302\" of trunk {trunk}: {why}. Set another refuse, and run: palang selftest redirect {trunk}"
    ))
}

/// Returns a configuration that a daemon may start with: a trunk whose 302 is untested answers with the default code. Also
/// returns why.
pub async fn for_start(store: &StoreHandle, mut config: Config) -> (Config, Option<String>) {
    let Some(why) = untested(store, &config).await else { return (config, None) };
    let asked = config.clone();
    let found = store.read(move |reader| reader.untested_redirects(&asked)).await.ok();
    for trunk in &mut config.policy.trunks {
        // All of them, if the store does not say.
        let is_untested =
            found.as_ref().is_none_or(|found| found.iter().any(|(name, _)| *name == trunk.name));
        if is_untested && Refuse::of_number(trunk.profile.refuse) == REDIRECTS {
            trunk.profile.refuse = Refuse::DEFAULT.number();
        }
    }
    (config, Some(format!("{why}. Until then these trunks answer {}", Refuse::DEFAULT.name())))
}

impl Control {
    /// Begins a test: the next calls of one number on any trunk that answers get a 302 with the contact of their trunk.
    ///
    /// # Errors
    /// [`ProblemKind::NotFound`] without such a trunk. [`ProblemKind::Refused`] if no call would be answered so: by the trunk, the
    /// mode, the override, or a rule about the number.
    pub async fn begin_redirect_test(
        self: &Arc<Self>,
        who: &Principal,
        trunk: &str,
        test: wire::TestRedirect,
    ) -> Result<RedirectTest, Problem> {
        let config = self.config();
        let contact = self.tested_contact(trunk_of(&config, trunk)?)?;
        let Subject::Number(number) = self.subject(&test.number)? else {
            return problem(ProblemKind::Usage, "name the number of a telephone, not a prefix");
        };
        let subject = Subject::Number(number);
        number_text::check_length(&test.number, subject, &config.policy.trunks[0].profile.plan)
            .or_else(usage)?;
        if test.seconds == 0 || test.seconds > TEST_MAX {
            return problem(ProblemKind::Usage, format!("a test takes 1 to {TEST_MAX} s"));
        }
        self.refuse_protected(subject).await?;
        let now = clock::now();
        let id = uuid::Uuid::now_v7();
        let decision = Decision {
            id,
            rule: 0,
            kind: Kind::Block,
            subject,
            created: now,
            expires: end(now, Some(test.seconds), None, false)?,
            reason: format!("test of the redirection of trunk {trunk}"),
            author: who.name.clone(),
            origin: "operator".into(),
            node: self.node.clone(),
            // With its redial grant: the number may be another one than was meant.
            flags: REDIRECTS.flags(),
            redial: None,
            epoch: 0,
            incident: None,
        };
        let put = self.put_block(who, subject, true, move |_| Ok((decision, wire::Change::Added)));
        let (_, _, before, _) = put.await?;
        if before.is_some() {
            return problem(
                ProblemKind::Refused,
                "this number is blocked already: test with another telephone",
            );
        }
        let trunk = trunk.to_owned();
        Ok(RedirectTest { trunk, contact, number: subject.to_string(), id, begun: now })
    }

    /// Returns the contact of a trunk whose blocked callers would get a reply now.
    fn tested_contact(&self, trunk: &Trunk) -> Result<String, Problem> {
        let name = &trunk.name;
        let refused = |why: String| problem(ProblemKind::Refused, why);
        let contact = trunk.profile.contact.uri();
        if contact.is_empty() {
            return refused(format!(
                "trunk {name} has no contact: write redirect = \"sip:announcement@192.0.2.9\" in [[trunk]] {name}, then \
                 reload the daemon"
            ));
        }
        if trunk.profile.refuse == 0 {
            return refused(format!(
                "trunk {name} answers no call: set refuse = \"600\" for the test"
            ));
        }
        let (mode, _) = self.mode_in_force(&self.order.turn())?;
        if mode != MODE_ENFORCE || trunk.profile.mode == MODE_OBSERVE {
            return refused(format!("nothing is refused on trunk {name}: the mode is observe"));
        }
        let deadline = self.maps.pass_maps().override_until()?;
        if inspect::live(deadline).is_some() {
            return refused("nothing is refused: the override is on".to_owned());
        }
        Ok(contact.to_owned())
    }

    /// Stores the result of a test.
    ///
    /// # Errors
    /// [`ProblemKind::NotFound`] without such a trunk, [`ProblemKind::Refused`] if it has another contact by now,
    /// [`ProblemKind::Store`] if the store takes no writes.
    pub async fn end_redirect_test(
        &self,
        who: &Principal,
        trunk: &str,
        result: wire::SetRedirect,
    ) -> Result<RedirectTested, Problem> {
        check_text("why", &result.why)?;
        let config = self.config();
        let known = trunk_of(&config, trunk)?;
        if known.profile.contact.uri() != result.contact {
            let message = format!("trunk {trunk} has another contact by now: test it again");
            return problem(ProblemKind::Refused, message);
        }
        let tested = RedirectTested {
            trunk: trunk.to_owned(),
            contact: result.contact,
            sources: known.source_texts(),
            passed: result.passed,
            why: result.why,
            time: clock::now(),
            author: who.name.clone(),
        };
        let action = if tested.passed { "redirect passed" } else { "redirect failed" };
        let entry = Entry::new(tested.time, &who.name, action)
            .with("trunk", trunk)
            .with("contact", tested.contact.as_str())
            .with("why", tested.why.as_str());
        let stored = tested.clone();
        self.store_handle
            .write_through(move |store| Ok(store.set_redirect_tested(&stored, entry)?))
            .await?;
        if !tested.passed {
            // A trunk that redirects already must not go on.
            let (config, why) = for_start(&self.store_handle, Config::clone(&config)).await;
            if why.is_some() {
                self.set_config(config)?;
                self.chores.note(UNTESTED, why);
            }
        }
        Ok(tested)
    }
}

fn trunk_of<'a>(config: &'a Config, name: &str) -> Result<&'a Trunk, Problem> {
    let found = config.policy.trunks.iter().skip(1).find(|trunk| trunk.name == name);
    found.ok_or_else(|| Problem {
        kind: ProblemKind::NotFound,
        message: format!("the configuration has no [[trunk]] {name:?}"),
    })
}
