//! Refused calls that the kernel hands to the daemon, which answers them: their entries in the ring, and their counts.

use crate::abi::{Profile, REPLY_PATH_DAEMON, REPLY_PATH_DRIVER};

/// Returns whether the daemon, and not the driver, sends the reply to a call of this trunk. `interface`: whether it does for
/// the interface, where the trunk leaves it open.
#[inline(always)]
pub fn is_by_daemon(profile: &Profile, interface: impl FnOnce() -> bool) -> bool {
    match profile.reply_path {
        REPLY_PATH_DRIVER => false,
        REPLY_PATH_DAEMON => true,
        _ => interface(),
    }
}

/// Returns whether the daemon may have to send replies to calls of this trunk.
#[must_use]
#[inline(always)]
pub const fn may_be_by_daemon(profile: &Profile) -> bool {
    profile.refuse != 0 && profile.reply_path != REPLY_PATH_DRIVER
}

/// Refused calls of one trunk that the kernel handed to the daemon. The daemon counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct DaemonReplies {
    /// Replies that were sent.
    pub sent: u64,
    /// Of these, replies to an INVITE of an attempt that was refused before.
    pub repeated: u64,
    /// Refused calls with a wrong checksum: no reply.
    pub damaged: u64,
    /// Refused calls that no reply is possible to.
    pub impossible: u64,
    /// Replies that the kernel did not send, such as without a route.
    pub failed: u64,
    /// Refused calls that a daemon found too late. A call may pass meanwhile, and a refused one comes again.
    pub late: u64,
    /// Calls while no daemon ran, passed or dropped, that a daemon has reported since.
    pub reported: u64,
}

/// The bytes after it are the frame of a request, which the daemon answers. Otherwise they are the frame of a reply.
pub const HANDED_REQUEST: u8 = 1;
/// The attempt was refused before.
pub const HANDED_REPEATED: u8 = 2;
/// The trunk accepts a datagram without a checksum.
pub const HANDED_WITHOUT_CHECKSUM: u8 = 4;

/// The head of an entry in the ring of refused calls that the daemon answers. A frame follows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct HandedOver {
    /// When the call was judged.
    pub time: u64,
    /// Index of the interface that it came by.
    pub interface: u32,
    /// Index of the trunk's profile.
    pub trunk: u8,
    /// The [`Code`](crate::answer::code::Code) of the reply, as number.
    pub code: u8,
    /// [`HANDED_REQUEST`], [`HANDED_REPEATED`], [`HANDED_WITHOUT_CHECKSUM`].
    pub flags: u8,
    /// Offset of the IP header in the frame.
    pub ip: u8,
}

impl HandedOver {
    /// Length in bytes.
    pub const LEN: usize = size_of::<HandedOver>();

    /// Reads the head of an entry; `None`: it is too short.
    #[must_use]
    pub fn read(entry: &[u8]) -> Option<HandedOver> {
        let (time, rest) = entry.split_first_chunk()?;
        let (interface, rest) = rest.split_first_chunk()?;
        let [trunk, code, flags, ip] = *rest.first_chunk()?;
        let (time, interface) = (u64::from_ne_bytes(*time), u32::from_ne_bytes(*interface));
        Some(HandedOver { time, interface, trunk, code, flags, ip })
    }
}

const _: () = assert!(size_of::<DaemonReplies>() == 56 && HandedOver::LEN == 16);
