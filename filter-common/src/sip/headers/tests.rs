//! The header automaton on header fields, in every state.

use super::*;
use crate::sip::fields::Fields;

/// Returns the last state and the fields of a header section after the Request-URI.
fn walk(headers: &str) -> (u8, Fields) {
    walk_text(&format!("sip:112@x SIP/2.0\r\n{}\r\n\r\n", headers.replace('\n', "\r\n")))
}

fn walk_text(text: &str) -> (u8, Fields) {
    let mut fields = Fields::default();
    let mut step = Step::at(START);
    for (offset, byte) in text.bytes().enumerate() {
        step = step.next(byte);
        step.note(&mut fields, offset);
    }
    (step.state(), fields)
}

fn count(fields: &Fields, field: Field) -> u32 {
    fields[field as usize].count()
}

/// Tests every byte at every place of a word, in every state.
#[test]
fn where_eight_bytes_change_nothing_the_automaton_says_so_too() {
    let mut sure = 0;
    for state in 0..=255 {
        for (byte, place) in (0..=255u8).flat_map(|byte| (0..8).map(move |at| (byte, at))) {
            let mut bytes = *b"a v<:;\\ ";
            bytes[place] = byte;
            let mut step = Step::at(state);
            if !step.stays(u64::from_le_bytes(bytes)) {
                continue;
            }
            sure += 1;
            for byte in bytes {
                step = step.next(byte);
                assert_eq!(step.0, Step::at(state).0, "{bytes:?}");
            }
        }
    }
    assert_eq!(sure, (256 - 16) * 8);
}

#[test]
fn the_ends_are_never_left() {
    for end in [END, BAD] {
        for byte in 0..=255 {
            assert_eq!(Step::at(end).next(byte).0, Step::at(end).0);
        }
    }
}

#[test]
fn every_state_that_is_reached_can_end_well() {
    // Backwards from the end, then forwards from the start.
    let step_of = |state: u8, class: usize| {
        Step(STEPS[usize::from(state) * CLASS_COUNT + class].into()).state()
    };
    let mut good = [false; 256];
    good[usize::from(END)] = true;
    let mut reached = [false; 256];
    reached[usize::from(START)] = true;
    for _ in 0..256 {
        for state in 0..=255u8 {
            for class in 0..CLASS_COUNT {
                let next = step_of(state, class);
                if good[usize::from(next)] {
                    good[usize::from(state)] = true;
                }
                if reached[usize::from(state)] {
                    reached[usize::from(next)] = true;
                }
            }
        }
    }
    for state in 0..=255u8 {
        let (good, reached) = (good[usize::from(state)], reached[usize::from(state)]);
        assert!(!reached || good || state == BAD, "state {state} leads nowhere");
    }
}

#[test]
fn no_control_character_gets_through_an_address() {
    for state in FROM.base..PAI.base + PARTS {
        for byte in [0, 0x7F] {
            assert_eq!(Step::at(state).next(byte).state(), BAD, "state {state}, byte {byte}");
        }
    }
}

#[test]
fn an_lf_alone_ends_a_line_as_cr_and_lf_do() {
    for state in 0..=255 {
        let step = Step::at(state);
        let (cr, lf) = (step.next(b'\r'), step.next(b'\n'));
        // After a CR the LF belongs to it.
        if cr.state() == BAD && lf.state() != BAD {
            continue;
        }
        let (mut both, mut alone) = (Fields::default(), Fields::default());
        cr.note(&mut both, 7);
        let end = cr.next(b'\n');
        end.note(&mut both, 7);
        lf.note(&mut alone, 7);
        (both[0], alone[0]) = Default::default();
        assert_eq!((end.state(), both), (lf.state(), alone), "state {state}");
    }
    let (state, fields) = walk_text(
        "sip:112@x SIP/2.0\nf: <sip:1@x>\r\nt: a\n <sip:2@x>\n;b\ni: 1\n\nto: <sip:3@x>;tag=1\n",
    );
    assert_eq!((state, count(&fields, Field::To)), (BAD, 1));
    let (state, fields) = walk_text(
        "sip:112@x SIP/2.0\nf: <sip:1@x>\r\nt: a\n <sip:2@x>\n ;b\ni: 1\n\nto: <sip:3@x>;tag=1\n",
    );
    assert_eq!((state, count(&fields, Field::To), count(&fields, Field::ToTag)), (END, 1, 0));
    assert_eq!(fields[Field::LineEnd as usize].only(), Some(17));
}

#[test]
fn the_line_of_a_from_that_breaks_the_grammar_is_passed_over() {
    for from in [
        "a, b <sip:1@x>",
        "a@b <sip:1@x>",
        "a=b <sip:1@x>",
        "\"a\" b <sip:1@x>",
        "\"a\" sip:1@x;tag=1",
        "\"\"a\"\" <sip:1@x>",
        "<sip:1@x",
        "<sip:1@y@x>",
        "<sip:1 2@x>",
        "<sip:1@x>;a=b\"c",
        "<sip:1@x>, <sip:2@x>",
        "sip:1@x <sip:2@x>",
        "a, b\n <sip:1@x>\n ;tag=1",
    ] {
        let (state, fields) = walk(&format!("From: {from}\nTo: <sip:112@x>;tag=1"));
        let found = [Field::FromFault, Field::To, Field::ToTag];
        let counts = found.map(|field| count(&fields, field));
        assert_eq!((state, counts), (END, [1, 1, 1]), "{from}");
        // Where a number or a tag is read, such a value is bad.
        for name in ["To", "P-Asserted-Identity"] {
            let (state, fields) = walk(&format!("{name}: {from}"));
            let list = name.starts_with('P') && from == "<sip:1@x>, <sip:2@x>";
            assert_eq!((state == BAD, count(&fields, Field::FromFault)), (!list, 0), "{from}");
        }
    }
    for from in
        ["\"a <sip:1@x>", "\"a\"", "a\u{1}b <sip:1@x>", "<sip:1@x>;a=\"b", "\"a\\\n\" <sip:1@x>"]
    {
        assert_eq!(walk(&format!("From: {from}\nTo: <sip:112@x>")).0, BAD, "{from}");
    }
    for text in ["f: a,\rb\r\n\r\n", "f: \"a\rb\" <sip:1@x>\r\n\r\n"] {
        assert_eq!(walk_text(&format!("sip:112@x SIP/2.0\r\n{text}")).0, BAD, "{text:?}");
    }
}

