//! Two other SIP stacks as oracles, never our own parser twice. Where both read the same user in
//! the `From` of a message, the gate reads its number, and no other.
//!
//! Both get the whole INVITE, so they also read header names, white space and folding. ezk reads
//! neither `tel:` nor `\"` in a display name: there rvoip is the only oracle.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use ezk_sip_types::header::HeaderParse;
use ezk_sip_types::header::typed::FromTo;
use ezk_sip_types::msg::PullParser;
use ezk_sip_types::uri::SipUriUserPart;
use ezk_sip_types::{Headers, Name};
use filter_common::number::Number;
use palang::model::host_gate::HostGate;
use palang::model::policy::Policy;
use palang_tests::common::packet::{Layers, crlf};
use palang_tests::common::{gates, invites, seeds};
use palang_tests::fixtures;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};
use rvoip_sip_core::parser::parse_message;
use rvoip_sip_core::types::Message;
use rvoip_sip_core::types::uri::{Scheme, Uri};

// ---------------------------------------------------------------- The oracles

/// A `From` as a stack reads it: whether the scheme is `sips`, and the user without escapes.
type Read = (bool, String);

/// Returns an INVITE with this header field, name included.
fn invite(field: &str) -> Vec<u8> {
    crlf(&format!(
        "INVITE sip:112@psap.example SIP/2.0\n\
         Via: SIP/2.0/UDP 198.51.100.7:5060;branch=z9hG4bK1\n\
         Max-Forwards: 70\n\
         {field}\n\
         To: <sip:112@psap.example>\n\
         Call-ID: 1@198.51.100.7\n\
         CSeq: 1 INVITE\n\
         Content-Length: 0\n\n"
    ))
}

fn rvoip(message: &[u8]) -> Option<Read> {
    let uri = rvoip_uri(message)?;
    let sips = uri.scheme == Scheme::Sips;
    let is_sip = sips || uri.scheme == Scheme::Sip;
    is_sip.then(|| (sips, uri.user.unwrap_or_default()))
}

fn rvoip_uri(message: &[u8]) -> Option<Uri> {
    let Message::Request(request) = parse_message(message).ok()? else { return None };
    Some(request.from()?.0.uri.clone())
}

fn ezk(message: &[u8]) -> Option<Read> {
    let mut headers = Headers::new();
    for line in PullParser::new(message, 0).skip(1) {
        let (name, value) = std::str::from_utf8(line.ok()?).ok()?.split_once(':')?;
        headers.insert(Name::from(name.trim_end().to_owned()), value.trim());
    }
    let value = headers.get_raw(&Name::FROM).next()?;
    let (rest, from) = FromTo::parse(value.as_ref(), value).ok()?;
    let user = match from.uri.uri.user_part {
        SipUriUserPart::Empty => String::new(),
        SipUriUserPart::User(user) => user.to_string(),
        SipUriUserPart::UserPw(user) => user.user.to_string(),
    };
    rest.trim().is_empty().then_some((from.uri.uri.sips, user))
}

/// Returns the user as the message has it, where both stacks read the same.
fn user(field: &str) -> Option<String> {
    let message = invite(field);
    let plain = rvoip(&message).filter(|read| Some(read) == ezk(&message).as_ref())?;
    // They undo the escapes before they hand out the user, and `%3B` looks like `;` then. With
    // each `%` escaped once more they hand out the text as it is.
    let message = invite(&field.replace('%', "%25"));
    let raw = rvoip(&message).filter(|read| Some(read) == ezk(&message).as_ref())?;
    (raw.0 == plain.0 && unescape(&raw.1)? == plain.1).then_some(raw.1)
}

// ---------------------------------------------------------------- Meaning

fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(if byte == b'%' {
            let digits = [rest.next()?, rest.next()?];
            u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
        } else {
            byte
        });
    }
    String::from_utf8(bytes).ok()
}

/// Returns a user without escapes and visual separators (RFC 3966 §5.1.1).
fn dialled(text: &str) -> Option<String> {
    let mut text = unescape(text)?;
    text.retain(|c| !"-.()".contains(c));
    Some(text)
}

