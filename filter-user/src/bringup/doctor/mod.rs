//! Checks what this machine needs to run the gate, one item at a time. Needs no daemon and changes
//! nothing.

pub(crate) mod check;
pub(crate) mod drivers;
pub(crate) mod forwarding;
pub(crate) mod in_force;
pub(crate) mod interface;
pub(crate) mod offloads;
pub(crate) mod plans;
pub(crate) mod replies;

use std::io;
use std::path::Path;

use caps::{CapSet, Capability};
use jiff::Timestamp;
use nix::libc;
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use nix::sys::statvfs::statvfs;
use nix::unistd::{AccessFlags, Group, access};
use rusqlite::OpenFlags;

pub use crate::bringup::doctor::check::{Check, State};
use crate::config::{Config, Paths};
use crate::datapath::second_look::describe;
use crate::datapath::{Error, Features, Replay, memory_limit};
use crate::model::policy::Policy;
use crate::store::connection;
use crate::sys::{cgroup, kernels};

/// Smallest free space on the disk of the store that is not a failure, in bytes.
const DISK_MIN: u64 = 100 << 20;
/// Earliest plausible time: this program was built later.
const NOT_BEFORE: Timestamp = Timestamp::constant(1_767_225_600, 0);
/// A file may be slightly newer than the clock that was read before.
const CLOCK_SLACK_SECONDS: i64 = 5;

const BTF: &str = "/sys/kernel/btf/vmlinux";
const JIT: &str = "/proc/sys/net/core/bpf_jit_enable";
const UNPRIVILEGED: &str = "/proc/sys/kernel/unprivileged_bpf_disabled";

const MEND_CLOCK: &str = "timedatectl set-ntp true";

/// Runs all checks with the configuration in this file.
pub async fn checks(file: &Path) -> Vec<Check> {
    let (config, first) = config(file);
    checks_of(config.as_ref(), first).await
}

/// Runs all checks with a configuration that is not in force yet.
pub async fn checks_with(config: &Config) -> Vec<Check> {
    checks_of(Some(config), Check::ok("config", config.path.display().to_string())).await
}

async fn checks_of(config: Option<&Config>, first: Check) -> Vec<Check> {
    let features = Features::probe();
    let (mut loaded, program) = program(config.map(|config| &config.policy));
    let tag = loaded.as_mut().and_then(|loaded| loaded.tag().ok());
    let no_replies = loaded.as_ref().and_then(|loaded| loaded.no_replies().map(ToOwned::to_owned));
    let mut checks = vec![
        first,
        kernel(&kernels::running(), &features),
        btf(Path::new(BTF).exists()),
        capabilities(),
        program,
        second_look(loaded),
        jit(std::fs::read_to_string(JIT)),
        unprivileged(std::fs::read_to_string(UNPRIVILEGED)),
        memory_lock(&features, memory_limit()),
    ];
    let paths = config.map_or_else(Paths::default, |config| config.paths.clone());
    checks.extend(forwarding::check(&paths.pins, config));
    checks.push(bpffs(&paths.pins));
    checks.push(in_force::pins(&paths.pins));
    checks.push(engine(&paths).await);
    checks.push(clock(Timestamp::now(), synchronised(), newest(&paths)));
    checks.extend(store(&paths));
    if let Some(config) = config {
        checks.extend(groups(config, group_exists));
        checks.extend(plans(config).await);
        let kernel = replies::Kernel { frags: features.ok().map(|found| found.frags), no_replies };
        checks.extend(interface::checks(config, tag, &kernel).await);
    }
    checks
}

fn config(file: &Path) -> (Option<Config>, Check) {
    match Config::read(file) {
        Ok(config) => (Some(config), Check::ok("config", file.display().to_string())),
        Err(error) if !file.exists() => {
            let mend = format!(
                "mkdir -p {} && echo 'interfaces = [\"eth0\"]' > {}",
                file.parent().unwrap_or(Path::new("/")).display(),
                file.display()
            );
            (None, Check::fail("config", error.to_string(), mend))
        }
        Err(error) => (
            None,
            Check::fail(
                "config",
                error.to_string(),
                "correct the file, then run palang config check",
            ),
        ),
    }
}

