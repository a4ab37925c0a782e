//! Numbering plans of countries: kernel and host read every text alike.

use filter_common::number::{Digits, Number};
use filter_common::plan::{NamedContext, context_name, mcc};
use palang::model::plan::example::examples;
use palang::model::plan::preset::Preset;
use palang::model::plan::presets;
use palang::model::policy::Policy;
use palang_tests::common::gates::Gates;
use palang_tests::common::packet::{Layers, crlf};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use crate::NOW;

/// Returns a policy with the preset of a country, a named context, a mobile country code and prefixes that are removed.
fn policy(preset: &Preset) -> Policy {
    let mut policy = Policy::default();
    let plan = &mut policy.trunks[0].profile.plan;
    *plan = preset.plan();
    plan.contexts[3] = NamedContext {
        name: context_name(b"national"),
        formats: plan.formats,
        ..NamedContext::default()
    };
    plan.imsi[7] = mcc("510").unwrap();
    plan.strip[2] = Digits::parse("98").unwrap();
    plan.strip[3] = Digits::parse("9912").unwrap();
    policy
}

fn invite(uri: &str) -> Vec<u8> {
    Layers::IPV4.frame(&crlf(&format!(
        "INVITE sip:112@psap.example SIP/2.0\nTo: <sip:112@x>\nFrom: <{uri}>\ni: 1\n\n"
    )))
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn texts_are_read_alike_in_the_plan_of_each_country() {
    let mut gates = Gates::new(&Policy::default());
    let mut runner = TestRunner::deterministic();
    let text = ("[+]?[0-9]{1,20}", proptest::option::of("national|NATIONAL|nationa|[a-z.]{1,20}"));
    let mut read = 0;
    for preset in presets::all() {
        let policy = policy(preset);
        gates.replace(&policy);
        let plan = &policy.trunks[0].profile.plan;
        for example in examples(plan, Some(preset.country), &[]) {
            let event = gates.judge(&invite(&format!("tel:{}", example.text)), NOW);
            let number = (event.number != Number::NONE).then(|| event.number.to_string());
            assert_eq!(number, example.number, "{} in {}", example.text, preset.country);
            read += u64::from(number.is_some());
        }
        for _ in 0..40 {
            let (digits, context) = text.new_tree(&mut runner).unwrap().current();
            let known = prop_oneof![
                Just(preset.code),
                Just(preset.trunk_prefix),
                Just("510"),
                Just("98"),
                Just("9912")
            ];
            let before = known.new_tree(&mut runner).unwrap().current();
            let context = context.map_or_else(String::new, |name| format!(";phone-context={name}"));
            let digits = match digits.strip_prefix('+') {
                Some(digits) => format!("+{before}{digits}"),
                None => format!("{before}{digits}"),
            };
            gates.judge(&invite(&format!("sip:{digits}{context}@x")), NOW);
            gates.judge(&invite(&format!("tel:{digits}{context}")), NOW);
        }
    }
    assert!(read > 800, "only {read} examples were read");
}
