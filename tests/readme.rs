//! The commands of the README work as they are printed, typed into bash and into zsh.
//!
//! Each shell is interactive and reads the command from its input, as a person types it. An interactive
//! zsh takes `#` for a word, and refuses a `*` that matches no file.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use filter_common::reason::Reason;
use palang_tests::lab::{Daemon, Lab, daemon};

/// Commands that are not run here, by their beginning, each with the reason.
const ELSEWHERE: [(&str, &str); 9] = [
    ("cargo xtask demo", "builds; makes namespaces of its own"),
    ("cargo xtask package", "builds for release; `cargo xtask lifecycle` runs it"),
    ("cargo xtask simulate", "takes minutes; `simulate` has tests of its own"),
    ("apt install", "`cargo xtask lifecycle` installs the packages"),
    ("palang setup eth0", "asks a person; tests/live/setup.rs"),
    ("tcpdump", "waits for 1000 packets on eth0; palang replay - is in filter-user/tests"),
    ("palang selftest redirect", "waits for a call; tests/live/redirect.rs"),
    ("palang top", "draws a screen; tests/live/top.rs"),
    ("palang store restore", "needs a machine without a daemon; tests/live/backup.rs"),
];

#[test]
fn every_reason_has_a_line_on_its_page() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reasons.md");
    let page = fs::read_to_string(page).unwrap();
    let missing =
        Reason::ALL.iter().filter(|reason| !page.contains(&format!("`{}`", reason.name())));
    assert_eq!(missing.map(|reason| reason.name()).collect::<Vec<_>>(), [""; 0]);
}

