//! Two other SIP stacks as oracles, never our own parser twice: where both read the same user
//! in the `From` of a message, the gate reads its number, and nothing else.
//!
//! Both get the whole INVITE, so they also read header names, white space and folding. `tel:` is
//! never compared: ezk does not know it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use ezk_sip_types::header::HeaderParse;
use ezk_sip_types::header::typed::FromTo;
use ezk_sip_types::msg::PullParser;
use ezk_sip_types::uri::SipUriUserPart;
use ezk_sip_types::{Headers, Name};
use filter_common::number::Number;
use palang::host::HostGate;
use palang::policy::Policy;
use palang_tests::packet::{Layers, crlf};
use palang_tests::{folder, gates, invites, seeds};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};
use rvoip_sip_core::parser::parse_message;
use rvoip_sip_core::types::Message;
use rvoip_sip_core::types::uri::Scheme;

// ---------------------------------------------------------------- The oracles

/// What a stack reads in a `From`: whether the scheme is `sips`, and the user without escapes.
type Read = (bool, String);

/// An INVITE with this header field, whose name stands in it too.
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
    let Message::Request(request) = parse_message(message).ok()? else { return None };
    let uri = &request.from()?.0.uri;
    let sips = match uri.scheme {
        Scheme::Sip => false,
        Scheme::Sips => true,
        _ => return None,
    };
    Some((sips, uri.user.clone().unwrap_or_default()))
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

/// The user as it stands in the message, where both stacks read the same.
fn user(field: &str) -> Option<String> {
    let message = invite(field);
    let plain = rvoip(&message).filter(|read| Some(read) == ezk(&message).as_ref())?;
    // They undo the escapes before they hand out the user, and `%3B` looks like `;` then. With
    // each `%` escaped once more they hand out what stands there.
    let message = invite(&field.replace('%', "%25"));
    let raw = rvoip(&message).filter(|read| Some(read) == ezk(&message).as_ref())?;
    (raw.0 == plain.0 && unescape(&raw.1)? == plain.1).then_some(raw.1)
}

// ---------------------------------------------------------------- What they mean

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

/// Without escapes and visual separators (RFC 3966 §5.1.1).
fn dialled(text: &str) -> Option<String> {
    let mut text = unescape(text)?;
    text.retain(|c| !"-.()".contains(c));
    Some(text)
}

fn are_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The number of a user under the default plan, if it is one.
fn number(user: &str) -> Option<String> {
    let mut parts = user.split([';', ':']);
    let text = dialled(parts.next()?)?;
    let mut contexts = Vec::new();
    for part in parts {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        if unescape(name)?.eq_ignore_ascii_case("phone-context") {
            contexts.push(dialled(value)?);
        }
    }
    let (global, digits) = match text.strip_prefix('+') {
        Some(digits) => (true, digits),
        None => (false, &*text),
    };
    if !are_digits(digits) {
        return None;
    }
    let number = match (&contexts[..], digits.strip_prefix('0')) {
        _ if global => {
            Some(digits.to_owned()).filter(|digits| digits.len() > 6 || digits.starts_with("62"))
        }
        ([], Some(national)) => Some(format!("62{national}")),
        ([], None) => Some(digits.to_owned()),
        // In Indonesia (RFC 3966 §5.1.5). Short codes are dialled without any prefix.
        ([context], Some(national)) if context == "+62" => Some(format!("62{national}")),
        ([context], None) if context == "+62" && !digits.starts_with("62") => {
            Some(format!("62{digits}")).filter(|_| digits.len() > 6)
        }
        _ => None,
    };
    // 62 0… and 62 alone are no numbers, except that a short one means what it is here.
    number.filter(|number| {
        let short = number == digits && number.len() <= 6;
        number.len() <= 15
            && !number.starts_with('0')
            && (short || (number != "62" && !number.starts_with("620")))
    })
}

/// What both stacks read and the gate does not, on purpose: the reason that the gate gives, the
/// values, and why. It reads nothing there, ever: it never reads something else.
const EXCEPTIONS: &[(&str, fn(&Case) -> bool, &str)] = &[];

// ---------------------------------------------------------------- The gate

struct Case<'a> {
    field: &'a str,
    user: &'a str,
}

/// What the gate reads in an INVITE with this header field, and its reason.
fn gate(field: &str) -> (Option<String>, &'static str) {
    let event = HostGate::new(&Policy::default()).judge(&Layers::IPV4.frame(&invite(field)), 1);
    let number = (event.number != Number::NONE).then(|| event.number.to_string());
    (number, gates::reason(&event).name())
}

/// How the values of a list came out.
#[derive(Debug, Default)]
struct Counts {
    values: usize,
    compared: usize,
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
        if told != expected {
            let case = Case { field, user: &user };
            let exception =
                EXCEPTIONS.iter().find(|(r, applies, _)| *r == reason && applies(&case));
            let Some((_, _, why)) = exception.filter(|_| told.is_none()) else {
                return Err(format!(
                    "{field:?}: the oracles read {user:?}, so {expected:?}; the gate {told:?} ({reason})"
                ));
            };
            *self.exceptions.entry(why).or_default() += 1;
            return Ok(());
        }
        self.compared += 1;
        self.numbers += usize::from(told.is_some());
        Ok(())
    }

    #[track_caller]
    fn compare_all<'a>(&mut self, fields: impl IntoIterator<Item = &'a String>) {
        let errors: Vec<_> =
            fields.into_iter().filter_map(|field| self.compare(field).err()).collect();
        println!("{self:?}");
        assert!(errors.is_empty(), "{}", errors.join("\n"));
    }
}

