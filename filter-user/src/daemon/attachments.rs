//! Attaches the filter to its interfaces at the start, watches them, and attaches it again after an
//! interface was deleted and created again. If somebody detaches the filter by hand, it remains
//! detached.

mod companion;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use filter_common::abi::{Profile, REPLY_PATH_DAEMON, REPLY_PATH_DRIVER};
use futures_util::StreamExt as _;
use tokio::sync::Mutex;

use crate::api::wire::{Interface, Problem, ProblemKind};
use crate::daemon::attachments::companion::{Companion, Kept};
use crate::daemon::role::Principal;
use crate::daemon::state::Control;
use crate::datapath::{DaemonPaths, Egress, Error, Filter, OwnAddresses, Pins, RunTime};
use crate::inspect;
use crate::model::reply_path::{self, Facts};
use crate::model::xdp_mode::XdpMode;
use crate::store::Entry;
use crate::sys::ethtool;
use crate::sys::netlink;
use crate::sys::netlink::Link;
use crate::sys::{clock, forwarding};

/// Interval of the checks: the kernel reports interfaces, but not XDP links that come or go.
const LOOK: Duration = Duration::from_secs(1);

/// Problem for the status: the kernel does not know which interfaces the daemon answers for.
const PATHS_FAILED: &str = "the path of replies cannot be set";

/// The known state of an interface.
#[derive(Clone, Debug, Default)]
struct Known {
    /// Index of the interface that the filter was last seen on.
    index: Option<u32>,
    /// Why the filter could not be attached.
    problem: Option<String>,
    /// Index of the interface that has the program for outgoing packets.
    egress: Option<u32>,
    /// Why the program for outgoing packets could not be attached.
    egress_problem: Option<String>,
}

impl Known {
    fn problem(&self) -> Option<String> {
        self.problem.clone().or_else(|| self.egress_problem.clone())
    }
}

/// The program, and the interfaces that it is on.
pub struct Attachments {
    control: Arc<Control>,
    pins: Pins,
    slow_reader: Option<String>,
    no_replies: Option<String>,
    /// Whether the program can put a reply into a frame.
    frags: bool,
    second_look: Kept,
    forwarded: Kept,
    filter: Mutex<(Filter, BTreeMap<String, Known>)>,
    seen: std::sync::Mutex<Vec<Interface>>,
    /// Why the addresses of this machine could not be written.
    addresses_problem: std::sync::Mutex<Option<String>>,
}

impl Attachments {
    /// Creates the attachments of a loaded filter; nothing is attached yet.
    #[must_use]
    pub fn new(control: Arc<Control>, pins: Pins, filter: Filter) -> Attachments {
        let slow_reader = filter.slow_reader();
        let no_replies = filter.no_replies().map(ToOwned::to_owned);
        let frags = filter.program().frags;
        let filter = Mutex::new((filter, BTreeMap::new()));
        Attachments {
            control,
            pins,
            slow_reader,
            no_replies,
            frags,
            second_look: Kept::default(),
            forwarded: Kept::default(),
            filter,
            seen: std::sync::Mutex::default(),
            addresses_problem: std::sync::Mutex::default(),
        }
    }

    /// Returns the warning if this kernel refuses the full reader; `None`: the kernel accepts it.
    #[must_use]
    pub fn slow_reader(&self) -> Option<&str> {
        self.slow_reader.as_deref()
    }

    /// Returns why this kernel answers no refused call; `None`: it does.
    #[must_use]
    pub fn no_replies(&self) -> Option<&str> {
        self.no_replies.as_deref()
    }