/// Commands that run until they are stopped.
const ENDLESS: &str = "palang monitor";

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn commands_typed_into_bash_work() {
    run_all(&["bash", "--norc", "--noprofile", "-i"]);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn commands_typed_into_zsh_work() {
    run_all(&["zsh", "-f", "-i"]);
}

#[test]
fn figure_of_lost_emergencies_is_that_of_the_simulated_year() {
    let policy = fs::read_to_string(repository().join("docs/policy.md")).unwrap();
    let row = policy.lines().find(|line| line.starts_with("| **as delivered")).unwrap();
    let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
    let [_, _, pranks, emergencies, .., lost] = cells[..] else { panic!("{row}") };
    let lost = lost.trim_matches('*').split(' ').next().unwrap();
    let nobody = policy.lines().find(|line| line.starts_with("| nobody is blocked")).unwrap();
    let without = nobody.split('|').nth(3).unwrap().trim();
    let readme = readme();
    for said in [
        format!("answer {pranks} pranks a day instead of {without}"),
        format!("{emergencies} real emergencies are called in"),
        format!("**About {lost} of them are lost**"),
    ] {
        assert!(readme.contains(&said), "README.md does not say \"{said}\", docs/policy.md does");
    }
}

#[test]
fn commands_of_the_readme_are_found() {
    let commands = commands();
    assert!(commands.len() > 50, "{commands:?}");
    for (start, _) in ELSEWHERE {
        assert!(commands.iter().any(|command| command.starts_with(start)), "no {start} any more");
    }
    // A person pastes a line as a whole.
    assert!(commands.iter().all(|command| !command.contains(" #")), "{commands:?}");
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn readme() -> String {
    fs::read_to_string(repository().join("README.md")).unwrap().replace('\n', " \n")
}

/// Returns the commands of the page: lines of `sh` blocks, and code that begins with `palang `.
fn commands() -> Vec<String> {
    let text = fs::read_to_string(repository().join("README.md")).unwrap();
    let mut commands = Vec::new();
    let mut block = None;
    for line in text.lines() {
        match (line.strip_prefix("```"), block) {
            (Some(_), Some(_)) => block = None,
            (Some(kind), None) => block = Some(kind),
            (None, Some("sh")) => commands.push(line.to_owned()),
            (None, Some(_)) => {}
            (None, None) => {
                let spans = line.split('`').skip(1).step_by(2);
                let spans = spans.filter(|span| span.starts_with("palang ") && !span.contains('…'));
                commands.extend(spans.map(str::to_owned));
            }
        }
    }
    commands
}

/// Runs all commands in one shell after the other, on one daemon.
fn run_all(shell: &[&str]) {
    let lab = Lab::new("readme");
    let mut daemon = Daemon::prepare(
        &lab,
        "[paths]\nstate = \"/var/lib/palang\"\nruntime = \"/run/palang\"\n\
         [redial]\nattempts = 2\n[callback]\ngrace = \"60m\"\n",
    );
    for folder in [daemon.state(), daemon.runtime()] {
        fs::create_dir_all(folder).unwrap();
    }
    let world = World::new(&daemon);
    let start = |daemon: &mut Daemon<'_>| {
        daemon.spawn_by(&["unshare", "--mount", "sh", "-c", &world.mounts, "sh"], &[]);
        daemon.wait_for_answer();
    };
    start(&mut daemon);
    world.prepare(&lab);

    for command in commands() {
        if ELSEWHERE.iter().any(|(start, _)| command.starts_with(start)) {
            continue;
        }
        // The README says to stop the daemon before.
        let is_removal = command == "palang detach --unpin";
        if is_removal {
            assert_eq!(daemon.stop(), 0);
        }
        let (code, said) = world.type_into(&lab, shell, &command);
        let may_end_with: &[i32] = match command.split(' ').nth(1) {
            // The verdict.
            Some("check") => &[0, 10],
            Some("selftest") => &[0, 11],
            // A fault of this machine is a finding, and no error of the command.
            Some("doctor") => &[0, 1],
            _ if command.starts_with(ENDLESS) => &[124],
            _ => &[0],
        };
        assert!(may_end_with.contains(&code), "$ {command}\nexit {code} in {shell:?}: {said}");
        if is_removal {
            start(&mut daemon);
        }
        // The next commands are those of a day on which the gate is in force.
        if command == "palang detach" {
            world.does(&lab, "palang attach gate0");
            world.does(&lab, "palang override off");
        }
    }
}

/// Folders as an installed Palang has them.
struct World {
    /// A script that makes them in a mount namespace, and runs its arguments.
    mounts: String,
    /// The working folder, with the files that the README names.
    folder: PathBuf,
    programs: PathBuf,
    configuration: PathBuf,
}

impl World {
    fn new(daemon: &Daemon<'_>) -> World {
        let folder = daemon.folder().join("work");
        let programs = daemon.folder().join("bin");
        fs::create_dir(&folder).unwrap();
        fs::create_dir(&programs).unwrap();
        symlink(daemon::program(), programs.join("palang")).unwrap();
        for name in ["docs", "tests"] {
            symlink(repository().join(name), folder.join(name)).unwrap();
        }
        let capture = repository().join("tests/fixtures/pcaps/ipfixprobe__sip.pcap");
        fs::copy(capture, folder.join("trunk.pcap")).unwrap();
        let rows = "number,expires,reason,author,origin\n\
            +6281234567880,2099-01-01T00:00:00Z,prank,budi,import\n\
            +6281234567881,2099-01-01T00:00:00Z,prank,budi,import\n";
        fs::write(folder.join("list.csv"), rows).unwrap();
        let mounts = format!(
            "set -e\nmount --make-rprivate /\nmount -t tmpfs none /run\nmount -t tmpfs none /var/lib\n\
             mkdir /run/palang /var/lib/palang\nmount --bind {} /run/palang\n\
             mount --bind {} /var/lib/palang\nexec \"$@\"",
            daemon.runtime().display(),
            daemon.state().display(),
        );
        World { mounts, folder, programs, configuration: daemon.config_file() }
    }

    /// Makes what the commands are about: blocks, reports that wait for a review, a call.
    fn prepare(&self, lab: &Lab) {
        for last in [2, 4, 5, 6] {
            let number = format!("0812-3456-789{last}");
            self.does(lab, &format!("palang block add {number} --for 1h --reason prank"));
        }
        // A report without a call is no strike: it waits for a review.
        for last in [4, 5, 6] {
            self.does(lab, &format!("palang report add 0812-3456-789{last} --kind prank"));
        }
        let receiver = lab.receiver(5060);
        let record = lab.traffic(&receiver, &["+6281234567893"], 1000, 1).finish();
        assert_eq!((record.lost_by_lab, record.unsendable), (0, 0));
    }

    fn does(&self, lab: &Lab, command: &str) {
        let (code, said) = self.type_into(lab, &["sh"], command);
        assert!(matches!(code, 0 | 6), "$ {command}\nexit {code}: {said}");
    }

    /// Types a command into a shell; its exit code, and all that it printed.
    fn type_into(&self, lab: &Lab, shell: &[&str], command: &str) -> (i32, String) {
        let limit = if command.starts_with(ENDLESS) { "timeout 3 " } else { "" };
        let path = std::env::var("PATH").unwrap_or_default();
        let mut child = lab.command_in_gate("unshare");
        child
            .args(["--mount", "sh", "-c", &self.mounts, "sh", "timeout", "--kill-after=1", "120"])
            .args(shell)
            .current_dir(&self.folder)
            .env("PATH", format!("{}:{path}", self.programs.display()))
            .env("PALANG_CONFIG", &self.configuration)
            .env("HOME", &self.folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = child.spawn().unwrap();
        let typed = format!("PS1= PS2= RPS1=\n{limit}{command}\nexit $?\n");
        child.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&said).into_owned())
    }
}
