//! The URI automaton on user parts of all kinds.

use super::*;
use crate::bytes::Slice;
use crate::plan::context_name;

/// Returns `+`, the digits, and the context of a URI after its scheme.
fn digits(uri: &str, form: Form) -> Result<String, Reason> {
    let read = read::<_, true>(&Slice::from(uri.as_bytes()), 0, form as u8);
    let dialled = read.map_err(Unread::reason)?;
    let mut text = String::from(if dialled.plus { "+" } else { "" });
    let nibbles = u128::from(dialled.high) << 64 | u128::from(dialled.low);
    for i in (0..dialled.count).rev() {
        text.push_str(&(nibbles >> (4 * i) & 0xF).to_string());
    }
    match dialled.context {
        Context::None => {}
        Context::Global(digits) => text += &format!(" in {digits}"),
        Context::Named(name) => {
            let names = ["ims.example", "national", "n", "5551", "[::1]"];
            let known = names.iter().find(|each| context_name(each.as_bytes()) == name);
            text += &format!(" in {}", known.unwrap_or(&"another name"));
        }
        Context::Unknown => text += " in ?",
    }
    Ok(text)
}

#[test]
fn numbers_are_taken_from_user_parts() {
    for (uri, form, expected) in [
        ("+62812@x>", Form::Sip, "+62812"),
        ("%2B62%38%312@x>", Form::Sip, "+62812"),
        ("%2b62812@x>", Form::Sip, "+62812"),
        ("0812:secret@x>", Form::Sip, "0812"),
        ("0812;a=b;c@x>", Form::Sip, "0812"),
        ("+62-(812).34%2D5@x>", Form::Sip, "+62812345"),
        ("0812@x", Form::SipBare, "0812"),
        ("+62812>", Form::Tel, "+62812"),
        ("+62812;cpc=priority>", Form::Tel, "+62812"),
        ("812;phone-context=+62>", Form::Tel, "812 in 62"),
        ("812;PHONE-Context=+6-2;a=b@x>", Form::Sip, "812 in 62"),
        ("812;phone-context=ims.example>", Form::Tel, "812 in ims.example"),
        ("812;phone-context=IMS.example;a=b@x>", Form::Sip, "812 in ims.example"),
        ("812;phone-context=national@x>", Form::Sip, "812 in national"),
        ("812;phone-context=n>", Form::Tel, "812 in n"),
        ("812;phone-context=5551>", Form::Tel, "812 in 5551"),
        ("812;phone-context=ims.example.>", Form::Tel, "812 in another name"),
        ("812;phone-context=ims.exampl%65>", Form::Tel, "812 in ?"),
        ("812;phone-context=%69ms.example>", Form::Tel, "812 in ?"),
        ("812;phone-context=+62x>", Form::Tel, "812 in ?"),
        ("812;phone-context=n;phone-context=n>", Form::Tel, "812 in ?"),
        ("812;phone-context=n;phone-context=+62>", Form::Tel, "812 in ?"),
        ("812;phone-context=>", Form::Tel, "812 in ?"),
        ("812;phone-context>", Form::Tel, "812 in ?"),
        ("812;phone-context@x>", Form::Sip, "812 in ?"),
        ("812;phone-context;a=b@x>", Form::Sip, "812 in ?"),
        ("812;phone-context:pw@x>", Form::Sip, "812 in ?"),
        ("812;phone-context=+62:pw@x>", Form::Sip, "812 in ?"),
        ("812;a=b:pw@x>", Form::Sip, "812"),
        ("812;a=b:c;d>", Form::Tel, "812"),
        ("812;phone-context=+62;phone-context=+1>", Form::Tel, "812 in ?"),
        ("812;phone-contexts=+62>", Form::Tel, "812"),
        ("812;a=phone-context=+62>", Form::Tel, "812"),
        ("812;ext;isub;extra=1;isubs=1;ex=1;e=1;is=1;phone=1>", Form::Tel, "812"),
        ("812;a=;ext>", Form::Tel, "812"),
        ("812;a=ext=1>", Form::Tel, "812"),
        ("0812 ", Form::TelBare, "0812"),
        ("0812;tag=1\r", Form::TelBare, "0812"),
        ("0812;tag=1;phone-context=+62\r", Form::TelBare, "0812 in ?"),
        ("0812;phone-context=ims.example,", Form::TelBare, "0812 in ?"),
        // White space ends the URI, so these parameters are the header's.
        ("0812 ;tag=1;ext=7\r", Form::TelBare, "0812"),
        ("0812;tag=1 ;isub=7\r", Form::TelBare, "0812"),
        ("0812\t;phone-context=+62\r", Form::TelBare, "0812"),
    ] {
        assert_eq!(digits(uri, form).as_deref(), Ok(expected), "{uri}");
    }
}