    /// Returns who sends the replies to refused calls of a trunk: `driver`, `daemon`, `both`, or `none`.
    #[must_use]
    pub fn reply_path(&self, profile: &Profile) -> &'static str {
        let is_daemon = |interface: &Interface| interface.replies_by_daemon.is_some();
        let (seen, is_on_driver) = (self.seen(), self.frags);
        match profile.reply_path {
            _ if profile.refuse == 0 || self.no_replies.is_some() => "none",
            REPLY_PATH_DAEMON => "daemon",
            REPLY_PATH_DRIVER if !is_on_driver => "none",
            REPLY_PATH_DRIVER => "driver",
            _ if !is_on_driver || !seen.is_empty() && seen.iter().all(is_daemon) => "daemon",
            _ if seen.iter().any(is_daemon) => "both",
            _ => "driver",
        }
    }

    /// Returns why no second look judges datagrams in fragments; `None`: it does.
    #[must_use]
    pub fn no_second_look(&self) -> Option<String> {
        self.second_look.problem()
    }

    /// Returns why calls in fragments that this machine only forwards pass unread; `None`: they are judged, or nothing is
    /// forwarded.
    #[must_use]
    pub fn no_forwarded(&self) -> Option<String> {
        self.forwarded.problem().filter(|_| forwarding::is_on())
    }

    /// Returns why the addresses of this machine could not be written; `None`: they are in force.
    #[must_use]
    pub fn addresses_problem(&self) -> Option<String> {
        self.addresses_problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the interfaces as they were last seen.
    #[must_use]
    pub fn seen(&self) -> Vec<Interface> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the run time that the kernel measured for the program.
    ///
    /// # Errors
    /// Returns an error if a system call fails.
    pub async fn run_time(&self) -> Result<RunTime, Error> {
        self.filter.lock().await.0.run_time()
    }

    /// Attaches the filter to each configured interface that lacks it.
    pub async fn settle(&self) {
        let mut guard = self.filter.lock().await;
        let (filter, known) = &mut *guard;
        let Ok(links) = netlink::links().await else {
            tracing::error!("cannot list the interfaces of this machine");
            return;
        };
        let Ok(ours) = filter.program_id() else { return };
        let config = self.control.config();
        let mut names = config.interfaces.clone();
        names.extend(self.pins.links());
        names.extend(known.keys().cloned());
        names.sort();
        names.dedup();
        let mut changed = false;
        for name in &names {
            let entry = known.entry(name.clone()).or_default();
            let link = links.iter().find(|link| link.name == *name);
            changed |= self.reconcile_one(filter, entry, name, link, ours, config.xdp_mode).await;
            let graced = config.policy.settings.callback_grace != 0;
            self.reconcile_egress(filter, entry, name, link, graced);
        }
        let now = Instant::now();
        self.second_look.reconcile(Companion::SecondLook, filter, now);
        let reassemble = config.reassemble_forwarded;
        self.forwarded.reconcile(Companion::Forwarded { reassemble }, filter, now);
        self.set_own_addresses(filter, &links, config.forwarded);
        let links = if changed { netlink::links().await.unwrap_or(links) } else { links };
        let seen: Vec<_> =
            names.iter().map(|name| self.interface(name, &links, ours, known)).collect();
        self.set_reply_paths(filter, &seen, &links);
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = seen;
    }

    async fn reconcile_one(
        &self,
        filter: &mut Filter,
        known: &mut Known,
        name: &str,
        link: Option<&Link>,
        ours: u32,
        mode: XdpMode,
    ) -> bool {
        let Some(link) = link else { return false };
        if link.xdp.is_some_and(|xdp| xdp.program == ours) {
            known.index = Some(link.index);
            known.problem = None;
            return false;
        }
        let is_new = known.index.is_some_and(|index| index != link.index);
        let was_on = known.index == Some(link.index);
        if was_on && !self.pins.link(name).exists() && !self.pins.is_off(name) {
            // By hand, not by `palang detach`.
            if let Err(error) = self.pins.detach(name) {
                tracing::error!(interface = name, %error, "cannot remove the pin");
            }
            tracing::warn!(
                interface = name,
                "the filter was detached by hand; `palang attach` attaches it again"
            );
            self.audit("root", "detach", name, "its pin was removed").await;
        }
        if self.pins.is_off(name) {
            return false;
        }
        let attached = match blind(link) {
            None => filter.attach(name, mode).map_err(|error| describe(&error, link)),
            Some(why) => Err(why),
        };
        match attached {
            Ok(how) => {
                known.index = Some(link.index);
                known.problem = None;
                tracing::info!(interface = name, mode = ?how, "attached");
                if is_new || was_on {
                    self.control.reattached.fetch_add(1, Ordering::Relaxed);
                    self.audit("daemon", "reattach", name, "the interface was created again").await;
                }
                true
            }
            Err(text) => {
                if known.problem.as_ref() != Some(&text) {
                    tracing::error!(interface = name, problem = %text, "cannot attach");
                    known.problem = Some(text);
                }
                false
            }
        }
    }

    /// Keeps the program for outgoing packets on the interfaces of the filter, while call-back
    /// grace is on.
    fn reconcile_egress(
        &self,
        filter: &mut Filter,
        known: &mut Known,
        name: &str,
        link: Option<&Link>,
        graced: bool,
    ) {
        let is_on = self.pins.has_egress(name);
        let Some(link) = link.filter(|_| graced && self.pins.link(name).exists()) else {
            known.egress_problem = None;
            if is_on && let Err(error) = self.pins.detach_egress(name) {
                tracing::error!(interface = name, %error, "cannot detach the program for outgoing packets");
            }
            return;
        };
        if is_on && known.egress == Some(link.index) {
            return;
        }
        match filter.attach_egress(name, Egress::of_this_kernel()) {
            Ok(how) => {
                tracing::info!(interface = name, mode = ?how, "attached the program for outgoing packets");
                known.egress = Some(link.index);
                known.egress_problem = None;
            }
            Err(error) => {
                let text = error.to_string();
                if known.egress_problem.as_ref() != Some(&text) {
                    tracing::error!(interface = name, problem = %text, "no call-back grace");
                    known.egress_problem = Some(text);
                }
            }
        }
    }

    /// Lets the program answer calls to this machine only and, with `forwarded = false`, judge only these.
    fn set_own_addresses(&self, filter: &Filter, links: &[Link], forwarded: bool) {
        let own: Vec<_> = links.iter().filter_map(|link| link.address).collect();
        let set = OwnAddresses::open(filter.folder()).and_then(|mut map| map.set(&own, !forwarded));
        let problem = set.err().map(|error| error.to_string());
        let mut known = self.addresses_problem.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(problem) = &problem
            && known.as_ref() != Some(problem)
        {
            tracing::error!(%problem, "cannot write the addresses of this machine; frames for others are judged");
        }
        *known = problem;
    }

    /// Lets the daemon answer the calls of interfaces whose driver cannot.
    fn set_reply_paths(&self, filter: &Filter, seen: &[Interface], links: &[Link]) {
        let by_daemon = seen.iter().filter(|interface| interface.replies_by_daemon.is_some());
        let indexes = by_daemon.filter_map(|interface| interface.index).collect();
        let indexes = with_ports(indexes, links);
        let set = DaemonPaths::open(filter.folder()).and_then(|mut paths| paths.set(&indexes));
        self.control.chores.note(PATHS_FAILED, set.err().map(|error| error.to_string()));
    }

    async fn audit(&self, author: &str, action: &'static str, interface: &str, why: &str) {
        let entry =
            Entry::new(clock::now(), author, action).with("interface", interface).with("why", why);
        self.control.store_handle.write_behind(move |store| store.audit(entry.clone())).await;
    }

    /// Attaches the filter to an interface now, also to one that the configuration does not name.
    ///
    /// # Errors
    /// [`ProblemKind::NotFound`] if the interface does not exist; [`ProblemKind::Failed`] if
    /// another program is on it, or its driver refuses the filter.
    pub async fn attach(
        &self,
        who: &Principal,
        name: &str,
        mode: Option<XdpMode>,
        dry_run: bool,
    ) -> Result<Interface, Problem> {
        let mut guard = self.filter.lock().await;
        let (filter, known) = &mut *guard;
        let ours = filter.program_id()?;
        let links = interfaces().await?;
        let Some(link) = links.iter().find(|link| link.name == name) else {
            let message = Error::NoInterface(name.to_owned()).to_string();
            return Err(Problem { kind: ProblemKind::NotFound, message });
        };
        if let Some(message) = blind(link) {
            return Err(Problem { kind: ProblemKind::Failed, message });
        }
        let there = link.xdp.is_some_and(|xdp| xdp.program == ours);
        if !there && !dry_run {
            let mode = mode.unwrap_or(self.control.config().xdp_mode);
            filter.attach(name, mode).map_err(|error| Problem {
                kind: ProblemKind::Failed,
                message: describe(&error, link),
            })?;
            self.pins.forget_off(name);
            known.insert(name.to_owned(), Known { index: Some(link.index), ..Known::default() });
            self.audit(&who.name, "attach", name, "asked for").await;
        }
        let links = interfaces().await?;
        Ok(self.interface(name, &links, ours, known))
    }

    /// Detaches the filter from an interface, until it is attached again or the machine restarts.
    ///
    /// # Errors
    /// [`ProblemKind::NotFound`] if the filter is not on it.
    pub async fn detach(
        &self,
        who: &Principal,
        name: &str,
        dry_run: bool,
    ) -> Result<Interface, Problem> {
        let mut guard = self.filter.lock().await;
        let (filter, known) = &mut *guard;
        let ours = filter.program_id()?;
        if !self.pins.links().iter().any(|other| other == name) {
            let message = format!("the filter is not on {name}");
            return Err(Problem { kind: ProblemKind::NotFound, message });
        }
        let links = if dry_run {
            interfaces().await?
        } else {
            self.pins.detach(name)?;
            let links = netlink::links_without(ours, name).await;
            self.audit(&who.name, "detach", name, "asked for").await;
            links.map_err(unasked)?
        };
        Ok(self.interface(name, &links, ours, known))
    }

    fn interface(
        &self,
        name: &str,
        links: &[Link],
        ours: u32,
        known: &BTreeMap<String, Known>,
    ) -> Interface {
        let mut interface = inspect::interface(name, links, Some(ours));
        interface.replies_by_daemon = why_daemon(name, links);
        if self.pins.is_off(name) && interface.xdp.is_none() {
            let message = format!("the filter was detached by hand: palang attach {name}");
            interface.problem = Some(message);
        } else if let Some(problem) = known.get(name).and_then(Known::problem) {
            interface.problem = Some(problem);
        }
        interface
    }

    /// Detaches the filter from the interfaces that a new configuration no longer names.
    pub async fn leave(&self, names: &[String]) {
        for name in names {
            let who = Principal { name: "daemon".into(), role: crate::daemon::role::Role::Admin };
            if let Err(problem) = self.detach(&who, name, false).await {
                tracing::warn!(interface = %name, problem = %problem.message, "cannot detach");
            }
            self.pins.forget_off(name);
            self.filter.lock().await.1.remove(name);
        }
    }
}

