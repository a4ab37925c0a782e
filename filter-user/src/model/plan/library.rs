//! The presets against libphonenumber: the table is what its metadata says, and every number is read
//! as the library reads it.
//!
//! `PALANG_WRITE_PRESETS=1 cargo test -p filter-user --lib plan` writes the table.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use filter_common::number::{DIGITS_MAX, Number};
use filter_common::plan::{Context, Dialled, INTERNATIONAL_MAX, Plan};
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;
use prost::Message as _;
use regex_syntax::ParserBuilder;
use regex_syntax::hir::{Class, Hir, HirKind};
use rlibphonenumber::{
    PHONE_NUMBER_UTIL, PhoneMetadata, PhoneMetadataCollection, PhoneNumber, Region,
};

use crate::model::plan::format::Format;
use crate::model::plan::lengths;
use crate::model::plan::preset::Preset;
use crate::model::plan::presets;

/// International prefixes in use that the metadata lacks (Kominfo, Fundamental Technical Plan 2014).
const MORE_PREFIXES: [(&str, &[&str]); 1] = [("ID", &["001", "007", "01016", "01017"])];

/// The seven types of numbers that callers have, by their patterns.
struct Patterns {
    /// Whether an ordinary caller has such a number: it decides on a leading zero.
    ordinary: bool,
    pattern: String,
    lengths: Vec<i32>,
}

/// The metadata of one region.
struct Facts {
    region: Region,
    code: String,
    trunk_prefix: String,
    international: Vec<String>,
    patterns: Vec<Patterns>,
    /// Lengths of numbers without their area code.
    local_only: Vec<i32>,
}

/// Returns a pattern without the anchors around it.
fn inner(pattern: &str) -> String {
    let inner = pattern.strip_prefix("^(?:").and_then(|pattern| pattern.strip_suffix(")$"));
    inner.unwrap_or(pattern).to_owned()
}

fn hir(pattern: &str) -> Hir {
    ParserBuilder::new().unicode(false).utf8(false).build().parse(pattern).expect(pattern)
}

/// Returns the texts that a pattern of an international prefix matches; an `x` is any digit.
fn texts(hir: &Hir) -> Vec<String> {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => vec![String::new()],
        HirKind::Literal(literal) => vec![String::from_utf8(literal.0.to_vec()).unwrap()],
        HirKind::Class(Class::Bytes(class)) => {
            let digits: Vec<u8> =
                class.ranges().iter().flat_map(|range| range.start()..=range.end()).collect();
            if digits.len() == 10 {
                return vec!["x".to_owned()];
            }
            digits.iter().map(|digit| char::from(*digit).to_string()).collect()
        }
        HirKind::Repetition(repetition) => {
            let max = repetition.max.expect("a bounded repetition");
            let times = |count| texts(&Hir::concat(vec![(*repetition.sub).clone(); count]));
            (repetition.min..=max).flat_map(|count| times(count as usize)).collect()
        }
        HirKind::Capture(capture) => texts(&capture.sub),
        HirKind::Concat(parts) => parts.iter().fold(vec![String::new()], |before, part| {
            let after = texts(part);
            before.iter().flat_map(|a| after.iter().map(move |b| format!("{a}{b}"))).collect()
        }),
        HirKind::Alternation(parts) => parts.iter().flat_map(texts).collect(),
        HirKind::Class(Class::Unicode(_)) => panic!("not ASCII"),
    }
}

/// Returns first digit and length of everything that a pattern matches.
fn shapes(hir: &Hir) -> BTreeSet<(Option<u8>, usize)> {
    let join = |a: &BTreeSet<(Option<u8>, usize)>, b: &BTreeSet<(Option<u8>, usize)>| {
        a.iter()
            .flat_map(|(first, len)| {
                b.iter().map(move |(next, more)| (first.or(*next), len + more))
            })
            .filter(|(_, len)| *len <= 20)
            .collect()
    };
    let empty = BTreeSet::from([(None, 0)]);
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => empty,
        HirKind::Literal(literal) => BTreeSet::from([(Some(literal.0[0] - b'0'), literal.0.len())]),
        HirKind::Class(Class::Bytes(class)) => {
            let digits = class.ranges().iter().flat_map(|range| range.start()..=range.end());
            digits.map(|digit| (Some(digit - b'0'), 1)).collect()
        }
        HirKind::Repetition(repetition) => {
            let one = shapes(&repetition.sub);
            let (mut all, mut some) = (BTreeSet::new(), empty);
            for count in 0..=repetition.max.unwrap_or(20).min(20) {
                if count >= repetition.min {
                    all.extend(some.iter().copied());
                }
                some = join(&some, &one);
            }
            all
        }
        HirKind::Capture(capture) => shapes(&capture.sub),
        HirKind::Concat(parts) => {
            parts.iter().fold(empty, |before, part| join(&before, &shapes(part)))
        }
        HirKind::Alternation(parts) => parts.iter().flat_map(shapes).collect(),
        HirKind::Class(Class::Unicode(_)) => panic!("not ASCII"),
    }
}