/// Returns the values of each `phone-context` of a user (RFC 3966 §5.1.5), without separators.
fn contexts(user: &str) -> Vec<String> {
    let mut contexts = Vec::new();
    for part in user.split(';').skip(1) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        if unescape(name).is_some_and(|name| name.eq_ignore_ascii_case("phone-context")) {
            contexts.push(dialled(value).unwrap_or_default());
        }
    }
    contexts
}

/// Returns whether a user has an extension or a subaddress, which make another number (RFC 3966 §4).
fn has_extension(user: &str) -> bool {
    user.split(';').skip(1).filter_map(|part| part.split_once('=')).any(|(name, _)| {
        unescape(name).is_some_and(|name| ["ext", "isub"].contains(&&*name.to_ascii_lowercase()))
    })
}

/// Returns the number of a user under the default plan, if it is one.
fn number(user: &str) -> Option<String> {
    if has_extension(user) {
        return None;
    }
    let text = dialled(user.split(';').next()?)?;
    let global = text.strip_prefix('+');
    let digits = global.unwrap_or(&text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let contexts = contexts(user);
    let here = contexts.is_empty();
    let in_indonesia = contexts == ["+62"];
    let number = match digits.strip_prefix('0') {
        _ if global.is_some() => digits.to_owned(),
        Some(national) if here || in_indonesia => format!("62{national}"),
        // Extensions and short codes: what they mean is known here only.
        None if here && digits.len() <= 6 => return Some(digits.to_owned()),
        None if here => digits.to_owned(),
        None if in_indonesia && digits.len() > 6 && !digits.starts_with("62") => {
            format!("62{digits}")
        }
        _ => return None,
    };
    // E.164: 15 digits at most, no country code begins with 0. After 62 a national number
    // follows, which has no 0 in front; other countries' are 7 digits at least.
    let possible = match number.strip_prefix("62") {
        Some(national) => !national.is_empty() && !national.starts_with('0'),
        None => number.len() >= 7 && !number.starts_with('0'),
    };
    (possible && number.len() <= 15).then_some(number)
}

// ---------------------------------------------------------------- The gate

/// Values that both stacks read and the gate does not, on purpose. It reads nothing there: that
/// it reads something else is never an exception.
struct Exception {
    why: &'static str,
    /// The reason that the gate gives.
    reason: &'static str,
    /// Of the header field and the user.
    applies: fn(&str, &str) -> bool,
}

const EXCEPTIONS: [Exception; 5] = [
    Exception {
        why: "without angle brackets a `;` ends the URI (RFC 3261 §20)",
        reason: "no-user",
        applies: |field, user| !is_angled(field) && user.contains(';'),
    },
    Exception {
        why: "no URI has a quotation mark (RFC 3261 §25.1): who knows where it ends",
        reason: "bad-header",
        applies: |field, _| is_angled(field) && field.contains(";p=\"q\""),
    },
    Exception {
        why: "a parameter with an escaped name may be `phone-context`, `ext` or `isub`",
        reason: "extension",
        applies: |_, user| {
            user.split(';').skip(1).any(|part| part.split('=').next().unwrap().contains('%'))
        },
    },
    Exception {
        why: "a password behind a `phone-context`: nobody sends it",
        reason: "ambiguous-number",
        applies: |field, user| field.contains(&format!("{user}:")) && contexts(user) == ["+62"],
    },
    Exception {
        why: "the reader makes 96 turns in a URI, each of eight bytes at most",
        reason: "uri-too-long",
        applies: |_, user| user.len() >= 700,
    },
];

fn is_angled(field: &str) -> bool {
    let value = field.split_once(':').unwrap().1.trim_start().to_ascii_lowercase();
    !value.starts_with("sip:") && !value.starts_with("sips:")
}

/// Returns the number that the gate reads in an INVITE with this header field, and its reason.
fn gate(field: &str) -> (Option<String>, &'static str) {
    let event = HostGate::new(&Policy::default()).judge(&Layers::IPV4.frame(&invite(field)), 1);
    let number = (event.number != Number::NONE).then(|| event.number.to_string());
    (number, gates::reason(&event).name())
}

/// How the values of a list came out.
#[derive(Debug, Default)]
struct Counts {
    values: usize,
    /// The oracles agree, and the gate with them.
    compared: usize,
    /// Of these: numbers.
    numbers: usize,
    exceptions: BTreeMap<&'static str, usize>,
}

impl Counts {
    /// Holds the gate to what the oracles agree on.
    fn compare(&mut self, field: &str) -> Result<(), String> {
        self.values += 1;
        let Some(user) = user(field) else { return Ok(()) };
        let (told, reason) = gate(field);
        let expected = number(&user);
        if told == expected {
            self.compared += 1;
            self.numbers += usize::from(told.is_some());
            return Ok(());
        }
        let exception = EXCEPTIONS.iter().find(|exception| {
            told.is_none() && reason == exception.reason && (exception.applies)(field, &user)
        });
        if let Some(exception) = exception {
            *self.exceptions.entry(exception.why).or_default() += 1;
            return Ok(());
        }
        Err(format!("{field:?}: {user:?} is {expected:?}, and {told:?} to the gate ({reason})"))
    }

    #[track_caller]
    fn compare_all<'a>(&mut self, fields: impl IntoIterator<Item = &'a str>) {
        let errors: Vec<_> =
            fields.into_iter().filter_map(|field| self.compare(field).err()).collect();
        println!("{self:#?}");
        assert!(errors.is_empty(), "{}", errors.join("\n"));
    }
}

