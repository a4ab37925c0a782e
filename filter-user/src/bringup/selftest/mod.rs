//! Tests whether a blocked caller would be refused now. It sends real calls through the real program
//! with a copy of the policy in force, in a private network. Needs no daemon and writes to no live map.

pub(crate) mod call;
pub(crate) mod error;
mod outcome;
pub(crate) mod veth;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use filter_common::abi::{ABI_VERSION, Allow, BLOCK_NO_REDIAL, MODE_ENFORCE};
use filter_common::decide::is_live;
use serde::Serialize;

use crate::api::wire::{Mode, Override};
pub use crate::bringup::selftest::error::Error;
pub use crate::bringup::selftest::outcome::Outcome;
use crate::bringup::selftest::outcome::{compare, judge, reason};
use crate::bringup::selftest::veth::{Seen, Veth, in_own_namespace};
use crate::config::{Config, Paths};
use crate::datapath;
use crate::datapath::second_look::describe;
use crate::datapath::{Maps, Pins, Trial, loaded, map_id, tag, try_forwarded, walk_blocks};
use crate::inspect;
use crate::model::policy::{PASS_EVENTS_PER_SECOND, Policy, SIP_PORT, Subject};
use crate::sys::netlink::Link;
use crate::sys::{clock, forwarding};

/// Rule number of the allow in the test: any number but 0.
const RULE: u64 = 1;
/// Bytes of filling in the headers of a call: enough for a second fragment.
const FILLING: usize = 2_000;
/// Maps that only the program in force on these pins uses.
const IDENTIFYING_MAPS: [&str; 2] = ["GENERATION", "BLOCKED_NUMBERS"];

/// A call of the self-test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Call {
    /// Whether it arrived at a socket after the filter.
    pub arrived: bool,
    /// Reason from the filter's event; null if there was no event.
    pub reason: Option<String>,
}

/// The calls over one trunk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tried {
    /// Name of the trunk.
    pub trunk: String,
    /// Source address of the calls; null if none was sent.
    pub source: Option<IpAddr>,
    /// The blocked caller number, in the format of the trunk.
    pub caller: Option<String>,
    /// State of the gate for this trunk.
    pub outcome: Outcome,
    /// The problem, if any.
    pub problem: Option<String>,
    /// A call from the blocked number.
    pub blocked: Option<Call>,
    /// A call from another number.
    pub other: Option<Call>,
    /// A call from the blocked number while an allow lets it through.
    pub allowed: Option<Call>,
    /// A call in fragments from the blocked number; null if this machine has no second look.
    pub blocked_in_fragments: Option<Call>,
    /// A call in fragments from another number.
    pub other_in_fragments: Option<Call>,
}

/// An interface that should have the filter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InterfaceState {
    /// Its name.
    pub name: String,
    /// Where the filter runs: `native`, `generic`, `offloaded`; null if it is not attached.
    pub xdp: Option<String>,
    /// ID of the program.
    pub program: Option<u32>,
    /// Tag of the program: a hash of its instructions.
    pub tag: Option<String>,
    /// The problem, if any.
    pub problem: Option<String>,
}

/// The result of the self-test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Selftest {
    /// State of the gate: the worst of all that was tested.
    pub outcome: Outcome,
    /// The problems; empty unless the outcome is `broken`.
    pub problems: Vec<String>,
    /// Other remarks.
    pub notes: Vec<String>,
    /// Version of this program.
    pub version: String,
    /// Tag of the tested program.
    pub tag: String,
    /// Folder of the pinned maps whose policy was copied, if there are any.
    pub maps: Option<PathBuf>,
    /// The mode in force.
    pub mode: Option<Mode>,
    /// The override in force.
    pub r#override: Option<Override>,
    /// Number of live blocks in the maps. They are not tested one by one.
    pub blocks: Option<u64>,
    /// Configured and pinned interfaces.
    pub interfaces: Vec<InterfaceState>,
    /// Tested trunks.
    pub trunks: Vec<Tried>,
}

/// The state in force, as far as it can be read from the pins.
struct Live {
    folder: PathBuf,
    policy: Policy,
    mode: Mode,
    over: Override,
    blocks: u64,
    /// IDs of [`IDENTIFYING_MAPS`].
    maps: Vec<u32>,
}

/// The state in force, or the problem with the pins.
enum Pinned {
    Live(Box<Live>),
    Problem(String),
}