/// Reads the metadata of the library. It has no function for them, so the file is read that it is built from.
fn metadata() -> Vec<PhoneMetadata> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let graph: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut packages = graph["packages"].as_array().unwrap().iter();
    let package = packages.find(|package| package["name"] == "rlibphonenumber").unwrap();
    let folder = Path::new(package["manifest_path"].as_str().unwrap()).parent().unwrap();
    let file = folder.join("src/generated/metadata/metadata.bin");
    let bytes = std::fs::read(&file).unwrap_or_else(|error| panic!("{file:?}: {error}"));
    PhoneMetadataCollection::decode(&*bytes).unwrap().metadata
}

fn facts() -> Vec<Facts> {
    let mut all: Vec<Facts> =
        metadata().iter().filter(|metadata| metadata.id != "001").map(facts_of).collect();
    all.sort_by_key(|facts| facts.region);
    let regions: BTreeSet<Region> = PHONE_NUMBER_UTIL.get_supported_regions().collect();
    assert!(
        all.iter().map(|facts| facts.region).eq(regions),
        "the file is not that of the library"
    );
    all
}

#[expect(deprecated, reason = "only within the library these fields are moved elsewhere")]
fn facts_of(metadata: &PhoneMetadata) -> Facts {
    let general = metadata.general_desc.as_ref().unwrap();
    let local_only = general.possible_length_local_only.clone();
    let general = &general.possible_length;
    let patterns = [
        (&metadata.fixed_line, true),
        (&metadata.mobile, true),
        (&metadata.voip, true),
        (&metadata.personal_number, true),
        (&metadata.toll_free, false),
        (&metadata.shared_cost, false),
        (&metadata.uan, false),
    ];
    let patterns = patterns.into_iter().filter_map(|(desc, ordinary)| {
        let desc = desc.as_ref()?;
        let pattern = inner(desc.national_number_pattern());
        let own = &desc.possible_length;
        let lengths = if own.is_empty() { general } else { own };
        let exists = !pattern.is_empty() && *own != [-1];
        exists.then(|| Patterns { ordinary, pattern, lengths: lengths.clone() })
    });
    let region = Region::from_code(&metadata.id).unwrap();
    let country = region.to_string();
    let mut international = texts(&hir(&inner(metadata.international_prefix())));
    for (_, more) in MORE_PREFIXES.iter().filter(|(region, _)| *region == country) {
        international.extend(more.iter().map(ToString::to_string));
    }
    international.retain(|prefix| !prefix.is_empty());
    international.sort_by_key(|prefix| (prefix.len(), prefix.clone()));
    international.dedup();
    if international.len() > INTERNATIONAL_MAX {
        // Chile: without the prefixes of its 26 carriers.
        international.truncate(1);
    }
    Facts {
        region,
        code: metadata.country_code.unwrap().to_string(),
        trunk_prefix: metadata.national_prefix().to_owned(),
        international,
        patterns: patterns.collect(),
        local_only,
    }
}

/// Returns the possible lengths by first digit, of all regions with this country code: their numbers
/// look alike.
fn lengths_of(all: &[Facts], code: &str, ordinary: bool) -> Lengths {
    let mut lengths = Lengths::new();
    let regions = || all.iter().filter(|facts| facts.code == code);
    let local_only: BTreeSet<i32> = regions().flat_map(|facts| facts.local_only.clone()).collect();
    for pattern in regions().flat_map(|facts| &facts.patterns) {
        if ordinary && !pattern.ordinary {
            continue;
        }
        for (first, len) in shapes(&hir(&pattern.pattern)) {
            // Without area code it is another number than that of a service.
            let is_local = !pattern.ordinary && local_only.contains(&(len as i32));
            let possible = pattern.lengths.contains(&(len as i32)) && !is_local;
            if possible && code.len() + len <= DIGITS_MAX as usize {
                lengths.entry(first.unwrap()).or_default().insert(len);
            }
        }
    }
    lengths
}

