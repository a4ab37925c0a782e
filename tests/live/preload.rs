//! A daemon whose disk hangs, or whose clock somebody sets: small libraries that stand before
//! the C library.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use palang_tests::lab::{Daemon, run};

/// `fsync` and `fdatasync` do not come back while a file exists.
const HANGING_DISK: &str = r#"
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static void wait_for_the_disk(void) {
    const char *hangs = getenv("PALANG_TEST_HANGS");
    while (hangs && access(hangs, F_OK) == 0)
        usleep(10000);
}

int fsync(int fd) {
    wait_for_the_disk();
    return syscall(SYS_fsync, fd);
}

int fdatasync(int fd) {
    wait_for_the_disk();
    return syscall(SYS_fdatasync, fd);
}
"#;

/// Lets the daemon's disk hang, from its next start on, while the file exists that is returned.
pub fn hanging_disk(daemon: &mut Daemon) -> PathBuf {
    let (hangs, library) = (hangs(daemon), library(daemon.folder(), HANGING_DISK));
    daemon.env("LD_PRELOAD", library);
    daemon.env("PALANG_TEST_HANGS", hangs.clone());
    hangs
}

/// Lets the disk hang for a command as well.
pub fn hang(command: &mut Command, daemon: &Daemon) {
    command.env("LD_PRELOAD", daemon.folder().join("preload.so"));
    command.env("PALANG_TEST_HANGS", hangs(daemon));
}

fn hangs(daemon: &Daemon) -> PathBuf {
    daemon.folder().join("the-disk-hangs")
}

fn library(folder: &Path, source: &str) -> OsString {
    let (code, library) = (folder.join("preload.c"), folder.join("preload.so"));
    fs::write(&code, source).unwrap();
    let mut cc = Command::new("cc");
    cc.args(["-Wall", "-Werror", "-shared", "-fPIC", "-o"]).arg(&library).arg(&code);
    run::must(&mut cc);
    library.into()
}
