//! How well the plans of the trunks fit recorded calls: what share of the callers is read, and which other
//! setting would read more. It runs on the host; the gate there is the kernel's own code.

pub mod records;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use filter_common::abi::Event;
use filter_common::bytes::Slice;
use filter_common::frame::{self, Packet};
use filter_common::number::Number;
use filter_common::plan::Plan;
use filter_common::reason::Reason;
use filter_common::sip::fields::{Field, Fields};
use filter_common::sip::message;
use rlibphonenumber::PHONE_NUMBER_UTIL;
use serde::Serialize;

use crate::model::host_gate::HostGate;
use crate::model::plan::format::Format;
use crate::model::plan::identity::Identity;
use crate::model::plan::preset::Preset;
use crate::model::plan::presets;
use crate::model::policy::{Policy, Trunk};
use crate::replay::Error;
use crate::replay::frames::Frames;
use crate::replay::reassembly::Reassembly;

/// Texts that are shown for each trunk.
const EXAMPLES: usize = 5;
/// Characters of a text that are shown.
const TEXT_MAX: usize = 80;

/// The callers of one trunk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TrunkCheck {
    /// Name of the trunk.
    pub trunk: String,
    /// Calls, without retransmissions.
    pub calls: u64,
    /// Calls whose caller number was read.
    pub read: u64,
    /// Those of them with a local number.
    pub local: u64,
    /// Those of them with a number that libphonenumber calls possible.
    pub possible: u64,
    /// Those of them with a possible number of the trunk's own country code.
    pub own: u64,
    /// Calls that were not read, by reason.
    pub unread: BTreeMap<&'static str, u64>,
    /// Texts that were not read.
    pub examples: Vec<Unread>,
    /// Other settings that would read more.
    pub settings: Vec<Alternative>,
}

impl TrunkCheck {
    /// Puts the settings that change least and read most first.
    fn sort_settings(&mut self) {
        self.settings.sort_by_key(|other| (other.changed, std::cmp::Reverse(other.possible)));
    }
}

/// A text that was not read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unread {
    /// The URI of the identity.
    pub text: String,
    /// The reason.
    pub reason: &'static str,
}

/// The result of another setting.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Alternative {
    /// The line of the configuration.
    pub setting: String,
    /// Calls whose caller number it would read.
    pub read: u64,
    /// Those of them with a possible number.
    pub possible: u64,
    /// Calls that it would read as another number than the plan does.
    pub changed: u64,
}

/// A change of one setting of a trunk. It returns the line of the configuration; `None` if nothing changes.
type Change = fn(&mut Trunk) -> Option<String>;

const CHANGES: [Change; 9] = [
    |trunk| formats(trunk, Format::bits(&[Format::National]), 0),
    |trunk| formats(trunk, Format::bits(&[Format::BareNational]), 0),
    |trunk| formats(trunk, Format::bits(&[Format::OwnE164]), Format::bits(&[Format::E164])),
    |trunk| {
        let off = Format::bits(&[Format::E164]);
        formats(trunk, Format::bits(&[Format::OwnE164, Format::BareNational]), off)
    },
    |trunk| formats(trunk, Format::bits(&[Format::E164]), Format::bits(&[Format::OwnE164])),
    |trunk| {
        let plan = &mut trunk.profile.plan;
        (plan.leading_zero == 0).then(|| {
            plan.leading_zero = 1;
            "leading_zero = true".to_owned()
        })
    },
    |trunk| {
        let preset = preset_of(trunk)?;
        let international = preset.plan().international;
        if trunk.profile.plan.international == international {
            return None;
        }
        trunk.profile.plan.international = international;
        Some(format!("international_prefixes = {:?}", preset.international))
    },
    |trunk| {
        let preset = preset_of(trunk)?;
        let old = trunk.profile.plan;
        trunk.profile.plan = preset.plan();
        trunk.profile.plan.contexts = old.contexts;
        (trunk.profile.plan != old).then(|| format!("country = {:?}", preset.country))
    },
    |trunk| {
        let profile = &mut trunk.profile;
        let identity = match Identity::of_value(profile.identity) {
            Identity::From | Identity::Pai => Identity::PaiElseFrom,
            Identity::PaiElseFrom => Identity::From,
        };
        profile.identity = identity.value();
        Some(format!("identity = {:?}", identity.name()))
    },
];

