//! The machine: clocks, control groups, locks, network interfaces and kernels.

pub(crate) mod cgroup;
pub mod clock;
pub mod ethtool;
pub(crate) mod forwarding;
pub(crate) mod kernels;
pub(crate) mod landlock;
pub(crate) mod lock;
pub mod netlink;
pub mod raw_ip;
#[cfg(test)]
pub(crate) mod test_netns;
pub mod user;
pub mod xdp_features;
pub(crate) mod xdp_refusal;
