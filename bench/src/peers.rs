//! `bench peers`: measures CPU time per refused INVITE on a veth pair, for Palang and others.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use comfy_table::{CellAlignment, Table, presets};
use palang_tests::lab::{INTERFACE, Lab};

use crate::page;
use crate::veth::flood::{Attached, Flood, Others};
use crate::veth::gate::Gate;
use crate::veth::kamailio::Kamailio;
use crate::veth::{Bench, SENDER_CPU, cpu, invites, is_installed, must};

/// Options of `bench peers`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Short run that only prints.
    #[arg(long)]
    pub quick: bool,
    /// Number of turns of each receiver.
    #[arg(long, default_value_t = 6)]
    pub rounds: u32,
}

/// Of the packets that a receiver took, this share may come as far as UDP: those on the way while
/// it was set up.
const LET_THROUGH_AT_MOST: f64 = 0.001;

/// Number of rules that contain a number.
const STRINGS: u32 = 99;

/// The measured receivers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Peer {
    Null,
    Palang,
    PalangNewCalls,
    PalangGeneric,
    Naive,
    NftIngress,
    NftRaw,
    IptablesOne,
    IptablesMany,
    Kamailio,
    KamailioPaced,
}

use Peer::{
    IptablesMany, IptablesOne, Kamailio as Server, KamailioPaced, Naive, NftIngress, NftRaw, Null,
    Palang, PalangGeneric, PalangNewCalls,
};

const PEERS: [Peer; 11] = [
    Null,
    Palang,
    PalangNewCalls,
    Naive,
    PalangGeneric,
    NftIngress,
    NftRaw,
    IptablesOne,
    IptablesMany,
    Server,
    KamailioPaced,
];

impl Peer {
    fn name(self) -> &'static str {
        match self {
            Null => "XDP that drops everything, native",
            Palang => "Palang, native",
            PalangNewCalls => "Palang, native, each INVITE a new call",
            Naive => "XDP, one byte at a time and one look-up, native",
            PalangGeneric => "Palang, generic",
            NftIngress => "nft ingress, all of UDP 5060",
            NftRaw => "nft raw prerouting, all of UDP 5060",
            IptablesOne => "iptables raw, one string",
            IptablesMany => "iptables raw, 99 numbers as strings",
            Server => "Kamailio htable, saturated",
            KamailioPaced => "Kamailio htable, 20,000 INVITEs/s",
        }
    }

    /// Returns the program it needs, and its Debian package.
    fn needs(self) -> Option<(&'static str, &'static str)> {
        match self {
            Null | Palang | PalangNewCalls | Naive | PalangGeneric => None,
            NftIngress | NftRaw => Some(("nft", "nftables")),
            IptablesOne | IptablesMany => Some(("iptables-legacy-restore", "iptables")),
            Server | KamailioPaced => Some(("kamailio", "kamailio")),
        }
    }

    /// Returns INVITEs per second; `None`: as many as the sender can send.
    fn rate(self) -> Option<u32> {
        match self {
            Null | Palang | PalangNewCalls | Naive | PalangGeneric | NftIngress | NftRaw
            | IptablesOne => None,
            // More than they can handle, but few enough that dropping the rest does not dominate.
            IptablesMany | Server => Some(80_000),
            KamailioPaced => Some(20_000),
        }
    }

    /// Returns how often each call is sent, see `Flood::start`.
    fn copies(self) -> u32 {
        u32::from(self == PalangNewCalls)
    }

    fn set_up<'a>(self, lab: &'a Lab, others: &'a mut Others) -> Result<SetUp<'a>> {
        Ok(match self {
            Null => SetUp::Xdp { _attached: others.attach(lab, "null")? },
            Naive => SetUp::Xdp { _attached: others.attach(lab, "naive_filter")? },
            Palang | PalangNewCalls => SetUp::Gate(Gate::start(lab, "native", SENDER_CPU)?),
            PalangGeneric => SetUp::Gate(Gate::start(lab, "generic", SENDER_CPU)?),
            NftIngress => SetUp::nft(
                lab,
                &format!(
                    "table netdev bench {{ chain in {{ type filter hook ingress device {INTERFACE} priority 0; udp dport 5060 counter drop; }}; }}"
                ),
            )?,
            NftRaw => SetUp::nft(
                lab,
                "table ip bench { chain in { type filter hook prerouting priority raw; udp dport 5060 counter drop; }; }",
            )?,
            IptablesOne => SetUp::iptables(lab, &string_rule(&format!("@{}", invites::HOST)))?,
            IptablesMany => {
                // Rules of numbers that do not call, like most of a centre's list. The last rule drops the calls
                // that a longer list would drop.
                let mut rules = String::new();
                for index in 0..STRINGS {
                    rules += &string_rule(&format!("+62811000{index:04}@"));
                }
                SetUp::iptables(
                    lab,
                    &format!("{rules}-A PREROUTING -p udp --dport 5060 -j DROP\n"),
                )?
            }
            Server | KamailioPaced => SetUp::Server(Kamailio::start(lab)?),
        })
    }
}

