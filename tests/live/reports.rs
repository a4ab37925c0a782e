//! Calls are reported, and the ladder blocks who made them; and nobody whose number was forged.

use palang::store::{CallFilter, CallRow, Store};
use palang_tests::lab::{Invite, Lab, TRUNK, TRUNK6, message};
use serde_json::{Value, json};

use crate::gate::{Gate, SEPARATE, eventually};
use crate::socket::ask;

const CALLER: &str = "+6281234567890";
const DIGITS: &str = "6281234567890";
const DAY: i64 = 24 * 60 * 60;

/// Returns two trunks: IPv4 comes on one that vouches for From, IPv6 on one that may vouch for
/// P-Asserted-Identity.
fn trunks() -> String {
    format!(
        "[[trunk]]\nname = \"telkom\"\nsources = [\"{TRUNK}\"]\ntrusts_from = true\n\
         [[trunk]]\nname = \"other\"\nsources = [\"{TRUNK6}\"]\n"
    )
}

/// Waits until a call is on record; its record.
fn recorded(gate: &Gate<'_>, call_id: &str) -> Value {
    let mut found = Value::Null;
    eventually("the record of a call", || {
        let calls = gate.rows(&["calls", "--call-id", call_id]);
        found = calls.first().cloned().unwrap_or_default();
        !found.is_null()
    });
    found
}

/// Sends one call from the first trunk, and waits for its record.
fn call(gate: &Gate<'_>, caller: &str) -> Invite {
    let invite = gate.call(caller);
    recorded(gate, &invite.call_id);
    invite
}

/// Sends one call from the second trunk, and waits for its record.
fn call6(gate: &Gate<'_>, caller: &str, call_id: &str, asserted: Option<&str>) {
    let mut invite = message::invite(caller, call_id);
    if let Some(number) = asserted {
        let header = format!("P-Asserted-Identity: <sip:{number}@{TRUNK}>\r\nCSeq:");
        invite = invite.replacen("CSeq:", &header, 1);
    }
    gate.lab.sender().send6(5060, invite.as_bytes()).unwrap();
    recorded(gate, call_id);
}