/// Adds the ports of these interfaces: a filter on a bond runs on its ports in native mode.
fn with_ports(mut indexes: Vec<u32>, links: &[Link]) -> Vec<u32> {
    let of_them = |link: &&Link| link.port_of.is_some_and(|above| indexes.contains(&above));
    let ports: Vec<_> = links.iter().filter(of_them).map(|link| link.index).collect();
    indexes.extend(ports);
    indexes.sort_unstable();
    indexes.dedup();
    indexes
}

/// Returns why the daemon sends the replies to calls of an interface; `None`: its driver does.
fn why_daemon(name: &str, links: &[Link]) -> Option<String> {
    let link = links.iter().find(|link| link.name == name)?;
    let vlans: Vec<_> = links
        .iter()
        .filter(|other| other.vlan_of == Some(link.index))
        .map(|other| other.name.as_str())
        .collect();
    // A driver that does not say is asked by `palang doctor`, too.
    let driver = ethtool::driver(name).ok().flatten();
    let rx_vlan = !vlans.is_empty() && ethtool::removes_vlan_tags(name).unwrap_or(false);
    let above = links.iter().find(|other| Some(other.index) == link.port_of);
    let above_driver = above.and_then(|above| ethtool::driver(&above.name).ok().flatten());
    let above = above.map(|above| above.name.as_str()).zip(above_driver.as_deref());
    reply_path::why_daemon(&Facts { driver: driver.as_deref(), above, vlans: &vlans, rx_vlan })
}