/// Asks the daemon on a separate thread, because the client blocks.
async fn engine(paths: &Paths) -> Check {
    let paths = paths.clone();
    let check = tokio::task::spawn_blocking(move || in_force::engine(&paths)).await;
    check.unwrap_or_else(|error| Check::warn("engine", error.to_string(), "palang status"))
}

/// Asks for the calls of the last hour on a separate thread, because the client blocks.
async fn plans(config: &Config) -> Vec<Check> {
    let (paths, policy) = (config.paths.clone(), config.policy.clone());
    let checks = tokio::task::spawn_blocking(move || plans::checks(&paths, &policy)).await;
    checks.unwrap_or_else(|error| vec![Check::warn("plans", error.to_string(), "palang status")])
}

/// Checks the limit of locked memory, which older kernels apply to maps. Loading the program has
/// already lifted it if that was possible.
fn memory_lock(features: &Result<Features, Error>, limit: Option<u64>) -> Check {
    match (features, limit) {
        (Ok(Features { locked_memory: false, .. }), _) => {
            Check::ok("memory-lock", "no limit: this kernel charges maps to the cgroup")
        }
        (_, None) => Check::ok("memory-lock", "no limit"),
        (Ok(_), Some(bytes)) => {
            let finding = format!("maps are limited to {bytes} bytes");
            Check::fail("memory-lock", finding, "ulimit -l unlimited; LimitMEMLOCK=infinity")
        }
        (Err(_), Some(bytes)) => {
            let finding =
                format!("{bytes} bytes; unknown whether this kernel charges maps to this limit");
            Check::warn("memory-lock", finding, "sudo palang doctor")
        }
    }
}

/// Checks the features of the kernel that the filter uses, independent of its release number.
fn kernel(release: &str, features: &Result<Features, Error>) -> Check {
    match features {
        Ok(found) if found.frags && found.buffer_helpers => {
            let answers = if found.replies { "answers" } else { "cannot answer" };
            let finding =
                format!("{release}; XDP on frames of several buffers; it {answers} refused calls");
            Check::ok("kernel", finding)
        }
        Ok(_) => Check::ok("kernel", format!("{release}; XDP on frames of one buffer only")),
        Err(Error::Permission) => {
            let finding = format!("{release}; its features are unknown without capabilities");
            Check::warn("kernel", finding, "sudo palang doctor")
        }
        Err(error) => {
            let mend = "boot a kernel with CONFIG_BPF_SYSCALL=y and XDP";
            Check::fail("kernel", format!("{release}: {error}"), mend)
        }
    }
}

fn btf(present: bool) -> Check {
    if present {
        return Check::ok("btf", "the kernel has type information (BTF)");
    }
    let finding = format!("{BTF} is missing");
    Check::fail("btf", finding, "boot a kernel with CONFIG_DEBUG_INFO_BTF=y")
}

fn capabilities() -> Check {
    let needed = [Capability::CAP_BPF, Capability::CAP_NET_ADMIN, Capability::CAP_PERFMON];
    let missing: Vec<_> = needed
        .into_iter()
        .filter(|needed| !caps::has_cap(None, CapSet::Effective, *needed).unwrap_or(false))
        .map(|missing| missing.to_string())
        .collect();
    if missing.is_empty() {
        return Check::ok("capabilities", "CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON");
    }
    let finding = format!("missing: {}; other checks may fail because of it", missing.join(", "));
    Check::fail("capabilities", finding, "sudo palang doctor")
}

/// Loads the program on separate maps, attached to nothing, and returns it.
fn program(policy: Option<&Policy>) -> (Option<Replay>, Check) {
    let default = Policy::default();
    let check = |loaded: &Replay| match loaded.slow_reader() {
        None => Check::ok("program", "the kernel accepts the filter"),
        Some(why) => Check::warn("program", why, kernels::advice()),
    };
    match Replay::load(policy.unwrap_or(&default)) {
        Ok(loaded) => {
            let check = check(&loaded);
            (Some(loaded), check)
        }
        Err(error @ Error::Permission) => {
            (None, Check::fail("program", error.to_string(), "sudo palang doctor"))
        }
        Err(error) => (None, Check::fail("program", error.to_string(), kernels::advice())),
    }
}

