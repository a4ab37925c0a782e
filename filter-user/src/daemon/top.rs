//! What `palang top` shows, once a second: the status, counts by trunk, and who is refused most.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use filter_common::abi::Verdict;
use filter_common::number::Number;
use filter_common::reason::Reason;
use futures_util::{Stream, stream};
use serde::Serialize;
use tokio::time::{Interval, MissedTickBehavior};

use super::api::App;
use super::control::Who;
use crate::clock;
use crate::store::CallRow;
use crate::wire::{self, Problem};

/// A minute, in nanoseconds.
const MINUTE: u64 = 60_000_000_000;
/// Minutes that callers are counted for.
const MINUTES: u64 = 5;
/// Callers that are counted in a minute, about 100 bytes each: a block of a prefix may have
/// callers without end.
const CALLERS: usize = 20_000;
/// Callers that are told.
const TOLD: usize = 50;

/// Who is refused most, or would be. It is in memory only, and begins with the daemon.
#[derive(Debug, Default)]
pub struct Busiest(Mutex<BTreeMap<u64, Minute>>);

#[derive(Debug, Default)]
struct Minute {
    callers: HashMap<Number, Count>,
    uncounted: u64,
}

#[derive(Clone, Debug)]
struct Count {
    attempts: u64,
    refused: u64,
    last: u64,
    reason: u8,
    trunk: Option<String>,
}

impl Busiest {
    /// Takes note of an attempt that came at this boot time.
    pub fn take(&self, row: &CallRow, time: u64) {
        let Some(number) = row.number.filter(|_| row.would != Verdict::Pass as u8) else { return };
        let mut minutes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let minute = time / MINUTE;
        minutes.retain(|old, _| old + MINUTES > minute);
        let Minute { callers, uncounted } = minutes.entry(minute).or_default();
        if callers.len() >= CALLERS && !callers.contains_key(&number) {
            *uncounted += 1;
            return;
        }
        let count = callers.entry(number).or_insert_with(|| Count {
            attempts: 0,
            refused: 0,
            last: 0,
            reason: 0,
            trunk: None,
        });
        count.attempts += 1;
        count.refused += u64::from(row.verdict != Verdict::Pass as u8);
        if time >= count.last {
            count.last = time;
            count.reason = row.reason;
            count.trunk.clone_from(&row.trunk);
        }
    }

    /// Takes a number out.
    pub fn forget(&self, number: Number) {
        let mut minutes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for minute in minutes.values_mut() {
            minute.callers.remove(&number);
        }
    }

    /// Those of the last minutes, most attempts first, and how many attempts were not counted.
    fn now(&self, time: u64) -> (Vec<(Number, Count)>, u64) {
        let minutes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sums: HashMap<Number, Count> = HashMap::new();
        let mut uncounted = 0;
        let recent = minutes.iter().filter(|(minute, _)| *minute + MINUTES > time / MINUTE);
        for (_, minute) in recent {
            uncounted += minute.uncounted;
            for (number, count) in &minute.callers {
                // The minutes come in their order, so the last is the newest.
                sums.entry(*number)
                    .and_modify(|sum| {
                        *sum = Count {
                            attempts: sum.attempts + count.attempts,
                            refused: sum.refused + count.refused,
                            ..count.clone()
                        };
                    })
                    .or_insert_with(|| count.clone());
            }
        }
        let mut sums: Vec<_> = sums.into_iter().collect();
        sums.sort_by_key(|(number, count)| {
            (std::cmp::Reverse((count.attempts, count.last)), *number)
        });
        sums.truncate(TOLD);
        (sums, uncounted)
    }
}

/// A line, or why there is none any more.
#[derive(Serialize)]
#[serde(untagged)]
pub enum Line {
    Top(Box<wire::Top>),
    Problem(Problem),
}

/// A line a second, until one fails.
pub fn lines(app: App, who: Who) -> impl Stream<Item = Line> + Send + 'static {
    struct Looking {
        app: App,
        who: Who,
        tick: Interval,
    }
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    stream::unfold(Some(Looking { app, who, tick }), async |looking| {
        let mut looking = looking?;
        looking.tick.tick().await;
        Some(match line(&looking.app, &looking.who).await {
            Ok(top) => (Line::Top(Box::new(top)), Some(looking)),
            Err(problem) => (Line::Problem(problem), None),
        })
    })
}

