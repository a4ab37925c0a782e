//! Whether a blocked caller would be refused now: real calls through the real program with a copy
//! of the policy in force, in a network of their own. Needs no daemon, and writes into no live map.

mod call;
mod lane;

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use filter_common::abi::{ABI_VERSION, Allow, BLOCK_NO_REDIAL, MODE_ENFORCE, Verdict};
use filter_common::reason::Reason;
use serde::Serialize;

use self::lane::{Lane, Seen, in_own_namespace};
use crate::clock;
use crate::config::{Config, Paths};
use crate::datapath::{Maps, Pins, Trial, loaded, map_id, walk_blocks};
use crate::netlink::Link;
use crate::policy::{PASS_EVENTS_PER_SECOND, Policy, SIP_PORT, Subject};
use crate::status;
use crate::wire::{Mode, Override};

/// The rule of the allow that is tried: any number but 0.
const RULE: u64 = 1;
/// Maps that only the program in force on these pins has.
const TOLD_BY: [&str; 2] = ["GENERATION", "BLOCKED_NUMBERS"];

/// How the gate is, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// A blocked caller is refused, and nobody else.
    Armed,
    /// All works, but a blocked caller passes: he is only observed.
    Observing,
    /// All works, but a blocked caller passes: the override is on.
    Overridden,
    /// A blocked caller passes for a reason that nobody wanted, or another one is refused.
    Broken,
}

impl Outcome {
    /// As the CLI and JSON name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Armed => "armed",
            Outcome::Observing => "observing",
            Outcome::Overridden => "overridden",
            Outcome::Broken => "broken",
        }
    }
}

/// A call of the self-test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Call {
    /// It came out of a socket behind the filter.
    pub arrived: bool,
    /// Why, by the filter's own word; null: it said nothing.
    pub reason: Option<String>,
}

/// The calls over one trunk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tried {
    /// The trunk.
    pub trunk: String,
    /// The address that they came from; null: none was sent.
    pub source: Option<IpAddr>,
    /// The caller number that was blocked, as the trunk writes it.
    pub caller: Option<String>,
    /// How this trunk is.
    pub outcome: Outcome,
    /// What is wrong; null: nothing.
    pub problem: Option<String>,
    /// A call of the blocked number.
    pub blocked: Option<Call>,
    /// A call of another number.
    pub other: Option<Call>,
    /// A call of the blocked number while an allow lets it through.
    pub allowed: Option<Call>,
}

/// An interface that the filter should be on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stand {
    /// Its name.
    pub name: String,
    /// Where the filter runs: `native`, `generic`, `offloaded`; null: not on it.
    pub xdp: Option<String>,
    /// Id of the program.
    pub program: Option<u32>,
    /// Tag of the program: a hash of its instructions.
    pub tag: Option<String>,
    /// What is wrong; null: nothing.
    pub problem: Option<String>,
}

/// What the self-test found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Selftest {
    /// How the gate is: the worst of all that was looked at.
    pub outcome: Outcome,
    /// What is wrong: none unless the outcome is `broken`.
    pub problems: Vec<String>,
    /// What else is worth knowing.
    pub notes: Vec<String>,
    /// Version of this program.
    pub version: String,
    /// Tag of the program that was tried.
    pub tag: String,
    /// Folder of the pinned maps whose policy was copied; null: there is none.
    pub maps: Option<PathBuf>,
    /// The mode in force.
    pub mode: Option<Mode>,
    /// The override in force.
    pub r#override: Option<Override>,
    /// Live blocks in the maps. None of them was tried.
    pub blocks: Option<u64>,
    /// Interfaces.
    pub interfaces: Vec<Stand>,
    /// Trunks.
    pub trunks: Vec<Tried>,
}

/// What is in force, as far as the pins tell.
struct Live {
    folder: PathBuf,
    policy: Policy,
    mode: Mode,
    over: Override,
    blocks: u64,
    /// Ids of [`TOLD_BY`].
    maps: Vec<u32>,
}