#[test]
fn names_long_compact_in_any_case() {
    for (name, field) in [
        ("From", Field::From),
        ("f", Field::From),
        ("FROM  ", Field::From),
        ("t", Field::To),
        ("tO\t", Field::To),
        ("i", Field::CallId),
        ("cALL-iD", Field::CallId),
        ("P-Asserted-Identity", Field::Pai),
        ("Replaces", Field::Replaces),
        ("REPLACES \t", Field::Replaces),
    ] {
        let (state, fields) = walk(&format!("{name}: <sip:1@x>"));
        assert_eq!((state, count(&fields, field)), (END, 1), "{name}");
    }
    for name in [
        "Fro",
        "Fromm",
        "X-From",
        "fr",
        "tt",
        "ii",
        "Call-IDs",
        "P-Asserted-Identit",
        "p",
        "P-Asserted-Identityx",
        "Priority",
        "PAsserted-Identity",
        "Replace",
        "Replacess",
        "r",
    ] {
        let (state, fields) = walk(&format!("{name}: <sip:1@x>"));
        assert_eq!(state, END, "{name}");
        for field in [Field::From, Field::To, Field::CallId, Field::Pai, Field::Replaces] {
            assert_eq!(count(&fields, field), 0, "{name}");
        }
    }
    for line in ["From x: y", "From\n : y", " From: y", ": y", "no colon", "a<b: y"] {
        assert_eq!(walk(line).0, BAD, "{line}");
    }
}

#[test]
fn a_tag_is_a_parameter_of_the_header() {
    for (to, tagged) in [
        ("<sip:112@x>;tag=a", true),
        ("<sip:112@x> ; TAG = a", true),
        ("<sip:112@x>\n ;\n tag\n =\n a", true),
        ("sip:112@x;tag=a", true),
        ("<urn:service:sos>;a=b;tag=c", true),
        ("<sip:112@x>;tag=\"a\"", true),
        ("<sip:112@x;tag=a>", false),
        ("\"x;tag=a\" <sip:112@x>", false),
        ("<sip:112@x>;tag=", false),
        ("<sip:112@x>;tag", false),
        ("<sip:112@x>;mytag=a", false),
        ("<sip:112@x>;tags=a", false),
        ("<sip:112@x>;a=\";tag=b\"", false),
        ("<sip:112@x>;a = \";tag=b\"", false),
        ("<sip:112@x>;t=\";tag=b\";ta=\"\"", false),
        ("<sip:112@x>;a=\"\\\"\";tag=b", true),
        ("<sip:112@x>;ta\n g=b", false),
    ] {
        let (state, fields) = walk(&format!("To: {to}"));
        assert_eq!((state, count(&fields, Field::ToTag)), (END, u32::from(tagged)), "{to}");
    }
}

#[test]
fn a_quote_has_its_place_only_at_the_begin_of_a_value() {
    for to in [
        "<sip:112@x>;a=b\"c;tag=9;d\"",
        "<sip:112@x>;a\"b;tag=9;c=\"",
        "<sip:112@x>;\"a;tag=9\"",
        "<sip:112@x>;a \"b;tag=9\"",
        "<sip:112@x>;a=\"b\"\";tag=9\"",
        "<sip:112@x>;a=b=\";tag=9\"",
        "<sip:112@x>;t\"a;tag=9\"",
        "<sip:112@x>;tag\"a;tag=9\"",
        "<sip:112@x>;a b=\n \";tag=9\"",
        "sip:112@x;a=b\"c;tag=9\"",
    ] {
        assert_eq!(walk(&format!("To: {to}")).0, BAD, "{to}");
    }
}

#[test]
fn values_of_a_list() {
    for (pai, values, uris) in [
        ("<sip:1@x>", 1, 1),
        ("<sip:1@x>, <tel:2>", 2, 2),
        ("tel:1, sip:2@x", 2, 2),
        ("\"a, b\" <sip:1@x>", 1, 1),
        ("<urn:x>,<tel:1>", 2, 1),
        ("<sip:1@x>\nP-Asserted-Identity: <tel:2>", 2, 2),
    ] {
        let (state, fields) = walk(&format!("P-Asserted-Identity: {pai}"));
        let counts = (state, count(&fields, Field::PaiValue), count(&fields, Field::PaiUri));
        assert_eq!(counts, (END, values, uris), "{pai}");
    }
    assert_eq!(walk("To: <sip:1@x>, <sip:2@x>").0, BAD);
}

#[test]
fn a_display_name_is_no_uri() {
    let (state, fields) = walk(r#"From: "<sip:1@x>" <sip:2@x>"#);
    assert_eq!((state, count(&fields, Field::FromUri)), (END, 1));
    let (state, fields) = walk("From: sip <sip:2@x>");
    assert_eq!((state, count(&fields, Field::FromUri)), (END, 1));
}
