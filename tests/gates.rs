//! The gate in the kernel and the gate on the host, side by side.

use filter_common::abi::{Event, Verdict};
use filter_common::number::Number;
use filter_common::reason::Reason;
use palang::datapath::Replay;
use palang::host::HostGate;
use palang::policy::Policy;

/// Both gates with one policy. Whatever they judge, they must agree in every byte.
pub struct Gates {
    host: HostGate,
    kernel: Replay,
}

impl Gates {
    /// Loads the program.
    ///
    /// # Panics
    /// When it does not load.
    #[must_use]
    pub fn new(policy: &Policy) -> Gates {
        let kernel = Replay::load(policy).unwrap_or_else(|error| panic!("{error}"));
        Gates { host: HostGate::new(policy), kernel }
    }

    /// Another policy, and no memory of attempts and fragments.
    ///
    /// # Panics
    /// When the kernel does not take it.
    pub fn replace(&mut self, policy: &Policy) {
        self.kernel.replace(policy).unwrap_or_else(|error| panic!("{error}"));
        self.host = HostGate::new(policy);
    }

    /// Another policy; attempts, redials and grants are remembered.
    ///
    /// # Panics
    /// When the kernel does not take it.
    pub fn change(&mut self, policy: &Policy) {
        self.kernel.change(policy).unwrap_or_else(|error| panic!("{error}"));
        self.host.change(policy);
    }

    /// Sets the override in both, and nothing else.
    ///
    /// # Panics
    /// When the kernel does not take it.
    pub fn set_override(&mut self, until: u64) {
        self.kernel.set_override(until).unwrap_or_else(|error| panic!("{error}"));
        self.host.set_override(until);
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
            kernel.dropped,
            kernel.event.verdict == Verdict::Drop as u8,
            "action and event disagree on {}",
            dump(frame)
        );
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

    /// The gate in the kernel.
    pub fn kernel(&mut self) -> &mut Replay {
        &mut self.kernel
    }
}

/// The reason of an event.
///
/// # Panics
/// When it is none.
#[must_use]
pub fn reason(event: &Event) -> Reason {
    Reason::from_number(event.reason).expect("a known reason")
}

/// A frame for a message of a failing test: text where it is text.
fn dump(frame: &[u8]) -> String {
    frame.escape_ascii().to_string()
}