/// Tries it. `links` are the interfaces of the machine's own network.
///
/// # Errors
/// It could not be tried: no permission, maps that cannot be read, no network of its own.
pub fn run(file: &Path, links: &[Link]) -> Result<Selftest, String> {
    let config = Config::read(file);
    let paths = config.as_ref().map_or_else(|_| Paths::default(), |config| config.paths.clone());
    let pins = Pins::new(&paths.pins);
    let mut problems = Vec::new();
    let mut notes = Vec::new();
    if let Err(error) = &config {
        notes.push(format!("{error}; took the usual paths, and the interfaces with a pin"));
    }
    let config = config.ok();
    let live = match live(&pins)? {
        Ok(live) => Some(live),
        Err(problem) => {
            problems.push(problem);
            None
        }
    };
    let policy = policy(live.as_ref(), config.as_ref());
    let (Loaded { tag, slow_reader }, mut trunks) = try_calls(&policy)?;
    notes.extend(slow_reader);

    let mut names = config.map_or_else(Vec::new, |config| config.interfaces);
    let pinned = pins.links();
    names.extend(pinned.into_iter().filter(|name| !names.contains(name)).collect::<Vec<_>>());
    if names.is_empty() {
        problems.push("the filter is on no interface: palang attach IFACE".to_owned());
    }
    let mut interfaces = Vec::new();
    for name in names {
        let stand = stand(&name, links, &pins, live.as_ref(), tag)?;
        if stand.xdp.as_deref() == Some("generic") {
            notes.push(format!("{name}: generic XDP, which is slow"));
        }
        problems.extend(stand.problem.as_ref().map(|problem| format!("{name}: {problem}")));
        interfaces.push(stand);
    }
    // Whatever the program does in the self-test's own network: none of it is in force here.
    if !problems.is_empty() {
        trunks.iter_mut().for_each(|tried| tried.outcome = Outcome::Broken);
    }
    let of = |tried: &Tried| Some(format!("{}: {}", tried.trunk, tried.problem.as_ref()?));
    for tried in &trunks {
        match tried.outcome {
            Outcome::Broken => problems.extend(of(tried)),
            Outcome::Armed | Outcome::Observing | Outcome::Overridden => notes.extend(of(tried)),
        }
    }
    let worst = trunks.iter().map(|tried| tried.outcome).max().unwrap_or(Outcome::Broken);
    if trunks.is_empty() {
        problems.push("no trunk could be tried".to_owned());
    }
    Ok(Selftest {
        outcome: if problems.is_empty() { worst } else { Outcome::Broken },
        problems,
        notes,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        tag: format!("{tag:016x}"),
        maps: live.as_ref().map(|live| live.folder.clone()),
        mode: live.as_ref().map(|live| live.mode.clone()),
        r#override: live.as_ref().map(|live| live.over.clone()),
        blocks: live.as_ref().map(|live| live.blocks),
        interfaces,
        trunks,
    })
}

/// What is pinned, only read. The inner error: what is wrong with it.
fn live(pins: &Pins) -> Result<Result<Live, String>, String> {
    let mut folders = pins.map_folders();
    // An upgrade that did not get far has folders without maps.
    folders.retain(|folder| fs::read_dir(folder).is_ok_and(|mut pins| pins.next().is_some()));
    if folders.is_empty() {
        return Ok(Err("nothing is in force: no filter was loaded since this machine started \
                       (systemctl start palang); tried was the program in this binary"
            .to_owned()));
    }
    let Some(folder) = folders.into_iter().rfind(|folder| Pins::is_of_this_version(folder)) else {
        return Ok(Err(format!(
            "the maps in force have another layout than this palang's (v{ABI_VERSION}): take the \
             palang that the daemon runs, or restart the daemon (systemctl restart palang)"
        )));
    };
    let maps = match Maps::open(&folder) {
        Ok(maps) => maps,
        Err(error @ crate::datapath::Error::Layout { .. }) => return Ok(Err(error.to_string())),
        Err(error) => return Err(error.to_string()),
    };
    let read = || {
        let now = clock::boot();
        let mut blocks = 0;
        let limit = u64::from(Maps::capacity(&folder)?);
        walk_blocks(&folder, limit, |_, block| {
            blocks += u64::from(block.expires == 0 || now < block.expires);
            Ok(())
        })?;
        Ok::<_, crate::datapath::Error>(Live {
            policy: maps.copy_without_blocks()?,
            mode: status::mode(&maps)?,
            over: status::override_in_force(maps.override_until()?),
            blocks,
            maps: TOLD_BY.iter().map(|name| map_id(&folder, name)).collect::<Result<_, _>>()?,
            folder: folder.clone(),
        })
    };
    let live = read().map_err(|error| error.to_string())?;
    if live.policy.settings.abi_version != ABI_VERSION {
        return Ok(Err(format!(
            "the maps in {} have no settings: every call passes; restart the daemon (systemctl \
             restart palang)",
            folder.display()
        )));
    }
    Ok(Ok(live))
}