/// Loads the second look beside the loaded program, attached to nothing, and looks for the control groups
/// that it is attached to.
fn second_look(loaded: Option<Replay>) -> Check {
    let finding = "calls in fragments or with very long headers pass unread";
    let loaded = loaded.map_or_else(|| Replay::load(&Policy::default()), Ok);
    match loaded.and_then(|mut loaded| loaded.load_second_look()) {
        Err(error @ Error::Refused(_)) => {
            let why = describe(&error);
            Check::warn("second-look", format!("{why}: {finding}"), "use Linux 5.17 or newer")
        }
        // The check of the program shows it.
        Err(error) => Check::warn("second-look", error.to_string(), "sudo palang doctor"),
        Ok(()) => match cgroup::root() {
            Ok(_) => Check::ok(
                "second-look",
                "this kernel can judge calls in fragments whole; `palang status` shows whether it does",
            ),
            Err(error) => Check::warn(
                "second-look",
                format!("{error}: {finding}"),
                "mount -t cgroup2 none /sys/fs/cgroup",
            ),
        },
    }
}

fn jit(text: io::Result<String>) -> Check {
    let mend = "sysctl -w net.core.bpf_jit_enable=1";
    match text.as_deref().map(str::trim) {
        Ok("1") => Check::ok("jit", "on"),
        Ok("2") => Check::warn("jit", "on, but writes programs to the kernel's log", mend),
        Ok(_) => Check::warn("jit", "off: the filter is interpreted, many times slower", mend),
        Err(error) => Check::warn("jit", format!("{JIT}: {error}"), mend),
    }
}

fn unprivileged(text: io::Result<String>) -> Check {
    let mend = "sysctl -w kernel.unprivileged_bpf_disabled=2";
    match text.as_deref().map(str::trim) {
        Ok("1" | "2") => Check::ok("unprivileged-bpf", "only processes with CAP_BPF"),
        Ok(_) => Check::warn("unprivileged-bpf", "any user may load BPF programs", mend),
        Err(error) => Check::warn("unprivileged-bpf", format!("{UNPRIVILEGED}: {error}"), mend),
    }
}

fn bpffs(pins: &Path) -> Check {
    let parent = pins.parent().unwrap_or(pins);
    let place = if pins.exists() { pins } else { parent };
    let mount = format!("mount -t bpf bpf {}", parent.display());
    match statfs(place).map(|found| found.filesystem_type() == BPF_FS_MAGIC) {
        Err(error) => return Check::fail("bpffs", format!("{}: {error}", place.display()), mount),
        Ok(false) => {
            let finding = format!("{} is not on a BPF file system", place.display());
            return Check::fail("bpffs", finding, mount);
        }
        Ok(true) => {}
    }
    match access(place, AccessFlags::W_OK | AccessFlags::X_OK) {
        Ok(()) => Check::ok("bpffs", place.display().to_string()),
        Err(error) => {
            let finding = format!("cannot write to {}: {error}", place.display());
            Check::fail("bpffs", finding, format!("mount -o remount,rw {}", parent.display()))
        }
    }
}

fn clock(now: Timestamp, synchronised: bool, newest: Option<Timestamp>) -> Check {
    let now_text = format!("{now:.0}");
    if now < NOT_BEFORE {
        let finding =
            format!("the clock is wrong, it shows {now_text}: blocks would end at wrong times");
        return Check::fail("clock", finding, MEND_CLOCK);
    }
    if let Some(newest) = newest
        && newest.as_second() > now.as_second() + CLOCK_SLACK_SECONDS
    {
        let finding = format!(
            "the clock is wrong, it shows {now_text}, but the store was written at {newest:.0}"
        );
        return Check::fail("clock", finding, MEND_CLOCK);
    }
    if !synchronised {
        let finding = format!("{now_text}, but not synchronised");
        return Check::warn("clock", finding, MEND_CLOCK);
    }
    Check::ok("clock", format!("{now_text}, synchronised"))
}