/// Switches formats of a trunk on and off.
fn formats(trunk: &mut Trunk, on: u8, off: u8) -> Option<String> {
    let plan = &mut trunk.profile.plan;
    let formats = plan.formats & !off | on;
    if formats == plan.formats {
        return None;
    }
    plan.formats = formats;
    Some(Format::setting(formats))
}

/// Returns the preset of a trunk's country; of the largest one if several have its country code.
fn preset_of(trunk: &Trunk) -> Option<&'static Preset> {
    if let Some(country) = trunk.country {
        return presets::of(country);
    }
    largest(&trunk.profile.plan.country.to_string())
}

/// Returns the preset of the largest country with a country code.
fn largest(code: &str) -> Option<&'static Preset> {
    let region = PHONE_NUMBER_UTIL.get_region_for_country_code(code.parse().ok()?)?;
    presets::of(&region.to_string())
}

/// A policy with one change on each trunk that it applies to, and its gate.
struct Variant {
    gate: HostGate,
    settings: Vec<Option<String>>,
    counts: Vec<Alternative>,
}

/// Checks the plans of a policy on captures.
pub struct PlanCheck {
    /// Reads the captures, and counts what was not judged.
    pub reader: Frames,
    reassembly: Reassembly,
    gate: HostGate,
    variants: Vec<Variant>,
    trunks: Vec<TrunkCheck>,
    plans: Vec<Trunk>,
    seen: HashSet<(u16, u64)>,
    possible: Possible,
    /// Calls from a source outside all trunks.
    pub outside: u64,
    /// Frames that were read.
    pub frames: u64,
}

impl PlanCheck {
    /// Creates a check of the plans of a policy. `decap`: check the packet in a tunnel instead of the
    /// tunnel's own.
    #[must_use]
    pub fn new(policy: &Policy, decap: bool) -> PlanCheck {
        let variants = CHANGES.iter().map(|change| {
            let mut changed = policy.clone();
            let settings: Vec<_> = changed.trunks.iter_mut().map(change).collect();
            let counts = settings
                .iter()
                .map(|setting| Alternative {
                    setting: setting.clone().unwrap_or_default(),
                    ..Alternative::default()
                })
                .collect();
            Variant { gate: gate(&changed), settings, counts }
        });
        let trunks = policy.trunks.iter();
        PlanCheck {
            gate: gate(policy),
            reader: Frames::new(decap),
            reassembly: Reassembly::default(),
            variants: variants.collect(),
            trunks: trunks
                .map(|trunk| TrunkCheck { trunk: trunk.name.clone(), ..TrunkCheck::default() })
                .collect(),
            plans: policy.trunks.clone(),
            seen: HashSet::new(),
            possible: Possible::default(),
            outside: 0,
            frames: 0,
        }
    }

    /// Reads a capture as a replay does. `progress` receives the number of bytes of each read.
    ///
    /// # Errors
    /// `Capture` and `Link` of [`Error`]. The frames before the error are counted.
    pub fn capture(&mut self, path: &Path, progress: impl Fn(u64) + 'static) -> Result<(), Error> {
        // The reader is put back with its counts, also after an error.
        let mut reader = std::mem::take(&mut self.reader);
        let result = reader.capture(path, progress, |frame, ethernet, inner| {
            self.frame(ethernet, frame.time, inner.map_or(0, |inner| inner.channel));
            Ok(())
        });
        self.reader = reader;
        result
    }