/// Runs the self-test. `links` are the interfaces of the machine's network namespace.
///
/// # Errors
/// [`Error`] if the test cannot run: no permission, unreadable maps, no network namespace.
pub fn run(file: &Path, links: &[Link]) -> Result<Selftest, Error> {
    let config = Config::read(file);
    let paths = config.as_ref().map_or_else(|_| Paths::default(), |config| config.paths.clone());
    let pins = Pins::new(&paths.pins);
    let mut problems = Vec::new();
    let mut notes = Vec::new();
    if let Err(error) = &config {
        notes.push(format!("{error}; used the default paths and the interfaces with a pin"));
    }
    let config = config.ok();
    let live = match live(&pins)? {
        Pinned::Live(live) => Some(*live),
        Pinned::Problem(problem) => {
            problems.push(problem);
            None
        }
    };
    let policy = policy(live.as_ref(), config.as_ref());
    let (Loaded { tag, slow_reader, second_look }, mut trunks) = test_calls(&policy)?;
    notes.extend(slow_reader);
    match second_look {
        Ok(tag) => problems.extend(second_look_problem(&pins, live.as_ref(), tag)?),
        Err(why) => notes.push(format!("calls in fragments pass unread: {why}")),
    }
    if forwarding::is_on() {
        match try_forwarded() {
            Ok(program) => problems.extend(forwarded_problem(&pins, live.as_ref(), &program)?),
            Err(error) => notes
                .push(format!("calls in fragments that are only forwarded pass unread: {error}")),
        }
    }

    let mut names = config.map_or_else(Vec::new, |config| config.interfaces);
    let pinned = pins.links();
    names.extend(pinned.into_iter().filter(|name| !names.contains(name)).collect::<Vec<_>>());
    if names.is_empty() {
        problems.push("no interface has the filter: palang attach IFACE".to_owned());
    }
    let mut interfaces = Vec::new();
    for name in names {
        let interface = interface(&name, links, &pins, live.as_ref(), tag)?;
        if interface.xdp.as_deref() == Some("generic") {
            notes.push(format!("{name}: generic XDP, which is slower"));
        }
        problems.extend(interface.problem.as_ref().map(|problem| format!("{name}: {problem}")));
        interfaces.push(interface);
    }
    // If the filter is not in force here, the result in the private network does not matter.
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
        problems.push("no trunk could be tested".to_owned());
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

/// Reads the state in force from the pins.
fn live(pins: &Pins) -> Result<Pinned, datapath::Error> {
    let folders = pins.filled_map_folders();
    if folders.is_empty() {
        let problem = "no filter is in force: none was loaded since this machine started \
                       (systemctl start palang); the program in this binary was tested";
        return Ok(Pinned::Problem(problem.to_owned()));
    }
    let Some(folder) = folders.into_iter().rfind(|folder| Pins::is_of_this_version(folder)) else {
        return Ok(Pinned::Problem(format!(
            "the maps in force have a different layout than this palang (v{ABI_VERSION}): use the \
             version that the daemon runs, or systemctl restart palang"
        )));
    };
    let maps = match Maps::open(&folder) {
        Ok(maps) => maps,
        Err(error @ datapath::Error::Layout { .. }) => {
            return Ok(Pinned::Problem(error.to_string()));
        }
        Err(error) => return Err(error),
    };
    let now = clock::boot();
    let mut blocks = 0;
    let limit = u64::from(Maps::capacity(&folder)?);
    walk_blocks(&folder, limit, |_, block| {
        blocks += u64::from(is_live(block.expires, now));
        Ok(())
    })?;
    let live = Live {
        policy: maps.copy_without_blocks()?,
        mode: inspect::mode(&maps)?,
        over: inspect::override_in_force(maps.pass_maps().override_until()?),
        blocks,
        maps: IDENTIFYING_MAPS
            .iter()
            .map(|name| map_id(&folder, name))
            .collect::<Result<_, _>>()?,
        folder: folder.clone(),
    };
    if live.policy.settings.abi_version != ABI_VERSION {
        return Ok(Pinned::Problem(format!(
            "the maps in {} have no settings: every call passes; restart the daemon (systemctl \
             restart palang)",
            folder.display()
        )));
    }
    Ok(Pinned::Live(Box::new(live)))
}

/// Returns the policy to test, without blocks. If none is in force, it is the configured one, enforced.
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
        // The maps have no names.
        let mut sources = configured.sources.clone();
        sources.sort();
        if sources == trunk.sources {
            trunk.name.clone_from(&configured.name);
        }
    }
    policy
}