type Lengths = BTreeMap<u8, BTreeSet<usize>>;

/// Returns whether no number of an ordinary caller, with the country code or the trunk prefix before it, has
/// the shape of another national number. Numbers of services may have: they are then unread, like the
/// bare numbers that look like them.
fn is_clear(ordinary: &Lengths, possible: &Lengths, facts: &Facts) -> bool {
    [&facts.code, &facts.trunk_prefix].into_iter().all(|prefix| {
        let Some(first) = prefix.bytes().next() else { return true };
        let alike = possible.get(&(first - b'0'));
        let mut lengths = ordinary.values().flatten().map(|len| prefix.len() + len);
        !lengths.any(|len| alike.is_some_and(|all| all.contains(&len)))
    })
}

/// Returns the entry of the table for one region.
fn entry(all: &[Facts], facts: &Facts) -> String {
    let Facts { code, trunk_prefix, .. } = facts;
    let ordinary = lengths_of(all, code, true);
    let has_trunk_prefix = !trunk_prefix.is_empty();
    let leading_zero = ordinary.contains_key(&0);
    let mut possible = lengths_of(all, code, false);
    possible.retain(|first, _| *first != 0 || leading_zero);
    let bare = !has_trunk_prefix || is_clear(&ordinary, &possible, facts);
    let mut formats = vec!["OwnE164"];
    if has_trunk_prefix {
        formats.push("National");
    }
    if bare {
        formats.push("BareNational");
    }
    let shortest =
        ordinary.iter().filter(|(first, _)| **first != 0).flat_map(|(_, lengths)| lengths).min();
    let short = if bare { shortest.map_or(6, |len| len.saturating_sub(1).min(6)) } else { 6 };
    let mut no_lengths = lengths::ANY;
    for (index, (first, each)) in possible.iter().enumerate() {
        let each: Vec<_> = each.iter().map(ToString::to_string).collect();
        lengths::add(&mut no_lengths, &format!("{first}: {}", each.join(",")), index == 0).unwrap();
    }
    let list = |texts: &[String]| {
        texts.iter().map(|text| format!("{text:?}")).collect::<Vec<_>>().join(", ")
    };
    format!(
        "    Preset {{ country: {:?}, code: {code:?}, trunk_prefix: {trunk_prefix:?}, \
         international: &[{}], lengths: &[{}], leading_zero: {leading_zero}, \
         formats: &[{}], short_digits: {short} }},",
        facts.region.to_string(),
        list(&facts.international),
        list(&lengths::texts(&no_lengths)),
        formats.join(", "),
    )
}

#[test]
fn table_is_what_the_library_says() {
    let all = facts();
    let mut table = String::from(
        "//! The presets of all countries, from the metadata of libphonenumber. A test compares them, and\n\
         //! writes this file: see `library.rs`.\n\n\
         use crate::model::plan::format::Format::{BareNational, National, OwnE164};\n\
         use crate::model::plan::preset::Preset;\n\n\
         #[rustfmt::skip]\npub(crate) static PRESETS: &[Preset] = &[\n",
    );
    for facts in &all {
        writeln!(table, "{}", entry(&all, facts)).unwrap();
    }
    table += "];\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/model/plan/table.rs");
    if std::env::var_os("PALANG_WRITE_PRESETS").is_some() {
        std::fs::write(&path, &table).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap();
    assert!(
        written == table,
        "the table of presets differs from the library: write it with PALANG_WRITE_PRESETS=1"
    );
    assert_eq!(presets::all().len(), all.len());
}

/// Returns the reading of digits with an optional `+`.
fn read(plan: &Plan, text: &str) -> Option<Number> {
    let (digits, plus) = text.strip_prefix('+').map_or((text, false), |digits| (digits, true));
    let nibbles = digits.bytes().fold(0u128, |all, digit| all << 4 | u128::from(digit - b'0'));
    let (high, low) = ((nibbles >> 64) as u64, nibbles as u64);
    let count = digits.len() as u32;
    plan.resolve(&Dialled { high, low, count, plus, context: Context::None }).ok()
}

