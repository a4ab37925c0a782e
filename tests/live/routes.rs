//! The control API as a contract: what the document says is there, and nothing else.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use palang::api::wire::{
    Allow, AuditRow, AuditVerdict, Block, Call, CallShown, Check, ConfigInForce, Explain,
    ImportNews, Mode, NumberExport, Override, Problem, Report, Reported, Review, Status,
};
use palang_tests::lab::{Daemon, Lab, TRUNK};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::socket::{Answer, LONGEST, ask, connect, exchange, request, until};

const CALLER: &str = "+6281234567890";
const PRANKSTER: &str = "+6281200000009";
const CHECK: &str = "127.0.0.1:9112";
/// Their answers have no end; `redial.rs`, `monitor.rs` and `top.rs` listen to them.
const ENDLESS: [&str; 3] = ["GET /v1/calls/live", "GET /v1/events", "GET /v1/top"];

fn document(daemon: &Daemon<'_>) -> Value {
    ask(daemon, "GET", "/openapi.json", "").json()
}

/// Returns `METHOD PATH` of every route: the source of the router is the only list.
fn served() -> BTreeSet<String> {
    let source = include_str!("../../filter-user/src/daemon/http/mod.rs");
    let (_, source) = source.split_once("pub fn router(").expect("the router");
    let (source, _) = source.split_once("\n}\n").expect("its end");
    let mut served = BTreeSet::new();
    for route in source.split(".route(").skip(1) {
        let path = route.split('"').nth(1).expect("a path");
        let methods = route.split_once(',').expect("its handlers").1;
        for method in ["get", "post", "put", "delete", "patch"] {
            let calls = |before: &str| methods.contains(&format!("{before}{method}("));
            if calls(" ") || calls(".") || calls("::") {
                served.insert(format!("{} {path}", method.to_uppercase()));
            }
        }
    }
    served
}

