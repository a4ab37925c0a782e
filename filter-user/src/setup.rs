//! What `palang setup` finds on this machine, and the configuration that it makes of that.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use toml_edit::{Array, DocumentMut, Item, Table, Value};

use crate::config::{Config, XdpMode};

/// The configuration as it is delivered: one that is still so was edited by nobody.
pub const DELIVERED: &str = include_str!("../../docs/palang.toml");

/// Programs that speak SIP over UDP, as the kernel names their processes (15 characters).
const SIP_SERVERS: [&str; 7] =
    ["kamailio", "opensips", "asterisk", "freeswitch", "yate", "sipp", "flexisip-proxy"];
/// Where SIP is usually found; a server also has ports of media.
const SIP_PORTS: std::ops::RangeInclusive<u16> = 5060..=5099;

/// A UDP port that a process has bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The port.
    pub port: u16,
    /// Name of the process; `None`: nobody whom we may look at.
    pub process: Option<String>,
}

impl Listener {
    fn speaks_sip(&self) -> bool {
        let is_server =
            self.process.as_deref().is_some_and(|process| SIP_SERVERS.contains(&process));
        // These two have no port of another kind.
        let only_sip = matches!(self.process.as_deref(), Some("kamailio" | "opensips"));
        SIP_PORTS.contains(&self.port) || (is_server && only_sip)
    }
}

/// UDP ports of this network namespace that SIP is read on, by those who have bound them.
#[must_use]
pub fn sip_listeners() -> Vec<Listener> {
    let tables = ["/proc/self/net/udp", "/proc/self/net/udp6"];
    let texts = tables.iter().filter_map(|table| fs::read_to_string(table).ok());
    let mut ports: BTreeMap<u16, Option<String>> = BTreeMap::new();
    let mut sockets: BTreeMap<u64, u16> = BTreeMap::new();
    for text in texts {
        sockets.extend(bound(&text).into_iter().map(|(port, inode)| (inode, port)));
    }
    ports.extend(sockets.values().map(|port| (*port, None)));
    for (inode, process) in processes_of_sockets(&sockets) {
        if let Some(port) = sockets.get(&inode) {
            ports.insert(*port, Some(process));
        }
    }
    let all = ports.into_iter().map(|(port, process)| Listener { port, process });
    all.filter(Listener::speaks_sip).collect()
}

/// Port and inode of the sockets of a table such as `/proc/net/udp` (proc(5)).
fn bound(table: &str) -> Vec<(u16, u64)> {
    let line = |line: &str| {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let port = fields.get(1)?.rsplit_once(':')?.1;
        Some((u16::from_str_radix(port, 16).ok()?, fields.get(9)?.parse().ok()?))
    };
    table.lines().skip(1).filter_map(line).collect()
}

/// Names of the processes that have these sockets, by inode.
fn processes_of_sockets(sockets: &BTreeMap<u64, u16>) -> Vec<(u64, String)> {
    let mut found = Vec::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(name) = fs::read_to_string(process.path().join("comm")) else { continue };
        for file in fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten() {
            let Ok(target) = fs::read_link(file.path()) else { continue };
            let inode = target
                .to_str()
                .and_then(|text| text.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            if let Some(inode) = inode.filter(|inode| sockets.contains_key(inode)) {
                found.push((inode, name.trim_end().to_owned()));
            }
        }
    }
    found
}

/// What the configuration is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The interface.
    pub interface: String,
    /// UDP ports; `None`: as the file says.
    pub ports: Option<Vec<u16>>,
    /// Country code; `None`: as the file says.
    pub country_code: Option<String>,
    /// Where the program runs; `None`: as the file says.
    pub xdp_mode: Option<XdpMode>,
}

/// A configuration file, and what becomes of it.
#[derive(Clone, Debug)]
pub struct Change {
    /// The file.
    pub path: PathBuf,
    /// What it says now; `None`: it is not there.
    pub before: Option<String>,
    /// The configuration that it will be, checked.
    pub config: Config,
}

impl Change {
    /// Whether the file has to be written.
    #[must_use]
    pub fn is_one(&self) -> bool {
        self.before.as_ref() != Some(&self.config.text)
    }
}

/// The configuration in this file; `None`: there is no file.
///
/// # Errors
/// It cannot be read.
pub fn read(path: &Path) -> Result<Option<String>, String> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{}: cannot be read: {error}", path.display())),
    }
}