/// Tests parameters of any length, with any byte at any place, ahead of one that matters.
#[test]
fn parameters_that_do_not_matter_hide_none_that_do() {
    for len in 0..40usize {
        for byte in 0..=255u8 {
            for at in [0, len / 2, len.saturating_sub(1)] {
                let mut value = vec![b'a'; len];
                if let Some(place) = value.get_mut(at) {
                    *place = byte;
                }
                for named in [&b"n="[..], b""] {
                    let text = [b"812;x", named, &value, b";phone-context=+62>"].concat();
                    let bytes = Slice::from(&text[..]);
                    let found = read::<_, true>(&bytes, 0, Form::Tel as u8).map_err(Unread::reason);
                    let name = [b"x", named, &value].concat();
                    let name = name.split(|byte| matches!(byte, b'=' | b';')).next();
                    let expected = match byte {
                        _ if len == 0 => None,
                        b'>' => Some(Context::None),
                        b'%' if name.is_some_and(|name| name.contains(&b'%')) => {
                            assert_eq!(found, Err(Reason::Extension));
                            continue;
                        }
                        b'@' | b' ' | b'\t' | b'\r' | b'\n' | b',' => {
                            assert_eq!(found, Err(Reason::NotANumber));
                            continue;
                        }
                        _ => None,
                    };
                    let here = Context::Global(Digits(6 << 60 | 2 << 56 | 2));
                    let found = found.unwrap().context;
                    assert_eq!(found, expected.unwrap_or(here), "{}", text.escape_ascii());
                }
            }
        }
    }
    for len in 0..300 {
        for (behind, expected) in [
            (";ext=1>", Err(Reason::Extension)),
            (";phone-context=+62>", Ok("812 in 62")),
            (";b>", Ok("812")),
            (">", Ok("812")),
        ] {
            let uri = format!("812;a={}{behind}", "x".repeat(len));
            assert_eq!(digits(&uri, Form::Tel).as_deref(), expected.as_ref().map(|t| *t), "{uri}");
        }
    }
}