/// Checks whether NTP or PTP keeps the kernel's clock synchronised (adjtimex(2)).
#[expect(unsafe_code, reason = "no safe interface to adjtimex(2) knows whether it is in sync")]
fn synchronised() -> bool {
    // SAFETY: all zeroes are a valid `timex`, which only queries; the kernel writes to nothing
    // but this struct.
    let state = unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        libc::adjtimex(&raw mut timex)
    };
    state >= 0 && state != libc::TIME_ERROR
}

/// Returns the time at which the store was last written.
fn newest(paths: &Paths) -> Option<Timestamp> {
    let store = paths.store();
    [store.with_extension("db-wal"), store]
        .iter()
        .filter_map(|file| file.metadata().ok()?.modified().ok())
        .filter_map(|time| Timestamp::try_from(time).ok())
        .max()
}

fn store(paths: &Paths) -> Vec<Check> {
    let folder = &paths.state;
    let place = folder.display();
    if !folder.exists() {
        let finding = format!("{place} does not exist yet; systemd creates it at the first start");
        return vec![Check::warn("store", finding, format!("install -d -m 0750 {place}"))];
    }
    vec![room(folder), database(paths)]
}

fn room(folder: &Path) -> Check {
    let place = folder.display();
    let mend = format!("free some space: du -xh {place} | sort -h | tail");
    if let Err(error) = access(folder, AccessFlags::R_OK | AccessFlags::W_OK | AccessFlags::X_OK) {
        let finding = format!("cannot write to {place}: {error}");
        return Check::fail("disk", finding, format!("ls -ld {place}; mount | grep ' ro'"));
    }
    let free = match statvfs(folder) {
        Ok(found) => found.blocks_available() * found.fragment_size(),
        Err(error) => return Check::fail("disk", format!("{place}: {error}"), mend),
    };
    let finding = format!("{} MB free at {place}", free >> 20);
    if free < DISK_MIN { Check::fail("disk", finding, mend) } else { Check::ok("disk", finding) }
}

