//! From a command to the first packet that meets it.

use std::iter::zip;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use palang::api::client;
use palang::api::client::Client;
use palang::api::wire::{AddBlock, SetOverride};
use palang_tests::lab::{Invite, Lab, now};

/// INVITEs a second: no time is finer than what lies between two.
const PER_SECOND: u32 = 5_000;

/// INVITEs between two commands, at least.
const BETWEEN: usize = 100;

/// How long an answer is waited for: what blocks waits for an import to end.
const PATIENCE: Duration = Duration::from_secs(1200);

/// Each a command and what becomes of an INVITE after it, in the order in which they are done.
const STEPS: [(&str, Refused); 4] = [
    ("`block add`", Refused(true)),
    ("`override on`", Refused(false)),
    ("`override off`", Refused(true)),
    ("`block remove`", Refused(false)),
];

/// Whether an INVITE is refused.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Refused(bool);

impl Refused {
    fn of(invite: &Invite) -> Refused {
        Refused(invite.arrived_at.is_none())
    }
}

/// Times of a command in nanoseconds, by repetition.
#[derive(Default)]
pub struct Times {
    /// From the request until the first INVITE was sent that met the new state.
    pub enforced: Vec<u64>,
    /// From the request to the answer.
    pub answered: Vec<u64>,
}

/// Times of all commands.
#[derive(Default)]
pub struct Latencies {
    steps: [Times; STEPS.len()],
    /// From one INVITE to the next around the change, in nanoseconds.
    pub gaps: Vec<u64>,
}

impl Latencies {
    /// Returns the commands and their times.
    pub fn rows(&self) -> impl Iterator<Item = (&'static str, &Times)> {
        zip(STEPS, &self.steps).map(|((command, _), times)| (command, times))
    }
}

/// Repeats all commands, each time on another number of a `series` of its own; none begins
/// after `longest`.
pub fn measure(
    lab: &Lab,
    client: &Client,
    series: u32,
    repetitions: usize,
    longest: Duration,
) -> Result<Latencies> {
    let mut latencies = Latencies::default();
    let began = Instant::now();
    for repetition in (0..repetitions).take_while(|_| began.elapsed() < longest) {
        let caller = format!("+62813{series}{repetition:07}");
        once(lab, client, &caller, &mut latencies)
            .with_context(|| format!("repetition {repetition}, {caller}"))?;
    }
    Ok(latencies)
}

fn once(lab: &Lab, client: &Client, caller: &str, latencies: &mut Latencies) -> Result<()> {
    // One receiver per repetition, because it keeps all that arrives.
    let receiver = lab.receiver(5060);
    let traffic = lab.traffic(&receiver, &[caller], PER_SECOND, usize::MAX);
    let mut asked = Vec::new();
    let mut answered = Vec::new();
    for step in 0..STEPS.len() {
        traffic.wait_for(BETWEEN);
        asked.push(now());
        ask(client, step, caller)?;
        answered.push(now());
    }
    traffic.wait_for(BETWEEN);
    let record = traffic.stop();
    ensure!(record.lost_by_lab == 0, "the lab lost {} packets", record.lost_by_lab);

    let ends = asked.iter().skip(1).copied().chain([u64::MAX]);
    let windows = zip(zip(&asked, &answered), ends);
    for (((command, state), times), ((&asked, &answered), end)) in
        zip(zip(STEPS, &mut latencies.steps), windows)
    {
        let first = record.invites.partition_point(|invite| invite.sent_at < asked);
        let last = record.invites.partition_point(|invite| invite.sent_at < end);
        let meets = |index: &usize| Refused::of(&record.invites[*index]) == state;
        let changed = (first..last).find(meets).with_context(|| format!("{command}: no effect"))?;
        // The state must not change back. The last INVITEs may have met the next state, as the time of
        // their judgement is unknown.
        for index in changed..last {
            let late = record.invites[index].judged_by > end;
            ensure!(late || meets(&index), "{command}: no longer in force");
        }
        let sent_at = |index: usize| record.invites[index].sent_at;
        ensure!(
            changed == first || sent_at(changed - 1) <= answered,
            "{command}: answered, but not in force"
        );
        times.enforced.push(sent_at(changed) - asked);
        times.answered.push(answered - asked);
        if let Some(before) = changed.checked_sub(1) {
            latencies.gaps.push(sent_at(changed) - sent_at(before));
        }
    }
    Ok(())
}

/// Sends the request of a step, as the CLI does.
fn ask(client: &Client, step: usize, caller: &str) -> Result<()> {
    let set_override =
        |seconds| SetOverride { seconds, reason: "measured".to_owned(), dry_run: false };
    let answer: Result<serde_json::Value, client::Error> = match step {
        0 => {
            let add = AddBlock {
                number: caller.to_owned(),
                seconds: Some(86_400),
                reason: "measured".to_owned(),
                ..AddBlock::default()
            };
            client.post("/v1/blocks", &add, PATIENCE)
        }
        1 => client.put("/v1/override", &set_override(600), PATIENCE),
        2 => client.put("/v1/override", &set_override(0), PATIENCE),
        _ => client.delete(&client::path(&["blocks", caller], &[]), PATIENCE),
    };
    answer.map(drop).map_err(|error| anyhow::anyhow!("{}: {error}", STEPS[step].0))
}