fn documented(document: &Value) -> BTreeSet<String> {
    let paths = document["paths"].as_object().expect("paths");
    paths
        .iter()
        .flat_map(|(path, methods)| {
            let methods = methods.as_object().expect("methods");
            methods.keys().map(move |method| format!("{} {path}", method.to_uppercase()))
        })
        .collect()
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn openapi_document_has_every_route_and_no_other() {
    let lab = Lab::new("document");
    let daemon = Daemon::start(&lab, "");
    let document = document(&daemon);
    let mut served = served();
    assert!(served.remove("GET /openapi.json"));
    assert_eq!(documented(&document), served);
    assert!(served.len() >= 22, "{served:?}");

    // The daemon does what the source says: no path answers as an unknown one does.
    let unknown = ask(&daemon, "GET", "/v1/nothing", "").text();
    for route in &served {
        let (method, path) = route.split_once(' ').expect("method and path");
        if ENDLESS.contains(&route.as_str()) {
            continue;
        }
        let path = path.replace("{number}", "0").replace("{name}", "no-such").replace("{id}", "0");
        let answer = ask(&daemon, method, &path, "[]").text();
        assert_ne!(answer, unknown, "{route}");
    }
    for path in document["paths"].as_object().expect("paths").keys() {
        let path = path.replace("{number}", "0").replace("{name}", "no-such").replace("{id}", "0");
        assert_eq!(ask(&daemon, "TRACE", &path, "").text(), unknown, "{path}");
    }

    // Every schema that is referred to is there, and every one that is there is referred to.
    let text = document.to_string();
    let schemas = document["components"]["schemas"].as_object().expect("schemas");
    for name in schemas.keys() {
        assert!(text.contains(&format!("\"#/components/schemas/{name}\"")), "{name}");
    }
    for reference in text.split("\"#/components/schemas/").skip(1) {
        let name = reference.split('"').next().expect("a name");
        assert!(schemas.contains_key(name), "{name}");
    }
}

/// Returns whether `value` is what a schema of the document says, and has no property that it does not name.
fn fits(document: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let found = &document["components"]["schemas"][reference.rsplit('/').next().unwrap_or("")];
        return fits(document, found, value, at);
    }
    if let Some(variants) = schema["oneOf"].as_array() {
        let tried: Vec<_> =
            variants.iter().filter_map(|one| fits(document, one, value, at).err()).collect();
        return if tried.len() < variants.len() { Ok(()) } else { Err(tried.join(" | ")) };
    }
    let is = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let types = &schema["type"];
    if *types != is && !types.as_array().is_some_and(|types| types.contains(&json!(is))) {
        return Err(format!("{at}: {value} is no {types}"));
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        return Err(format!("{at}: {value} is none of {allowed:?}"));
    }
    for inner in value.as_array().into_iter().flatten() {
        fits(document, &schema["items"], inner, &format!("{at}[]"))?;
    }
    let Some(object) = value.as_object() else { return Ok(()) };
    for name in schema["required"].as_array().into_iter().flatten() {
        if !name.as_str().is_some_and(|name| object.contains_key(name)) {
            return Err(format!("{at}: {name} is missing"));
        }
    }
    for (name, inner) in object {
        let schema = match (&schema["properties"][name], &schema["additionalProperties"]) {
            (Value::Null, Value::Null) => return Err(format!("{at}: {name} is not documented")),
            (Value::Null, other) => other,
            (found, _) => found,
        };
        fits(document, schema, inner, &format!("{at}.{name}"))?;
    }
    Ok(())
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn answer_of_each_route_matches_the_openapi_document() {
    let lab = Lab::new("answers");
    let trunk = format!("[[trunk]]\nname = \"lab\"\nsources = [\"{TRUNK}\"]\ntrusts_from = true");
    let daemon = Daemon::start(&lab, &format!("protected = [\"112\"]\n{trunk}"));
    let document = document(&daemon);
    let change = |method: &str, path: &str, body: Value| {
        let answer = ask(&daemon, method, path, &body.to_string());
        assert_eq!(answer.status, 200, "{method} {path}: {}", answer.text());
        let route = path.split('?').next().expect("a path");
        let schema = schema_of(&document, method, route);
        for line in answer.text().lines() {
            let value = serde_json::from_str(line).expect("JSON");
            fits(&document, schema, &value, &format!("{method} {path}")).expect("documented");
        }
        answer
    };
    change("PUT", "/v1/mode", json!({ "mode": "enforce" }));
    change("POST", "/v1/blocks", json!({ "number": CALLER, "seconds": 60, "reason": "a" }));
    change("POST", "/v1/blocks", json!({ "number": CALLER, "permanent": true, "reason": "b" }));
    change("POST", "/v1/blocks", json!({ "number": "+62431*", "seconds": 60, "reason": "a" }));
    change("POST", "/v1/allows", json!({ "number": "+62811*", "comment": "ours" }));
    change("PUT", "/v1/override", json!({ "seconds": 60, "reason": "a" }));
    change("POST", "/v1/interfaces/gate0", json!({}));
    let receiver = lab.receiver(5060);
    let record = lab.traffic(&receiver, &[CALLER, "anonymous", PRANKSTER], 5_000, 6).finish();
    assert_eq!(record.delivered(CALLER, ..).len(), 2, "the override is on");
    change("PUT", "/v1/override", json!({ "seconds": 0 }));
    until("records of the calls", || {
        let calls: Vec<Call> = ask(&daemon, "GET", "/v1/calls", "").lines();
        (calls.len() == 6).then_some(())
    });
    for call in record.delivered(PRANKSTER, ..) {
        let report = json!({ "number": PRANKSTER, "kind": "prank", "call_id": call.call_id });
        change("POST", "/v1/reports", report);
    }
    let unmatched = json!({ "number": PRANKSTER, "kind": "silent", "note": "a test" });
    let reported: Reported = change("POST", "/v1/reports", unmatched.clone()).json();
    let block = reported.in_force.rule.as_deref();
    assert_eq!((block, reported.review), (Some("block 6281200000009"), Some(1)));
    change("POST", "/v1/reviews/1/extend", json!({ "seconds": 200_000 }));
    change("POST", "/v1/reports", unmatched.clone());
    change("POST", "/v1/reviews/2/free", json!({ "note": "a test" }));
    change("POST", "/v1/reports", unmatched);
    change("POST", "/v1/reviews/3/close", json!({ "note": "a test" }));

    let get = |path: &str| {
        let answer = ask(&daemon, "GET", path, "");
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer
    };
    let one = |path: &str| {
        let answer = get(path);
        assert!(answer.head.contains("application/json"), "{}", answer.head);
        fits(&document, schema_of(&document, "GET", path), &answer.json(), path)
            .expect("documented");
        answer
    };
    fn all<T: DeserializeOwned>(answer: &Answer, count: usize) {
        assert!(answer.head.contains("application/x-ndjson"), "{}", answer.head);
        assert_eq!(answer.lines::<T>().len(), count, "{}", answer.text());
    }
    let list = |path: &str| {
        let answer = get(path);
        for value in answer.lines() {
            fits(&document, schema_of(&document, "GET", path), &value, path).expect("documented");
        }
        answer
    };
    let mut asked = BTreeSet::new();
    let mut ask_one = |path: &'static str| {
        asked.insert(format!("GET {}", route(path)));
        one(path)
    };
    let status: Status = ask_one("/v1/status").json();
    assert_eq!((status.blocks, status.allows), (Some(2), Some(1)));
    let block: Block = ask_one("/v1/blocks/+6281234567890").json();
    assert_eq!((block.expires, &*block.reason), (None, "b"));
    let none: Override = ask_one("/v1/override").json();
    assert_eq!(none.until, None);
    let mode: Mode = ask_one("/v1/mode").json();
    assert_eq!(mode.mode, "enforce");
    let check: Check = ask_one("/v1/check/+6281234567890").json();
    assert_eq!((&*check.verdict, &*check.reason), ("drop", "blocked-number"));
    let explain: Explain = ask_one("/v1/explain/+6281234567890").json();
    assert_eq!(explain.steps.len(), 8);
    let held: NumberExport = ask_one("/v1/numbers/+6281234567890").json();
    assert_eq!((held.calls.len(), held.block, held.allow), (2, Some(block), None));
    assert_eq!(held.audit.len(), 2);
    let shown: CallShown = ask_one("/v1/calls/1").json();
    assert_eq!((shown.call.id, shown.evidence), (1, None));
    let verdict: AuditVerdict = ask_one("/v1/audit/verify").json();
    assert_eq!(verdict.first_bad, None);
    let config: ConfigInForce = ask_one("/v1/config").json();
    assert!(config.text.contains("gate0"));
    all::<Block>(&list("/v1/blocks"), 2);
    all::<Allow>(&list("/v1/allows"), 1);
    all::<Call>(&list("/v1/calls"), 6);
    all::<Call>(&list("/v1/calls?caller=%2B6281234567890&limit=1"), 1);
    all::<Call>(&list("/v1/calls?since=2099-01-01T00:00:00Z"), 0);
    all::<AuditRow>(&list("/v1/audit"), verdict.rows as usize);
    all::<Review>(&list("/v1/reviews"), 0);
    asked.extend(ENDLESS.map(str::to_owned));
    all::<Review>(&list("/v1/reviews?all=true"), 3);
    all::<Report>(&list("/v1/reports"), 5);
    all::<Report>(&list("/v1/reports?number=%2B6281200000001"), 0);
    all::<Report>(&list("/v1/reports?since=2099-01-01T00:00:00Z"), 0);
    asked.extend(
        ["blocks", "allows", "calls", "reports", "reviews", "audit"]
            .map(|name| format!("GET /v1/{name}")),
    );
    let gets: BTreeSet<_> =
        documented(&document).into_iter().filter(|route| route.starts_with("GET ")).collect();
    assert_eq!(asked, gets, "every route that only asks was asked");

    change("DELETE", "/v1/blocks/+6281234567890?dry_run=true", Value::Null);
    change("DELETE", "/v1/blocks/+6281234567890", Value::Null);
    let erase = "/v1/numbers/+6281234567890?reason=a%20test";
    change("DELETE", &format!("{erase}&dry_run=true"), Value::Null);
    change("DELETE", erase, Value::Null);
    assert_eq!(ask(&daemon, "DELETE", erase, "").status, 404, "nothing is left");
    for bad in ["+6281234567890", "+6281234567890?reason=%20", "+62431*?reason=a", "x?reason=a"] {
        assert_eq!(ask(&daemon, "DELETE", &format!("/v1/numbers/{bad}"), "").status, 400, "{bad}");
    }
    change("DELETE", "/v1/blocks/+62431*", Value::Null);
    change("DELETE", "/v1/allows/+62811*", Value::Null);
    change("DELETE", "/v1/interfaces/gate0", Value::Null);
    let answer = ask(&daemon, "DELETE", "/v1/blocks/+62431*", "");
    let problem: Problem = answer.json();
    assert_eq!(answer.status, 404, "{}", problem.message);
    let schema = &document["components"]["schemas"]["Problem"];
    fits(&document, schema, &answer.json(), "problem").expect("documented");
}

