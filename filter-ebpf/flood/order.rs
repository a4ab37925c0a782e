//! The orders of the runner to the sender; `bench/` has this file as a module too.

/// Bytes of every frame that is sent.
pub const FRAME_LEN: usize = 900;
/// How many different INVITEs there are.
pub const VARIANTS: u32 = 512;

/// One frame, and where its Call-ID begins with eight digits.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Variant {
    /// The first of the eight digits.
    pub call_id_at: u32,
    /// The frame, from Ethernet on.
    pub frame: [u8; FRAME_LEN],
}

/// The frames to send, and those that were sent.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub struct Order {
    /// Nanoseconds between two frames; 0: as fast as it goes.
    pub interval: u64,
    /// When the next frame is due, `bpf_ktime_get_ns`.
    pub due: u64,
    /// Frames given to the interface up to now.
    pub sent: u64,
    /// The interface they go out on.
    pub interface: u32,
    /// How often each call is sent; 0: the same 512 calls again and again.
    pub copies: u32,
    /// The call that is being sent.
    pub call: u32,
    /// How often it has been.
    pub copy: u32,
}
