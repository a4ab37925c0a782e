//! `palang what-if --since`: the daemon's call records instead of captures.

use super::*;

/// Returns the time of calls: `hours` after a fixed time.
fn at(hours: i64) -> Timestamp {
    let start: Timestamp = "2026-11-01T00:00:00Z".parse().unwrap();
    start + SignedDuration::from_hours(hours)
}

fn call(id: u64, hours: i64, caller: Option<&str>, verdict: &str, reason: &str) -> Call {
    Call {
        id,
        time: at(hours),
        caller: caller.map(Into::into),
        trunk: Some("telkom".into()),
        source: "10.1.0.9:5060".into(),
        call_id: Some(format!("{id}@pbx")),
        identity: Some("from".into()),
        verdict: verdict.into(),
        policy_verdict: verdict.into(),
        reason: reason.into(),
        rule: 0,
        repeats: 0,
        attempts: 1,
        unread: None,
        reply: None,
    }
}

/// Creates the report of a prank of [`BLOCKED`] that was reported an hour after its call.
fn prank(id: u64, call: u64, hours: i64) -> Report {
    Report {
        id: Some(id),
        time: at(hours + 1),
        number: BLOCKED.into(),
        kind: ReportKind::Prank,
        call_id: None,
        call: Some(call),
        call_time: Some(at(hours)),
        trunk: Some("telkom".into()),
        reason: Some("not-blocked".into()),
        rule: 0,
        strike: true,
        counts_hundredths: 100,
        why_not: None,
        author: "siti".into(),
        note: String::new(),
    }
}

/// Creates a daemon with records; the arguments have the oldest first.
fn records(calls: Vec<Call>, reports: Vec<Report>) -> Router {
    let calls = lines(calls.into_iter().rev());
    let reports = lines(reports.into_iter().rev());
    let since = "since=2026-11-01T00%3A00%3A00Z";
    let calls = move |request: Request| async move {
        assert_eq!(request.uri().query(), Some(since));
        calls
    };
    Router::new().route("/v1/calls", get(calls)).route("/v1/reports", get(|| async { reports }))
}

const SINCE: [&str; 2] = ["--since", "2026-11-01T00:00:00Z"];

#[test]
fn records_are_compared_with_their_recorded_verdicts() {
    let other = "6281100000000";
    let home = Home::with(records(
        vec![
            call(1, 0, Some(BLOCKED), "pass", "not-blocked"),
            call(2, 1, None, "pass", "no-user"),
            call(3, 2, Some(other), "drop", "blocked-number"),
            call(4, 3, Some(other), "pass", "redial-grant"),
            call(5, 4, Some("110"), "pass", "protected"),
            call(6, 5, Some(BLOCKED), "pass", "callback-grace"),
            call(7, 400, Some(BLOCKED), "pass", "not-blocked"),
        ],
        Vec::new(),
    ));
    let new = home.file("new.toml", blocks(&[BLOCKED]));
    let until = ["--until", "2026-11-05T00:00:00Z"];
    let (told, err) = home.json(&[&SINCE[..], &until, &["--policy", &new]].concat());
    assert_eq!(err, "");
    assert_eq!(
        told,
        json!({
            "frames": null, "calls": 6,
            "policy": {"refused": 1, "granted": 0,
                "passed": {"callback-grace": 1, "no-number": 1, "not-blocked": 3}},
            "compared_with": {"kind": "recorded", "name": "recorded"},
            "baseline": {"refused": 1, "granted": 1, "passed": {"callback-grace": 1, "no-number": 1,
                "not-blocked": 1, "protected": 1, "redial-grant": 1}},
            "difference": difference(1, 1, 0, 1),
            "numbers": [
                {"number": other, "refused": 0, "granted": 0, "baseline_refused": 1,
                    "baseline_granted": 1, "difference": difference(0, 1, 0, 1)},
                {"number": BLOCKED, "refused": 1, "granted": 0, "baseline_refused": 0,
                    "baseline_granted": 0, "difference": difference(1, 0, 0, 0)},
            ],
        })
    );
    // Without --until the last call counts, too; the source is outside the trunks of another policy.
    let trunks =
        format!("{}[[trunk]]\nname = \"x\"\nsources = [\"10.2.0.0/16\"]\n", blocks(&[BLOCKED]));
    let elsewhere = home.file("elsewhere.toml", trunks);
    let both = [&SINCE[..], &["--policy", &new, "--against", &elsewhere]].concat();
    let (told, _) = home.json(&both);
    assert_eq!(told["compared_with"]["kind"], "file");
    assert_eq!(told["calls"], 7);
    assert_eq!(told["baseline"]["passed"]["unknown-trunk"], 6);
    assert_eq!(told["difference"], difference(2, 0, 0, 0));
    let same = [&SINCE[..], &["--policy", &new, "--against", &new]].concat();
    assert_eq!(home.json(&same).0["difference"], difference(0, 0, 0, 0));
}

