//! `palang block import` and `palang block export`.

use super::*;

/// The requests of imports: the query and the rows.
type Asked = Arc<Mutex<Vec<(String, Vec<ImportRow>)>>>;

/// Creates an import route that accepts all rows but those for 110, and notes its requests.
fn imports(asked: Asked) -> Router {
    let answer = move |request: Request| async move {
        let query = request.uri().query().unwrap_or_default().to_owned();
        let body = axum::body::to_bytes(request.into_body(), usize::MAX).await.unwrap();
        let rows: Vec<ImportRow> = body
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect();
        let (bad, good): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row.number == "110");
        let bad: Vec<_> = bad
            .into_iter()
            .map(|row| BadRow { line: row.line, message: "110 is protected".into() })
            .collect();
        let total = good.len() as u64;
        let end = if bad.is_empty() || query.contains("skip_bad=true") {
            let dry_run = query.contains("dry_run=true");
            let permanent = good.iter().filter(|row| row.expires.is_none()).count() as u64;
            ImportNews::Done {
                added: total,
                updated: 0,
                unchanged: 0,
                superseded: 0,
                permanent,
                last_end: good.iter().filter_map(|row| row.expires).max(),
                impossible: 1,
                bad,
                dry_run,
            }
        } else {
            let message = "1 row is refused: nothing was imported".into();
            let problem = Problem { kind: ProblemKind::Refused, message };
            ImportNews::Refused { problem, bad }
        };
        asked.lock().unwrap().push((query, rows));
        lines([ImportNews::Progress { done: total, total }, end])
    };
    Router::new().route("/v1/blocks/import", post(answer))
}

#[test]
fn import_of_bad_rows_is_refused_or_names_the_skipped_ones() {
    let asked = Asked::default();
    let api = Api::new(imports(asked.clone()));
    let file = api.folder.path().join("blocks.csv");
    let import = |text: &str, more: &[&str]| {
        std::fs::write(&file, text).unwrap();
        let mut arguments = vec!["block", "import", file.to_str().unwrap()];
        arguments.extend_from_slice(more);
        let output = api.run(&arguments);
        (output, asked.lock().unwrap().pop())
    };
    let good = "number,expires,reason\n0812,2999-11-25T11:20:00Z,prank\n";

    let (output, request) = import(good, &[]);
    let (out, err) = assert_exit(&output, 0);
    let expected = "imported 1 block: 1 new, 0 updated, 0 unchanged\nthe last one ends 2999-11-25 ";
    assert!(out.starts_with(expected), "{out}");
    let last = out.lines().last();
    assert_eq!(last, Some("check 1 number: the country has no numbers of such a length"));
    assert_eq!(err, "");
    let (query, rows) = request.unwrap();
    assert_eq!((query.as_str(), rows[0].line, rows[0].number.as_str()), ("", 2, "0812"));

    // The daemon refuses.
    let protected = format!("{good}110,permanent,prank\n");
    let (out, err) = assert_exit(&import(&protected, &[]).0, 5);
    let expected = "line 3: 110 is protected\npalang: 1 row is refused: nothing was imported\n";
    assert_eq!((out.as_str(), err.as_str()), ("", expected));

    // An unreadable row is not sent, and nothing is imported; the daemon names the other bad rows.
    let both = format!("{protected}0813,tomorrow,prank\n");
    let (output, request) = import(&both, &[]);
    let (out, err) = assert_exit(&output, 2);
    assert_eq!(out, "");
    assert!(err.starts_with("line 4: \"tomorrow\" is not a time "), "{err}");
    assert!(
        err.contains("\nline 3: 110 is protected\npalang: nothing was imported: 2 rows are bad")
    );
    let (query, rows) = request.unwrap();
    assert_eq!((query.as_str(), rows.len()), ("dry_run=true", 2));

    let (output, request) = import(&both, &["--skip-bad", "-o", "json"]);
    let (out, err) = assert_exit(&output, 6);
    assert_eq!(err.lines().count(), 2, "{err}");
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&json["added"], &json["bad"][0]["line"], &json["bad"][1]["line"]),
        (&json!(1), &json!(3), &json!(4))
    );
    assert_eq!(request.unwrap().0, "skip_bad=true");

    let (output, request) = import("number,expires,reason\n", &[]);
    assert_exit(&output, 2);
    assert_eq!(request, None);
}