/// The policy to try, without a block. With nothing in force it is the configured one, enforced.
fn policy(live: Option<&Live>, config: Option<&Config>) -> Policy {
    let configured = config.map(|config| &config.policy);
    let Some(live) = live else {
        let mut policy = configured.cloned().unwrap_or_default();
        policy.settings.mode = MODE_ENFORCE;
        return policy;
    };
    let mut policy = live.policy.clone();
    for (trunk, configured) in
        policy.trunks.iter_mut().zip(configured.map_or(&[][..], |c| &c.trunks))
    {
        // The maps know no names.
        let mut sources = configured.sources.clone();
        sources.sort();
        if sources == trunk.sources {
            trunk.name.clone_from(&configured.name);
        }
    }
    policy
}

/// An interface, the program on it, and whether that is the one that was tried.
fn stand(
    name: &str,
    links: &[Link],
    pins: &Pins,
    live: Option<&Live>,
    tried: u64,
) -> Result<Stand, String> {
    let told = status::interface(name, links, None);
    let mut stand = Stand {
        name: name.to_owned(),
        xdp: told.xdp,
        program: told.program,
        tag: None,
        problem: told.problem,
    };
    if pins.is_off(name) {
        stand.problem = Some(format!("somebody took the filter off: palang attach {name}"));
    }
    let Some(id) = stand.program else { return Ok(stand) };
    let Some(program) = loaded(id).map_err(|error| error.to_string())? else {
        stand.problem = Some(format!("program {id} left while it was looked at: try again"));
        return Ok(stand);
    };
    stand.tag = Some(format!("{:016x}", program.tag));
    let judges_by = |live: &Live| live.maps.iter().all(|map| program.maps.contains(map));
    match live {
        Some(live) if !judges_by(live) => {
            stand.problem = Some(format!(
                "program {id} on it does not judge by the maps in {}: bpftool prog show id {id}",
                live.folder.display()
            ));
        }
        Some(_) if program.tag != tried => {
            let version = env!("CARGO_PKG_VERSION");
            stand.problem = Some(format!(
                "program {id} in force is another than the one of this palang {version}, which was \
                 tried: systemctl restart palang"
            ));
        }
        Some(_) | None => {}
    }
    Ok(stand)
}

/// What is sent over a trunk.
struct Plan {
    trunk: usize,
    source: IpAddr,
    asserted: bool,
    callers: [call::Caller; 2],
}

/// The program that was tried.
struct Loaded {
    tag: u64,
    /// What to say where the kernel refuses the full reader.
    slow_reader: Option<String>,
}