#[test]
fn what_is_no_number() {
    use Reason::{Extension, NoUser, NotANumber, UriTooLong};
    let long = format!("0812;{}@x>", "a".repeat(8 * TURNS_MAX));
    let digits_alone = format!("{}@x>", "1".repeat(TURNS_MAX + 7));
    for (uri, form, expected) in [
        ("10.0.1.199>", Form::Sip, NoUser),
        ("10.0.1.199:5060>", Form::Sip, NoUser),
        ("10.0.1.199;transport=udp>", Form::Sip, NoUser),
        ("10.0.1.199\r", Form::SipBare, NoUser),
        ("@x>", Form::Sip, NoUser),
        (";a=b@x>", Form::Sip, NoUser),
        ("--@x>", Form::Sip, NoUser),
        ("+@x>", Form::Sip, NotANumber),
        ("++62812@x>", Form::Sip, NotANumber),
        ("62+812@x>", Form::Sip, NotANumber),
        ("62%2B812@x>", Form::Sip, NotANumber),
        ("0812%40evil@x>", Form::Sip, NotANumber),
        ("0812%3B@x>", Form::Sip, NotANumber),
        ("0812%@x>", Form::Sip, NotANumber),
        ("0812%3@x>", Form::Sip, NotANumber),
        ("08 12@x>", Form::Sip, NotANumber),
        ("(021)%20555@x>", Form::Sip, NotANumber),
        ("alice@x>", Form::Sip, NotANumber),
        ("0812:;phone-context=+62@x>", Form::Sip, NotANumber),
        ("0812:a:b@x>", Form::Sip, NotANumber),
        ("0812;:a;phone-context=+62@x>", Form::Sip, NotANumber),
        ("0812;a=b:c;d@x>", Form::Sip, NotANumber),
        ("0812;ext:a;b@x>", Form::Sip, NotANumber),
        ("0812;phone-context=+62:a;b@x>", Form::Sip, NotANumber),
        ("0812a@x>", Form::Sip, NotANumber),
        ("*110@x>", Form::Sip, NotANumber),
        ("110#@x>", Form::Sip, NotANumber),
        ("0812?a@x>", Form::Sip, NotANumber),
        ("0812@x>", Form::Tel, NotANumber),
        ("0812:1>", Form::Tel, NotANumber),
        (">", Form::Tel, NoUser),
        ("0812", Form::Sip, UriTooLong),
        (&long, Form::Sip, UriTooLong),
        (&digits_alone, Form::Sip, UriTooLong),
        ("812;ext=1>", Form::Tel, Extension),
        ("812;a=b;ISUB=1@x>", Form::Sip, Extension),
        ("812;phone-context=+62;ext=>", Form::Tel, Extension),
        ("a;ext=1>", Form::Tel, NotANumber),
        ("812;%65xt=1>", Form::Tel, Extension),
        ("+62812;isu%62=1@x>", Form::Sip, Extension),
        ("812;%70hone-context=+62>", Form::Tel, Extension),
    ] {
        assert_eq!(digits(uri, form), Err(expected), "{uri}");
    }
}

#[test]
fn a_name_begins_with_a_letter() {
    for (uri, form, is_name) in [
        ("cullen@x>", Form::Sip, true),
        ("Anonymous@x>", Form::Sip, true),
        ("anonymous>", Form::Tel, true),
        ("z1@x>", Form::Sip, true),
        ("@x>", Form::Sip, true),
        ("x.example>", Form::Sip, true),
        ("10.0.0.1>", Form::Sip, false),
        ("0812a@x>", Form::Sip, false),
        ("+62812:1>", Form::Tel, false),
        ("62812@x>", Form::Tel, false),
        ("*110@x>", Form::Sip, false),
        ("%41@x>", Form::Sip, false),
        ("-a@x>", Form::Sip, true),
        ("-@x>", Form::Sip, true),
        (";a@x>", Form::Sip, false),
        (":a@x>", Form::Sip, false),
        ("+@x>", Form::Sip, false),
        ("_a@x>", Form::Sip, false),
        ("812;ext=1>", Form::Tel, false),
    ] {
        let read = read::<_, true>(&Slice::from(uri.as_bytes()), 0, form as u8).unwrap_err();
        assert_eq!(read.0 & Unread::NAME != 0, is_name, "{uri}");
    }
}

#[test]
fn a_plain_user_part_is_read_as_the_automaton_reads_it() {
    let mut plain = 0;
    for text in [
        "+6281234567890@x.example",
        "081234567890@x.example.net",
        "+123456789012345@x",
        "1@x.example.net.example",
        "12345678@x.example.net",
        "1234567@x.example.net.",
        "123456789012345@x",
        "1234567890123456@x",
        "+@x.example.net.example",
        "@x.example.net.example.",
        "++1@x.example.net.example",
        "12345678:@x.example.net",
        "1234\u{80}5@x.example.net",
        "12/4@x.example.net.exam",
        "12:4@x.example.net.exam",
    ] {
        for cut in 0..=text.len() {
            for byte in [None, Some(b'0'), Some(b'@'), Some(b'/'), Some(0xB5), Some(0)] {
                let mut text = text.as_bytes().to_vec();
                if let Some(byte) = byte {
                    text.insert(cut, byte);
                } else {
                    text.truncate(cut);
                }
                let bytes = Slice::from(&text[..]);
                if let Some(dialled) = read_plain(&bytes, 0) {
                    assert_eq!(
                        Ok(dialled),
                        read::<_, true>(&bytes, 0, Form::Sip as u8),
                        "{text:?}"
                    );
                    plain += 1;
                }
            }
        }
    }
    assert!(plain > 200, "{plain}");
}
