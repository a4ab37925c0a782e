//! Readings of numbering plans.

use super::*;

/// Returns the reading of `text`, digits with an optional `+`.
fn read(plan: &Plan, text: &str) -> Result<String, Reason> {
    read_in(plan, text, Context::None)
}

/// Returns the reading of `text` in a context.
fn read_in(plan: &Plan, text: &str, context: Context) -> Result<String, Reason> {
    let plus = text.starts_with('+');
    let (mut high, mut low, mut count) = (0u64, 0u64, 0);
    for digit in text.bytes().filter(u8::is_ascii_digit) {
        high = high << 4 | low >> 60;
        low = low << 4 | u64::from(digit - b'0');
        count += 1;
    }
    let dialled = Dialled { high, low, count, plus, context };
    plan.resolve(&dialled).map(|number| {
        let local = if number.is_local() { "local " } else { "" };
        format!("{local}{number}")
    })
}

fn digits(text: &str) -> Digits {
    Digits::parse(text).expect("digits")
}

fn plan(formats: u8, international: &[&str]) -> Plan {
    let mut plan = Plan {
        country: digits("62"),
        trunk_prefix: digits("0"),
        area: digits("21"),
        formats,
        short_digits: 6,
        ..Plan::default()
    };
    for (slot, prefix) in plan.international.iter_mut().zip(international) {
        *slot = Prefix::parse(prefix).expect("a prefix");
    }
    plan
}

/// Returns a plan whose national numbers begin with these digits and have these lengths.
fn with_lengths(country: &str, trunk_prefix: &str, formats: u8, shapes: &[(&str, u16)]) -> Plan {
    let mut plan = Plan {
        country: digits(country),
        trunk_prefix: digits(trunk_prefix),
        formats,
        short_digits: 6,
        no_lengths: [!0; 16],
        ..Plan::default()
    };
    for (first, lengths) in shapes {
        for digit in first.bytes() {
            plan.no_lengths[usize::from(digit - b'0')] = !lengths;
        }
    }
    plan
}

const AMBIGUOUS: Result<String, Reason> = Err(Reason::AmbiguousNumber);
const TOO_MANY: Result<String, Reason> = Err(Reason::TooManyDigits);

#[track_caller]
fn assert_read(plan: &Plan, text: &str, expected: &str) {
    assert_eq!(read(plan, text).as_deref(), Ok(expected), "{text}");
}

#[test]
fn e164_and_national() {
    let plan = plan(FORMAT_E164 | FORMAT_NATIONAL, &[]);
    assert_read(&plan, "+6281234567890", "6281234567890");
    assert_read(&plan, "6281234567890", "6281234567890");
    assert_read(&plan, "081234567890", "6281234567890");
    assert_read(&plan, "0811", "62811");
    assert_read(&plan, "6581234567", "6581234567");
    assert_read(&plan, "110", "local 110");
    assert_read(&plan, "+123456789012345", "123456789012345");
    for text in ["+620812", "+62", "0", "00812", "+0812", "+110", "620812345678"] {
        assert_eq!(read(&plan, text), AMBIGUOUS, "{text}");
    }
    let long = "1".repeat(40);
    for text in ["+1234567890123456", "01234567890123456", "012345678901234", &long] {
        assert_eq!(read(&plan, text), TOO_MANY, "{text}");
    }
}

#[test]
fn an_international_prefix_decides_alone() {
    let text = "0016581234567";
    let both = FORMAT_E164 | FORMAT_NATIONAL;
    assert_read(&plan(both, &["001"]), text, "6581234567");
    assert_read(&plan(both, &["00"]), text, "16581234567");
    // `00` and a number of America, or `001` and one of Singapore.
    let mut nested = plan(both, &["001", "00"]);
    assert_read(&nested, text, "6581234567");
    nested.international[0].mask |= Prefix::IS_DOUBTFUL;
    assert_eq!(read(&nested, text), AMBIGUOUS);
    assert_read(&nested, "00441234567890", "441234567890");
    assert_eq!(nested.prefix("0016*"), None);
    assert_eq!(read(&plan(both, &[]), text), AMBIGUOUS);
    let indonesia = plan(both, &["01016", "01017", "001", "007", "008", "009"]);
    assert_read(&indonesia, "010176281234567890", "6281234567890");
    assert_read(&indonesia, "01017123456789012345", "123456789012345");
    assert_eq!(read(&indonesia, "010171234567890123456"), TOO_MANY);
    assert_eq!(read(&indonesia, "001"), AMBIGUOUS);
    assert_eq!(read(&indonesia, "001620812345678"), AMBIGUOUS);
}

