//! The gate in the kernel and the gate on the host, side by side.

use filter_common::abi::{Event, Verdict};
use filter_common::number::Number;
use filter_common::reason::Reason;
use palang::datapath::{Error, Features, Maps, Plan, Program, Replay};
use palang::model::host_gate::HostGate;
use palang::model::policy::Policy;

/// Names the program of the object that all tests load, `palang_slim` for instance. Not set: the one
/// that the kernel takes first.
const PROGRAM: &str = "PALANG_TEST_PROGRAM";

/// Returns the programs that tests load.
///
/// # Panics
/// When `PALANG_TEST_PROGRAM` names no program, or the kernel takes none.
#[must_use]
pub fn plan() -> Plan {
    let Ok(name) = std::env::var(PROGRAM) else {
        return Plan::of_this_kernel().unwrap_or_else(|error| panic!("{error}"));
    };
    let named = Program::ALL.into_iter().find(|program| program.name() == name);
    only(named.unwrap_or_else(|| panic!("{PROGRAM}: there is no program {name}")))
}

/// Loads this program alone, as on the kernel that it is made for. A kernel without `xdp.frags` has no
/// helpers for frames of several buffers either.
///
/// # Panics
/// When the kernel takes no XDP program.
#[must_use]
pub fn only(program: Program) -> Plan {
    let plan = Plan::only(program).unwrap_or_else(|error| panic!("{error}"));
    let buffer_helpers = program.frags && plan.features.buffer_helpers;
    Plan { features: Features { buffer_helpers, ..plan.features }, ..plan }
}

/// Returns the host's gate that does what the loaded program does.
fn host(policy: &Policy, kernel: &Replay) -> HostGate {
    let program = kernel.program();
    let host = HostGate::new(policy).with_reader(program.reader);
    let host = if program.frags { host } else { host.without_driver_replies() };
    if kernel.no_replies().is_some() { host.without_replies() } else { host }
}

/// Both gates with one policy. They must agree in every byte of each event.
pub struct Gates {
    host: HostGate,
    kernel: Replay,
    policy: Policy,
    second_look: bool,
}

impl Gates {
    /// Loads the program.
    ///
    /// # Panics
    /// When it does not load.
    #[must_use]
    pub fn new(policy: &Policy) -> Gates {
        Gates::of(&plan(), policy)
    }

    /// Makes both gates with the programs of a plan.
    ///
    /// # Panics
    /// When it does not load.
    #[must_use]
    pub fn of(plan: &Plan, policy: &Policy) -> Gates {
        let kernel = Replay::load_as(plan, policy, &[]).unwrap_or_else(|error| panic!("{error}"));
        let host = host(policy, &kernel);
        Gates { host, kernel, policy: policy.clone(), second_look: false }
    }

    /// Replaces the policy, with no memory of attempts and fragments.
    ///
    /// # Panics
    /// When the kernel does not take it.
    pub fn replace(&mut self, policy: &Policy) {
        self.kernel.replace(policy).unwrap_or_else(|error| panic!("{error}"));
        self.host = host(policy, &self.kernel);
        self.host.set_second_look(self.second_look);
        self.policy = policy.clone();
    }

    /// Replaces the policy; attempts, redials and grants are remembered.
    ///
    /// # Panics
    /// When the kernel does not take it.
    pub fn change(&mut self, policy: &Policy) {
        self.kernel.change(policy).unwrap_or_else(|error| panic!("{error}"));
        self.host.change(policy);
        self.policy = policy.clone();
    }

    /// Changes only lists and override, entry by entry as a daemon does it. An entry that is no longer in
    /// a list is removed.
    ///
    /// # Panics
    /// When the kernel does not take it.
    pub fn change_lists(&mut self, policy: &Policy) {
        if let Err(error) = write_lists(self.kernel.maps(), &self.policy, policy) {
            panic!("{error}");
        }
        self.host.change(policy);
        self.policy = policy.clone();
    }

    /// Sets the override in both, and nothing else.
    ///
    /// # Panics
    /// When the kernel does not take it.
    pub fn set_override(&mut self, until: u64) {
        self.kernel.set_override(until).unwrap_or_else(|error| panic!("{error}"));
        self.host.set_override(until);
        self.policy.override_until = until;
    }

    /// Lets both judge frames for these Ethernet addresses only; `None`: all frames.
    ///
    /// # Panics
    /// When the kernel does not take them.
    pub fn set_own_addresses(&mut self, own: Option<&[[u8; 6]]>) {
        self.kernel.set_own_addresses(own).unwrap_or_else(|error| panic!("{error}"));
        self.host.set_own_addresses(own);
    }

    /// Lets the daemon answer the calls of trunks that leave it open, or the driver again.
    ///
    /// # Panics
    /// When the kernel does not take it.
    pub fn set_answered_by_daemon(&mut self, by_daemon: bool) {
        self.kernel.set_answered_by_daemon(by_daemon).unwrap_or_else(|error| panic!("{error}"));
        self.host.set_answered_by_daemon(by_daemon);
    }

    /// Sets whether a daemon runs.
    ///
    /// # Panics
    /// When the kernel does not take it.
    pub fn set_daemon(&mut self, runs: bool) {
        self.kernel.set_daemon(runs).unwrap_or_else(|error| panic!("{error}"));
        self.host.set_daemon(runs);
    }