#[test]
fn a_record_of_many_attempts_counts_as_many() {
    let flood = Call { attempts: 500, ..call(1, 0, Some(BLOCKED), "drop", "blocked-number") };
    let home = Home::with(records(vec![flood], Vec::new()));
    let new = home.file("new.toml", blocks(&[]));
    let (told, _) = home.json(&[&SINCE[..], &["--policy", &new]].concat());
    assert_eq!(told["calls"], 500);
    assert_eq!(told["policy"]["passed"], json!({"not-blocked": 500}));
    assert_eq!(told["baseline"]["refused"], 500);
    assert_eq!(told["difference"], difference(0, 500, 0, 0));
    assert_eq!(told["numbers"][0]["baseline_refused"], 500);
}

#[test]
fn ladder_uses_the_reports_of_the_time_of_the_call() {
    // Calls every six hours; the first two are reported as pranks, 1 h after they came.
    let calls = (0..8).map(|n| call(n, 6 * n as i64, Some(BLOCKED), "pass", "not-blocked"));
    let calls: Vec<_> = calls.collect();
    let no_strike = Report { strike: false, why_not: Some("forged".into()), ..prank(9, 0, 0) };
    let reports = vec![no_strike, prank(1, 0, 0), prank(2, 1, 6)];
    let home = Home::with(records(calls.clone(), reports));
    home.file("ladder.toml", "");
    let new = home.file("new.toml", "ladder = \"ladder.toml\"\n");
    // Two strikes at hour 7: 24 h. The calls of hours 12, 18, 24 and 30 are refused, those of
    // hours 36 and 42 come later.
    let (told, _) = home.json(&[&SINCE[..], &["--policy", &new]].concat());
    assert_eq!(
        (&told["policy"]["refused"], &told["policy"]["passed"]),
        (&json!(4), &json!({"not-blocked": 2, "block-expired": 2}))
    );
    // Without a ladder nobody is blocked by a report.
    let none = home.file("none.toml", "");
    let (told, _) = home.json(&[&SINCE[..], &["--policy", &none]].concat());
    assert_eq!(told["difference"], difference(0, 0, 0, 0));
    // The call that is reported at hour 13 was refused by then: nobody would have heard it, so the
    // block does not get longer.
    let reports = vec![prank(1, 0, 0), prank(2, 1, 6), prank(3, 2, 12)];
    let home = Home::with(records(calls, reports));
    home.file("ladder.toml", "");
    let new = home.file("new.toml", "ladder = \"ladder.toml\"\n");
    let (told, _) = home.json(&[&SINCE[..], &["--policy", &new]].concat());
    assert_eq!(told["policy"]["refused"], 4);
}

#[test]
fn masked_records_are_refused() {
    for caller in ["6281*******90", "1**", "1*"] {
        let calls = vec![call(1, 0, Some(caller), "pass", "not-blocked")];
        let home = Home::with(records(calls, Vec::new()));
        let new = home.file("new.toml", "");
        let output = home.run(&[&SINCE[..], &["--policy", &new]].concat());
        let (out, err) = assert_exit(&output, 5);
        assert!(out.is_empty() && err.contains("the role operate"), "{err}");
    }
}

#[test]
fn records_need_a_daemon() {
    let home = Home::new();
    let new = home.file("new.toml", "");
    let (_, err) = assert_exit(&home.run(&[&SINCE[..], &["--policy", &new]].concat()), 3);
    assert!(err.contains("cannot reach the daemon"), "{err}");
}

#[test]
fn separate_of_a_trunk_shows_its_price() {
    // A machine of the carrier calls again after 32 s; a person after 40 s.
    let again = |id, hours, seconds| Call {
        time: at(hours) + SignedDuration::from_secs(seconds),
        ..call(id, hours, Some(BLOCKED), "drop", "blocked-number")
    };
    let calls = vec![again(1, 0, 0), again(2, 0, 32), again(3, 1, 0), again(4, 1, 40)];
    let home = Home::with(records(calls, Vec::new()));
    let policy = |separate: &str| {
        format!(
            "[redial]\nattempts = 2\n[[trunk]]\nname = \"telkom\"\nsources = [\"10.1.0.0/16\"]\n{separate}{}",
            blocks(&[BLOCKED])
        )
    };
    let new = home.file("new.toml", policy("separate = \"35s\"\n"));
    let old = home.file("old.toml", policy(""));
    let (told, _) = home.json(&[&SINCE[..], &["--policy", &new, "--against", &old]].concat());
    assert_eq!(told["baseline"]["granted"], 2);
    assert_eq!(told["policy"]["granted"], 1);
    assert_eq!(told["difference"], difference(1, 0, 0, 1));
    let wrong = home.file("wrong.toml", policy("separate = \"10m\"\n"));
    let output = home.run(&[&SINCE[..], &["--policy", &wrong]].concat());
    let (_, err) = assert_exit(&output, 2);
    assert!(
        err.contains("wrong.toml:6:12: separate: with 10m a caller may not reach attempt 2"),
        "{err}"
    );
}
