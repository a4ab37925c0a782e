//! The configuration as a whole: defaults, mistakes, and what it prints of itself.

use filter_common::abi::{MODE_ENFORCE, MODE_OBSERVE, Settings};
use filter_common::number::Digits;
use filter_common::plan::{IDENTITY_PAI, IDENTITY_PAI_ELSE_FROM, Plan, mcc};
use proptest::prelude::*;

use super::*;
use crate::config::file::parse;
use crate::config::limits::{BLOCKS_MAX, EVIDENCE_CALLS_MAX, MAX_BYTES_MIN};
use crate::model::plan::format::Format;
use crate::model::plan::lengths;
use crate::model::plan::presets;

fn read(text: &str) -> Result<Config, String> {
    parse(text).map_err(|mistake| mistake.in_file(Path::new("palang.toml"), text).to_string())
}

fn good(text: &str) -> Config {
    read(text).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn config_of_one_key_has_defaults() {
    let config = good("interfaces = []");
    let mut policy = Policy::default();
    policy.protect_placeholders();
    let expected = Config {
        path: PathBuf::new(),
        text: String::new(),
        policy: Policy {
            settings: Settings {
                mode: MODE_OBSERVE,
                shortest_number: 5,
                shortest_prefix: 5,
                ..policy.settings
            },
            ..policy
        },
        interfaces: Vec::new(),
        xdp_mode: XdpMode::Native,
        forwarded: true,
        reassemble_forwarded: false,
        blocks: 1_000_000,
        operate: OperateLimits {
            longest_block: SignedDuration::from_hours(720),
            shortest_prefix: 8,
        },
        calls_kept: SignedDuration::from_hours(2160),
        records: RecordLimits { per_number: 5, per_trunk: 100 },
        max_bytes: None,
        evidence: None,
        redial: RedialPolicy { attempts: 2, window: 600, grant: 1800 },
        ladder: Ladder::default(),
        ladder_file: None,
        auto_rate: AutoRate { attempts: 0, window: 900, block: 3600 },
        webhook: None,
        group: "palang".to_owned(),
        check_listen: None,
        metrics_listen: None,
        roles: Roles {
            read: vec!["palang".to_owned()],
            report: Vec::new(),
            operate: vec!["palang-operate".to_owned()],
            admin: vec!["palang-admin".to_owned()],
        },
        paths: Paths {
            state: "/var/lib/palang".into(),
            runtime: "/run/palang".into(),
            pins: "/sys/fs/bpf/palang".into(),
            backup: None,
        },
    };
    assert_eq!(config, expected);
    assert_eq!(config.paths.socket(), Path::new(crate::api::wire::SOCKET));
    assert_eq!(config.paths.store(), Path::new("/var/lib/palang/palang.db"));
    assert_eq!(config.paths.lock(), Path::new("/run/palang/daemon.lock"));
}

#[test]
fn config_with_every_key_is_read() {
    let config = good(
        r#"
        interfaces = ["eth0", "enp1s0f0np0.100"]
        xdp_mode = "native-or-generic"
        forwarded = false
        reassemble_forwarded = true
        ports = [5060, 5070]
        protected = ["112", "0812-3456-7890", { number = "+62431*", name = "RSUP Manado" }]
        protect_placeholders = false
        [default]
        country_code = "62"
        mode = "observe"
        [[trunk]]
        name = "telkom"
        sources = ["10.1.0.0/16", "2001:db8::/32"]
        identity = "pai"
        mode = "enforce"
        [[trunk]]
        name = "indosat"
        sources = ["10.2.0.0/16"]
        identity = "pai-else-from"
                [limits]
        blocks = 16000000
        shortest_number = 0
        shortest_prefix = 8
        longest_block = "1 week"
        shortest_prefix_operate = 9
        [retention]
        calls = "2 weeks 12h"
        max_bytes = 1099511627776
        [records]
        per_number = 1000
        per_trunk = 0
        [evidence]
        max_calls = 500
        max_bytes = 1048576
        retention = "7d"
        [redial]
        attempts = 8
        window = "1h 30m"
        grant = "24h"
        [notify]
        webhook = "http://[::1]:8080/grants?to=desk"
        [api]
        group = "psap"
        check_listen = "[::1]:9112"
        [metrics]
        listen = "127.0.0.1:9113"
        [roles]
        read = ["auditors", "psap"]
        admin = []
        [paths]
        state = "/srv/palang"
        "#,
    );
    assert_eq!(config.interfaces, ["eth0", "enp1s0f0np0.100"]);
    assert_eq!((config.xdp_mode, config.forwarded), (XdpMode::NativeOrGeneric, false));
    assert_eq!(config.policy.ports, [5060, 5070]);
    let rules = ["protected 112", "protected 6281234567890", "protected 62431* (RSUP Manado)"];
    assert_eq!(config.policy.rules, rules);
    let ids: Vec<_> = config.policy.protected.iter().map(|entry| entry.entry.rule).collect();
    assert_eq!(ids, [1, 2, 3]);
    assert_eq!(config.policy.settings.mode, MODE_OBSERVE, "the profiles do not change it");
    assert_eq!(config.policy.settings.trunks_configured, 1);
    let Settings { shortest_number, shortest_prefix, .. } = config.policy.settings;
    assert_eq!((shortest_number, shortest_prefix), (0, 8));
    let modes: Vec<_> = config.policy.trunks.iter().map(|trunk| trunk.profile.mode).collect();
    assert_eq!(modes, [MODE_OBSERVE, MODE_ENFORCE, MODE_OBSERVE]);
    assert_eq!(config.policy.trunks[1].profile.identity, IDENTITY_PAI);
    assert_eq!(config.policy.trunks[2].profile.identity, IDENTITY_PAI_ELSE_FROM);
    assert_eq!(config.policy.trunks[1].sources.len(), 2);
    assert_eq!(config.blocks, 16_000_000);
    let operate =
        OperateLimits { longest_block: SignedDuration::from_hours(7 * 24), shortest_prefix: 9 };
    assert_eq!(config.operate, operate);
    assert_eq!(config.calls_kept, SignedDuration::from_hours(14 * 24 + 12));
    assert_eq!(config.records, RecordLimits { per_number: 1000, per_trunk: 0 });
    assert_eq!(config.max_bytes, Some(1 << 40));
    let kept = SignedDuration::from_hours(7 * 24);
    let evidence = EvidenceKept { max_calls: 500, max_bytes: 1 << 20, kept };
    assert_eq!(config.evidence, Some(evidence));
    assert_eq!(config.redial, RedialPolicy { attempts: 8, window: 5400, grant: 86_400 });
    let webhook = config.webhook.unwrap();
    assert_eq!(webhook.address, "[::1]:8080".parse().unwrap());
    assert_eq!(webhook.path, "/grants?to=desk");
    assert_eq!(config.group, "psap");
    assert_eq!(config.check_listen, Some("[::1]:9112".parse().unwrap()));
    assert_eq!(config.metrics_listen, Some("127.0.0.1:9113".parse().unwrap()));
    assert_eq!(config.roles.read, ["auditors", "psap"]);
    assert_eq!(config.roles.operate, ["palang-operate"], "what is left out keeps its default");
    assert!(config.roles.admin.is_empty());
    assert_eq!(config.paths.state, Path::new("/srv/palang"));
    assert_eq!(config.paths.pins, Path::new("/sys/fs/bpf/palang"));
}

/// Checks that each error names the position of `^`.
#[test]
fn config_mistake_is_refused_with_its_position() {
    for (text, message) in [
        ("^ports = [5060]", "missing field `interfaces`"),
        ("interfaces = []\n^prots = [5060]", "unknown field `prots`"),
        ("interfaces = []\n[limits]\n^block = 1", "unknown field `block`"),
        ("interfaces = []\n[retention]\n^blocks = \"1d\"", "unknown field `blocks`"),
        ("interfaces = []\n[api]\n^socket = \"/x\"", "unknown field `socket`"),
        ("interfaces = []\n[api]\n^mode = \"enforce\"", "unknown field `mode`, expected"),
        ("interfaces = []\n[roles]\n^root = []", "unknown field `root`"),
        ("interfaces = []\n[paths]\n^db = \"/x\"", "unknown field `db`"),
        ("interfaces = []\n^mode = \"enforce\"", "set it with `palang mode observe|enforce`"),
        ("interfaces = []\n[[^block]]\nnumber = \"1\"", "set it with `palang block add NUMBER`"),
        ("interfaces = []\n[[^allow]]\nnumber = \"1\"", "set it with `palang allow add NUMBER`"),
        ("interfaces = []\n[^override]\nuntil = 1", "set it with `palang override on|off`"),
        ("interfaces = ^\"eth0\"", "expected a sequence"),
        ("interfaces = [\"eth0\", ^\"eth0\"]", "eth0 is listed twice"),
        ("interfaces = [^\"\"]", "not a name of an interface"),
        ("interfaces = [^\"sixteen-bytes-ab\"]", "not a name of an interface"),
        ("interfaces = [^\"a b\"]", "not a name of an interface"),
        ("interfaces = [^\"a/b\"]", "not a name of an interface"),
        ("interfaces = [^\"a\\u0000b\"]", "not a name of an interface"),
        ("interfaces = [^\"..\"]", "not a name of an interface"),
        ("interfaces = []\nxdp_mode = ^\"skb\"", "unknown variant `skb`"),
        ("interfaces = []\nports = ^[0]", "0 is not allowed"),
        ("interfaces = []\nports = [^65536]", "65536"),
        ("interfaces = []\nladder = ^\"\"", "name a file"),
        ("interfaces = []\nladder = ^{}", "expected a string"),
        (
            "interfaces = []\n[[trunk]]\nname = \"a\"\nsources = [\"::1\"]\ntrusts_from = ^1",
            "expected a boolean",
        ),
        ("interfaces = []\n[default]\n^trusts_from = true", "unknown field `trusts_from`"),
        ("interfaces = []\nprotected = [\"112\", ^\"fire\"]", "is not a number"),
        ("interfaces = []\nprotected = [^{ number = \"fire\", name = \"x\" }]", "is not a number"),
        ("interfaces = []\nprotected = [^{ number = \"112\" }]", "missing field `name`"),
        ("interfaces = []\nprotected = [{ number = \"112\", ^nmae = \"x\" }]", "`nmae`"),
        (
            "interfaces = []\nprotected = [^{ number = \"112\", name = \" \" }]",
            "the owner of the number",
        ),
        ("interfaces = []\nprotect_placeholders = ^1", "expected a boolean"),
        ("interfaces = []\n[default]\nidentity = ^\"PAI\"", "`pai`, `pai-else-from`"),
        ("interfaces = []\nprotected = [^112]", "expected a number or prefix, or {"),
        ("interfaces = []\n[limits]\nshortest_number = ^16", "0 to 15"),
        ("interfaces = []\n[limits]\nshortest_prefix = ^16", "0 to 15"),
        ("interfaces = []\n[limits]\nshortest_prefix = ^-1", "-1"),
        ("interfaces = []\n[limits]\nshortest_prefix_operate = ^16", "0 to 15"),
        ("interfaces = []\n[limits]\nlongest_block = ^\"59m\"", "longest_block: 1h to 3660d"),
        ("interfaces = []\n[limits]\nlongest_block = ^\"ever\"", "not a length of time"),
        ("interfaces = []\n[default]\ncountry_code = ^\"062\"", "does not start with 0"),
        ("interfaces = []\n[[trunk]]\nname = \"a\"\nsources = ^[]", "at least one source"),
        ("interfaces = []\n[[trunk]]\nname = ^\"a\\nb\"\nsources = [\"::1\"]", "not on one line"),
        (
            "interfaces = []\n[[trunk]]\nname = ^\"\\u001B[2J\"\nsources = [\"::1\"]",
            "not on one line",
        ),
        ("interfaces = []\n[default]\n^emergency_marks = [\"ets.0\"]", "emergency_marks"),
        (
            "interfaces = []\n[[trunk]]\nname = \"a\"\nsources = [\"10.0.0.1\"]\n\
             emergency_marks = ^[\"psap-callback\"]",
            "emergency_marks: this key was removed",
        ),
        ("interfaces = []\n[limits]\nblocks = ^0", "1 to 16000000"),
        ("interfaces = []\n[limits]\nblocks = ^-1", "1 to 16000000"),
        ("interfaces = []\n[limits]\nblocks = ^16000001", "1 to 16000000"),
        ("interfaces = []\n[limits]\nblocks = ^4294967297", "1 to 16000000"),
        ("interfaces = []\n[retention]\ncalls = ^\"59m\"", "1h to 3660d"),
        ("interfaces = []\n[retention]\ncalls = ^\"-90d\"", "1h to 3660d"),
        ("interfaces = []\n[retention]\ncalls = ^\"3661d\"", "1h to 3660d"),
        ("interfaces = []\n[retention]\ncalls = ^\"1 year\"", "not a length of time"),
        ("interfaces = []\n[retention]\ncalls = ^\"90\"", "not a length of time"),
        ("interfaces = []\n[retention]\ncalls = ^90", "expected a string"),
        ("interfaces = []\n[records]\nper_number = ^1001", "1 to 1000, or 0"),
        ("interfaces = []\n[records]\nper_trunk = ^-1", "1 to 10000, or 0"),
        ("interfaces = []\n[records]\n^calls = 1", "unknown field `calls`"),
        ("interfaces = []\n[retention]\nmax_bytes = ^1048575", "1048576 to 1099511627776"),
        ("interfaces = []\n[retention]\nmax_bytes = ^-1", "1048576 to 1099511627776"),
        ("interfaces = []\n[retention]\nmax_bytes = ^1099511627777", "1048576 to"),
        ("interfaces = []\n[retention]\nmax_bytes = ^\"10 GiB\"", "expected i64"),
        ("interfaces = []\n[evidence]\nmax_calls = ^0", "1 to 1000000"),
        ("interfaces = []\n[evidence]\nmax_calls = ^4294967297", "1 to 1000000"),
        ("interfaces = []\n[evidence]\nmax_bytes = ^4095", "4096 to 1099511627776"),
        ("interfaces = []\n[evidence]\nmax_bytes = ^-1", "4096 to 1099511627776"),
        ("interfaces = []\n[evidence]\nretention = ^\"91d\"", "1h to 90d"),
        (
            "interfaces = []\n[retention]\ncalls = \"1d\"\n[evidence]\nretention = ^\"25h\"",
            "1h to 1d",
        ),
        ("interfaces = []\n[evidence]\nretention = ^\"0h\"", "1h to 90d"),
        ("interfaces = []\n[evidence]\n^calls = 1", "unknown field `calls`"),
        ("interfaces = []\n[redial]\nattempts = ^1", "2 to 8, or 0"),
        ("interfaces = []\n[redial]\nattempts = ^9", "2 to 8, or 0"),
        ("interfaces = []\n[redial]\nattempts = ^-1", "2 to 8, or 0"),
        ("interfaces = []\n[redial]\nattempts = ^259", "2 to 8, or 0"),
        ("interfaces = []\n[redial]\nwindow = ^\"59s\"", "window: \"59s\" is not 1m to 24h"),
        ("interfaces = []\n[redial]\ngrant = ^\"1441m\"", "grant: \"1441m\" is not"),
        (
            "interfaces = []\n[callback]\ngrace = ^\"1.9s\"",
            "grace: \"1.9s\" is not 1s to 24h in whole seconds",
        ),
        ("interfaces = []\n[redial]\ngrant = ^\"\"", "grant: \"\" is not"),
        ("interfaces = []\n[redial]\n^n = 3", "unknown field `n`"),
        ("interfaces = []\n[auto_rate]\nattempts = ^1", "2 to 100; 0 is off"),
        ("interfaces = []\n[auto_rate]\nattempts = ^101", "2 to 100; 0 is off"),
        ("interfaces = []\n[auto_rate]\nattempts = ^256", "2 to 100; 0 is off"),
        ("interfaces = []\n[auto_rate]\nwindow = ^\"25h\"", "window: \"25h\" is not"),
        ("interfaces = []\n[auto_rate]\nblock = ^\"1s\"", "block: \"1s\" is not 1m to 24h"),
        ("interfaces = []\n[auto_rate]\n^per = 1", "unknown field `per`"),
        ("interfaces = []\n[notify]\nwebhook = ^\"https://127.0.0.1/\"", "only http://"),
        ("interfaces = []\n[notify]\nwebhook = ^\"http://10.0.0.1/\"", "loopback"),
        ("interfaces = []\n[notify]\nwebhook = ^\"http://localhost/\"", "loopback"),
        ("interfaces = []\n[notify]\nwebhook = ^\"127.0.0.1:80\"", "only http://"),
        ("interfaces = []\n[notify]\nwebhook = ^\"\"", "not a URL"),
        ("interfaces = []\n[api]\ngroup = ^\"\"", "not a name of a group"),
        ("interfaces = []\n[api]\ncheck_listen = ^\"0.0.0.0:9112\"", "only a loopback address"),
        ("interfaces = []\n[api]\ncheck_listen = ^\"[::]:9112\"", "only a loopback address"),
        ("interfaces = []\n[api]\ncheck_listen = ^\"[::ffff:10.0.0.1]:9\"", "only a loopback"),
        ("interfaces = []\n[api]\ncheck_listen = ^\"127.0.0.1:0\"", "must not be 0"),
        ("interfaces = []\n[metrics]\nlisten = ^\"0.0.0.0:9113\"", "only a loopback address"),
        ("interfaces = []\n[api]\ncheck_listen = ^\"localhost:9112\"", "not an address and port"),
        ("interfaces = []\n[api]\ncheck_listen = ^\"127.0.0.1\"", "not an address and port"),
        ("interfaces = []\n^[roles]\nread = [\"a b\"]", "not a name of a group"),
        ("interfaces = []\n^[paths]\nstate = \"palang\"", "palang is not an absolute path"),
        ("interfaces = []\n^interfaces = []", "duplicate key"),
        ("interfaces = ^", ""),
    ] {
        let at = text.find('^').unwrap();
        let line = text[..at].matches('\n').count() + 1;
        let column = at - text[..at].rfind('\n').map_or(0, |newline| newline + 1) + 1;
        let text = text.replacen('^', "", 1);
        let error = read(&text).expect_err(&text);
        assert!(error.starts_with(&format!("palang.toml:{line}:{column}: ")), "{text}\n{error}");
        assert!(error.contains(message), "{text}\n{error}");
    }
    let long = format!("interfaces = []\n[paths]\nruntime = \"/{}\"", "x".repeat(95));
    assert!(read(&long).unwrap_err().contains("too long for the path of a socket"));
    assert!(read(&long.replacen("xx", "x", 1)).is_ok());
}

#[test]
fn unreadable_config_is_refused_with_its_path() {
    let folder = std::env::temp_dir().join(format!("palang-config-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("palang.toml");
    let error = Config::read(&file).unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("cannot read {}: ", file.display()))
            && error.contains("No such file"),
        "{error}"
    );
    std::fs::write(&file, b"interfaces = [\"\xff\"]").unwrap();
    assert!(Config::read(&file).unwrap_err().to_string().contains("UTF-8"));
    std::fs::write(&file, "interfaces = [\"eth0\"] # ours\n").unwrap();
    let config = Config::read(&file).unwrap();
    assert_eq!((&config.path, config.text.as_str()), (&file, "interfaces = [\"eth0\"] # ours\n"));
    // The ladder is in the next file, and is read as strictly.
    std::fs::write(&file, "interfaces = []\nladder = \"ours.toml\"").unwrap();
    let ladder = folder.join("ours.toml");
    let error = Config::read(&config.path).unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot read {}", ladder.display())), "{error}");
    std::fs::write(&ladder, "fades = \"1d\"\nrungs = 1").unwrap();
    let error = Config::read(&config.path).unwrap_err().to_string();
    assert!(error.starts_with(&format!("{}:2:1: unknown", ladder.display())), "{error}");
    std::fs::write(&ladder, "fades = \"1d\"").unwrap();
    assert_eq!(Config::read(&config.path).unwrap().ladder.fades, 86_400);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn summary_of_the_ladder_names_its_blocks() {
    let line = |trunk: &str| {
        let trunk = format!("[[trunk]]\nname = \"telkom\"\nsources = [\"::1\"]\n{trunk}");
        let lines = good(&format!("interfaces = []\n{trunk}")).summary();
        lines.into_iter().find(|line| line.starts_with("reports of calls")).unwrap()
    };
    assert!(line("").contains("no trunk's caller numbers are trusted"));
    let rungs = "reports of calls on telkom lead to (the delivered ladder) 2.00 strikes: 24h, \
                 3.00 strikes: 3d, 4.00 strikes: 7d";
    assert_eq!(line("trusts_from = true"), rungs);
    assert_eq!(line("identity = \"pai\""), rungs);
    assert_eq!(line("identity = \"pai-else-from\""), rungs);
}

#[test]
fn config_change_that_needs_a_restart_is_listed() {
    let old = good("interfaces = []");
    let reloaded = good(
        "interfaces = [\"eth0\"]\nxdp_mode = \"generic\"\nports = [5070]\nprotected = [\"113\"]\n\
         [default]\ncountry_code = \"1\"\n[[trunk]]\nname = \"a\"\nsources = [\"10.0.0.1\"]\n\
         [retention]\ncalls = \"1d\"\nmax_bytes = 2000000\n[redial]\nattempts = 0\n\
         [notify]\nwebhook = \"http://127.0.0.1/\"\n[roles]\nread = []",
    );
    assert!(old.changes_needing_restart(&reloaded).is_empty());
    let restarted = good(
        "interfaces = []\n[limits]\nblocks = 2000000\n[api]\ngroup = \"ops\"\n\
         check_listen = \"127.0.0.1:9112\"\n[metrics]\nlisten = \"127.0.0.1:9113\"\n[paths]\nstate = \"/a\"\nruntime = \"/b\"\n\
         pins = \"/c\"\nbackup = \"/d\"",
    );
    assert_eq!(
        old.changes_needing_restart(&restarted),
        [
            "limits.blocks: 1000000 → 2000000",
            "api.group: palang → ops",
            "api.check_listen: none → 127.0.0.1:9112",
            "metrics.listen: none → 127.0.0.1:9113",
            "paths.state: /var/lib/palang → /a",
            "paths.runtime: /run/palang → /b",
            "paths.pins: /sys/fs/bpf/palang → /c",
            "paths.backup: none → /d",
        ]
    );
}

#[test]
fn evidence_without_its_table_is_off() {
    assert_eq!(good("interfaces = []").evidence, None);
    let kept = |hours| SignedDuration::from_hours(hours);
    let evidence = good("interfaces = []\n[evidence]").evidence.unwrap();
    assert_eq!((evidence.max_calls, evidence.max_bytes), (10_000, 32 << 20));
    assert_eq!(evidence.kept, kept(30 * 24));
    let short = good("interfaces = []\n[retention]\ncalls = \"2d\"\n[evidence]");
    assert_eq!(short.evidence.unwrap().kept, kept(48), "no longer than calls");
    assert!(short.summary().iter().any(|line| line.contains("INVITEs of refused calls")));
}

#[test]
fn example_config_equals_the_defaults() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/palang.toml");
    let example = Config::read(&path).unwrap();
    let bare = good("interfaces = [\"eth0\"]\nprotected = [\"112\"]");
    let example = Config { path: PathBuf::new(), text: String::new(), ..example };
    assert_eq!(example, bare);
}

/// Checks that the example has every key of a configuration, at least after a `#`.
#[test]
fn example_config_has_every_key() {
    let config = good(
        "interfaces = [\"eth0\"]\nladder = \"x\"\n[default]\ncountry = \"ID\"\narea_code = \"21\"\n[[trunk]]\nname = \"a\"\n\
         sources = [\"10.0.0.1\"]\n[api]\ncheck_listen = \"127.0.0.1:9112\"\n\
         [notify]\nwebhook = \"http://127.0.0.1:8112/palang\"\n[retention]\n\
         max_bytes = 2000000\n[evidence]",
    );
    let effective = toml::to_string(&config.effective()).unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/palang.toml");
    let example = std::fs::read_to_string(path).unwrap();
    for line in effective.lines().filter(|line| !line.is_empty()) {
        let key = line.split(" = ").next().unwrap();
        let has_key = |line: &str| {
            let line = line.trim_start_matches("# ");
            line.starts_with(key) && line[key.len()..].starts_with([' ', '=']) || line == key
        };
        assert!(example.lines().any(has_key), "{key} is not in docs/palang.toml");
    }
}

/// Returns the plan of the profile `default`, or the error.
fn plan(settings: &str) -> Result<Plan, String> {
    let config = read(&format!("interfaces = []\n[default]\n{settings}"))?;
    Ok(config.policy.trunks[0].profile.plan)
}

#[test]
fn single_settings_override_the_preset_of_a_country() {
    let preset = presets::of("ID").unwrap().plan();
    assert_eq!(plan("country = \"ID\""), Ok(preset));
    assert_eq!(plan("country = \"id\"\ncountry_code = \"62\""), Ok(preset));
    let changed = plan(
        "country = \"ID\"\nformats = [\"bare-national\"]\nnational_lengths = []\n\
         short_number_digits = 4\nleading_zero = true\ninternational_prefixes = [\"0x7\"]",
    )
    .unwrap();
    assert_eq!(changed.formats, Format::BareNational.bit());
    assert_eq!((changed.no_lengths, changed.short_digits), (lengths::ANY, 4));
    assert_eq!((changed.leading_zero, changed.trunk_prefix), (1, preset.trunk_prefix));
    assert_eq!(changed.international[0].to_string(), "0x7");
}

#[test]
fn country_of_a_trunk_replaces_the_plan_of_the_default() {
    let config = good(
        "interfaces = []\n[default]\ncountry = \"ID\"\narea_code = \"21\"\nimsi_mcc = [\"510\"]\n\
         phone_contexts = { national = \"national\" }\n\
         [[trunk]]\nname = \"a\"\nsources = [\"10.0.0.1\"]\ncountry = \"SG\"\nidentity = \"pai\"\n\
         [[trunk]]\nname = \"b\"\nsources = [\"10.0.0.2\"]\nformats = [\"subscriber\"]",
    );
    let trunks = &config.policy.trunks;
    assert_eq!(trunks[1].profile.plan, presets::of("SG").unwrap().plan());
    assert_eq!((trunks[1].country, trunks[1].contexts.len()), (Some("SG"), 0));
    assert_eq!(trunks[1].profile.identity, IDENTITY_PAI);
    assert_eq!(trunks[2].country, Some("ID"));
    let default = trunks[0].profile.plan;
    assert_eq!(trunks[2].profile.plan, Plan { formats: Format::Subscriber.bit(), ..default });
    assert_eq!(default.imsi[0], mcc("510").unwrap());
    let effective = toml::to_string(&config.effective()).unwrap();
    assert_eq!(read(&effective), Ok(config), "{effective}");
}

#[test]
fn wrong_plan_is_refused_with_its_reason() {
    let stripped = "formats = [\"own-e164\", \"national\"]\nstrip_prefixes = [\"99\", \"1001\"]";
    assert_eq!(plan(stripped).unwrap().strip[1].to_string(), "1001");
    for (settings, message) in [
        ("country = \"XX\"", "3:11: country: \"XX\" has no preset"),
        (
            "country = \"ID\"\ncountry_code = \"65\"",
            "country_code: the plan is that of country \"ID\"",
        ),
        ("national_lengths = [\"9-7\"]", "national_lengths: \"9-7\" is not a list of lengths"),
        ("international_prefixes = [\"xx\"]", "\"xx\" must have 1 to 8 digits; x is any digit"),
        ("international_prefixes = [\"123456789\"]", "must have 1 to 8 digits"),
        ("imsi_mcc = [\"51\"]", "imsi_mcc: \"51\" must have 3 digits"),
        ("imsi_mcc = [\"1\",\"1\",\"1\",\"1\",\"1\",\"1\",\"1\",\"1\",\"1\"]", "at most 8 codes"),
        ("strip_prefixes = [\"\"]", "must have 1 to 8 digits"),
        ("formats = [\"own-e164\"]\nstrip_prefixes = [\"6\"]", "4:18: strip_prefixes: 6 collides"),
        ("phone_contexts = { \"+62\" = \"national\" }", "phone_contexts: \"+62\" is not a name"),
        ("phone_contexts = { a = \"subscriber\" }", "needs an area_code"),
        ("phone_contexts = { a = [] }", "\"a\" has no format"),
        ("phone_contexts = { a = \"e164\", A = \"national\" }", "is there twice"),
        (
            "phone_contexts = { a = \"e164\", b = \"e164\", c = \"e164\", d = \"e164\", e = \"e164\" }",
            "at most 4 names",
        ),
        (
            "national_lengths = [\"10\"]\n[[trunk]]\nname = \"a\"\nsources = [\"10.0.0.1\"]\n\
             country_code = \"65\"",
            "country_code: national_lengths of [default] are for country code 62",
        ),
    ] {
        let error = plan(settings).unwrap_err();
        assert!(error.contains(message), "{settings}: {error}");
    }
}

fn digits(min: usize, max: usize) -> impl Strategy<Value = String> {
    proptest::string::string_regex(&format!("[1-9][0-9]{{{},{}}}", min - 1, max - 1)).unwrap()
}

proptest! {
    /// Checks that the output of `config show` is a configuration with equal values.
    #[test]
    fn effective_config_reads_back_equal(
        country in digits(1, 3),
        trunk_prefix in "(0|8)?",
        area in digits(2, 4),
        formats in proptest::sample::subsequence(
            vec!["e164", "own-e164", "national", "bare-national", "subscriber"], 1..=5),
        international in proptest::collection::vec("0[0x][1-9x]{0,3}", 0..4),
        plan in (
            proptest::option::of(proptest::sample::select(vec!["ID", "IT", "HK", "US"])),
            proptest::collection::vec("([0-9]: )?[1-9](,1[0-5])?", 0..3),
            any::<bool>(),
            proptest::collection::vec("[0-9]{3}", 0..4),
            proptest::collection::btree_map("[a-z][a-z0-9.]{0,9}", 0usize..4, 0..4),
        ),
        short in 0u8..=9,
        protected in proptest::collection::vec(("[1-9][0-9]{6,14}", any::<bool>()), 0..5),
        sources in proptest::collection::hash_map(any::<std::net::IpAddr>(), 0u8..=32, 1..5),
        blocks in 1..=BLOCKS_MAX,
        shortest in (0u8..=15, 0u8..=15),
        refuse in proptest::sample::select(vec!["600", "486", "603", "403", "480", "drop"]),
        minutes in 60i64..3660 * 24 * 60,
        listen in any::<Option<u16>>(),
        redial in (prop_oneof![Just(0u8), 2u8..=8], 60u32..=86_400, 60u32..=86_400),
    ) {
        let protected: Vec<_> = protected
            .iter()
            .map(|(digits, prefix)| format!("+{digits}{}", if *prefix { "*" } else { "" }))
            .filter(|text| crate::model::number_text::subject(text, &crate::model::policy::default_plan(
                Digits::parse(&country).unwrap(), Digits::parse(&trunk_prefix).unwrap())).is_ok())
            .map(|text| match text.len() % 3 {
                0 => format!("{{ number = {text:?}, name = \"RSUP {text}\" }}"),
                _ => format!("{text:?}"),
            })
            .collect();
        let sources: Vec<_> =
            sources.iter().map(|(address, bits)| format!("{address}/{bits}")).collect();
        let listen = listen.filter(|port| *port > 0).map_or_else(String::new, |port| {
            format!("[api]\ncheck_listen = \"127.0.0.1:{port}\"\n")
        });
        let calls = blocks.min(EVIDENCE_CALLS_MAX.into());
        let (preset, lengths, leading_zero, codes, contexts) = plan;
        let preset = preset.map_or_else(String::new, |country| format!("country = {country:?}\n"));
        let names = ["e164", "own-e164", "national", "bare-national"];
        let contexts: Vec<_> =
            contexts.iter().map(|(name, at)| format!("{name:?} = {:?}", names[*at])).collect();
        let trunk = format!(
            "{preset}national_lengths = {lengths:?}\nleading_zero = {leading_zero}\n\
             imsi_mcc = {codes:?}\nphone_contexts = {{ {} }}\n",
            contexts.join(", ")
        );
        let text = format!(
            "interfaces = [\"eth0\"]\nprotected = [{}]\n[default]\n\
             country_code = {country:?}\ntrunk_prefix = {trunk_prefix:?}\n\
             international_prefixes = {international:?}\nshort_number_digits = {short}\n\
             [[trunk]]\nname = \"a\"\nrefuse = {refuse:?}\nreplies_per_second = {blocks}\ntrusts_from = {}\nsources = {sources:?}\nformats = {formats:?}\n\
             {trunk}area_code = {area:?}\n[limits]\nblocks = {blocks}\n\
             shortest_number = {}\nshortest_prefix = {}\nlongest_block = \"{minutes}m\"\n[retention]\n\
             calls = \"{minutes}m\"\nmax_bytes = {}\n[records]\nper_number = {}\nper_trunk = {}\n[evidence]\nmax_calls = {calls}\nretention = \"{minutes}m\"\n[redial]\nattempts = {}\nwindow = \"{}s\"\n\
             grant = \"{}s\"\n[auto_rate]\nattempts = {}\nblock = \"{}s\"\n[notify]\nwebhook = \"http://127.0.0.1:{}/p\"\n{listen}",
            protected.join(", "), shortest.1 % 2 == 0, shortest.0, shortest.1,
            MAX_BYTES_MIN + minutes.unsigned_abs(), redial.0, minutes % 10_001,
            redial.0, redial.1, redial.2, redial.0, redial.1, minutes % 65536
        );
        let Ok(config) = read(&text) else {
            // Two sources may be one prefix, and a plan may not read its own numbers.
            return Err(TestCaseError::reject("no configuration"));
        };
        let effective = toml::to_string(&config.effective()).unwrap();
        prop_assert_eq!(read(&effective), Ok(config), "{}", effective);
    }

    #[test]
    fn any_text_never_panics(text in "([a-z_]+ = |\\[|\\]|\"|[0-9é]|\n|interfaces = \\[\\]\n|paths|#){0,20}") {
        let _ = read(&text);
    }
}
