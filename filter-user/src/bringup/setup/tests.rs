//! Changes of configurations as delivered and edited.

use super::*;

fn wanted() -> Wanted {
    Wanted { interface: "ens1".into(), ..Wanted::default() }
}

/// Changes a configuration; the error is its text.
fn changed(before: Option<&str>, wanted: &Wanted) -> Result<Change, String> {
    change(Path::new("/etc/palang/palang.toml"), before.map(str::to_owned), wanted)
        .map_err(|error| error.to_string())
}

/// Returns the lines that are not in the other text, with each run of spaces as one.
fn different(one: &str, other: &str) -> Vec<String> {
    let lines = one.lines().filter(|line| !other.lines().any(|found| found == *line));
    lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn delivered_file_keeps_its_comments() {
    let wanted = Wanted {
        ports: Some(vec![5060, 5070]),
        country_code: Some("60".into()),
        xdp_mode: Some(XdpMode::Generic),
        ..wanted()
    };
    let packaged = DELIVERED.replacen("[\"eth0\"]", "[]      ", 1);
    assert_ne!(packaged, DELIVERED);
    for before in [None, Some(DELIVERED), Some(packaged.as_str())] {
        assert!(is_untouched(before) && country_code(before).is_none());
        let change = changed(before, &wanted).unwrap();
        assert!(change.is_one());
        let text = &change.config.text;
        assert_eq!(
            different(text, DELIVERED),
            [
                "interfaces = [\"ens1\"] # may be empty: `palang attach INTERFACE` later",
                "xdp_mode = \"generic\" # = \"native\"",
                "ports = [5060, 5070] # UDP ports that SIP is read on # = [5060]",
                "country_code = \"60\" # = \"62\"",
            ]
        );
        assert_eq!(text.lines().count(), DELIVERED.lines().count());
        assert_eq!(change.config.interfaces, ["ens1"]);
        assert_eq!(change.config.policy.ports, [5060, 5070]);
    }
}

#[test]
fn edited_settings_stay() {
    let own = "# ours\ninterfaces = [] # none yet\nports = [5080]\n\n[api]\ngroup = \"root\" # x\n";
    let change = changed(Some(own), &wanted()).unwrap();
    assert_eq!(change.config.text, own.replace("[] #", "[\"ens1\"] #"));
    assert_eq!(change.config.policy.ports, [5080]);
    assert_eq!(country_code(Some(own)), None);
    let coded = Wanted { country_code: Some("62".into()), ..wanted() };
    let coded = changed(Some(own), &coded).unwrap().config.text;
    assert!(coded.ends_with("[default]\ncountry_code = \"62\"\n"), "{coded}");
    assert_eq!(country_code(Some(&coded)).as_deref(), Some("62"));

    let edited = DELIVERED.replacen("eth0", "eth9", 1);
    assert!(!is_untouched(Some(&edited)) && country_code(Some(&edited)).is_some());
    let again = changed(Some(&change.config.text), &wanted()).unwrap();
    assert!(!again.is_one());
}

#[test]
fn country_replaces_the_delivered_plan_and_keeps_its_comments() {
    let wanted = Wanted { country: Some("MY".into()), ..wanted() };
    for before in [None, Some(DELIVERED)] {
        let change = changed(before, &wanted).unwrap();
        let text = &change.config.text;
        assert_eq!(text.lines().count(), DELIVERED.lines().count());
        let lines = different(text, DELIVERED);
        assert!(
            lines.contains(&"country = \"MY\" # = none: the settings below".into()),
            "{lines:?}"
        );
        assert!(lines.contains(&"# country_code = \"62\" # = \"62\"".into()), "{lines:?}");
        let trunk = &change.config.policy.trunks[0];
        let preset = crate::model::plan::presets::of("MY").unwrap();
        assert_eq!((trunk.country, trunk.profile.plan), (Some("MY"), preset.plan()));
        assert!(has_country(Some(text)) && !has_country(before));
        assert!(!changed(Some(text), &wanted).unwrap().is_one(), "once more");
    }
    let own = "interfaces = []\n[default]\ncountry_code = \"62\" # ours\nidentity = \"pai\"\n";
    let change = changed(Some(own), &wanted).unwrap();
    assert!(change.config.text.contains("# country_code"), "{}", change.config.text);
    assert!(change.config.text.contains("identity = \"pai\""), "{}", change.config.text);
    let edited = DELIVERED
        .replace("\"112\"", "\"112\", \"911\"")
        .replace("interfaces = [\"eth0\"]", "interfaces = []");
    assert!(!is_untouched(Some(&edited)));
    let change = changed(Some(&edited), &wanted).unwrap();
    let plan = change.config.policy.trunks[0].profile.plan;
    assert_eq!(plan, crate::model::plan::presets::of("MY").unwrap().plan());
    assert!(change.config.text.contains("# trunk_prefix"), "{}", change.config.text);
    let again = changed(Some(&change.config.text), &wanted).unwrap();
    assert!(!again.is_one(), "once more");
    let unknown = Wanted { country: Some("XX".into()), ..wanted };
    assert!(changed(None, &unknown).unwrap_err().contains("has no preset"));
}

#[test]
fn trunks_are_added_once_and_changed_by_name() {
    let sends = Sends { identity: Some(Identity::Pai), formats: vec![Format::National] };
    let east = WantedTrunk {
        name: "east".into(),
        sources: vec!["192.0.2.0/24".into(), "2001:db8::1".into()],
        sends: sends.clone(),
    };
    let wanted = Wanted { country: Some("ID".into()), trunks: vec![east.clone()], ..wanted() };
    let change = changed(None, &wanted).unwrap();
    let text = change.config.text.clone();
    let trunk = &change.config.policy.trunks[1];
    assert_eq!((trunk.name.as_str(), trunk.sources.len()), ("east", 2));
    assert_eq!(trunk.profile.identity, filter_common::plan::IDENTITY_PAI);
    assert_eq!(trunk.profile.plan.formats, filter_common::plan::FORMAT_NATIONAL);
    assert!(!changed(Some(&text), &wanted).unwrap().is_one(), "once more");

    let moved = WantedTrunk { sources: vec!["198.51.100.7".into()], ..east.clone() };
    let twice = Wanted { trunks: vec![moved.clone(), east.clone()], ..wanted.clone() };
    assert!(changed(Some(&text), &twice).unwrap_err().contains("\"east\" is there twice"));
    let both = vec![moved, WantedTrunk { name: "west".into(), ..east.clone() }];
    let both = Wanted { trunks: both, ..wanted.clone() };
    let change = changed(Some(&text), &both).unwrap();
    let sources: Vec<_> =
        change.config.policy.trunks.iter().map(|trunk| trunk.sources.len()).collect();
    assert_eq!(sources, [0, 1, 2]);

    let everywhere = Wanted { sends, trunks: Vec::new(), ..wanted };
    let change = changed(None, &everywhere).unwrap();
    assert_eq!(change.config.policy.trunks[0].profile.plan.formats, trunk.profile.plan.formats);

    for (wrong, says) in [
        (WantedTrunk { sources: vec!["10.0.0.300".into()], ..east.clone() }, "not an address"),
        (WantedTrunk { name: "default".into(), ..east.clone() }, "already used"),
        (WantedTrunk { sources: Vec::new(), ..east }, "at least one source"),
    ] {
        let wrong = Wanted { trunks: vec![wrong], ..both.clone() };
        let error = changed(None, &wrong).unwrap_err();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn configured_or_invalid_file_is_refused() {
    let other = changed(Some("interfaces = [\"eth7\"]"), &wanted()).unwrap_err();
    assert!(other.contains("already set up for eth7"), "{other}");
    let wrong = changed(Some("interfaces = []\nprots = [1]"), &wanted()).unwrap_err();
    assert!(wrong.starts_with("/etc/palang/palang.toml:2:1: "), "{wrong}");
    let code = Wanted { country_code: Some("+62".into()), ..wanted() };
    assert!(changed(None, &code).unwrap_err().contains("1 to 3 digits"));
    let long = Wanted { interface: "a-name-that-is-too-long".into(), ..wanted() };
    assert!(changed(None, &long).is_err());
    let inline = Wanted { country_code: Some("60".into()), ..wanted() };
    let inline = changed(Some("interfaces = []\ndefault = { mode = \"observe\" }"), &inline);
    assert!(inline.unwrap_err().contains("as a table"));
}

#[test]
fn sip_listeners_are_found_by_port_and_process() {
    let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
         \x20 100: 0100007F:13C4 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0000000000000000 0\n\
         rubbish\n\
         \x20 101: 00000000:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4712 2 0000000000000000 0\n";
    assert_eq!(bound(table), [(5060, 4711), (53, 4712)]);
    let listener = |port, process: Option<&str>| {
        Listener { port, process: process.map(str::to_owned) }.speaks_sip()
    };
    assert!(listener(5060, None) && listener(5061, Some("nobody-knows")));
    assert!(listener(9060, Some("kamailio")));
    assert!(!listener(9060, Some("asterisk")) && !listener(53, Some("named")));

    // A port of this process, unless other processes in this namespace use all of them.
    let socket =
        SIP_PORTS.clone().find_map(|port| std::net::UdpSocket::bind(("127.0.0.1", port)).ok());
    let socket = socket.expect("a free port from 5060 to 5099");
    let port = socket.local_addr().unwrap().port();
    let own = fs::read_to_string("/proc/self/comm").unwrap();
    let found = sip_listeners().into_iter().find(|listener| listener.port == port);
    assert_eq!(found.unwrap().process.as_deref(), Some(own.trim_end()));
}