#[test]
fn two_readings_are_none() {
    let plan = plan(FORMAT_E164 | FORMAT_BARE_NATIONAL, &[]);
    assert_eq!(read(&plan, "81234567890"), AMBIGUOUS);
    // With the country code twice it would be too long: one reading is left.
    assert_read(&plan, "62812345678901", "62812345678901");
}

#[test]
fn subscribers_of_an_area() {
    let mut plan = plan(FORMAT_SUBSCRIBER | FORMAT_NATIONAL, &[]);
    assert_read(&plan, "5551234", "62215551234");
    assert_read(&plan, "0215551234", "62215551234");
    assert_read(&plan, "555123", "local 555123");
    plan.short_digits = 5;
    assert_read(&plan, "555123", "6221555123");
}

#[test]
fn any_digit_of_an_international_prefix_fits_an_x() {
    let singapore = Plan { country: digits("65"), ..plan(FORMAT_OWN_E164, &["0x8"]) };
    for text in ["0186281234567890", "0086281234567890"] {
        assert_read(&singapore, text, "6281234567890");
    }
    assert_eq!(read(&singapore, "0196281234567890"), TOO_MANY);
    assert_eq!(Prefix::parse("0x8").map(|prefix| prefix.to_string()).as_deref(), Some("0x8"));
    assert_eq!(Prefix::parse("0x8").map(|prefix| prefix.len()), Some(3));
    assert!(Prefix::parse("0*8").is_none() && Prefix::parse("0000000000000000").is_none());
    for (a, b, overlap) in
        [("00", "001", true), ("0x1", "00", true), ("01", "00", false), ("xx8", "017", false)]
    {
        let [a, b] = [a, b].map(|text| Prefix::parse(text).expect("a prefix"));
        assert!(a.overlaps(&b) == overlap && b.overlaps(&a) == overlap, "{a} {b}");
    }
    let exact = Prefix::exact(digits("123456789012345"));
    assert_eq!(Some(exact), Prefix::parse("123456789012345"));
}

#[test]
fn lengths_of_national_numbers_decide_between_two_readings() {
    let own = FORMAT_OWN_E164 | FORMAT_NATIONAL | FORMAT_BARE_NATIONAL;
    let america = with_lengths("1", "1", own, &[("23456789", 1 << 10)]);
    for text in ["6505550000", "16505550000", "+16505550000"] {
        assert_read(&america, text, "16505550000");
    }
    assert_read(&america, "911", "local 911");
    for text in ["26505550000", "1650555000", "6581234567890", "5550000"] {
        assert_eq!(read(&america, text), AMBIGUOUS, "{text}");
    }
    let singapore = with_lengths("65", "", own, &[("3689", 1 << 8), ("1", 1 << 11)]);
    for text in ["83195881", "6583195881", "+6583195881"] {
        assert_read(&singapore, text, "6583195881");
    }
    let russia = with_lengths("7", "8", own, &[("3489", 1 << 10)]);
    for text in ["89245551436", "79245551436", "9245551436", "+79245551436"] {
        assert_read(&russia, text, "79245551436");
    }
    // A number of Saratov, not 8 and a number of nine digits.
    assert_read(&russia, "8452123456", "78452123456");
}

#[test]
fn a_number_with_plus_may_have_any_length() {
    let america = with_lengths("1", "1", FORMAT_BARE_NATIONAL, &[("2", 1 << 10)]);
    assert_read(&america, "+165055500001", "165055500001");
    assert_read(&america, "+1911", "1911");
    let mut brazil = with_lengths("55", "0", FORMAT_OWN_E164 | FORMAT_NATIONAL, &[("7", 3 << 10)]);
    brazil.international[0] = Prefix::parse("0015").expect("a prefix");
    assert_read(&brazil, "001555123", "55123");
    // Carrier 21 before it: longer than any number.
    assert_eq!(read(&brazil, "02173995550104"), AMBIGUOUS);
    // Not a number of Russia.
    assert_eq!(read(&brazil, "73995550104"), AMBIGUOUS);
}

#[test]
fn national_numbers_of_some_countries_begin_with_0() {
    let own = FORMAT_OWN_E164 | FORMAT_BARE_NATIONAL;
    let shapes = [("0", 0b1111_1100_0000), ("3", 3 << 9)];
    let mut italy = with_lengths("39", "", own, &shapes);
    italy.international[0] = Prefix::parse("00").expect("a prefix");
    assert_eq!(read(&italy, "+390255501234"), AMBIGUOUS);
    italy.leading_zero = 1;
    for text in ["+390255501234", "390255501234", "0255501234", "00390255501234"] {
        assert_read(&italy, text, "390255501234");
    }
    assert_read(&italy, "3331234567", "393331234567");
    assert_read(&italy, "393331234567", "393331234567");
    // Florence with its country code, or a mobile: 390 551 2345.
    assert_eq!(read(&italy, "3905512345"), AMBIGUOUS);
    assert_eq!(read(&italy, "+39"), AMBIGUOUS);
    assert_eq!(italy.prefix("+3902*"), Some(digits("3902")));
}

