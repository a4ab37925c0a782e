//! A daemon with calls one by one, and what it, the CLI and the kernel's maps say.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use filter_common::abi::{Allow, Block};
use palang::datapath::{Maps, Pins};
use palang::model::number_text;
use palang::model::policy::{Policy, Subject};
use palang_tests::lab::{Daemon, Invite, Lab, Receiver, bpf::set_element, run};
pub use palang_tests::lab::{eventually, eventually_within};
use serde_json::Value;

/// Attempts of one number that are this far apart are separate.
pub const SEPARATE: Duration = Duration::from_millis(5100);

/// A gate, its daemon, and a telephone at each end.
pub struct Gate<'a> {
    pub lab: &'a Lab,
    pub daemon: Daemon<'a>,
    receiver: Receiver,
}

impl<'a> Gate<'a> {
    /// Starts a gate that refuses blocked callers.
    pub fn start(lab: &'a Lab, config: &str) -> Gate<'a> {
        let gate = Gate::of(lab, Daemon::start(lab, config));
        gate.does(&["mode", "enforce"]);
        gate
    }

    /// Returns the gate of a daemon.
    pub fn of(lab: &'a Lab, daemon: Daemon<'a>) -> Gate<'a> {
        Gate { lab, daemon, receiver: lab.receiver(5060) }
    }

    /// Sends one call, and returns whether it arrived.
    pub fn call(&self, caller: &str) -> Invite {
        let record = self.lab.traffic(&self.receiver, &[caller], 1000, 1).finish();
        assert_eq!((record.lost_by_lab, record.unsendable), (0, 0));
        record.invites.into_iter().next().unwrap()
    }

    /// Returns whether a call passes.
    pub fn passes(&self, caller: &str) -> bool {
        self.call(caller).arrived_at.is_some()
    }

    /// Returns the callers whose calls pass.
    pub fn passing<'c>(&self, callers: &[&'c str]) -> Vec<&'c str> {
        callers.iter().copied().filter(|caller| self.passes(caller)).collect()
    }

    /// Runs a command that has to succeed, and returns its answer.
    pub fn does(&self, arguments: &[&str]) -> Value {
        let output = self.daemon.cli(&[arguments, &["-o", "json"]].concat());
        assert_eq!(output.code, 0, "palang {arguments:?}: {output:?}");
        serde_json::from_str(&output.stdout)
            .unwrap_or_else(|error| panic!("palang {arguments:?}: {error}: {output:?}"))
    }

    /// Runs a command as Siti with sudo that has to work without the daemon, and within a few
    /// seconds; its answer.
    pub fn does_by_hand(&self, arguments: &[&str]) -> Value {
        let mut command = self.daemon.command(&[arguments, &["-o", "json"]].concat());
        command.env("PALANG_CONFIG", self.daemon.config_file()).env("SUDO_USER", "siti");
        let begun = Instant::now();
        let output = run::run(&mut command);
        assert_eq!(output.code, 0, "palang {arguments:?}: {output:?}");
        let said = "used the kernel's maps directly";
        assert!(output.stderr.contains(said), "palang {arguments:?}: {output:?}");
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        serde_json::from_str(&output.stdout)
            .unwrap_or_else(|error| panic!("palang {arguments:?}: {error}: {output:?}"))
    }

    /// Returns the rows of a list.
    pub fn rows(&self, arguments: &[&str]) -> Vec<Value> {
        let output = self.daemon.cli(&[arguments, &["-o", "json"]].concat());
        assert_eq!(output.code, 0, "palang {arguments:?}: {output:?}");
        output.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Tries something that has to end with this exit code; what it said.
    pub fn fails(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.daemon.cli(arguments);
        assert_eq!(output.code, code, "palang {arguments:?}: {output:?}");
        assert_eq!(output.stdout, "", "palang {arguments:?}: {output:?}");
        output.stderr
    }

    /// Returns all records of the audit, oldest first, with their numbers.
    pub fn audit(&self) -> Vec<Value> {
        let record = |row: &Value| {
            let record: Value = serde_json::from_str(row["record"].as_str().unwrap()).unwrap();
            with_number(record, row["number"].as_str())
        };
        self.rows(&["audit", "list"]).iter().map(record).collect()
    }

    /// Returns the last record of the audit with this action.
    pub fn last(&self, action: &str) -> Option<Value> {
        self.audit().into_iter().rfind(|record| record["action"] == action)
    }

    /// Returns number and hash of the last record, after the chain was computed again.
    pub fn head(&self) -> String {
        self.does(&["audit", "verify"])["head"].as_str().unwrap().to_owned()
    }

    /// Returns the telephone of the centre.
    pub fn receiver(&self) -> &Receiver {
        &self.receiver
    }

    /// Returns the pins of the daemon.
    pub fn pins(&self) -> Pins {
        Pins::new(self.daemon.pins())
    }

    /// Returns the folder of the pinned maps.
    pub fn map_folder(&self) -> PathBuf {
        let folders = self.pins().map_folders();
        let [folder] = &folders[..] else { panic!("maps in {folders:?}") };
        folder.clone()
    }

    /// Opens the pinned maps.
    pub fn maps(&self) -> Maps {
        Maps::open(&self.map_folder()).unwrap()
    }

    /// Returns the block in the kernel's map.
    pub fn kernel_block(&self, number: &str) -> Option<Block> {
        self.maps().block(subject(number)).unwrap()
    }

    /// Returns the allow in the kernel's map.
    pub fn kernel_allow(&self, number: &str) -> Option<Allow> {
        self.maps().pass_maps().allow(subject(number)).unwrap()
    }

    /// Moves the counted attempts of a blocked number into the past, as if this time had passed.
    pub fn age(&self, number: &str, by: Duration) {
        let maps = self.maps();
        let redial = maps.redial(subject(number).raw()).unwrap();
        let redial = redial.unwrap_or_else(|| panic!("no attempt of {number} was counted"));
        let by = u64::try_from(by.as_nanos()).unwrap();
        let times = [redial.number.0, redial.start - by, redial.last - by];
        let mut value = times.map(u64::to_ne_bytes).concat();
        value.extend(
            [redial.epoch, redial.count, redial.identity, redial.reserved]
                .map(u32::to_ne_bytes)
                .concat(),
        );
        set_element(
            &self.map_folder().join("REDIALS"),
            &redial.number.0.to_ne_bytes(),
            Some(&value),
        );
        let aged = maps.redial(redial.number).unwrap().unwrap();
        assert_eq!((aged.start, aged.last), (times[1], times[2]), "REDIALS has another layout");
    }

    /// Ends the daemon with SIGKILL, and starts it again.
    pub fn kill_and_start(&mut self) {
        self.daemon.kill();
        self.daemon.start_again();
    }

    /// Returns the findings of `palang status`, as `colour: message`.
    pub fn findings(&self) -> Vec<String> {
        let status = self.does(&["status"]);
        let findings = status["findings"].as_array().unwrap().iter();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        findings.map(|found| text(&found["colour"]) + ": " + &text(&found["message"])).collect()
    }
}

/// Returns a record of the audit, with the number of its pseudonym.
pub fn with_number(mut record: Value, number: Option<&str>) -> Value {
    if let Some(number) = number {
        assert!(record["number"].as_str().unwrap().starts_with('#'), "{record}");
        record["number"] = number.into();
    }
    record
}

/// Returns the subject that a text names under the plan of every test here.
pub fn subject(text: &str) -> Subject {
    number_text::typed(text, &Policy::default().trunks[0].profile.plan).unwrap()
}