/// Returns the spellings of a national number in the formats of a preset, with the format.
fn spellings(preset: &Preset, national: &str) -> Vec<(Format, String)> {
    let texts = preset.formats.iter().filter_map(|format| {
        let text = match format {
            Format::E164 | Format::OwnE164 => format!("{}{national}", preset.code),
            Format::National => format!("{}{national}", preset.trunk_prefix),
            Format::BareNational => national.to_owned(),
            Format::Subscriber => return None,
        };
        Some((*format, text))
    });
    texts.collect()
}

/// Returns at least `count` national numbers that the library calls valid, if there are as many.
fn valid_numbers(
    facts: &Facts,
    count: usize,
    ordinary: bool,
    runner: &mut TestRunner,
) -> BTreeSet<String> {
    let mut numbers = BTreeSet::new();
    let patterns = facts.patterns.iter().filter(|pattern| pattern.ordinary == ordinary);
    let each = count / patterns.clone().count().max(1) + 1;
    for pattern in patterns {
        let strategy = proptest::string::string_regex(&pattern.pattern.replace("\\d", "[0-9]"));
        let strategy = strategy.unwrap();
        let before = numbers.len();
        for _ in 0..each * 20 {
            let text = strategy.new_tree(runner).unwrap().current();
            let possible = pattern.lengths.contains(&(text.len() as i32));
            if possible && facts.code.len() + text.len() <= 15 {
                numbers.insert(text);
            }
            if numbers.len() >= before + each {
                break;
            }
        }
    }
    numbers
}

/// Returns a text as the library reads it in a region, if that is a valid number.
fn library(text: &str, region: Region) -> Option<PhoneNumber> {
    PHONE_NUMBER_UTIL.parse(text, Some(region)).ok().filter(PhoneNumber::is_valid)
}

/// Formats in which some numbers of a country have two readings: the percentage that is read at least.
const PARTLY_READ: [(&str, Format, usize); 12] = [
    ("AE", Format::BareNational, 99),
    ("BR", Format::BareNational, 99),
    ("IN", Format::BareNational, 99),
    ("IT", Format::BareNational, 99),
    ("IT", Format::OwnE164, 90),
    ("LU", Format::OwnE164, 45),
    ("NL", Format::BareNational, 98),
    ("PL", Format::BareNational, 98),
    ("PL", Format::OwnE164, 85),
    ("UY", Format::National, 70),
    ("VA", Format::BareNational, 98),
    ("VA", Format::OwnE164, 85),
];

/// Checks that the plan of a country reads its numbers in all its formats. A number with the country code
/// is never read as another one.
#[test]
fn numbers_of_each_country_are_read_as_themselves() {
    let mut runner = TestRunner::deterministic();
    let mut wrong = Vec::new();
    for facts in facts() {
        let preset = presets::of(&facts.region.to_string()).unwrap();
        let plan = preset.plan();
        let numbers = valid_numbers(&facts, 1000, true, &mut runner);
        let services = valid_numbers(&facts, 200, false, &mut runner);
        let mut unread: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (national, is_ordinary) in
            numbers.iter().map(|text| (text, true)).chain(services.iter().map(|text| (text, false)))
        {
            let number = format!("{}{national}", facts.code);
            if is_ordinary {
                for text in marked(preset, &number) {
                    let reading = read(&plan, &text).map(|number| number.to_string());
                    if reading.as_deref() != Some(&*number) {
                        wrong.push(format!("{}: {text} is {reading:?}", preset.country));
                    }
                }
            }
            for (format, text) in spellings(preset, national) {
                match read(&plan, &text) {
                    Some(reading)
                        if reading.is_local() && text.len() <= preset.short_digits.into() => {}
                    Some(reading) if reading.to_string() == number => {}
                    // People do not write it in this way: 0153… in Israel, 00800…, 8 10 800….
                    Some(_) if is_of_home(&facts, preset, national, &text) => {}
                    Some(reading) => wrong.push(format!("{}: {text} is {reading}", preset.country)),
                    None if is_ordinary => unread.entry(format.name()).or_default().push(text),
                    None => {}
                }
            }
        }
        for format in preset.formats {
            let none = unread.get(format.name()).map_or(0, Vec::len);
            let share = 100 * (numbers.len() - none.min(numbers.len())) / numbers.len();
            let expected = PARTLY_READ
                .iter()
                .find(|(country, partly, _)| *country == preset.country && partly == format)
                .map_or(100, |(_, _, share)| *share);
            if share < expected {
                let texts = unread[format.name()].iter().take(4).collect::<Vec<_>>();
                let (country, of) = (preset.country, numbers.len());
                wrong.push(format!("{country} {}: {share} % of {of}: {texts:?}", format.name()));
            }
        }
    }
    assert!(wrong.is_empty(), "{} findings:\n{}", wrong.len(), wrong.join("\n"));
}