fn string_rule(text: &str) -> String {
    format!("-A PREROUTING -p udp --dport 5060 -m string --algo bm --string \"{text}\" -j DROP\n")
}

/// A receiver that is set up; it is removed when dropped.
enum SetUp<'a> {
    Xdp { _attached: Attached<'a> },
    Gate(Gate<'a>),
    Server(Kamailio<'a>),
    Rules { lab: &'a Lab, flush: &'static [&'static str] },
}

impl<'a> SetUp<'a> {
    fn nft(lab: &'a Lab, table: &str) -> Result<SetUp<'a>> {
        must(lab.command_in_gate("nft").arg(table))?;
        Ok(SetUp::Rules { lab, flush: &["nft", "flush", "ruleset"] })
    }

    fn iptables(lab: &'a Lab, rules: &str) -> Result<SetUp<'a>> {
        let mut restore = lab.command_in_gate("iptables-legacy-restore");
        let mut child = restore.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let mut stdin = child.stdin.take().context("its standard input")?;
        stdin.write_all(format!("*raw\n{rules}COMMIT\n").as_bytes())?;
        drop(stdin);
        let output = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "iptables-legacy-restore: {}", said.trim());
        Ok(SetUp::Rules { lab, flush: &["iptables-legacy", "-t", "raw", "-F"] })
    }

    /// Returns the programs whose time counts besides that of the receiving thread.
    fn programs(&self) -> Vec<u32> {
        match self {
            SetUp::Xdp { .. } | SetUp::Rules { .. } => Vec::new(),
            SetUp::Gate(gate) => vec![gate.pid()],
            SetUp::Server(kamailio) => kamailio.pids(),
        }
    }
}

impl Drop for SetUp<'_> {
    fn drop(&mut self) {
        let SetUp::Rules { lab, flush } = self else { return };
        let [program, arguments @ ..] = flush else { return };
        if let Err(error) = must(lab.command_in_gate(program).args(arguments)) {
            eprintln!("{error:#}");
        }
    }
}

/// Results of one turn of a receiver.
#[derive(Clone, Copy)]
struct Turn {
    /// CPU nanoseconds per refused INVITE.
    cost: f64,
    /// CPU nanoseconds of the daemon per refused INVITE.
    daemon: f64,
    /// Refused INVITEs per second.
    rate: f64,
}

fn turn(
    bench: &Bench,
    flood: &mut Flood,
    others: &mut Others,
    peer: Peer,
    window: Duration,
) -> Result<Turn> {
    let set_up = peer.set_up(&bench.lab, others)?;
    let programs = set_up.programs();
    let mut flooding = flood.start(peer.rate(), peer.copies())?;
    flooding.wait_for_first()?;
    bench.wait(window / 3)?;
    let before = bench.counts(&programs)?;
    bench.wait(window)?;
    let (counts, seconds) = bench.counts(&programs)?.since(&before);
    flooding.stop()?;
    let is_server = matches!(set_up, SetUp::Server(_));
    let refused = if is_server { counts.read } else { counts.packets };
    ensure!(refused > 0, "nothing arrived at {}", peer.name());
    let let_through = counts.udp as f64 / counts.packets as f64;
    ensure!(
        is_server || let_through < LET_THROUGH_AT_MOST,
        "it let {} of {} INVITEs through",
        counts.udp,
        counts.packets
    );
    ensure!(counts.sent == 0, "it answered {} of {} INVITEs", counts.sent, counts.packets);
    ensure!(
        peer != KamailioPaced || counts.overflow * 100 < counts.read,
        "it lost {} of {} INVITEs",
        counts.overflow,
        counts.udp
    );
    let programs = counts.programs as f64 / refused as f64;
    let (own, daemon) = if is_server { (programs, 0.0) } else { (0.0, programs) };
    // A datagram for which the server's buffer was full used the kernel, but the server did not refuse it.
    let cost = counts.napi as f64 / counts.packets as f64 + own;
    Ok(Turn { cost, daemon, rate: refused as f64 / seconds })
}

/// A receiver with all its turns.
struct Row {
    peer: Peer,
    turns: Vec<Turn>,
    is_there: bool,
    /// Error of the last turn without a result.
    failure: Option<String>,
}

impl Row {
    fn costs(&self) -> Vec<f64> {
        let mut costs: Vec<f64> = self.turns.iter().map(|turn| turn.cost).collect();
        costs.sort_unstable_by(f64::total_cmp);
        costs
    }

    fn least(&self) -> Option<f64> {
        self.costs().first().copied()
    }

    fn median(&self) -> Option<f64> {
        let costs = self.costs();
        costs.get(costs.len() / 2).copied()
    }

    /// Returns the turn with the lowest cost.
    fn best(&self) -> Option<Turn> {
        self.turns.iter().min_by(|one, other| one.cost.total_cmp(&other.cost)).copied()
    }
}

/// Measures, prints, and writes the page.
pub fn run(arguments: &Arguments) -> Result<()> {
    let (rounds, window) = match arguments.quick {
        true => (1, Duration::from_millis(400)),
        false => (arguments.rounds.max(1), Duration::from_secs(1)),
    };
    let mut rows = PEERS.map(|peer| {
        let is_there = peer.needs().is_none_or(|(program, package)| is_installed(program, package));
        Row { peer, turns: Vec::new(), is_there, failure: None }
    });
    let bench = Bench::new()?;
    let mut flood = Flood::load(&bench.lab)?;
    let mut others = Others::load()?;
    let mut idle = cpu::Idle::new(Duration::from_secs(if arguments.quick { 1 } else { 120 }));
    for round in 1..=rounds {
        for row in rows.iter_mut().filter(|row| row.is_there) {
            idle.wait()?;
            let turn = turn(&bench, &mut flood, &mut others, row.peer, window);
            // Interrupted by the user: not a failed measurement.
            bench.go_on()?;
            let name = row.peer.name();
            match turn {
                Ok(turn) => {
                    eprintln!("{round}/{rounds} {name}: {:.0} ns, {:.0}/s", turn.cost, turn.rate);
                    row.turns.push(turn);
                }
                Err(error) => {
                    eprintln!("{round}/{rounds} {name}: {error:#}");
                    row.failure = Some(format!("{error:#}"));
                }
            }
        }
    }
    drop(bench);
    let text = text(&rows, rounds, &idle)?;
    println!("{text}");
    let mut own = rows.iter().filter(|row| row.peer.needs().is_none());
    ensure!(own.all(|row| !row.turns.is_empty()), "not all of it could be measured");
    if !arguments.quick {
        page::write("peers", &text)?;
    }
    Ok(())
}

fn text(rows: &[Row], rounds: u32, idle: &cpu::Idle) -> Result<String> {
    let row = |peer| rows.iter().find(|row| row.peer == peer);
    let least = |peer| row(peer).and_then(Row::least);
    let ours = least(Palang);
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["refused by", "CPU ns an INVITE: least (median)", "× Palang", "INVITEs/s"]);
    let mut missing = String::new();
    for row in rows {
        let (Some(best), Some(median)) = (row.best(), row.median()) else {
            let package = row.peer.needs().map_or("", |(program, _)| program);
            let why = row.failure.clone().unwrap_or_else(|| format!("{package} is not installed"));
            writeln!(missing, "- not measured: {}: {why}", row.peer.name())?;
            continue;
        };
        let ratio = ours.map_or_else(String::new, |ours| two_digits(best.cost / ours));
        table.add_row([
            row.peer.name().to_owned(),
            format!("{:.0} ({median:.0})", best.cost),
            ratio,
            format!("{:.0} k", best.rate / 1000.0),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut text = format!("{table}\n\n{missing}\n");
    let ratio = |over, under| Some(least(over)? / least(under)?);
    let targets = [
        ("Palang, native / XDP that drops everything", ratio(Palang, Null), "≤", 1.8),
        ("iptables, one string / Palang", ratio(IptablesOne, Palang), "≥", 4.0),
        ("Kamailio, saturated / Palang", ratio(Server, Palang), "≥", 100.0),
    ];
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["ratio", "measured", "target", ""]);
    for (name, measured, relation, target) in targets {
        let Some(measured) = measured else { continue };
        let is_met = if relation == "≤" { measured <= target } else { measured >= target };
        let word = if is_met { "met" } else { "missed" };
        table.add_row([name, &two_digits(measured), &format!("{relation} {target}"), word]);
    }
    write!(text, "{table}\n\n")?;
    let daemon = row(PalangNewCalls).and_then(Row::best).map_or(0.0, |turn| turn.daemon);
    write!(
        text,
        "Same 512 INVITEs of 900 bytes, all of callers on a list of {} numbers, sent by one CPU. The other receives, as a NAPI thread whose time \
         on the CPU is divided by the INVITEs that were refused. {rounds} rounds, all receivers in turn; ratios are of the least. ",
        invites::BLOCKED
    )?;
    text += "Palang is the real daemon in mode enforce. Its blocks have no redial grant: otherwise the second attempt would be let through. ";
    write!(
        text,
        "A new call also costs a record: the daemon, on the other CPU, took {daemon:.0} ns an INVITE for those it could keep up with. The others are counted as lost. "
    )?;
    text += "nft cannot look into the message at all, and the iptables strings match anywhere in it: neither could distinguish this caller \
             from his victim. Kamailio (one worker; its time counts, too) reads the whole message and could have routed the call. ";
    text += "A veth pair is no network card: take ratios from here, never packets a second.\n";
    text += &idle.remark();
    Ok(text)
}

/// Formats a ratio with two significant digits.
fn two_digits(ratio: f64) -> String {
    if ratio < 10.0 { format!("{ratio:.2}") } else { format!("{ratio:.0}") }
}