/// Reports a call as a console does.
fn report(gate: &Gate<'_>, number: &str, kind: &str, call_id: Option<&str>) -> Value {
    let body = json!({ "number": number, "kind": kind, "call_id": call_id, "note": "heard" });
    let answer = ask(&gate.daemon, "POST", "/v1/reports", &body.to_string());
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// Seconds until a block ends, to the minute.
fn minutes_left(block: &Value) -> i64 {
    let end: jiff::Timestamp = block["expires"].as_str().unwrap().parse().unwrap();
    (end.duration_since(jiff::Timestamp::now()).as_secs() + 30) / 60
}

/// Asserts that a report blocks nobody, and that somebody has to look at it.
fn is_no_strike(gate: &Gate<'_>, reported: &Value, why: &str) {
    assert_eq!(reported["report"]["strike"], false, "{reported}");
    assert_eq!(reported["report"]["counts_hundredths"], 0, "{reported}");
    let said = reported["report"]["why_not"].as_str().unwrap();
    assert!(said.contains(why), "{said}");
    for nothing in ["change", "block", "grant_ended", "problem"] {
        assert_eq!(reported[nothing], Value::Null, "{nothing}: {reported}");
    }
    assert_eq!(reported["needs_review"], true, "{reported}");
    let reviews = gate.rows(&["review", "list"]);
    let review = reviews.iter().find(|review| review["id"] == reported["review"]).unwrap();
    assert_eq!((&review["kind"], &review["rule"]), (&"report".into(), &0.into()));
    assert_eq!(review["call_id"], reported["report"]["call_id"]);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn repeated_prank_reports_lengthen_the_block_and_end_the_redial_grant() {
    let lab = Lab::new("ladder");
    let gate = Gate::start(&lab, &format!("{}[redial]\nattempts = 2\n", trunks()));

    // A dry run leaves no trace.
    let first = call(&gate, CALLER);
    assert!(first.arrived_at.is_some());
    let tried = ["report", "add", CALLER, "--kind", "prank", "--call-id", &first.call_id];
    let tried = gate.does(&[&tried[..], &["--dry-run"]].concat());
    assert_eq!((&tried["dry_run"], &tried["warning"]), (&true.into(), &true.into()));
    assert_eq!((&tried["report"]["id"], &tried["strikes_hundredths"]), (&Value::Null, &100.into()));
    assert_eq!(gate.rows(&["report", "list"]), [Value::Null; 0]);
    assert_eq!(gate.last("report"), None);

    // The first: a warning on record.
    let told = report(&gate, CALLER, "prank", Some(&first.call_id));
    assert_eq!(told["report"]["strike"], true, "{told}");
    assert_eq!(
        (&told["report"]["trunk"], &told["report"]["author"]),
        (&"telkom".into(), &"root".into())
    );
    assert_eq!((&told["warning"], &told["strikes_hundredths"]), (&true.into(), &100.into()));
    assert_eq!((&told["block"], &told["needs_review"]), (&Value::Null, &false.into()));
    assert_eq!(told["in_force"]["verdict"], "pass");

    // The second: 24 h.
    let second = call(&gate, CALLER);
    assert!(second.arrived_at.is_some());
    let told = report(&gate, CALLER, "prank", Some(&second.call_id));
    let block = &told["block"];
    assert_eq!((&told["change"], &told["strikes_hundredths"]), (&"added".into(), &200.into()));
    assert_eq!((&block["origin"], &block["author"]), (&"ladder".into(), &"root".into()));
    assert_eq!(block["reason"], "2.00 strikes: 2 prank");
    assert_eq!(minutes_left(block), DAY / 60);
    assert_eq!((&told["needs_review"], &told["warning"]), (&false.into(), &false.into()));
    assert_eq!(told["in_force"]["verdict"], "drop");
    let kernel = gate.kernel_block(CALLER).unwrap();
    assert_eq!((kernel.redial_attempts, kernel.epoch), (2, 0));

    // The third call is refused: nobody has heard it, so nobody can have been played a prank on.
    let third = call(&gate, CALLER);
    assert_eq!(third.arrived_at, None);
    let told = report(&gate, CALLER, "prank", Some(&third.call_id));
    is_no_strike(&gate, &told, "was refused");
    assert_eq!(told["strikes_hundredths"], 200);

    // He knows the redial rule.
    gate.age(CALLER, SEPARATE);
    let fourth = call(&gate, CALLER);
    assert!(fourth.arrived_at.is_some(), "the second attempt passes");
    assert_eq!(recorded(&gate, &fourth.call_id)["reason"], "redial-grant");
    let granted = gate.does(&["explain", CALLER]);
    assert_eq!(granted["check"]["granted"]["kind"], "redial");
    assert!(gate.passes(CALLER));

    let is_told = || gate.last("redial grant").is_some();
    eventually("the redial grant on the review list", is_told);

    // A prank all the same: the grant ends, with the same write as the longer block.
    let told = report(&gate, CALLER, "prank", Some(&fourth.call_id));
    let block = &told["block"];
    assert_eq!((&told["change"], &told["strikes_hundredths"]), (&"updated".into(), &300.into()));
    assert_eq!(minutes_left(block), 3 * DAY / 60);
    assert_eq!(told["grant_ended"], *block);
    assert_eq!(block["redial"]["attempts"], 4);
    assert_eq!(told["needs_review"], true);
    assert_eq!(
        (&told["in_force"]["verdict"], &told["in_force"]["granted"]),
        (&"drop".into(), &Value::Null)
    );
    let kernel = gate.kernel_block(CALLER).unwrap();
    assert_eq!((kernel.redial_attempts, kernel.epoch), (4, 1));
    assert_eq!(kernel.rule, block["rule"].as_u64().unwrap());
    assert!(!gate.passes(CALLER));
    let next = gate.does(&["explain", CALLER])["check"]["next_attempt"].clone();
    assert_eq!(next, json!({ "attempt": 1, "of": 4 }), "and it begins anew");
    assert_eq!(gate.does(&["status"])["drift"], 0);

    // A second report of a call replaces the first, and is no second reason.
    let told = report(&gate, CALLER, "abusive", Some(&fourth.call_id));
    assert_eq!(told["strikes"], "3.00 strikes: 2 prank, 1 abusive");
    assert_eq!((&told["block"], &told["grant_ended"]), (&Value::Null, &Value::Null));
    assert_eq!(gate.kernel_block(CALLER).unwrap(), kernel);

    // All of it can be seen: calls, reports, block, audit, reviews.
    let calls = gate.rows(&["calls", "--caller", CALLER]);
    let reasons: Vec<_> = calls.iter().rev().map(|call| call["reason"].as_str().unwrap()).collect();
    let expected = ["not-blocked", "not-blocked", "blocked-number", "redial-grant"];
    assert_eq!(reasons[..4], expected);
    let reports = gate.rows(&["report", "list", CALLER, "--since", "1h"]);
    let kinds: Vec<_> = reports
        .iter()
        .map(|report| (report["kind"].as_str().unwrap(), report["strike"].as_bool().unwrap()))
        .collect();
    let expected =
        [("abusive", true), ("prank", false), ("prank", false), ("prank", true), ("prank", true)];
    assert_eq!(kinds, expected, "{reports:?}");
    assert!(reports[1]["why_not"].as_str().unwrap().contains("report 5 of the same call"));
    assert_eq!(gate.rows(&["report", "list", "+6281200000001"]), [Value::Null; 0]);
    for shown in [gate.does(&["block", "show", CALLER]), gate.does(&["explain", CALLER])] {
        assert_eq!(shown["strikes_hundredths"], 300);
        let ids: Vec<_> = shown["reports"].as_array().unwrap().iter().map(|r| &r["id"]).collect();
        assert_eq!(ids, [5, 2, 1]);
    }
    let shown = gate.daemon.cli(&["block", "show", CALLER]).stdout;
    assert!(shown.contains("3.00 strikes from these reports:"), "{shown}");
    for (origin, count) in [("auto", 1), ("ladder", 1), ("operator", 0)] {
        assert_eq!(gate.rows(&["block", "list", "--origin", origin]).len(), count, "{origin}");
    }
    let audit = gate.audit();
    let actions: Vec<_> = audit.iter().map(|record| record["action"].as_str().unwrap()).collect();
    let expected = [
        "mode enforce",
        "report",
        "report",
        "block add",
        "report",
        "redial grant",
        "report",
        "block move",
        "grant end",
        "report",
    ];
    assert_eq!(actions, expected);
    let end = gate.last("grant end").unwrap();
    assert_eq!(
        (&end["number"], &end["report"], &end["attempts"]),
        (&DIGITS.into(), &4.into(), &4.into())
    );
    let reviews = gate.rows(&["review", "list"]);
    let listed: Vec<_> = reviews
        .iter()
        .map(|review| (review["kind"].as_str().unwrap(), review["call_id"].as_str().unwrap()))
        .collect();
    let expected = [
        ("report", &*third.call_id),
        ("redial-grant", &*fourth.call_id),
        ("report", &*fourth.call_id),
    ];
    assert_eq!(listed, expected);
    assert_eq!(reviews[2]["until"], block["expires"]);
    assert_eq!(reviews[2]["rule"], block["rule"]);

    // A person decides: longer, or free.
    gate.fails(2, &["review", "extend", "3", "--for", "1h"]);
    gate.fails(4, &["review", "extend", "9", "--for", "7d"]);
    gate.does(&["review", "extend", "3", "--for", "7d", "--dry-run"]);
    assert_eq!(gate.kernel_block(CALLER).unwrap(), kernel);
    let extended = gate.does(&["review", "extend", "3", "--for", "7d"]);
    assert_eq!(minutes_left(&extended["block"]["now"]), 7 * DAY / 60);
    assert_eq!(extended["block"]["now"]["redial"]["attempts"], 4, "the rest stays");
    assert!(extended["review"]["note"].as_str().unwrap().starts_with("block extended until 20"));
    gate.fails(5, &["review", "extend", "3", "--for", "8d"]);
    gate.fails(2, &["review", "free", "1", "--note", " "]);
    gate.does(&["review", "free", "1", "--note", "a child", "--dry-run"]);
    assert!(!gate.passes(CALLER));
    let freed = gate.does(&["review", "free", "1", "--note", "a child"]);
    assert_eq!(
        (&freed["block"]["change"], &freed["review"]["note"]),
        (&"removed".into(), &"a child".into())
    );
    assert_eq!(freed["block"]["in_force"]["verdict"], "pass");
    assert!(gate.passes(CALLER));
    assert_eq!(gate.last("review close").unwrap()["note"], "a child");
    gate.fails(4, &["review", "free", "2", "--note", "a child"]);
    assert_eq!(gate.does(&["status"])["reviews"], 1);

    // A strike is taken back, also by nothing else than its Call-ID.
    let told = report(&gate, CALLER, "test", Some(&first.call_id));
    assert_eq!((&told["report"]["strike"], &told["needs_review"]), (&false.into(), &false.into()));
    assert_eq!((&told["strikes_hundredths"], &told["block"]), (&200.into(), &Value::Null));
    assert!(gate.passes(CALLER));
    assert_eq!(gate.findings(), [""; 0]);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn report_without_a_strike_blocks_nobody_and_is_reviewed() {
    let lab = Lab::new("no-strike");
    let mut gate = Gate::start(&lab, &trunks());
    let known = call(&gate, CALLER);
    let victim = "+6281200000001";

    is_no_strike(&gate, &report(&gate, CALLER, "prank", None), "no Call-ID");
    is_no_strike(&gate, &report(&gate, CALLER, "prank", Some("made up")), "no call with this");
    let other = report(&gate, victim, "prank", Some(&known.call_id));
    is_no_strike(&gate, &other, "no call with this");
    let upper = report(&gate, CALLER, "prank", Some(&format!("{} ", known.call_id)));
    is_no_strike(&gate, &upper, "no call with this");

    gate.does(&["block", "add", victim, "--for", "1h", "--reason", "a test"]);
    let refused = call(&gate, victim);
    assert_eq!(refused.arrived_at, None);
    is_no_strike(&gate, &report(&gate, victim, "prank", Some(&refused.call_id)), "was refused");
    gate.does(&["block", "remove", victim]);

    call6(&gate, CALLER, "six@lab", None);
    assert_eq!(recorded(&gate, "six@lab")["trunk"], "other");
    let untrusted = report(&gate, CALLER, "prank", Some("six@lab"));
    is_no_strike(&gate, &untrusted, "trunk other does not vouch");

    // Nor does a call of yesterday, on the trunk that is trusted.
    gate.daemon.stop();
    let mut store = Store::open(&gate.daemon.state().join("palang.db")).unwrap();
    let mut row: Option<CallRow> = None;
    let all = CallFilter::default();
    store
        .reader()
        .calls(&all, |(_, call)| {
            if call.call_id.as_deref() == Some(&known.call_id) {
                row = Some(call);
            }
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    let row = row.unwrap();
    let hours_ago = |hours: i64, call_hash| CallRow {
        time: jiff::Timestamp::now() - jiff::SignedDuration::from_hours(hours),
        call_id: Some(format!("{hours} h@lab")),
        call_hash,
        ..row.clone()
    };
    let hash = |text: &str| {
        use filter_common::sip::message::call_id_hash;
        call_id_hash(&filter_common::bytes::Slice::from(text.as_bytes()), 0, text.len())
    };
    let old = [hours_ago(25, hash("25 h@lab")), hours_ago(23, hash("23 h@lab"))];
    store.put_calls(&old).unwrap();
    drop(store);
    gate.daemon.start_again();
    let told = report(&gate, CALLER, "prank", Some("25 h@lab"));
    is_no_strike(&gate, &told, "only the last 24 hours");
    assert_eq!(told["report"]["trunk"], "telkom");

    // None of it blocked anybody; what is matched does count.
    assert_eq!(gate.rows(&["block", "list"]), [Value::Null; 0]);
    assert!(gate.passes(CALLER) && gate.passes(victim));
    let audit = gate.audit();
    let reports: Vec<_> = audit.iter().filter(|record| record["action"] == "report").collect();
    assert_eq!(reports.len(), 7);
    assert!(reports.iter().all(|record| record["strike"] == false));
    let told = report(&gate, CALLER, "prank", Some("23 h@lab"));
    assert_eq!(
        (&told["report"]["strike"], &told["strikes_hundredths"]),
        (&true.into(), &100.into())
    );

    // Silent callers may be hiding: three are a strike, and six block for an hour at most.
    let mut last = Value::Null;
    for _ in 0..6 {
        let silent = call(&gate, victim);
        last = report(&gate, victim, "silent", Some(&silent.call_id));
    }
    assert_eq!((&last["strikes_hundredths"], &last["change"]), (&204.into(), &"added".into()));
    assert_eq!(minutes_left(&last["block"]), 60);
    // A weight of nothing needs nobody to look at it.
    let test = report(&gate, "+6281200000002", "test", Some("made up"));
    assert_eq!((&test["needs_review"], &test["review"]), (&false.into(), &Value::Null));

    for bad in [
        r#"{"number":"0812","kind":"joke"}"#,
        r#"{"number":"62812*","kind":"prank"}"#,
        r#"{"number":"anonymous","kind":"prank"}"#,
        r#"{"kind":"prank"}"#,
        r#"{"number":"0812","kind":"prank","permanent":true}"#,
    ] {
        assert_eq!(ask(&gate.daemon, "POST", "/v1/reports", bad).status, 400, "{bad}");
    }
    gate.fails(2, &["report", "add", CALLER]);
    gate.fails(2, &["report", "add", CALLER, "--kind", "joke"]);
}

// Until trunks are configured no number is trusted, also if the profile `default` says so.
#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn report_without_trunks_blocks_nobody() {
    let lab = Lab::new("no-trunks");
    let gate = Gate::start(&lab, "[default]\nidentity = \"pai-else-from\"");
    for _ in 0..3 {
        let prank = call(&gate, CALLER);
        let told = report(&gate, CALLER, "prank", Some(&prank.call_id));
        is_no_strike(&gate, &told, "default is no [[trunk]]");
    }
    call6(&gate, "112", "asserted@lab", Some(CALLER));
    assert_eq!(recorded(&gate, "asserted@lab")["identity"], "pai");
    let told = report(&gate, CALLER, "prank", Some("asserted@lab"));
    is_no_strike(&gate, &told, "default is no [[trunk]]");
    assert!(gate.passes(CALLER));
    assert_eq!(gate.rows(&["block", "list"]), [Value::Null; 0]);
}

// A sender on a trunk that does not vouch for numbers gets nobody blocked.
#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn report_of_a_forged_number_never_blocks_its_owner() {
    let lab = Lab::new("forged");
    let trunks = format!(
        "[[trunk]]\nname = \"telkom\"\nsources = [\"{TRUNK}\"]\ntrusts_from = true\n\
         [[trunk]]\nname = \"pai\"\nsources = [\"{TRUNK6}\"]\nidentity = \"pai-else-from\"\n"
    );
    let gate = Gate::start(&lab, &trunks);
    let victim = "+6281255555555";
    let kinds = ["prank", "abusive", "silent"];
    let trusted = call(&gate, CALLER);
    // Seeded: a run that fails can be repeated.
    let mut state = 0x5eed_u64;
    let mut random = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    for index in 0..40 {
        // Without an asserted identity the trunk's From is judged; with one From is not.
        let (from, asserted) = match random(3) {
            0 => (victim, None),
            1 => (victim, Some(CALLER)),
            _ => (victim, Some("+6281266666666")),
        };
        let call_id = match random(3) {
            // As a call that is trusted, of another number.
            0 => trusted.call_id.clone(),
            _ => format!("{index}@forger"),
        };
        call6(&gate, from, &call_id, asserted);
        let kind = kinds[random(3) as usize];
        let told = report(&gate, victim, kind, (random(5) > 0).then_some(&*call_id));
        assert_eq!(told["report"]["strike"], false, "{told}");
        assert_eq!((&told["block"], &told["strikes_hundredths"]), (&Value::Null, &0.into()));
    }
    assert!(gate.passes(victim));
    assert_eq!(gate.rows(&["block", "list"]), [Value::Null; 0]);
    assert_eq!(gate.kernel_block(victim), None);

    // An identity that the trunk asserts counts.
    call6(&gate, victim, "asserted@pai", Some("+6281266666666"));
    let told = report(&gate, "+6281266666666", "prank", Some("asserted@pai"));
    assert_eq!(
        (&told["report"]["strike"], &told["report"]["trunk"]),
        (&true.into(), &"pai".into())
    );
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn number_that_may_not_be_blocked_is_reviewed_and_a_longer_block_stays() {
    let lab = Lab::new("not-blocked");
    let gate = Gate::start(&lab, &format!("{}[limits]\nblocks = 2\n", trunks()));
    let strike = |number: &str| {
        let prank = call(&gate, number);
        assert!(prank.arrived_at.is_some(), "{number}");
        report(&gate, number, "prank", Some(&prank.call_id))
    };
    let add = |number: &str, kind: &str| {
        let prank = call(&gate, number);
        let arguments = ["report", "add", number, "--kind", kind, "--call-id", &prank.call_id];
        gate.daemon.cli(&arguments)
    };

    // Allowed.
    gate.does(&["allow", "add", CALLER, "--comment", "a hospital"]);
    strike(CALLER);
    let output = add(CALLER, "prank");
    assert_eq!(output.code, 6, "{output:?}");
    assert!(
        output.stderr.contains("the report is recorded, but the number was not blocked"),
        "{output:?}"
    );
    assert!(output.stderr.contains("there is an allow"), "{output:?}");
    assert!(output.stdout.contains("counts as a strike: now 2.00 strikes: 2 prank"), "{output:?}");
    assert_eq!(gate.rows(&["review", "list"]).len(), 1);
    assert!(gate.passes(CALLER));

    // Blocked for good, and so that calls pass all the same.
    gate.does(&["mode", "observe"]);
    let good = "+6281200000001";
    gate.does(&["block", "add", good, "--permanent", "--reason", "every night"]);
    strike(good);
    let told = strike(good);
    assert_eq!((&told["block"], &told["change"]), (&Value::Null, &Value::Null));
    assert!(told["notes"][0].as_str().unwrap().contains("for good already"), "{told}");
    let told = strike(good);
    assert_eq!((&told["strikes_hundredths"], &told["needs_review"]), (&300.into(), &true.into()));
    let block = gate.does(&["block", "show", good]);
    assert_eq!((&block["expires"], &block["origin"]), (&Value::Null, &"operator".into()));
    // A person's shorter one goes on, but not one that a person wants to observe only.
    let short = "+6281200000002";
    gate.does(&["block", "add", short, "--for", "1h", "--reason", "a test", "--redial", "5/2m/3m"]);
    strike(short);
    let told = strike(short);
    assert_eq!(told["change"], "updated");
    assert_eq!(minutes_left(&told["block"]), DAY / 60);
    assert_eq!(told["block"]["redial"], json!({ "attempts": 5, "window": 120, "grant": 180 }));
    assert_eq!(gate.last("block move").unwrap()["origin"], "ladder");

    // Full.
    let third = "+6281200000003";
    strike(third);
    let told = strike(third);
    assert_eq!(told["problem"]["kind"], "full", "{told}");
    assert_eq!((&told["report"]["strike"], &told["needs_review"]), (&true.into(), &true.into()));
    assert_eq!(
        (&told["block"], &told["in_force"]["policy_verdict"]),
        (&Value::Null, &"pass".into())
    );
    assert_eq!(gate.rows(&["report", "list", third]).len(), 2);
    gate.does(&["block", "remove", short]);
    gate.does(&["block", "add", third, "--for", "1h", "--reason", "a test", "--observe"]);
    let told = strike(third);
    assert_eq!((&told["block"], &told["needs_review"]), (&Value::Null, &true.into()));
    assert!(told["notes"][0].as_str().unwrap().contains("only observes"), "{told}");
    gate.does(&["block", "remove", third]);
    let told = strike(third);
    assert_eq!((&told["change"], &told["strikes_hundredths"]), (&"added".into(), &400.into()));
    assert_eq!(minutes_left(&told["block"]), 7 * DAY / 60);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn ladder_of_the_centre_is_used_and_a_wrong_one_is_refused() {
    let lab = Lab::new("own-ladder");
    // A first trunk at a reload would need a restart for its replies.
    let gate = Gate::start(&lab, &trunks());
    let ladder = gate.daemon.folder().join("ours.toml");
    let config = format!("ladder = \"ours.toml\"\n{}", trunks());
    gate.daemon.configure(&config);
    std::fs::write(&ladder, "[[rung]]\nstrikes = 1\nblock = \"for ever\"\n").unwrap();
    gate.daemon.signal("HUP");
    let place = format!("{}:3:9: block: \"for ever\"", ladder.display());
    eventually("the finding", || gate.findings().iter().any(|found| found.contains(&place)));

    std::fs::write(&ladder, "[[rung]]\nstrikes = 1\nblock = \"2h\"\n").unwrap();
    gate.daemon.signal("HUP");
    eventually("the ladder in force", || gate.findings().is_empty());
    let prank = call(&gate, CALLER);
    let told = report(&gate, CALLER, "prank", Some(&prank.call_id));
    assert_eq!(minutes_left(&told["block"]), 120);
    assert!(!gate.passes(CALLER));
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn prank_report_of_a_granted_call_ends_the_grant_and_keeps_the_block() {
    let lab = Lab::new("grant-end");
    let config = format!("{}[redial]\nattempts = 3\n", trunks());
    let gate = Gate::start(&lab, &config);
    gate.does(&[
        "block", "add", "+62812*", "--for", "2h", "--reason", "a test", "--redial", "5/3m/4m",
    ]);
    let prefix = gate.kernel_block("+62812*").unwrap();
    let neighbour = "+6281255500123";
    let mut passed = None;
    for _ in 0..5 {
        assert!(passed.is_none(), "too early");
        let attempt = call(&gate, CALLER);
        passed = attempt.arrived_at.map(|_| attempt.call_id);
        gate.passes(neighbour);
        for number in [CALLER, neighbour] {
            gate.age(number, SEPARATE);
        }
    }
    let passed = passed.unwrap();
    assert!(gate.passes(neighbour), "has a grant too");
    let silent = report(&gate, CALLER, "silent", Some(&passed));
    assert_eq!((&silent["report"]["strike"], &silent["grant_ended"]), (&true.into(), &Value::Null));
    assert!(gate.passes(CALLER), "who says nothing keeps the grant");

    let told = report(&gate, CALLER, "prank", Some(&passed));
    assert_eq!((&told["strikes_hundredths"], &told["warning"]), (&100.into(), &true.into()));
    assert_eq!((&told["change"], &told["block"]), (&Value::Null, &Value::Null));
    let ended = &told["grant_ended"];
    assert_eq!((&ended["number"], &ended["origin"]), (&CALLER[1..].into(), &"ladder".into()));
    assert_eq!(ended["redial"], json!({ "attempts": 8, "window": 180, "grant": 240 }));
    assert!(minutes_left(ended) <= 4, "until no grant of it can run any more: {ended}");
    let own = gate.kernel_block(CALLER).unwrap();
    assert_eq!((own.epoch, own.redial_attempts), (prefix.epoch + 1, 8), "at most 8");
    let stays = gate.kernel_block("+62812*").unwrap();
    assert_eq!((stays.epoch, stays.redial_attempts), (prefix.epoch, prefix.redial_attempts));
    assert!(!gate.passes(CALLER));
    assert!(gate.passes(neighbour), "nobody else loses a grant");
    let end = gate.last("grant end").unwrap();
    assert_eq!(end["number"], CALLER[1..]);
    assert!(end["block"].as_str().unwrap().starts_with('#'), "a pseudonym: {end}");
    assert_eq!(gate.does(&["status"])["drift"], 0);
}