/// Sends calls over every trunk of a policy, in a network of their own, through a program.
fn try_calls(policy: &Policy) -> Result<(Loaded, Vec<Tried>), String> {
    let mut policy = policy.clone();
    // The copy shall tell of every call.
    policy.settings.pass_events_per_second =
        policy.settings.pass_events_per_second.max(PASS_EVENTS_PER_SECOND);
    let port = policy.ports.first().copied();
    let mut tried = BTreeMap::new();
    let mut plans = Vec::new();
    let first = usize::from(policy.settings.trunks_configured != 0);
    for trunk in first..policy.trunks.len() {
        match plan(&policy, trunk) {
            Ok(plan) => plans.push(plan),
            Err(told) => {
                tried.insert(trunk, *told);
            }
        }
    }
    for plan in &plans {
        policy.block(Subject::Number(plan.callers[0].number), 0, BLOCK_NO_REDIAL);
    }
    let with_ipv6 = plans.iter().any(|plan| plan.source.is_ipv6());
    let (loaded, seen) = in_own_namespace(|| {
        let mut trial = Trial::load(&policy).map_err(|error| error.to_string())?;
        let tag = trial.tag().map_err(|error| error.to_string())?;
        let loaded = Loaded { tag, slow_reader: trial.slow_reader() };
        let mut lane = Lane::new(trial, port.unwrap_or(SIP_PORT), with_ipv6)?;
        let mut seen: Vec<[Result<Seen, String>; 3]> = Vec::new();
        for Plan { source, asserted, callers: [blocked, free], .. } in &plans {
            let mut call = |caller| lane.call(caller, *asserted, *source);
            seen.push([call(blocked), call(free), Ok(Seen::default())]);
        }
        for (plan, seen) in plans.iter().zip(&mut seen) {
            let caller = &plan.callers[0];
            let allow = Allow { number: caller.number, expires: 0, rule: RULE };
            let maps = lane.trial().maps();
            maps.set_allow(Subject::Number(caller.number), allow)
                .map_err(|error| error.to_string())?;
            seen[2] = lane.call(caller, plan.asserted, plan.source);
        }
        Ok((loaded, seen))
    })?;
    for (plan, seen) in plans.iter().zip(seen) {
        let mut told = told(&policy, plan, seen);
        if port.is_none() {
            told.outcome = Outcome::Broken;
            told.problem = Some("no SIP port is configured: no call is judged".to_owned());
        }
        tried.insert(plan.trunk, told);
    }
    Ok((loaded, tried.into_values().collect()))
}

/// What to send over a trunk, or why nothing can be sent.
fn plan(policy: &Policy, trunk: usize) -> Result<Plan, Box<Tried>> {
    let entry = &policy.trunks[trunk];
    let not_tried = |outcome, problem: String| {
        Box::new(Tried {
            trunk: entry.name.clone(),
            source: None,
            caller: None,
            outcome,
            problem: Some(problem),
            blocked: None,
            other: None,
            allowed: None,
        })
    };
    let source = match trunk {
        // Every source is of the profile `default` where there are no others.
        0 => Some(lane::ANYBODY.into()),
        _ => call::source(policy, trunk, &[lane::NEAR_V4.into(), lane::NEAR_V6.into()]),
    };
    let Some(source) = source else {
        let problem = "not tried: none of its sources is an address that a packet can come from, \
                       or all of them belong to other trunks, too";
        return Err(not_tried(Outcome::Broken, problem.to_owned()));
    };
    let callers = call::callers(policy, entry, clock::boot())
        .map_err(|problem| not_tried(Outcome::Broken, problem))?;
    Ok(Plan { trunk, source, asserted: entry.profile.trusts_pai(), callers })
}

fn told(policy: &Policy, plan: &Plan, seen: [Result<Seen, String>; 3]) -> Tried {
    let (outcome, problem) = match &seen {
        [Ok(blocked), Ok(other), Ok(allowed)] => judge(plan.trunk, blocked, other, allowed),
        [Err(error), _, _] | [_, Err(error), _] | [_, _, Err(error)] => {
            (Outcome::Broken, Some(error.clone()))
        }
    };
    let [blocked, other, allowed] = seen.map(|seen| {
        let seen = seen.ok()?;
        Some(Call {
            arrived: seen.arrived,
            reason: reason(&seen).map(|reason| reason.name().into()),
        })
    });
    Tried {
        trunk: policy.trunks[plan.trunk].name.clone(),
        source: Some(plan.source),
        caller: Some(plan.callers[0].text.clone()),
        outcome,
        problem,
        blocked,
        other,
        allowed,
    }
}

fn reason(seen: &Seen) -> Option<Reason> {
    seen.event.and_then(|event| Reason::from_number(event.reason))
}