/// Returns the route of the document for a path.
fn route(path: &str) -> String {
    let path = path.split('?').next().expect("a path");
    let mut parts: Vec<_> = path.split('/').collect();
    match parts[2] {
        "check" | "explain" | "numbers" => parts[3] = "{number}",
        "blocks" | "allows" if parts.len() > 3 && parts[3] != "import" => parts[3] = "{number}",
        "calls" if parts.len() > 3 && parts[3] != "live" => parts[3] = "{id}",
        "reviews" if parts.len() > 3 => parts[3] = "{id}",
        "interfaces" => parts[3] = "{name}",
        _ => {}
    }
    parts.join("/")
}

/// Returns the document's schema of an answer with status 200.
fn schema_of<'a>(document: &'a Value, method: &str, path: &str) -> &'a Value {
    let answer = &document["paths"][route(path)][method.to_lowercase()]["responses"]["200"];
    assert!(answer.is_object(), "{method} {path} is not documented");
    let content = answer["content"].as_object().and_then(|content| content.values().next());
    content.map_or(&Value::Null, |content| &content["schema"])
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn loopback_port_answers_a_check_and_nothing_more() {
    let lab = Lab::new("loopback");
    let daemon = Daemon::start(&lab, &format!("[api]\ncheck_listen = {CHECK:?}"));
    let block = json!({ "number": CALLER, "seconds": 60, "reason": "a test" }).to_string();
    assert_eq!(ask(&daemon, "POST", "/v1/blocks", &block).status, 200);
    let tcp = || {
        let stream = lab.in_gate(|| TcpStream::connect(CHECK)).expect("connected");
        stream.set_read_timeout(Some(LONGEST)).expect("SO_RCVTIMEO");
        stream
    };
    let plain = |path: &str, accept: &str| {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: a\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
        );
        exchange(tcp(), request.as_bytes())
    };
    let is = |answer: &Answer, text: &str| {
        assert_eq!((answer.status, &*answer.text()), (200, text));
        assert!(answer.head.contains("text/plain"), "{}", answer.head);
    };
    is(&plain("/v1/check/%2B6281234567890", "text/plain"), "pass observe\n");
    let enforce = json!({ "mode": "enforce" }).to_string();
    assert_eq!(ask(&daemon, "PUT", "/v1/mode", &enforce).status, 200);
    is(&plain("/v1/check/%2B6281234567890", "text/plain"), "drop blocked-number\n");
    is(&plain("/v1/check/0812-3456-7890", "text/plain, */*;q=0.1"), "drop blocked-number\n");
    is(&plain("/v1/check/%2B6281200000009", "text/plain"), "pass not-blocked\n");
    let check: Check = plain("/v1/check/%2B6281234567890", "*/*").json();
    assert_eq!(check.rule.as_deref(), Some("block 6281234567890"));
    assert_eq!(plain("/v1/check/hello", "text/plain").status, 400);
    assert_eq!(plain("/v1/check/62812*", "text/plain").status, 400);
    // So it is on the socket.
    let bytes = b"GET /v1/check/%2B6281234567890 HTTP/1.1\r\nHost: a\r\nAccept: text/plain\r\n\
                  Connection: close\r\n\r\n";
    is(&exchange(connect(&daemon), bytes), "drop blocked-number\n");

    let document = document(&daemon);
    for route in documented(&document).into_iter().chain(["GET /openapi.json".to_owned()]) {
        let (method, path) = route.split_once(' ').expect("method and path");
        if route == "GET /v1/check/{number}" {
            continue;
        }
        let path = path.replace("{number}", "0").replace("{name}", "gate0").replace("{id}", "0");
        let answer = request(tcp(), method, &path, &block);
        assert_eq!(answer.status, 404, "{route}: {}", answer.text());
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "CONNECT"] {
        let answer = request(tcp(), method, "/v1/check/%2B6281234567890", "");
        assert!([400, 404, 405].contains(&answer.status), "{method}: {}", answer.text());
    }
    // Only on loopback: the trunk cannot ask who is blocked.
    let refused = lab.in_trunk(|| {
        TcpStream::connect_timeout(&"10.112.0.2:9112".parse().expect("an address"), LONGEST)
    });
    assert!(refused.is_err());
    let blocks: Vec<Block> = ask(&daemon, "GET", "/v1/blocks", "").lines();
    assert_eq!(blocks.len(), 1);
}