async fn interfaces() -> Result<Vec<Link>, Problem> {
    netlink::links().await.map_err(unasked)
}

fn unasked(error: std::io::Error) -> Problem {
    let message = format!("cannot list the interfaces of this machine: {error}");
    Problem { kind: ProblemKind::Failed, message }
}

/// Returns why the filter would read no packet of an interface; `None`: it reads them.
fn blind(link: &Link) -> Option<String> {
    (!link.has_ethernet).then(|| {
        let name = &link.name;
        format!(
            "packets of {name} have no Ethernet header, and the filter would read none of them. Name the \
             interface below {name}, if calls are in clear there. Otherwise the SIP server can ask \
             (docs/kamailio.md)"
        )
    })
}

/// Describes an error of attaching, with the id of the program that is in the way.
fn describe(error: &Error, link: &Link) -> String {
    match (error, link.xdp) {
        (Error::Busy(name), Some(xdp)) => format!(
            "another XDP program is on {name}, id {}: see `bpftool prog show id {0}`, and detach it \
             first",
            xdp.program
        ),
        _ => error.to_string(),
    }
}

/// Watches the interfaces.
pub async fn run(links: Arc<Attachments>) {
    let mut tick = tokio::time::interval(LOOK);
    let mut watch = netlink::watch();
    loop {
        match &mut watch {
            Ok(changes) => tokio::select! {
                _ = tick.tick() => {}
                change = changes.next() => if change.is_none() {
                    watch = netlink::watch();
                },
            },
            Err(error) => {
                tracing::error!(%error, "cannot watch interfaces; they are checked every second");
                tick.tick().await;
                watch = netlink::watch();
            }
        }
        links.settle().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_a_bond_are_answered_as_the_bond() {
        let link = |index, port_of| Link { port_of, ..Link::named(&format!("eth{index}"), index) };
        let links = [link(2, Some(7)), link(3, Some(7)), link(4, Some(8)), link(7, None)];
        assert_eq!(with_ports(vec![7], &links), [2, 3, 7]);
        assert_eq!(with_ports(vec![7, 2], &links), [2, 3, 7]);
        assert!(with_ports(Vec::new(), &links).is_empty());
    }
}