/// Describes an interface and the program on it, and checks that it is the tested program.
fn interface(
    name: &str,
    links: &[Link],
    pins: &Pins,
    live: Option<&Live>,
    tried: u64,
) -> Result<InterfaceState, datapath::Error> {
    let found = inspect::interface(name, links, None);
    let mut state = InterfaceState {
        name: name.to_owned(),
        xdp: found.xdp,
        program: found.program,
        tag: None,
        problem: found.problem,
    };
    if pins.is_off(name) {
        state.problem = Some(format!("the filter was detached: palang attach {name}"));
    }
    let Some(id) = state.program else { return Ok(state) };
    let Some(program) = loaded(id)? else {
        state.problem = Some(format!("program {id} was removed during the test: run it again"));
        return Ok(state);
    };
    state.tag = Some(format!("{:016x}", program.tag));
    state.problem = strange(&program, live, tried).or(state.problem);
    Ok(state)
}

/// Returns why a program in force is not the tested one.
fn strange(program: &datapath::Loaded, live: Option<&Live>, tried: u64) -> Option<String> {
    let live = live?;
    let id = program.id;
    if !live.maps.iter().all(|map| program.maps.contains(map)) {
        return Some(format!(
            "program {id} does not use the maps in {}: bpftool prog show id {id}",
            live.folder.display()
        ));
    }
    (program.tag != tried).then(|| {
        format!(
            "program {id} in force is not the tested program of this palang {}: systemctl restart palang",
            env!("CARGO_PKG_VERSION")
        )
    })
}

/// Describes what is wrong with the second look in force, when this kernel has taken that of this binary.
///
/// # Errors
/// An error of the system calls that read the pin and the programs.
fn second_look_problem(
    pins: &Pins,
    live: Option<&Live>,
    tried: u64,
) -> Result<Option<String>, datapath::Error> {
    if live.is_none() || pins.links().is_empty() {
        return Ok(None);
    }
    let Some(id) = pins.second_look_program()? else {
        let problem = "the second look is not attached, so calls in fragments pass unread: `palang status` \
                       says why";
        return Ok(Some(problem.to_owned()));
    };
    let attached = if pins.has_second_look() { loaded(id)? } else { None };
    let found = match attached {
        Some(program) => strange(&program, live, tried),
        // The pin has another object, or the kernel has ended the link.
        None => {
            Some("no program is attached by its link: palang detach, then palang attach".into())
        }
    };
    Ok(found.map(|problem| format!("second look: {problem}")))
}

/// Describes what is wrong with the program for forwarded packets in force, when this kernel has taken that of this
/// binary.
///
/// # Errors
/// An error of the system calls that read the pins and the programs.
fn forwarded_problem(
    pins: &Pins,
    live: Option<&Live>,
    tried: &OwnedFd,
) -> Result<Option<String>, datapath::Error> {
    if live.is_none() || pins.links().is_empty() {
        return Ok(None);
    }
    if !pins.has_forwarded() {
        let problem = "this machine forwards packets, but the program for them is not attached: calls in fragments pass \
                       unread among them, and `palang status` says why";
        return Ok(Some(problem.to_owned()));
    }
    let tried = tag(tried)?;
    for id in pins.forwarded_programs()? {
        let found = match loaded(id)? {
            Some(program) => strange(&program, live, tried),
            None => Some("no program is attached by its link: systemctl restart palang".into()),
        };
        if let Some(problem) = found {
            return Ok(Some(format!("forwarded packets: {problem}")));
        }
    }
    Ok(None)
}

/// Parameters of the calls over a trunk.
struct Plan {
    trunk: usize,
    source: IpAddr,
    asserted: bool,
    callers: [call::Caller; 2],
}

/// The tested program.
struct Loaded {
    tag: u64,
    /// Note for a kernel that refuses the full reader.
    slow_reader: Option<String>,
    /// Tag of the second look, or why this machine has no second look.
    second_look: Result<u64, String>,
}

/// The calls over a trunk: blocked, other, allowed; and blocked and other in fragments.
struct Calls {
    usual: [Result<Seen, Error>; 3],
    in_fragments: Option<[Result<Seen, Error>; 2]>,
}