    /// Judges a frame with both.
    ///
    /// # Panics
    /// When they disagree, or the kernel's action is not what its event says.
    pub fn judge(&mut self, frame: &[u8], time: u64) -> Event {
        let host = self.host.judge(frame, time);
        let kernel = self.kernel.judge(frame, time).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(host, kernel.event, "host (left) and kernel disagree on {}", dump(frame));
        assert_eq!(
            self.host.reply().map(dump),
            kernel.reply.as_deref().map(dump),
            "the replies of host (left) and kernel differ on {}",
            dump(frame)
        );
        assert_eq!(
            kernel.dropped,
            kernel.event.verdict == Verdict::Drop as u8,
            "action and event disagree on {}",
            dump(frame)
        );
        host
    }

    /// Returns the frame of the reply to the frame that was judged last; `None`: it got no reply.
    #[must_use]
    pub fn reply(&self) -> Option<&[u8]> {
        self.host.reply()
    }

    /// Lets both leave to a second look what the first cannot read. Returns `false` on a kernel before 5.17,
    /// which has no `bpf_loop`.
    ///
    /// # Panics
    /// When a newer kernel does not load its program, or an older one does.
    pub fn add_second_look(&mut self) -> bool {
        let loaded = self.kernel.load_second_look();
        if !has_loop() {
            assert!(matches!(loaded, Err(Error::Refused(_))), "before Linux 5.17: {loaded:?}");
            return false;
        }
        loaded.unwrap_or_else(|error| panic!("{error}"));
        self.host.set_second_look(true);
        self.second_look = true;
        true
    }

    /// Judges a frame by both looks. A first fragment is left to the second look, and `second-look`.
    ///
    /// # Panics
    /// When the gates disagree.
    pub fn judge_twice(&mut self, frame: &[u8], time: u64) -> Event {
        let event = self.judge(frame, time);
        let left = reason(&event) == Reason::SecondLook;
        left.then(|| self.judge_again(frame, time)).flatten().unwrap_or(event)
    }

    /// Judges a datagram that the host has put together with both. `None`: the first look did not leave it
    /// to the second.
    ///
    /// # Panics
    /// When they disagree, or the kernel's action is not what its event says.
    pub fn judge_again(&mut self, frame: &[u8], time: u64) -> Option<Event> {
        let host = self.host.judge_again(frame, time);
        let kernel = self.kernel.judge_again(frame, time).unwrap_or_else(|error| panic!("{error}"));
        let event = kernel.as_ref().map(|judged| judged.event);
        assert_eq!(host, event, "host (left) and kernel disagree on {}", dump(frame));
        if let Some(judged) = kernel {
            let refused = judged.event.verdict == Verdict::Drop as u8;
            assert_eq!(judged.dropped, refused, "action and event disagree on {}", dump(frame));
            // The kernel's datagram has no Ethernet addresses.
            let after_addresses = |reply: &[u8]| dump(&reply[12..]);
            assert_eq!(
                self.host.reply().map(after_addresses),
                judged.reply.as_deref().map(after_addresses),
                "the replies of host (left) and kernel differ on {}",
                dump(frame)
            );
        }
        host
    }

    /// Gives both a frame that leaves: the number that it calls.
    ///
    /// # Panics
    /// When they disagree, or the kernel did anything to the frame.
    pub fn send(&mut self, frame: &[u8], time: u64) -> Number {
        let host = self.host.send(frame, time);
        let kernel = self.kernel.send(frame, time).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(host, kernel, "host (left) and kernel disagree on {}", dump(frame));
        host
    }

    /// Returns the gate in the kernel.
    pub fn kernel(&mut self) -> &mut Replay {
        &mut self.kernel
    }
}

/// Returns whether the running kernel is 5.17 or newer, and so has `bpf_loop`. Only tests ask for a version:
/// they know which kernels they run on.
fn has_loop() -> bool {
    let release = nix::sys::utsname::uname().unwrap().release().to_string_lossy().into_owned();
    let mut parts = release.split(['.', '-', '+']).map(|part| part.parse().unwrap_or(0));
    let version: (u32, u32) = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    version >= (5, 17)
}

/// Makes one policy's lists in the kernel another's.
fn write_lists(maps: &Maps, old: &Policy, new: &Policy) -> Result<(), Error> {
    maps.pass_maps().set_override(new.override_until)?;
    maps.set_protected(&new.protected)?;
    for (subject, allow) in &new.allows {
        maps.pass_maps().set_allow(*subject, *allow)?;
    }
    for (subject, block) in &new.blocks {
        maps.set_block(*subject, *block)?;
    }
    for (subject, _) in &old.allows {
        if !new.allows.iter().any(|(other, _)| other == subject) {
            maps.pass_maps().remove_allow(*subject)?;
        }
    }
    for (subject, _) in &old.blocks {
        if !new.blocks.iter().any(|(other, _)| other == subject) {
            maps.remove_block(*subject)?;
        }
    }
    Ok(())
}

/// Returns the reason of an event.
///
/// # Panics
/// When it is not a reason.
#[must_use]
pub fn reason(event: &Event) -> Reason {
    Reason::from_number(event.reason).expect("a known reason")
}

/// Asserts that a call had this reason, and was refused only if it is of a block.
///
/// # Panics
/// When it was not so.
#[track_caller]
pub fn assert_reason(event: &Event, expected: Reason) {
    assert_eq!(reason(event).name(), expected.name());
    let refused = matches!(expected, Reason::BlockedNumber | Reason::BlockedPrefix);
    assert_eq!(event.verdict == Verdict::Drop as u8, refused);
}

/// Returns a frame for a message of a failing test: text where it is text.
fn dump(frame: &[u8]) -> String {
    frame.escape_ascii().to_string()
}
