//! `palang` with another layout of its maps, as a later version may have: this source, compiled
//! with another `ABI_VERSION` and larger blocks.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use filter_common::abi::ABI_VERSION;

const PROGRAM: &str = "palang-other-layout";

/// Returns the program. The first build takes half a minute.
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(build)
}

fn build() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    // target/<profile>/deps/<test>-<hash>
    let test = std::env::current_exe().expect("the path of this program");
    let profile = test.ancestors().nth(2).expect("a folder of cargo's");
    let target = profile.parent().expect("the target folder");
    let copy = target.join("other-layout");

    fs::create_dir_all(&copy).expect("a folder for the copy");
    let lock = File::create(target.join("other-layout.lock")).expect("a lock file");
    lock.lock().expect("nobody else builds it");
    let files = output(Command::new("git").arg("-C").arg(root).args(["ls-files", "-z"]));
    for file in files.split_terminator('\0') {
        copy_changed(root, &copy, file);
    }

    // Into the same target folder: nothing is compiled again but our own packages.
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(&copy).args(["build", "--quiet", "--locked", "--package", "palang"]);
    cargo.arg("--target-dir").arg(target);
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    output(&mut cargo);
    profile.join(PROGRAM)
}

fn output(command: &mut Command) -> String {
    let output = command.output().expect("git and cargo");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    String::from_utf8(output.stdout).expect("names in UTF-8")
}

/// Writes a file. An unchanged file keeps its time, and cargo has nothing to do.
fn copy_changed(root: &Path, copy: &Path, file: &str) {
    // Deleted, and git does not know it yet.
    let Ok(mut bytes) = fs::read(root.join(file)) else { return };
    let version = |version: u32| format!("ABI_VERSION: u32 = {version};");
    let (ours, next) = (version(ABI_VERSION), version(ABI_VERSION + 1));
    let changes: &[(&str, &str)] = match file {
        "filter-common/src/abi.rs" => &[
            (&ours, &next),
            ("pub reserved: [u8; 9],", "pub reserved: [u8; 17],"),
            ("    Block = 48,", "    Block = 56,"),
        ],
        // Cargo distinguishes packages of one name by their version, not by their place.
        "Cargo.toml" => {
            &[("[workspace.package]\nversion = \"", "[workspace.package]\nversion = \"9")]
        }
        "Cargo.lock" => &[
            ("name = \"filter-common\"\nversion = \"", "name = \"filter-common\"\nversion = \"9"),
            ("name = \"filter-ebpf\"\nversion = \"", "name = \"filter-ebpf\"\nversion = \"9"),
            ("name = \"palang\"\nversion = \"", "name = \"palang\"\nversion = \"9"),
            ("name = \"palang-pages\"\nversion = \"", "name = \"palang-pages\"\nversion = \"9"),
            ("name = \"palang-bench\"\nversion = \"", "name = \"palang-bench\"\nversion = \"9"),
            (
                "name = \"palang-simulate\"\nversion = \"",
                "name = \"palang-simulate\"\nversion = \"9",
            ),
            ("name = \"palang-tests\"\nversion = \"", "name = \"palang-tests\"\nversion = \"9"),
            ("name = \"xtask\"\nversion = \"", "name = \"xtask\"\nversion = \"9"),
        ],
        _ => &[],
    };
    if !changes.is_empty() {
        let mut text = String::from_utf8(bytes).expect("source");
        for (this, other) in changes {
            assert_eq!(text.matches(this).count(), 1, "{file} has changed: {this:?}");
            text = text.replace(this, other);
        }
        bytes = text.into_bytes();
    }
    if file == "filter-user/Cargo.toml" {
        // Beside the program of this layout.
        bytes.extend(format!("\n[[bin]]\nname = {PROGRAM:?}\npath = \"src/main.rs\"\n").bytes());
    }
    let to = copy.join(file);
    if fs::read(&to).is_ok_and(|before| before == bytes) {
        return;
    }
    fs::create_dir_all(to.parent().expect("a folder")).expect("a folder of the copy");
    fs::write(&to, bytes).expect("a file of the copy");
}