// ---------------------------------------------------------------- The values

/// Returns the `From` fields of a text, folded lines with them; each line end is LF.
fn from_fields(text: &str) -> Vec<String> {
    let mut fields: Vec<String> = Vec::new();
    let mut open = false;
    for line in text.lines() {
        let folded = line.starts_with([' ', '\t']);
        let start = line.trim_start(); // some seeds are indented in another file
        let name = start.split(':').next().unwrap_or("").trim_end();
        if name.len() < start.len()
            && (name.eq_ignore_ascii_case("from") || name.eq_ignore_ascii_case("f"))
        {
            fields.push(start.to_owned());
            open = !folded;
        } else if folded && open && !line.trim().is_empty() {
            let field = fields.last_mut().unwrap();
            field.push('\n');
            field.push_str(line);
        } else {
            open = false;
        }
    }
    fields
}

#[test]
fn froms_of_the_hand_written_invites() {
    let mut fields = BTreeSet::new();
    for invite in invites::all() {
        let message = String::from_utf8_lossy(&invite.message()).replace("\r\n", "\n");
        fields.extend(from_fields(message.split("\n\n").next().unwrap()));
    }
    let mut counts = Counts::default();
    counts.compare_all(fields.iter().map(String::as_str));
    assert!(counts.compared >= 100 && counts.numbers >= 80);
}