/// Whether nobody has edited it: there is none, or it is as it was delivered, with the interface of
/// the example or, as packages have it, with none.
#[must_use]
pub fn is_untouched(before: Option<&str>) -> bool {
    let interfaces = |text: &str| {
        let document: DocumentMut = text.parse().ok()?;
        Some(document.get("interfaces")?.as_array()?.len())
    };
    let is_rest = |line: &&str| !line.starts_with("interfaces = [");
    before.is_none_or(|text| {
        let same_rest = text.lines().filter(is_rest).eq(DELIVERED.lines().filter(is_rest));
        text == DELIVERED || (same_rest && interfaces(text) == Some(0))
    })
}

/// The country code that somebody has put into a configuration.
#[must_use]
pub fn country_code(before: Option<&str>) -> Option<String> {
    let text = before.filter(|text| !is_untouched(Some(text)))?;
    let document: DocumentMut = text.parse().ok()?;
    Some(document.get("default")?.get("country_code")?.as_str()?.to_owned())
}

/// Changes what is wanted in a configuration and nothing else.
///
/// # Errors
/// It is wrong, before or afterwards, or has other interfaces: somebody has set it up.
pub fn change(path: &Path, before: Option<String>, wanted: &Wanted) -> Result<Change, String> {
    let text = before.as_deref().unwrap_or(DELIVERED);
    let mut config = Config::of(path, text.to_owned())?;
    let untouched = is_untouched(before.as_deref());
    let named = config.interfaces.contains(&wanted.interface);
    if !untouched && !named && !config.interfaces.is_empty() {
        return Err(format!(
            "{file}: it is set up already, for {}. To have {name} as well, add it to `interfaces` \
             there, then `palang config check && systemctl reload palang`",
            config.interfaces.join(", "),
            file = path.display(),
            name = wanted.interface,
        ));
    }
    let mut document: DocumentMut =
        text.parse().map_err(|error| format!("{}: {error}", path.display()))?;
    let root = document.as_table_mut();
    if untouched || !named {
        put(root, "interfaces", Array::from_iter([wanted.interface.as_str()]).into());
    }
    if let Some(ports) = wanted.ports.as_ref().filter(|ports| **ports != config.policy.ports) {
        put(root, "ports", ports.iter().map(|port| i64::from(*port)).collect::<Array>().into());
    }
    if let Some(mode) = wanted.xdp_mode.filter(|mode| *mode != config.xdp_mode) {
        put(root, "xdp_mode", mode.name().into());
    }
    if let Some(code) = &wanted.country_code
        && (country_code(Some(text)).as_ref() != Some(code))
    {
        let default = root.entry("default").or_insert_with(|| Item::Table(Table::new()));
        let Some(default) = default.as_table_mut() else {
            return Err(format!("{}: write [default] as a table", path.display()));
        };
        put(default, "country_code", code.as_str().into());
    }
    config = Config::of(path, document.to_string())
        .map_err(|error| format!("with these options it would be wrong: {error}"))?;
    Ok(Change { path: path.to_owned(), before, config })
}

/// Puts a value in place of another, whose comments stay.
fn put(table: &mut Table, key: &str, mut value: Value) {
    match table.get_mut(key) {
        Some(item) => {
            if let Some(old) = item.as_value() {
                *value.decor_mut() = old.decor().clone();
            }
            *item = Item::Value(value);
        }
        None => {
            table.insert(key, Item::Value(value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> Wanted {
        Wanted { interface: "ens1".into(), ports: None, country_code: None, xdp_mode: None }
    }

    fn changed(before: Option<&str>, wanted: &Wanted) -> Result<Change, String> {
        change(Path::new("/etc/palang/palang.toml"), before.map(str::to_owned), wanted)
    }

    /// Lines that are not in the other text, each run of spaces as one.
    fn different(one: &str, other: &str) -> Vec<String> {
        let lines = one.lines().filter(|line| !other.lines().any(|found| found == *line));
        lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }

    #[test]
    fn what_is_delivered_keeps_its_comments() {
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
    fn what_somebody_wrote_stays() {
        let own =
            "# ours\ninterfaces = [] # none yet\nports = [5080]\n\n[api]\ngroup = \"root\" # x\n";
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
    fn what_is_set_up_or_wrong_is_refused() {
        let other = changed(Some("interfaces = [\"eth7\"]"), &wanted()).unwrap_err();
        assert!(other.contains("set up already, for eth7"), "{other}");
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
    fn listeners_of_sip() {
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

        // A port of this process, unless others in this namespace have all of them.
        let socket =
            SIP_PORTS.clone().find_map(|port| std::net::UdpSocket::bind(("127.0.0.1", port)).ok());
        let socket = socket.expect("a free port from 5060 to 5099");
        let port = socket.local_addr().unwrap().port();
        let own = fs::read_to_string("/proc/self/comm").unwrap();
        let found = sip_listeners().into_iter().find(|listener| listener.port == port);
        assert_eq!(found.unwrap().process.as_deref(), Some(own.trim_end()));
    }
}