#[test]
fn a_named_context_has_formats_of_its_own() {
    let mut plan = plan(FORMAT_E164, &["001"]);
    let named = |name: &str, formats| NamedContext {
        name: context_name(name.as_bytes()),
        formats,
        ..NamedContext::default()
    };
    plan.contexts[0] = named("national", FORMAT_NATIONAL | FORMAT_BARE_NATIONAL);
    plan.contexts[3] = named("ims.example", FORMAT_OWN_E164);
    let context = |name: &str| Context::Named(context_name(name.as_bytes()));
    for text in ["81234567890", "081234567890"] {
        let read = read_in(&plan, text, context("NATIONAL"));
        assert_eq!(read.as_deref(), Ok("6281234567890"), "{text}");
    }
    let ims = |text| read_in(&plan, text, context("ims.example"));
    assert_eq!(ims("6281234567890").as_deref(), Ok("6281234567890"));
    assert_eq!(ims("112").as_deref(), Ok("local 112"));
    assert_eq!(ims("0016581234567").as_deref(), Ok("6581234567"));
    assert_eq!(ims("6581234567"), AMBIGUOUS);
    let america = Context::Global(digits("1"));
    for other in [context("ims.example.net"), context(""), america, Context::Unknown] {
        assert_eq!(read_in(&plan, "6281234567890", other), AMBIGUOUS);
        assert_eq!(read_in(&plan, "+6281234567890", other).as_deref(), Ok("6281234567890"));
        assert_eq!(read_in(&plan, "112", other), AMBIGUOUS, "a short number of another place");
    }
}

#[test]
fn an_imsi_is_not_a_number() {
    let mut plan = plan(FORMAT_E164, &[]);
    assert_read(&plan, "510101234567890", "510101234567890");
    plan.imsi[1] = mcc("510").expect("a code");
    plan.imsi[2] = mcc("001").expect("a code");
    for text in ["510101234567890", "001010123456789"] {
        assert_eq!(read(&plan, text), Err(Reason::NotANumber), "{text}");
    }
    assert_read(&plan, "51010123456789", "51010123456789");
    assert_read(&plan, "+510101234567890", "510101234567890");
    assert_read(&plan, "511101234567890", "511101234567890");
    assert_eq!([mcc("51"), mcc("5100"), mcc("51a"), mcc("")], [None; 4]);
}

#[test]
fn prefixes_from_text() {
    let plan = plan(FORMAT_E164 | FORMAT_NATIONAL, &["001"]);
    for (text, expected) in [
        ("+62812*", Some("62812")),
        ("62812*", Some("62812")),
        ("0812*", Some("62812")),
        ("0016581*", Some("6581")),
        ("62812", None),
        ("*", Some("")),
        ("+0*", None),
        ("00812*", None),
        ("08x*", None),
    ] {
        let expected = expected.map(digits).filter(|prefix| !prefix.is_empty());
        assert_eq!(plan.prefix(text), expected, "{text}");
    }
}

#[test]
fn prefix_of_a_carrier_is_removed_before_the_plan_reads() {
    let mut plan = plan(FORMAT_OWN_E164 | FORMAT_NATIONAL, &["001"]);
    plan.strip = [digits("99"), Digits::EMPTY, Digits::EMPTY, digits("98765432")];
    plan.imsi[0] = mcc("510").expect("a code");
    for (text, number) in [
        ("99081234567890", "6281234567890"),
        ("996281234567890", "6281234567890"),
        ("99001442071234567", "442071234567"),
        ("98765432081234567890", "6281234567890"),
        ("081234567890", "6281234567890"),
        ("+998712345678", "998712345678"),
        // A local number keeps its digits.
        ("991123", "local 991123"),
    ] {
        assert_read(&plan, text, number);
    }
    for (text, reason) in [
        ("99510101234567890", Reason::NotANumber),
        ("9981234567", Reason::AmbiguousNumber),
        ("99112345", Reason::AmbiguousNumber),
        ("9999081234567890", Reason::AmbiguousNumber),
    ] {
        assert_eq!(read(&plan, text), Err(reason), "{text}");
    }
    // Where the place is named, nothing is removed.
    let here = Context::Global(digits("62"));
    assert_eq!(read_in(&plan, "9912345678", here).as_deref(), Ok("629912345678"));
}