/// Returns whether only a service at home has such a text. It begins with 0 or an international prefix, and
/// the library does not read a caller of this country in it either.
fn is_of_home(facts: &Facts, preset: &Preset, national: &str, text: &str) -> bool {
    let begins = |prefix: &&str| {
        text.len() > prefix.len()
            && text.bytes().zip(prefix.bytes()).all(|(digit, each)| each == b'x' || digit == each)
    };
    let code = facts.code.parse().ok();
    (national.starts_with('0') || preset.international.iter().any(begins))
        && !library(text, facts.region)
            .is_some_and(|number| is_callers(&number) && Some(number.country_code) == code)
}

/// Returns a number with `+` and with each international prefix that is not doubtful.
fn marked(preset: &Preset, number: &str) -> Vec<String> {
    let plan = preset.plan();
    let mut texts = vec![format!("+{number}")];
    for prefix in plan.international.iter().filter(|prefix| !prefix.is_empty()) {
        let text = format!("{}{number}", prefix.to_string().replace('x', "0"));
        let others = preset.international.iter().filter(|other| {
            text.bytes().zip(other.bytes()).all(|(digit, other)| other == b'x' || digit == other)
        });
        if others.count() == 1 {
            texts.push(text);
        }
    }
    texts
}

/// Returns whether a caller may have such a number.
fn is_callers(number: &PhoneNumber) -> bool {
    use rlibphonenumber::PhoneNumberType::{
        FixedLine, FixedLineOrMobile, Mobile, PersonalNumber, VoIP,
    };
    let kind = number.get_type();
    matches!(kind, FixedLine | FixedLineOrMobile | Mobile | PersonalNumber | VoIP)
}

/// Checks texts without `+` that the library reads as a number of the own country. No plan reads another
/// country in them, and both agree on the number.
#[test]
fn no_text_is_read_as_another_number_than_the_library_reads() {
    let mut runner = TestRunner::deterministic();
    let mut wrong = Vec::new();
    for facts in facts() {
        let preset = presets::of(&facts.region.to_string()).unwrap();
        let plan = preset.plan();
        let mut texts: BTreeSet<String> = BTreeSet::new();
        for ordinary in [true, false] {
            for national in valid_numbers(&facts, 60, ordinary, &mut runner) {
                let number = format!("{}{national}", facts.code);
                let beginnings = ["", &facts.trunk_prefix, &facts.code, "0", "1", "00", "9"];
                texts.extend(beginnings.iter().map(|before| format!("{before}{national}")));
                texts.extend(marked(preset, &number).into_iter().skip(1));
            }
        }
        let strategy = proptest::string::string_regex("[0-9]{7,16}").unwrap();
        texts.extend((0..100).map(|_| strategy.new_tree(&mut runner).unwrap().current()));
        for text in texts {
            let Some(number) = read(&plan, &text).filter(|number| !number.is_local()) else {
                continue;
            };
            let Some(parsed) = library(&text, facts.region) else { continue };
            if !is_callers(&parsed) || parsed.country_code.to_string() != facts.code {
                continue;
            }
            let is_foreign = !number.to_string().starts_with(&facts.code);
            let parsed = parsed.to_string();
            let sends_bare = preset.formats.contains(&Format::BareNational);
            if is_foreign || sends_bare && parsed != format!("+{number}") {
                wrong.push(format!("{}: {text} is +{number}, not {parsed}", preset.country));
            }
        }
    }
    assert!(wrong.is_empty(), "{} findings:\n{}", wrong.len(), wrong.join("\n"));
}