    fn frame(&mut self, ethernet: &[u8], time: u64, channel: u64) {
        self.frames += 1;
        // A fragment alone is no call.
        let Some(ethernet) = self.reassembly.add(ethernet, time, channel) else { return };
        let event = self.gate.judge_twice(&ethernet, time);
        let others: Vec<Event> = self
            .variants
            .iter_mut()
            .map(|variant| variant.gate.judge_twice(&ethernet, time))
            .collect();
        let Some(reason) = Reason::from_number(event.reason).filter(|reason| reason.is_attempt())
        else {
            return;
        };
        if reason == Reason::UnknownTrunk {
            self.outside += 1;
            return;
        }
        if event.call_id != 0 && !self.seen.insert((event.trunk, event.call_id)) {
            return;
        }
        let is_possible = self.possible.has(event.number);
        let others: Vec<(Number, bool)> =
            others.iter().map(|other| (other.number, self.possible.has(other.number))).collect();
        let index = usize::from(event.trunk);
        let Some(trunk) = self.trunks.get_mut(index) else {
            return;
        };
        trunk.calls += 1;
        if event.number == Number::NONE {
            *trunk.unread.entry(reason.name()).or_default() += 1;
            if trunk.examples.len() < EXAMPLES
                && let Some(text) = identity(&ethernet, event.identity)
                && trunk.examples.iter().all(|example| example.text != text)
            {
                trunk.examples.push(Unread { text, reason: reason.name() });
            }
        } else {
            trunk.read += 1;
            trunk.local += u64::from(event.number.is_local());
            trunk.possible += u64::from(is_possible);
            let is_own = self
                .plans
                .get(index)
                .is_some_and(|trunk| has_own_code(event.number, &trunk.profile.plan));
            trunk.own += u64::from(is_possible && is_own);
        }
        for (variant, (number, is_possible)) in self.variants.iter_mut().zip(others) {
            let Some(counts) = variant.counts.get_mut(index) else { continue };
            if number != Number::NONE {
                counts.read += 1;
                counts.possible += u64::from(is_possible);
            }
            counts.changed += u64::from(event.number != Number::NONE && event.number != number);
        }
    }

    /// Returns the findings for each trunk with calls. Settings that read most come first.
    #[must_use]
    pub fn finish(self) -> Vec<TrunkCheck> {
        let PlanCheck { mut trunks, variants, .. } = self;
        for variant in variants {
            let each = trunks.iter_mut().zip(variant.settings).zip(variant.counts);
            for ((trunk, setting), counts) in each {
                if setting.is_some() && counts.possible > trunk.possible {
                    trunk.settings.push(counts);
                }
            }
        }
        for trunk in &mut trunks {
            trunk.sort_settings();
        }
        trunks.retain(|trunk| trunk.calls > 0);
        trunks
    }
}

/// Remembers which numbers libphonenumber calls possible.
#[derive(Default)]
struct Possible(HashMap<Number, bool>);

impl Possible {
    fn has(&mut self, number: Number) -> bool {
        if number == Number::NONE || number.is_local() {
            return false;
        }
        *self.0.entry(number).or_insert_with(|| {
            let parsed = PHONE_NUMBER_UTIL.parse(format!("+{number}"), None);
            parsed.is_ok_and(|parsed| parsed.is_possible_with_reason().is_ok())
        })
    }
}

/// Returns whether a number begins with the country code of a plan.
fn has_own_code(number: Number, plan: &Plan) -> bool {
    number != Number::NONE && !number.is_local() && number.digits().starts_with(plan.country)
}

/// Creates a gate that judges whole datagrams too.
fn gate(policy: &Policy) -> HostGate {
    let mut gate = HostGate::new(policy);
    gate.set_second_look(true);
    gate
}

/// Returns the URI of the identity that was looked at: `sip:alice@x`.
fn identity(frame: &[u8], identity: u8) -> Option<String> {
    let bytes = Slice::from(frame);
    let mut packet = Packet::default();
    frame::read(&bytes, &mut packet).ok()?;
    let start = message::request_uri(&bytes, packet.payload, packet.payload_len);
    if start == 0 {
        return None;
    }
    let end = (packet.payload + packet.payload_len).min(frame.len());
    let mut fields = Fields::default();
    message::scan_in_turns(&bytes, start, end.checked_sub(start)?, &mut fields);
    let field = match identity {
        filter_common::abi::EVENT_PAI => Field::PaiUri,
        _ => Field::FromUri,
    };
    let offset = fields[field as usize].newest();
    if offset == 0 {
        return None;
    }
    let text = frame.get(start..end)?;
    let scheme = text.get(..offset)?.iter().rev().take_while(|byte| byte.is_ascii_alphabetic());
    let text = text.get(offset - scheme.count()..)?;
    let end = text.iter().position(|byte| matches!(byte, b'>' | b'\r' | b'\n' | b' '));
    let text = &text[..end.unwrap_or(text.len()).min(TEXT_MAX)];
    Some(String::from_utf8_lossy(text).into_owned())
}