#[test]
fn refusal_of_an_import_is_the_column_or_the_option_for_all_rows() {
    let asked = Asked::default();
    let api = Api::new(imports(asked.clone()));
    let file = api.folder.path().join("blocks.csv");
    let import = |text: &str, more: &[&str]| {
        std::fs::write(&file, text).unwrap();
        let output = api.run(&[&["block", "import", file.to_str().unwrap()], more].concat());
        let sent = asked.lock().unwrap().pop().map(|(_, rows)| rows).unwrap_or_default();
        let sent: Vec<_> = sent.into_iter().map(|row| row.refuse.unwrap_or_default()).collect();
        (output, sent)
    };
    let text = "number,expires,reason,refuse\n0812,permanent,prank,486\n0813,permanent,,\n0814,,prank,drop\n";
    // The options are for the rows without an end or a reason.
    let (output, sent) = import(text, &[]);
    let (_, err) = assert_exit(&output, 2);
    assert!(err.starts_with("line 4: it has no end: write a time or `permanent`"), "{err}");
    assert_eq!(sent.len(), 2);
    let text = &text.replace("0814,,", "0814,permanent,");
    let (output, sent) = import(text, &[]);
    assert_exit(&output, 0);
    assert_eq!(sent, ["486", "", "drop"]);
    let (output, sent) = import(text, &["--refuse", "603"]);
    assert_exit(&output, 0);
    assert_eq!(sent, ["603"; 3]);

    // A code that hurts other callers is refused with its line and the reason, before anything is imported.
    let (output, sent) = import(&text.replace("drop", "503"), &["--skip-bad"]);
    let (out, err) = assert_exit(&output, 6);
    assert!(out.contains("imported 2 blocks") && out.contains("skipped 1 bad row"), "{out}");
    assert!(err.starts_with("line 4: refuse: 503 is not offered: a carrier"), "{err}");
    assert_eq!(sent, ["486", ""]);
    let (output, sent) = import(text, &["--refuse", "302"]);
    let (_, err) = assert_exit(&output, 2);
    assert!(err.contains("302 is not offered: a carrier has to follow it"), "{err}");
    assert!(sent.is_empty());
}

#[test]
fn export_can_be_imported() {
    let asked = Asked::default();
    let blocks = || async {
        let refuse = Some("486".to_owned());
        let observing = Block { observe: true, expires: None, refuse, ..block("62811*") };
        lines([block("6281234567890"), observing])
    };
    let api = Api::new(imports(asked.clone()).route("/v1/blocks", get(blocks)));
    for name in ["blocks.csv", "blocks.json"] {
        let file = api.folder.path().join(name);
        let (out, _) =
            assert_exit(&api.run(&["block", "export", file.to_str().unwrap(), "-o", "raw"]), 0);
        assert_eq!(out, format!("{}\t2\n", file.display()));
        let mut child = palang(&api.socket(), &["block", "import", "-", "-o", "raw"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let content = std::fs::read(&file).unwrap();
        child.stdin.take().unwrap().write_all(&content).unwrap();
        let (out, _) = assert_exit(&child.wait_with_output().unwrap(), 0);
        assert_eq!(out, "2\t0\t0\t0\t1\t1\n");
        let (_, rows) = asked.lock().unwrap().pop().unwrap();
        let told = |row: &ImportRow| (row.number.clone(), row.expires, row.observe);
        assert_eq!(told(&rows[0]), ("6281234567890".into(), block("").expires, false), "{name}");
        assert_eq!(told(&rows[1]), ("62811*".into(), None, true), "{name}");
        let refusals = [None, Some("486")];
        assert_eq!([rows[0].refuse.as_deref(), rows[1].refuse.as_deref()], refusals, "{name}");
        assert_eq!((rows[0].author.as_str(), rows[0].reason.as_str()), ("siti", "prank, case 118"));
    }
}

#[test]
fn list_of_numbers_gets_its_end_and_its_reason_from_the_options() {
    let asked = Asked::default();
    let api = Api::new(imports(asked.clone()));
    let file = api.folder.path().join("numbers.txt");
    std::fs::write(&file, "0812-3456-7890\n0812-3456-7891\n").unwrap();
    let import = ["block", "import", file.to_str().unwrap(), "--for", "30d", "--reason", "a list"];
    assert_exit(&api.run(&import), 0);
    let (_, rows) = asked.lock().unwrap().pop().unwrap();
    let thirty_days = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(30 * 24);
    for (row, line) in rows.iter().zip(1..) {
        assert_eq!((row.line, &*row.reason), (line, "a list"));
        let off = row.expires.unwrap().duration_since(thirty_days).abs();
        assert!(off < jiff::SignedDuration::from_mins(10), "{off}");
    }
    assert_eq!(rows.len(), 2);
    let (_, err) = assert_exit(&api.run(&import[..3]), 2);
    assert!(err.contains("line 2: it has no end"), "{err}");
}
