//! Streams the data of `palang top`, once a second: the status, counts by trunk, and the callers
//! that are refused most.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use filter_common::number::Number;
use filter_common::reason::Reason;
use futures_util::{Stream, stream};
use serde::Serialize;
use tokio::time::{Interval, MissedTickBehavior};

use crate::api::wire;
use crate::api::wire::Problem;
use crate::daemon::app::App;
use crate::daemon::busiest::Count;
use crate::daemon::http::lists;
use crate::daemon::role::{Principal, Role};
use crate::sys::clock;

/// A line, or the error that ends the lines.
#[derive(Serialize)]
#[serde(untagged)]
pub enum Line {
    Top(Box<wire::Top>),
    Problem(Problem),
}

/// Returns a line a second, until one fails.
pub fn lines(app: App, who: Principal) -> impl Stream<Item = Line> + Send + 'static {
    struct Looking {
        app: App,
        who: Principal,
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

pub(crate) async fn line(app: &App, who: &Principal) -> Result<wire::Top, Problem> {
    let status = app.status().await?;
    let run_time = app.attachments.run_time().await?;
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
        busiest: busiest
            .into_iter()
            .map(|(number, count)| busy_caller(number, count, who))
            .collect(),
        uncounted,
    })
}

fn busy_caller(number: Number, count: Count, who: &Principal) -> wire::BusyCaller {
    wire::BusyCaller {
        number: who.mask(number.to_string()),
        attempts: count.attempts,
        refused: count.refused,
        last: clock::wall(count.last),
        reason: Reason::from_number(count.reason).map_or("unknown", Reason::name).to_owned(),
        trunk: count.trunk,
    }
}

/// Streams the status, counts by trunk, and the callers that are refused most, once a second, until
/// the connection is closed. Role read.
#[utoipa::path(get, path = "/v1/top",
    responses((status = 200, body = wire::Top, content_type = "application/x-ndjson")))]
pub(crate) async fn get_top(State(app): State<App>, who: Principal) -> Result<Response, Problem> {
    who.may(Role::Read)?;
    Ok(lists::endless(lines(app, who)))
}

#[cfg(test)]
mod tests {
    use filter_common::abi::Verdict;

    use super::*;
    use crate::daemon::busiest::Busiest;
    use crate::daemon::busiest::tests::{number, row};

    #[test]
    fn user_with_role_read_gets_masked_numbers() {
        let busiest = Busiest::default();
        let caller = number("+6281234567890");
        busiest.take(&row(Some(caller), Verdict::Drop, Verdict::Drop), 1);
        let seen = |role| {
            let (number, count) = busiest.now(1).0.remove(0);
            busy_caller(number, count, &Principal { name: "siti".into(), role }).number
        };
        assert_eq!(seen(Role::Read), "6281*******90");
        assert_eq!(seen(Role::Operate), "6281234567890");
    }
}