#[test]
fn froms_of_other_stacks() {
    let mut fields = BTreeSet::new();
    for name in ["tos", "contacts", "urls"] {
        let path = fixtures().join(format!("seeds/gpl/parser-tests/osip/{name}.txt"));
        let text = fs::read(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        for value in String::from_utf8_lossy(&text).lines().map(str::trim) {
            if !value.is_empty() && !value.starts_with('#') {
                fields.insert(format!("From: {value}"));
                fields.insert(format!("From: <{value}>"));
                fields.insert(format!("f: {value};tag=1"));
            }
        }
    }
    for seed in seeds::all() {
        fields.extend(from_fields(&String::from_utf8_lossy(&seed)));
    }
    let mut counts = Counts::default();
    counts.compare_all(fields.iter().map(String::as_str));
    assert!(counts.compared >= 200 && counts.numbers >= 20);
}

#[test]
fn froms_that_one_stack_reads() {
    for field in [
        "From: \"a \\\" <sip:1@x> \\\\\" <sip:081234567890@x>;tag=1",
        "From: \"\\\"<sip:999@evil>\\\"\" <sip:081234567890@x>;tag=1",
        "From: \"\\\\\\\"\\<sip:999@evil>\\\\\"<sip:081234567890@x>;tag=1",
        "From: <tel:+6281234567890>;tag=1",
        "From: \"<sip:999@evil>\" <tel:+62-812-3456-7890;cpc=ordinary>;tag=1",
        "f: <TEL:081234567890>;tag=1",
        "From: tel <tel:112>;tag=1",
        "From: tel:+6281234567890;tag=1",
        "From: <tel:alice>;tag=1",
    ] {
        let message = invite(field);
        assert_eq!(ezk(&message), None, "{field:?} can be compared with both");
        let uri = rvoip_uri(&message).unwrap_or_else(|| panic!("{field:?}"));
        let user = match uri.scheme {
            // It takes the number for a host.
            Scheme::Tel => uri.host.to_string(),
            Scheme::Sip | Scheme::Sips | Scheme::Http | Scheme::Https | Scheme::Custom(_) => {
                uri.user.unwrap_or_default()
            }
        };
        let (told, reason) = gate(field);
        assert_eq!(told, number(&user), "{field:?} ({reason})");
    }
}

#[test]
fn froms_that_are_easily_misread() {
    let long_name = format!("From: {}<sip:081234567890@x>;tag=1", "Budi Santoso ".repeat(60));
    let long_quoted = format!("From: \"{}\" <sip:081234567890@x>;tag=1", "<sip:1@x>, ".repeat(60));
    let long_user = format!("From: <sip:081234567890;a={}@x>;tag=1", "b".repeat(120));
    let too_long = format!("From: <sip:081234567890;a={}@x>;tag=1", "b".repeat(800));
    let fields = [
        // Names, white space, folding
        "From: <sip:+6281234567890@x>;tag=1",
        "f: <sip:+6281234567890@x>;tag=1",
        "F:<sip:+6281234567890@x>;tag=1",
        "FROM \t : <sip:+6281234567890@x>;tag=1",
        "f : \"Budi\"<sip:081234567890@x>;tag=1",
        "From:\n <sip:081234567890@x>;tag=1",
        "From: \"Budi\n Santoso\"\n\t<sip:081234567890@x>;tag=1",
        "From: Budi\n Santoso <sip:081234567890@x>;tag=1",
        "From: <sip:081234567890@x>\n ;tag=1",
        "From: <sip:081234567890@x> ; tag = 1",
        // Display names
        "From: \"<sip:999@evil>\" <sip:+6281234567890@x>;tag=1",
        "From: \"sip:999@evil;tag=2\" <sip:+6281234567890@x>;tag=1",
        "From: \"a \\\" <sip:1@x> \\\\\" <sip:081234567890@x>;tag=1",
        "From: \"a\\\\\" <sip:081234567890@x>;tag=1",
        "From: \"Santoso, Budi\" <sip:081234567890@x>;tag=1",
        "From: sip <sip:081234567890@x>;tag=1",
        "From: tel <sip:081234567890@x>;tag=1",
        "From: 999 <sip:081234567890@x>;tag=1",
        "From: \"\" <sip:081234567890@x>;tag=1",
        "From: \"Jürgen ☎\" <sip:081234567890@x>;tag=1",
        &long_name,
        &long_quoted,
        // Users
        "From: Budi Santoso <sip:62812-3456.7890@x;user=phone>;tag=1",
        "From: <sip:+62(812)3456-7890@x>;tag=1",
        "From: <sip:%2B6281234567890@x>;tag=1",
        "From: <sip:%2b62%38%31234567890@x>;tag=1",
        "From: <sip:%2B62%2D812%2E34567890@x>;tag=1",
        "From: <sip:62%2B81234567890@x>;tag=1",
        "From: <sip:%2531234567890@x>;tag=1",
        "From: <sip:081234567890%3Btag@x>;tag=1",
        "From: <sip:081234567890%3A1@x>;tag=1",
        "From: <sip:081234567890%40evil@x>;tag=1",
        "From: <sip:081234567890%20@x>;tag=1",
        "From: <sip:081234567890%00@x>;tag=1",
        "From: <sip:+62*81@x>;tag=1",
        "From: <sip:081234567890,1@x>;tag=1",
        "From: <sip:081234567890?a=b@x>;tag=1",
        "From: <sip:112@x>;tag=1",
        "From: <sip:1234567890123456@x>;tag=1",
        "From: <sip:anonymous@anonymous.invalid>;tag=1",
        "From: \"Anonymous\" <sip:anonymous@anonymous.invalid>;tag=1",
        "From: <sip:10.0.1.199>;tag=1",
        "From: <sip:628123456789>;tag=1",
        "From: <sip:628123456789.example:5060>;tag=1",
        "From: <sip:@x>;tag=1",
        "From: <sip::pw@x>;tag=1",
        // Passwords, parameters, hosts
        "From: <sip:+6281234567890:secret@[2001:db8::1]:5080>;tag=1",
        "From: <sip:+6281234567890:081111111111@x>;tag=1",
        "From: <sip:+6281234567890:@x>;tag=1",
        "From: <sip:+6281234567890;verstat=TN-Validation-Passed@x>;tag=1",
        "From: <sip:+6281234567890;cpc=ordinary:secret@x>;tag=1",
        "From: <sip:+6281234567890;npdi;rn=+628120000000;tgrp=TG-1;isub=1@x>;tag=1",
        "From: <sip:+6281234567890;EXT=1@x>;tag=1",
        "From: <sip:+6281234567890;exta=1;isu=2@x>;tag=1",
        &long_user,
        "From: <sip:81234567890;phone-context=+62@x;user=phone>;tag=1",
        "From: <sip:81234567890;Phone-Context=+6-2@x;user=phone>;tag=1",
        "From: <sip:81234567890;phone-context=+1@x;user=phone>;tag=1",
        "From: <sip:81234567890;phone-context=ims.example@x;user=phone>;tag=1",
        "From: <sip:81234567890;phone-context=@x;user=phone>;tag=1",
        "From: <sip:81234567890;phone-context@x;user=phone>;tag=1",
        "From: <sip:+6281234567890@x?Subject=a%40b>;tag=1",
        "From: <sip:+6281234567890@x;maddr=10.0.0.1;lr>;x=\"<sip:1@x>\";tag=1",
        "From: <sip:+6281234567890@999.example>;tag=1",
        "From: <sip:+6281234567890@62812345678>;tag=1",
        // Without angle brackets
        "From: sip:+6281234567890@x",
        "From: sip:+6281234567890@x;tag=1",
        "From: sip:+6281234567890:pw@[2001:db8::1]:5080;user=phone;tag=1",
        "f:sips:081234567890@x ;tag=1",
        // Schemes
        "From: <sips:+6281234567890@x;transport=tls>;tag=1",
        "From: <SIP:081234567890@x>;tag=1",
        "From: SiPs:081234567890@x;tag=1",
        "From: <tel:+6281234567890>;tag=1",
        "From: tel:+6281234567890;tag=1",
        "From: <urn:service:sos>;tag=1",
        // The exceptions
        "From: sip:081234567890;a=b@x;tag=1",
        "From: <sip:081234567890@x;p=\"q\">;tag=1",
        "From: <sip:81234567890;%70hone-context=+62@x>;tag=1",
        "From: <sip:81234567890;phone-context=+62:pw@x>;tag=1",
        &too_long,
    ];
    let mut counts = Counts::default();
    counts.compare_all(fields);
    assert!(counts.compared * 10 >= fields.len() * 6);
    assert_eq!(counts.exceptions.len(), EXCEPTIONS.len(), "an exception is never met");
}

/// Generates header fields from pieces of the grammar, and from pieces that nearly are.
fn field() -> impl Strategy<Value = String> {
    let name = ["From: ", "From:", "f:", "F : ", "FROM\t: ", "from :\t", "From:\n ", "f: \n\t"];
    let display = prop_oneof![
        1 => Just(""),
        2 => select(vec!["Budi ", "Budi Santoso", "a.b-c~ ", "0811 ", "sip ", "tel\n ", "+62 "]),
        2 => select(vec!["\"\"", "\"Budi, S.\" ", "\"<sip:999@evil>\" ", "\"x;tag=1\"\t", "\"é\" ",
            "\"sip:1@x\"\n ", "\"62811\" ", "\"a \\\"b\\\" \\\\\" "]),
    ];
    let user = prop_oneof![
        4 => "(\\+|%2B|%2b)?(0|62|812|00|620|1)?[0-9]{0,5}([-.()]|%2D|%2e|%30|%39)?[0-9]{0,9}",
        2 => "[0-9]{3,17}",
        1 => "\\+?[-+.()*a-e0-9]{1,9}",
        1 => "(%[0-7][0-9A-Fa-f]|[0-9]){1,8}",
    ];
    let behind = prop_oneof![
        4 => Just(""),
        2 => select(vec![":pw", ":", ":6281+1", ";a=b", ";cpc=x;y", ";ext=081", ";a:b",
            ";isub=1", ";npdi;rn=+62811;cic=+10288;tgrp=TG-JKT-112-PRIMARY-0001;oli=62"]),
        1 => select(vec!["%3B081", "%3Apw", "%40x", ";x=%2", ";x=%41", ";phone-contexts=+1"]),
        2 => select(vec![";phone-context=+62", ";Phone-Context=+6-2", ";isub=1;phone-context=+62",
            ";phone-context=+1", ";phone-context=ims.example", ";phone-context=", ";phone-context",
            ";phone-context=+62;phone-context=+62", ";%70hone-context=+62",
            ";phone-context=+62:pw"]),
    ];
    let host = prop_oneof![
        8 => select(vec!["@x", "@10.0.0.1", "@10.0.0.1:5060", "@[2001:db8::1]", "@HOST.example",
            "@[2001:db8::1]:5080", "@host.example:5070", "@1.example", "@081234567890"]),
        1 => select(vec!["", "%40x", "@", ":5060"]),
    ];
    let uri_parameters = prop_oneof![
        4 => Just(""),
        4 => select(vec![";transport=udp", ";user=phone;lr", ";maddr=10.0.0.1", "?a=b",
            ";x?a=%40"]),
        1 => select(vec![";p=1@y", ";p=\"q\""]),
    ];
    let parameters = prop_oneof![
        4 => select(vec!["", ";tag=1", " ;tag=1", ";a;tag=1", "; tag = 1", "\n ;tag=1", " ",
            ";x=\"<sip:1@x>\";tag=1"]),
        1 => select(vec![";tag=a@b", ", <sip:1@x>"]),
    ];
    let uri = (select(vec!["sip", "sips", "SIP", "sIPs"]), user, behind, host, uri_parameters);
    let uri = uri.prop_map(|(scheme, user, behind, host, parameters)| {
        format!("{scheme}:{user}{behind}{host}{parameters}")
    });
    (select(name.to_vec()), prop::option::weighted(0.8, display), uri, parameters).prop_map(
        |(name, display, uri, parameters)| match display {
            Some(display) => format!("{name}{display}<{uri}>{parameters}"),
            None => format!("{name}{uri}{parameters}"),
        },
    )
}

#[test]
fn generated_froms() {
    let counts = RefCell::new(Counts::default());
    let config = Config { cases: 6_000, failure_persistence: None, ..Config::default() };
    let result = TestRunner::new(config)
        .run(&field(), |field| counts.borrow_mut().compare(&field).map_err(TestCaseError::fail));
    let counts = counts.into_inner();
    println!("{counts:#?}");
    result.unwrap_or_else(|error| panic!("{error}"));
    assert!(counts.compared >= 2_000 && counts.numbers >= 1_000);
}
