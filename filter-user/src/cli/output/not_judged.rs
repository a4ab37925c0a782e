//! Frames that a replay or a check of captures did not judge, and how to have them judged.

use crate::cli::output::count;
use crate::replay::frames::Skipped;

/// Returns one line for each kind of frames that were not judged.
#[must_use]
pub(crate) fn not_judged(skipped: &Skipped) -> Vec<String> {
    let foreign = skipped.foreign.iter().map(|(link, frames)| {
        let frames = count(*frames, "frame");
        format!(
            "{frames} of link type {link} not judged: supported are Ethernet, Linux cooked, raw IP and BSD null"
        )
    });
    let tunnelled: u64 = skipped.tunnelled.values().sum();
    let tunnels: Vec<&str> = skipped.tunnelled.keys().map(String::as_str).collect();
    let hint = format!(
        "{} in tunnels not judged ({}), as by a live filter: add --decap to replay or plan check",
        count(tunnelled, "INVITE"),
        tunnels.join("; ")
    );
    foreign.chain((tunnelled > 0).then_some(hint)).collect()
}
