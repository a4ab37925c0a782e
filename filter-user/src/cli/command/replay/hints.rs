//! Hints for the user's next step, from the summary of a replay.

use std::cmp::Reverse;

use filter_common::abi::Verdict;

use crate::cli::output::count;
use crate::cli::output::not_judged::not_judged;
use crate::replay::summary::Summary;

/// Largest number of ports to name: a capture of a port scan has thousands.
const PORTS_MAX: usize = 8;

/// Returns one line for each obstacle and one for the next step. SIP was read on `ports`.
#[must_use]
pub fn hints(summary: &Summary, ports: &[u16]) -> Vec<String> {
    let mut hints = Vec::new();
    if summary.cut > 0 {
        hints.push(format!(
            "{} captured only in part and cannot be judged: capture with `tcpdump -s 0`",
            if summary.cut == 1 {
                "1 packet was".into()
            } else {
                format!("{} packets were", summary.cut)
            },
        ));
    }
    hints.extend(not_judged(&summary.skipped));
    if !summary.other_ports.is_empty() {
        hints.push(other_ports(summary, ports));
    }
    let refused = summary.verdicts.iter().any(|(name, _)| *name != Verdict::Pass.name());
    if summary.invites == 0 {
        hints.push("no INVITE was found: --all shows what each frame is".to_owned());
    } else if refused {
        hints.push(
            "to let a refused caller through: --allow NUMBER; to see every field of a call: -o json"
                .to_owned(),
        );
    }
    hints
}

/// Names the current ports as well, because `--port` replaces them.
fn other_ports(summary: &Summary, ports: &[u16]) -> String {
    let mut others: Vec<(u16, u64)> =
        summary.other_ports.iter().map(|(port, invites)| (*port, *invites)).collect();
    let invites: u64 = others.iter().map(|(_, invites)| invites).sum();
    others.sort_by_key(|(port, invites)| (Reverse(*invites), *port));
    let more = others.len().saturating_sub(PORTS_MAX);
    let mut text =
        format!("{} went to UDP ports that are not read as SIP: add", count(invites, "INVITE"));
    for port in others.iter().map(|(port, _)| port).take(PORTS_MAX).chain(ports) {
        text += &format!(" --port {port}");
    }
    if more > 0 {
        text += &format!(" (and {})", count(more as u64, "more port"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(verdict: &'static str, other_ports: u16) -> Summary {
        Summary {
            frames: 9,
            invites: 3,
            verdicts: [(verdict, 3)].into(),
            other_ports: (0..other_ports).map(|port| (6000 + port, u64::from(port) + 1)).collect(),
            ..Summary::default()
        }
    }

    #[test]
    fn other_ports_hint_names_the_current_ports() {
        assert_eq!(
            hints(&summary("pass", 2), &[5060]),
            ["3 INVITEs went to UDP ports that are not read as SIP: \
              add --port 6001 --port 6000 --port 5060"]
        );
        let many = hints(&summary("pass", 100), &[5060]).join("\n");
        assert!(many.len() < 250 && many.ends_with("(and 92 more ports)"), "{many}");
    }

    #[test]
    fn hints_name_the_next_step() {
        assert!(hints(&summary("pass", 0), &[5060]).is_empty());
        assert!(hints(&summary("drop", 0), &[5060])[0].contains("--allow"));
        assert!(hints(&Summary::default(), &[5060])[0].contains("--all "));
        let cut = Summary { cut: 1, ..summary("pass", 0) };
        assert!(hints(&cut, &[5060])[0].starts_with("1 packet was captured only in part"));
    }
}
