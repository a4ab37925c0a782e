//! `palang plan check --since`: the plans, and the calls that the daemon has recorded.

use std::collections::HashMap;

use axum::Router;
use axum::extract::Query;
use axum::routing::get;
use palang::api::wire::Call;
use serde_json::Value;

use crate::common::assert_exit;
use crate::{Api, lines};

const CONFIG: &str = "interfaces = []\n[default]\ncountry = \"ID\"\n[[trunk]]\nname = \"east\"\n\
    sources = [\"10.0.0.0/8\"]\n[[trunk]]\nname = \"west\"\nsources = [\"10.1.0.0/16\"]\n";

fn call(trunk: Option<&str>, caller: Option<&str>, reason: &str) -> Call {
    Call {
        id: 7,
        time: "2026-11-24T11:20:00Z".parse().unwrap(),
        caller: caller.map(Into::into),
        trunk: trunk.map(Into::into),
        source: "10.0.0.1:5060".into(),
        call_id: None,
        identity: Some("from".into()),
        verdict: "pass".into(),
        policy_verdict: "pass".into(),
        reason: reason.into(),
        rule: 0,
        repeats: 0,
        attempts: 1,
        unread: None,
        reply: None,
    }
}

fn api() -> Api {
    let answer = |Query(query): Query<HashMap<String, String>>| async move {
        assert!(query["since"].ends_with('Z'), "{query:?}");
        let calls = [
            call(Some("east"), Some("6281234567890"), "not-blocked"),
            call(Some("east"), Some("6581234567"), "not-blocked"),
            call(Some("east"), None, "ambiguous-number"),
            call(Some("west"), Some("112"), "protected"),
            call(None, None, "unknown-trunk"),
        ];
        let wanted = query.get("trunk").cloned();
        lines(calls.into_iter().filter(move |call| wanted.is_none() || call.trunk == wanted))
    };
    Api::new(Router::new().route("/v1/calls", get(answer)))
}

#[test]
fn recorded_calls_are_checked_by_trunk() {
    let api = api();
    let config = api.folder.path().join("palang.toml");
    std::fs::write(&config, CONFIG).unwrap();
    let config = config.to_str().unwrap();
    let check = ["plan", "check", "--since", "1h", "--config", config];
    let (out, _) = assert_exit(&api.run(&[&check[..], &["-o", "json"]].concat()), 0);
    let checked: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&checked["records"], &checked["outside"]), (&5.into(), &1.into()), "{out}");
    let east = &checked["trunks"][0];
    let counts = ["calls", "read", "possible", "own"].map(|name| east[name].as_u64().unwrap());
    assert_eq!(counts, [3, 2, 2, 1], "{out}");
    assert_eq!(checked["trunks"][1]["local"], 1);

    let (out, _) = assert_exit(&api.run(&[&check[..], &["--trunk", "east"]].concat()), 0);
    for wanted in ["3 call records", "callers read       2 of 3", "records have no text"] {
        assert!(out.contains(wanted), "{wanted}: {out}");
    }
    assert!(!out.contains("west"), "{out}");
    let (_, error) = assert_exit(&api.run(&[&check[..], &["--trunk", "north"]].concat()), 2);
    assert!(error.contains("default, east, west"), "{error}");
    let (_, error) = assert_exit(&api.run(&[&check[..], &["x.pcap"]].concat()), 2);
    assert!(error.contains("cannot be used with"), "{error}");
    assert_exit(&api.run(&["plan", "check"]), 2);
}

#[test]
fn masked_numbers_are_not_checked() {
    let answer = || async { lines([call(Some("east"), Some("6281*******90"), "not-blocked")]) };
    let api = Api::new(Router::new().route("/v1/calls", get(answer)));
    let config = api.folder.path().join("palang.toml");
    std::fs::write(&config, CONFIG).unwrap();
    let check = ["plan", "check", "--since", "1h", "--config", config.to_str().unwrap()];
    let (_, error) = assert_exit(&api.run(&check), 5);
    assert!(error.contains("the role operate"), "{error}");
}