/// Sends calls over every trunk of a policy, in a private network, through the program.
fn test_calls(policy: &Policy) -> Result<(Loaded, Vec<Tried>), Error> {
    let mut policy = policy.clone();
    // The copy must report every call.
    policy.settings.pass_events_per_second =
        policy.settings.pass_events_per_second.max(PASS_EVENTS_PER_SECOND);
    let port = policy.ports.first().copied();
    let mut tried = BTreeMap::new();
    let mut plans = Vec::new();
    let first = usize::from(policy.settings.trunks_configured != 0);
    for trunk in first..policy.trunks.len() {
        match plan(&policy, trunk) {
            Ok(plan) => plans.push(plan),
            Err(failed) => {
                tried.insert(trunk, *failed);
            }
        }
    }
    for plan in &plans {
        policy.block(Subject::Number(plan.callers[0].number), 0, BLOCK_NO_REDIAL);
    }
    let with_ipv6 = plans.iter().any(|plan| plan.source.is_ipv6());
    let (loaded, seen) = in_own_namespace(|| {
        let mut trial = Trial::load(&policy)?;
        let loaded = Loaded {
            tag: trial.tag()?,
            slow_reader: trial.slow_reader(),
            second_look: trial.attach_second_look().map_err(|error| describe(&error)),
        };
        let again = loaded.second_look.is_ok();
        let mut veth_pair = Veth::new(trial, port.unwrap_or(SIP_PORT), with_ipv6)?;
        let mut seen: Vec<Calls> = Vec::new();
        for Plan { source, asserted, callers: [blocked, free], .. } in &plans {
            let mut call = |caller, filling| veth_pair.call(caller, *asserted, *source, filling);
            let usual = [call(blocked, 0), call(free, 0), Ok(Seen::default())];
            let mut long = |caller| call(caller, FILLING);
            let in_fragments = again.then(|| [long(blocked), long(free)]);
            seen.push(Calls { usual, in_fragments });
        }
        for (plan, seen) in plans.iter().zip(&mut seen) {
            let caller = &plan.callers[0];
            let allow = Allow { number: caller.number, expires: 0, rule: RULE };
            let maps = veth_pair.trial().maps().pass_maps();
            maps.set_allow(Subject::Number(caller.number), allow)?;
            seen.usual[2] = veth_pair.call(caller, plan.asserted, plan.source, 0);
        }
        Ok((loaded, seen))
    })?;
    for (plan, seen) in plans.iter().zip(seen) {
        let mut result = result(&policy, plan, seen);
        if port.is_none() {
            result.outcome = Outcome::Broken;
            result.problem = Some("no SIP port is configured: no call is judged".to_owned());
        }
        tried.insert(plan.trunk, result);
    }
    Ok((loaded, tried.into_values().collect()))
}

/// Plans the calls over a trunk; the error is the result of a trunk that cannot be tested.
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
            blocked_in_fragments: None,
            other_in_fragments: None,
        })
    };
    let source = match trunk {
        // Every source uses the profile `default` if no trunks are configured.
        0 => Some(veth::ANYBODY.into()),
        _ => call::source(policy, trunk, &[veth::NEAR_V4.into(), veth::NEAR_V6.into()]),
    };
    let Some(source) = source else {
        let problem = "not tested: no packet can come from its source addresses, \
                       or all of them also belong to other trunks";
        return Err(not_tried(Outcome::Broken, problem.to_owned()));
    };
    let callers = call::callers(policy, entry, clock::boot())
        .map_err(|error| not_tried(Outcome::Broken, error.to_string()))?;
    Ok(Plan { trunk, source, asserted: entry.profile.trusts_pai(), callers })
}

fn result(policy: &Policy, plan: &Plan, seen: Calls) -> Tried {
    let (mut outcome, mut problem) = match &seen.usual {
        [Ok(blocked), Ok(other), Ok(allowed)] => judge(plan.trunk, blocked, other, allowed),
        [Err(error), _, _] | [_, Err(error), _] | [_, _, Err(error)] => {
            (Outcome::Broken, Some(error.to_string()))
        }
    };
    let compared = match &seen.in_fragments {
        Some([Ok(blocked), Ok(other)]) => compare(plan.trunk, outcome, blocked, other),
        Some([Err(error), _] | [_, Err(error)]) => Err(format!("calls in fragments: {error}")),
        None => Ok(()),
    };
    // The first problem is the cause.
    if let (Err(found), None) = (compared, &problem) {
        (outcome, problem) = (Outcome::Broken, Some(found));
    }
    let call = |seen: Result<Seen, Error>| {
        let seen = seen.ok()?;
        Some(Call {
            arrived: seen.arrived,
            reason: reason(&seen).map(|reason| reason.name().into()),
        })
    };
    let [blocked, other, allowed] = seen.usual.map(call);
    let [blocked_in_fragments, other_in_fragments] =
        seen.in_fragments.map_or([None, None], |seen| seen.map(call));
    Tried {
        trunk: policy.trunks[plan.trunk].name.clone(),
        source: Some(plan.source),
        caller: Some(plan.callers[0].text.clone()),
        outcome,
        problem,
        blocked,
        other,
        allowed,
        blocked_in_fragments,
        other_in_fragments,
    }
}