fn database(paths: &Paths) -> Check {
    let file = paths.store();
    let place = file.display();
    if !file.exists() {
        return Check::ok("store", format!("{place} does not exist yet; the daemon creates it"));
    }
    let sound = || -> rusqlite::Result<String> {
        let store = connection::open(&file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        store.busy_timeout(std::time::Duration::from_secs(5))?;
        store.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
    };
    let finding = match sound() {
        Ok(answer) if answer == "ok" => return Check::ok("store", format!("{place} is intact")),
        Ok(answer) => format!("{place} is damaged: {}", answer.replace('\n', " ")),
        Err(error) => format!("cannot read {place}: {error}"),
    };
    let mend = format!("systemctl stop palang; replace {place} with a backup");
    Check::fail("store", finding, mend)
}

fn group_exists(name: &str) -> bool {
    matches!(Group::from_name(name), Ok(Some(_)))
}

fn groups(config: &Config, exists: impl Fn(&str) -> bool) -> Vec<Check> {
    let mut checks = Vec::new();
    let mend = |name: &str| format!("groupadd --system {name}");
    if !exists(&config.group) {
        let finding = format!("group {} of the socket does not exist", config.group);
        checks.push(Check::fail("groups", finding, mend(&config.group)));
    }
    let roles = &config.roles;
    let mut seen = vec![&config.group];
    for name in [&roles.read, &roles.report, &roles.operate, &roles.admin].into_iter().flatten() {
        if !seen.contains(&name) && !exists(name) {
            let finding = format!("group {name} of a role does not exist, so nobody has the role");
            checks.push(Check::warn("groups", finding, mend(name)));
        }
        seen.push(name);
    }
    if checks.is_empty() {
        checks.push(Check::ok("groups", "the groups of the socket and the roles exist"));
    }
    checks
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;

    fn no_file() -> io::Result<String> {
        Err(io::ErrorKind::NotFound.into())
    }

    /// A folder that is removed at the end of a test.
    struct Folder(std::path::PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let folder = std::env::temp_dir().join(format!("palang-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&folder).unwrap();
            Folder(folder)
        }

        fn paths(&self) -> Paths {
            Paths { state: self.0.clone(), ..Paths::default() }
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn features(several_buffers: bool, locked_memory: bool) -> Result<Features, Error> {
        let (frags, buffer_helpers) = (several_buffers, several_buffers);
        Ok(Features { frags, buffer_helpers, replies: several_buffers, locked_memory })
    }

    #[test]
    fn kernel_is_judged_by_its_features() {
        let refused = || Err(Error::Load("the kernel accepts no XDP program".into()));
        for (release, found, state, says) in [
            ("5.14.0-503.el9.x86_64", features(true, false), State::Ok, "several buffers"),
            ("5.10.0-46-amd64", features(false, true), State::Ok, "one buffer"),
            ("6.18.0", Err(Error::Permission), State::Warn, "without capabilities"),
            ("6.18.0", refused(), State::Fail, "accepts no XDP"),
        ] {
            let check = kernel(release, &found);
            assert_eq!(check.state, state, "{check:?}");
            assert!(check.finding.starts_with(release), "{check:?}");
            assert!(check.finding.contains(says), "{check:?}");
        }
    }

    #[test]
    fn locked_memory_counts_on_old_kernels_only() {
        let refused = || Err(Error::Permission);
        for (found, limit, state) in [
            (features(true, false), Some(65_536), State::Ok),
            (features(true, true), Some(65_536), State::Fail),
            (features(true, true), None, State::Ok),
            (refused(), None, State::Ok),
            (refused(), Some(65_536), State::Warn),
        ] {
            assert_eq!(memory_lock(&found, limit).state, state, "{found:?} {limit:?}");
        }
    }

    #[test]
    fn kernel_switches_are_rated() {
        let text = |text: &str| Ok(text.to_owned());
        let states = |check: fn(io::Result<String>) -> Check| {
            [text("0\n"), text("1\n"), text("2\n"), no_file()].map(|text| check(text).state)
        };
        assert_eq!(states(jit), [State::Warn, State::Ok, State::Warn, State::Warn]);
        assert_eq!(states(unprivileged), [State::Warn, State::Ok, State::Ok, State::Warn]);
        assert_eq!((btf(true).state, btf(false).state), (State::Ok, State::Fail));
    }

    #[test]
    fn clock_earlier_than_the_store_or_this_program_fails() {
        let time = |text: &str| text.parse::<Timestamp>().unwrap();
        let now = time("2026-11-24T10:00:00Z");
        let state = |now, synchronised, newest| clock(now, synchronised, newest).state;
        assert_eq!(state(now, true, None), State::Ok);
        assert_eq!(state(now, true, Some(time("2026-11-24T10:00:04Z"))), State::Ok);
        assert_eq!(state(now, true, Some(time("2026-11-24T10:01:00Z"))), State::Fail);
        assert_eq!(state(now, false, Some(time("2026-11-20T10:00:00Z"))), State::Warn);
        assert_eq!(state(time("1970-01-01T00:03:00Z"), true, None), State::Fail);
        assert_eq!(NOT_BEFORE, time("2026-01-01T00:00:00Z"));
        let finding = clock(now, true, Some(time("2031-01-01T00:00:00.5Z"))).finding;
        assert!(finding.contains("written at 2031-01-01T00:00:00Z"), "{finding}");
    }

    #[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
    #[test]
    fn pins_need_a_bpf_file_system() {
        assert_eq!(bpffs(Path::new("/sys/fs/bpf/palang-doctor")).state, State::Ok);
        let wrong = bpffs(Path::new("/tmp/palang-doctor"));
        assert!(wrong.finding.contains("not on a BPF file system"), "{}", wrong.finding);
        assert_eq!(wrong.mend.as_deref(), Some("mount -t bpf bpf /tmp"));
        assert_eq!(bpffs(Path::new("/nowhere/at-all/palang")).state, State::Fail);
    }

    #[test]
    fn store_and_disk_are_checked() {
        let folder = Folder::new("doctor-store");
        let paths = folder.paths();
        let states =
            || store(&paths).iter().map(|check| (check.check, check.state)).collect::<Vec<_>>();
        assert_eq!(newest(&paths), None);
        assert_eq!(states(), [("disk", State::Ok), ("store", State::Ok)], "no store yet");

        let file = paths.store();
        let database = Connection::open(&file).unwrap();
        database
            .execute_batch(
                "PRAGMA journal_mode = WAL; CREATE TABLE t (number TEXT); \
                 WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 100) \
                 INSERT INTO t SELECT hex(randomblob(500)) FROM n;",
            )
            .unwrap();
        assert_eq!(states(), [("disk", State::Ok), ("store", State::Ok)], "open elsewhere");
        let wal = file.with_extension("db-wal");
        assert_eq!(
            newest(&paths),
            Timestamp::try_from(wal.metadata().unwrap().modified().unwrap()).ok()
        );
        drop(database);
        assert_eq!(states(), [("disk", State::Ok), ("store", State::Ok)]);

        let mut bytes = std::fs::read(&file).unwrap();
        for byte in &mut bytes[8192..12288] {
            *byte ^= 0x55;
        }
        std::fs::write(&file, bytes).unwrap();
        let damaged = database_check(&paths);
        assert!(damaged.finding.contains("is damaged"), "{}", damaged.finding);
        std::fs::write(&file, "no database at all, only some text that is long enough").unwrap();
        let unreadable = database_check(&paths);
        assert!(unreadable.finding.contains("file is not a database"), "{}", unreadable.finding);

        let away = Paths { state: folder.0.join("away"), ..Paths::default() };
        assert_eq!(store(&away)[0].state, State::Warn);
        assert!(!away.state.exists(), "nothing is created");
    }

    fn database_check(paths: &Paths) -> Check {
        let check = database(paths);
        assert_eq!((check.check, check.state), ("store", State::Fail));
        check
    }

    #[test]
    fn groups_that_are_missing_are_named_once() {
        let folder = Folder::new("doctor-groups");
        let file = folder.0.join("palang.toml");
        std::fs::write(&file, "interfaces = []\n[roles]\nreport = [\"desk\"]\nadmin = [\"desk\"]")
            .unwrap();
        let config = Config::read(&file).unwrap();
        let found = |there: &'static [&'static str]| {
            groups(&config, |name| there.contains(&name))
                .into_iter()
                .map(|check| (check.state, check.mend))
                .collect::<Vec<_>>()
        };
        assert_eq!(found(&["palang", "palang-operate", "desk"]), [(State::Ok, None)]);
        let mend = |name: &str| Some(format!("groupadd --system {name}"));
        assert_eq!(
            found(&[]),
            [
                (State::Fail, mend("palang")),
                (State::Warn, mend("desk")),
                (State::Warn, mend("palang-operate")),
            ]
        );
        assert!(group_exists("root") && !group_exists("no-such-group-here"));
    }

    #[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
    #[test]
    fn real_program_loads() {
        assert_eq!(capabilities().state, State::Ok, "run tests as root");
        let (mut loaded, taken) = program(None);
        let tag = loaded.as_mut().and_then(|loaded| loaded.tag().ok());
        assert_eq!(taken, Check::ok("program", "the kernel accepts the filter"));
        assert_ne!(tag, None);
        let mut policy = Policy::default();
        policy.trunks = vec![policy.trunks[0].clone(); 65];
        let (_, too_many) = program(Some(&policy));
        assert_eq!(too_many.state, State::Fail);
        assert!(too_many.finding.contains("65 trunks"), "{}", too_many.finding);
    }

    #[test]
    fn missing_and_invalid_configuration_have_different_fixes() {
        let folder = Folder::new("doctor-config");
        let file = folder.0.join("palang.toml");
        let (none, check) = config(&file);
        assert!(none.is_none() && check.state == State::Fail);
        let mend = check.mend.unwrap();
        // The fix that the check proposes works.
        assert!(std::process::Command::new("sh").args(["-c", &mend]).status().unwrap().success());
        assert!(config(&file).0.is_some(), "{mend}");
        std::fs::write(&file, "interfaces = 1").unwrap();
        let (none, check) = config(&file);
        assert!(
            none.is_none() && check.finding.contains("palang.toml:1:14: "),
            "{}",
            check.finding
        );
    }
}