/// Rows of an import.
pub fn rows(count: u32) -> String {
    (1..=count)
        .map(|index| {
            let row = json!({
                "line": index, "number": format!("+62812{index:08}"), "reason": "a list",
                "expires": "2099-01-01T00:00:00Z",
            });
            format!("{row}\n")
        })
        .collect()
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn long_list_is_complete_and_its_slow_reader_delays_nobody() {
    const COUNT: u32 = 20_000;
    /// More than the daemon sends at once.
    const LAZY: usize = 600;
    let lab = Lab::new("list");
    let config = format!("[limits]\nblocks = 30000\n[api]\ncheck_listen = {CHECK:?}");
    let daemon = Daemon::start(&lab, &config);
    let news: Vec<ImportNews> = ask(&daemon, "POST", "/v1/blocks/import", &rows(COUNT)).lines();
    let done = ImportNews::Done {
        added: COUNT.into(),
        updated: 0,
        unchanged: 0,
        superseded: 0,
        permanent: 0,
        last_end: "2099-01-01T00:00:00Z".parse().ok(),
        impossible: 0,
        bad: Vec::new(),
        dry_run: false,
    };
    assert_eq!(news.last(), Some(&done));
    let list = || ask(&daemon, "GET", "/v1/blocks", "").lines::<Block>();
    let numbers: Vec<_> = list().into_iter().map(|block| block.number).collect();
    let expected: Vec<_> = (1..=COUNT).map(|index| format!("62812{index:08}")).collect();
    assert_eq!(numbers, expected);

    let start = || {
        let mut stream = connect(&daemon);
        stream.write_all(b"GET /v1/blocks HTTP/1.1\r\nHost: a\r\n\r\n").expect("sent");
        stream
    };
    // Before the others: who of many comes first is the scheduler's choice.
    let mut first = start();
    let mut begin = [0; 16];
    first.read_exact(&mut begin).expect("an answer");
    assert_eq!(&begin, b"HTTP/1.1 200 OK\r");
    let lazy: Vec<_> = (1..LAZY).map(|_| start()).collect();

    let begun = Instant::now();
    let answer = ask(&daemon, "PUT", "/v1/override", r#"{"seconds":60,"reason":"a test"}"#);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let on: Override = ask(&daemon, "GET", "/v1/override", "").json();
    assert!(on.until.is_some());
    let body = json!({ "number": CALLER, "seconds": 60, "reason": "a test" }).to_string();
    assert_eq!(ask(&daemon, "POST", "/v1/blocks", &body).status, 200);
    assert_eq!(ask(&daemon, "GET", "/v1/status", "").status, 200);
    let tcp = lab.in_gate(|| TcpStream::connect(CHECK)).expect("connected");
    assert_eq!(request(tcp, "GET", "/v1/check/112", "").status, 200);
    // Far less than anybody would wait for the lazy ones.
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    drop((first, lazy));
    until("lists again", || (ask(&daemon, "GET", "/v1/blocks", "").status == 200).then_some(()));
    assert_eq!(list().len(), COUNT as usize + 1);
}