// ---------------------------------------------------------------- The values

/// The `From` fields of a text, folded lines with them; each line end is LF.
fn from_fields(text: &str) -> Vec<String> {
    let mut fields: Vec<String> = Vec::new();
    let mut open = false;
    for line in text.lines() {
        let folded = line.starts_with([' ', '\t']);
        let start = line.trim_start(); // some seeds stand indented in another file
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
    counts.compare_all(&fields);
}

#[test]
fn froms_of_other_stacks() {
    let mut fields = BTreeSet::new();
    for name in ["tos", "contacts", "urls"] {
        let path = folder().join(format!("seeds/gpl/parser-tests/osip/{name}.txt"));
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
    counts.compare_all(&fields);
}
#[test]
fn generated_froms() {
    let pick = |values: &'static [&'static str]| select(values);
    let name = ["From: ", "From:", "f:", "F : ", "FROM\t: ", "from :\t", "From:\n ", "f: \n\t"];
    let strategy = (
        select(name.to_vec()),
        pick(&[
            "",
            "",
            "",
            "Budi ",
            "Budi Santoso",
            "\"\"",
            "\"Budi, S.\" ",
            "\"a \\\"b\\\" \\\\\" ",
            "\"<sip:999@evil>\" ",
            "\"x;tag=1\"\t",
            "\"sip:1@x\"\n ",
            "a.b-c~ ",
            "0811 ",
            "sip ",
            "\"62811\" ",
            "\"é\" ",
            "tel\n ",
        ]),
        pick(&["sip", "sip", "sips", "SIP", "sIPs"]),
        "((\\+|%2B|%2b)?(0|62|62|812|00|620|1)?[0-9]{0,5}([-.()]|%2D|%2e|%30|%39)?[0-9]{0,9}|\
          [0-9]{3,17}|\\+?[-+.()*#%a-e0-9]{1,9}|(%[0-7][0-9A-f]|[0-9]){1,8})",
        pick(&[
            "",
            "",
            "",
            "",
            ":pw",
            ":",
            ":6281+1",
            ";a=b",
            ";cpc=x;y",
            ";phone-context=+62",
            ";Phone-Context=+6-2",
            ";phone-context=+1",
            ";phone-context=ims.example",
            ";%70hone-context=+62",
            ";ext=081",
            ";phone-context",
            ";phone-context=+62:pw",
            ";phone-context=",
            ";phone-context=+62;phone-context=+62",
            ";phone-context:pw",
            ";isub=1;phone-context=+62",
            ";x=%2",
            "%3B081",
            "%3Apw",
            "%40x",
            ";a:b",
        ]),
        pick(&[
            "@x",
            "@10.0.0.1",
            "@10.0.0.1:5060",
            "@[2001:db8::1]",
            "@[2001:db8::1]:5080",
            "@host.example:5070",
            "@HOST.example",
            "@1.example",
            "",
            "%40x",
        ]),
        pick(&[
            "",
            "",
            ";transport=udp",
            ";user=phone;lr",
            ";maddr=10.0.0.1",
            "?a=b",
            ";x?a=b&c=%40",
            ";p=1@y",
            ";p=\"q\"",
        ]),
        pick(&[
            "",
            ";tag=1",
            ";tag=1",
            " ;tag=1",
            ";a;tag=1",
            ";x=\"<sip:1@x>\";tag=1",
            "; tag = 1",
            "\n ;tag=1",
            ";tag=a@b",
            ", <sip:1@x>",
            " ",
        ]),
        prop::bool::weighted(0.8),
    );
    let counts = RefCell::new(Counts::default());
    let config = Config { cases: 30_000, failure_persistence: None, ..Config::default() };
    let result = TestRunner::new(config).run(
        &strategy,
        |(name, display, scheme, user, behind, host, uri_parameters, parameters, angle)| {
            let uri = format!("{scheme}:{user}{behind}{host}{uri_parameters}");
            let field = if angle {
                format!("{name}{display}<{uri}>{parameters}")
            } else {
                format!("{name}{uri}{parameters}")
            };
            if let Err(e) = counts.borrow_mut().compare(&field) { println!("ERR {e}"); }
            println!("DBG\t{:?}\t{name:?}\t{display:?}\t{scheme:?}\t{behind:?}\t{host:?}\t{uri_parameters:?}\t{parameters:?}\t{angle}\t{}{}{}", crate::user(&field).is_some(), rvoip(&invite(&field)).is_some(), ezk(&invite(&field)).is_some(), gate(&field).1);
            Ok(())
        },
    );
    println!("{:?}", counts.borrow());
    result.unwrap_or_else(|error| panic!("{error}"));
}
