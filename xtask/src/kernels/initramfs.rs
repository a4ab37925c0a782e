//! The whole system that the emulated machines run: busybox, the test program, its files.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::arch::Arch;
use super::program::Programs;
use super::runs::Tests;
use crate::shell;

/// Prints `PALANG-KERNEL=` with the kernel's own version and `PALANG-EXIT=` with the exit code of
/// the tests, for `outcome.rs`. An emulated processor makes an eighth of the generated messages
/// (`tests/kernel/generated.rs`): these runs look for what differs between kernels.
const INIT: &str = "#!/bin/sh
export PATH=/bin PALANG_TESTS_DIR=/tests RUST_BACKTRACE=1 PALANG_CASES_PART=8
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t bpf bpf /sys/fs/bpf
mount -t tmpfs tmp /tmp
ip link set lo up
cd /tests
echo PALANG-KERNEL=$(uname -r)
sh /tests.sh
echo PALANG-EXIT=$?
poweroff -f
";

/// The programs that [`INIT`] calls.
const TOOLS: [&str; 6] = ["sh", "mount", "ip", "echo", "uname", "poweroff"];

/// Packs everything into one file and returns its path. The runs of both architectures can be under way
/// at the same time.
pub fn pack(folder: &Path, arch: Arch, programs: &Programs, tests: Tests) -> Result<PathBuf> {
    let tree = folder.join(format!("initramfs-{}", arch.debian()));
    let name = match tests {
        Tests::All => "all",
        Tests::Loading => "loading",
    };
    let archive = folder.join(format!("{name}-{}.cpio", arch.debian()));
    fill(&tree, programs, tests).with_context(|| format!("cannot fill {}", tree.display()))?;

    let list = tree.with_extension("list");
    let mut find = Command::new("find");
    find.current_dir(&tree).args([".", "-print0"]);
    fs::write(&list, shell::read(&mut find)?)?;
    let mut cpio = Command::new("cpio");
    cpio.current_dir(&tree)
        .args(["--create", "--null", "--format=newc", "--owner=0:0", "--quiet"])
        .stdin(File::open(&list)?)
        .stdout(File::create(&archive)?);
    let status = cpio.status().context("cannot run cpio")?;
    anyhow::ensure!(status.success(), "cpio failed ({status})");
    Ok(archive)
}

fn fill(tree: &Path, programs: &Programs, tests: Tests) -> Result<()> {
    if tree.exists() {
        fs::remove_dir_all(tree)?;
    }
    for folder in ["bin", "dev", "proc", "sys", "tmp", "tests"] {
        fs::create_dir_all(tree.join(folder))?;
    }
    fs::copy(&programs.busybox, tree.join("bin/busybox")).context("no busybox")?;
    for tool in TOOLS {
        symlink("busybox", tree.join("bin").join(tool))?;
    }
    fs::copy(&programs.tests, tree.join("bin/program"))?;
    fs::write(tree.join("tests.sh"), tests.script(Path::new("/bin/program")))?;
    fs::write(tree.join("init"), INIT)?;
    fs::set_permissions(tree.join("init"), Permissions::from_mode(0o755))?;
    let files = shell::root().join("tests/.");
    shell::run(Command::new("cp").arg("--recursive").args([&files, &tree.join("tests")]))
}