async fn line(app: &App, who: &Who) -> Result<wire::Top, Problem> {
    let status = app.status().await?;
    let run_time = app.links.run_time().await?;
    let maps = &app.control.maps;
    let boot_ns = clock::boot();
    let mut trunks = Vec::new();
    for (index, trunk) in app.control.config().policy.trunks.iter().enumerate() {
        let mut packets = BTreeMap::new();
        for reason in Reason::ALL {
            let count = maps.count(index as u32, *reason)?;
            if count > 0 {
                packets.insert(reason.name().to_owned(), count);
            }
        }
        trunks.push(wire::TrunkPackets { name: trunk.name.clone(), packets });
    }
    let (busiest, uncounted) = app.control.busiest.now(boot_ns);
    Ok(wire::Top {
        time: clock::wall(boot_ns),
        boot_ns,
        status,
        trunks,
        run_time_ns: run_time.nanoseconds,
        run_count: run_time.packets,
        busiest: busiest.into_iter().map(|(number, count)| told(number, count, who)).collect(),
        uncounted,
    })
}

fn told(number: Number, count: Count, who: &Who) -> wire::BusyCaller {
    wire::BusyCaller {
        number: who.sees(number.to_string()),
        attempts: count.attempts,
        refused: count.refused,
        last: clock::wall(count.last),
        reason: Reason::from_number(count.reason).map_or("unknown", Reason::name).to_owned(),
        trunk: count.trunk,
    }
}

#[cfg(test)]
mod tests {
    use super::super::control::Role;
    use super::*;
    use crate::number_text;
    use crate::policy::{Policy, Subject};

    fn number(text: &str) -> Number {
        let plan = &Policy::default().trunks[0].profile.plan;
        let Subject::Number(number) = number_text::typed(text, plan).unwrap() else {
            panic!("{text} is no number")
        };
        number
    }

    fn row(number: Option<Number>, verdict: Verdict, would: Verdict) -> CallRow {
        CallRow {
            time: jiff::Timestamp::UNIX_EPOCH,
            number,
            trunk: Some("telkom".into()),
            source: "192.0.2.1:5060".into(),
            call_id: None,
            call_hash: 0,
            identity: 0,
            verdict: verdict as u8,
            would: would as u8,
            reason: Reason::BlockedNumber as u8,
            rule: 1,
            repeats: 0,
            count: 1,
        }
    }

    #[test]
    fn most_attempts_come_first_and_old_ones_go() {
        let (rare, often) = (number("+6281234567890"), number("+6281234567891"));
        let refused = |number| row(Some(number), Verdict::Drop, Verdict::Drop);
        let busiest = Busiest::default();
        busiest.take(&refused(rare), MINUTE);
        for time in [MINUTE, 3 * MINUTE, 3 * MINUTE + 7] {
            busiest.take(&refused(often), time);
        }
        // Would be refused, and is not; passes by itself; has no number.
        busiest.take(&row(Some(often), Verdict::Pass, Verdict::Drop), 3 * MINUTE + 5);
        busiest.take(&row(Some(rare), Verdict::Pass, Verdict::Pass), 3 * MINUTE);
        busiest.take(&row(None, Verdict::Drop, Verdict::Drop), 3 * MINUTE);
        let counts = |time| -> Vec<_> {
            let (found, uncounted) = busiest.now(time);
            assert_eq!(uncounted, 0);
            let count = |(number, count): (Number, Count)| (number, count.attempts, count.refused);
            found.into_iter().map(count).collect()
        };
        assert_eq!(counts(3 * MINUTE + 9), [(often, 4, 3), (rare, 1, 1)]);
        assert_eq!(busiest.now(3 * MINUTE).0[0].1.last, 3 * MINUTE + 7);
        assert_eq!(counts(6 * MINUTE), [(often, 3, 2)]);
        assert_eq!(counts(8 * MINUTE), []);
        busiest.forget(often);
        assert_eq!(counts(3 * MINUTE + 9), [(rare, 1, 1)]);
    }

    #[test]
    fn more_callers_than_there_is_room_for_are_told_as_a_number() {
        let busiest = Busiest::default();
        let caller = |index: usize| number(&format!("+62812{index:08}"));
        for index in 0..CALLERS + 3 {
            busiest.take(&row(Some(caller(index)), Verdict::Drop, Verdict::Drop), 1);
        }
        busiest.take(&row(Some(caller(7)), Verdict::Drop, Verdict::Drop), 1);
        let (found, uncounted) = busiest.now(1);
        assert_eq!((found.len(), uncounted), (TOLD, 3));
        assert_eq!((found[0].0, found[0].1.attempts), (caller(7), 2));
    }

    #[test]
    fn who_may_only_read_sees_masked_numbers() {
        let busiest = Busiest::default();
        let caller = number("+6281234567890");
        busiest.take(&row(Some(caller), Verdict::Drop, Verdict::Drop), 1);
        let seen = |role| {
            let (number, count) = busiest.now(1).0.remove(0);
            told(number, count, &Who { name: "siti".into(), role }).number
        };
        assert_eq!(seen(Role::Read), "6281*******90");
        assert_eq!(seen(Role::Operate), "6281234567890");
    }
}