/// What the fates of the three calls mean.
fn judge(trunk: usize, blocked: &Seen, other: &Seen, allowed: &Seen) -> (Outcome, Option<String>) {
    let broken = |what: String| (Outcome::Broken, Some(what));
    let why = |seen: &Seen| reason(seen).map_or("without a word", Reason::name);
    if !other.arrived {
        return broken(format!(
            "A CALLER WHO IS NOT BLOCKED IS REFUSED ({}): palang override on",
            why(other)
        ));
    }
    if !allowed.arrived {
        return broken(format!(
            "an allow does not let through ({}): palang override on",
            why(allowed)
        ));
    }
    let Some(event) = blocked.event else {
        return broken("the filter says nothing of a blocked caller's call".to_owned());
    };
    if usize::from(event.trunk) != trunk {
        return broken(format!("its calls are taken for those of trunk {}", event.trunk));
    }
    if event.would != Verdict::Drop as u8 {
        return broken(format!("a blocked caller passes ({})", why(blocked)));
    }
    match (blocked.arrived, reason(blocked)) {
        (false, Some(Reason::BlockedNumber)) => (Outcome::Armed, None),
        (true, Some(Reason::Override)) => (Outcome::Overridden, None),
        (true, Some(Reason::Observe)) => (Outcome::Observing, None),
        (arrived, _) => broken(format!(
            "a blocked caller's call {} ({})",
            if arrived { "passes" } else { "is lost" },
            why(blocked)
        )),
    }
}

#[cfg(test)]
mod tests {
    use filter_common::abi::Event;

    use super::*;

    fn seen(arrived: bool, verdict: Verdict, would: Verdict, reason: Reason) -> Seen {
        let event = Event {
            verdict: verdict as u8,
            would: would as u8,
            reason: reason as u8,
            ..Event::default()
        };
        Seen { arrived, event: Some(event) }
    }

    #[test]
    fn only_a_refusal_of_the_blocked_alone_is_armed() {
        let passed = seen(true, Verdict::Pass, Verdict::Pass, Reason::NotBlocked);
        let refused = seen(false, Verdict::Drop, Verdict::Drop, Reason::BlockedNumber);
        let lost = Seen { arrived: false, ..passed };
        let observed = seen(true, Verdict::Pass, Verdict::Drop, Reason::Observe);
        let overridden = seen(true, Verdict::Pass, Verdict::Drop, Reason::Override);
        let unread = seen(true, Verdict::Pass, Verdict::Pass, Reason::HeadersCut);
        let silent = Seen { arrived: true, event: None };
        let granted = seen(true, Verdict::Pass, Verdict::Drop, Reason::RedialGrant);
        for (calls, outcome, says) in [
            ([refused, passed, passed], Outcome::Armed, ""),
            ([observed, passed, passed], Outcome::Observing, ""),
            ([overridden, passed, passed], Outcome::Overridden, ""),
            ([refused, refused, passed], Outcome::Broken, "NOT BLOCKED IS REFUSED"),
            ([refused, lost, passed], Outcome::Broken, "NOT BLOCKED IS REFUSED"),
            ([refused, passed, refused], Outcome::Broken, "an allow does not let through"),
            ([unread, passed, passed], Outcome::Broken, "passes (headers-cut)"),
            ([silent, passed, passed], Outcome::Broken, "says nothing"),
            ([granted, passed, passed], Outcome::Broken, "passes (redial-grant)"),
            ([Seen { arrived: true, ..refused }, passed, passed], Outcome::Broken, "passes"),
            ([Seen { arrived: false, ..observed }, passed, passed], Outcome::Broken, "is lost"),
        ] {
            let [blocked, other, allowed] = calls;
            let (found, problem) = judge(0, &blocked, &other, &allowed);
            assert_eq!(found, outcome, "{problem:?}");
            let problem = problem.unwrap_or_default();
            assert!(problem.contains(says) && problem.is_empty() == says.is_empty(), "{problem}");
        }
        let (found, _) = judge(1, &refused, &passed, &passed);
        assert_eq!(found, Outcome::Broken, "a call that another trunk's profile judged");
    }
}
