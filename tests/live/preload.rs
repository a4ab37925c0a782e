//! A daemon whose disk hangs, or whose clock somebody sets: small libraries that are loaded before
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

/// The time of day is off by the seconds that a file has. So is the clock by which the daemon measures
/// how long something takes (`CLOCK_MONOTONIC`), by those of another file. Boot time is as it is.
const CLOCK: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long offset(const char *variable) {
    char text[32] = {0};
    const char *path = getenv(variable);
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return 0;
    ssize_t length = read(file, text, sizeof text - 1);
    close(file);
    return length > 0 ? atol(text) : 0;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    int failed = syscall(SYS_clock_gettime, clock, time);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        time->tv_sec += offset("PALANG_TEST_CLOCK");
    if (!failed && clock == CLOCK_MONOTONIC)
        time->tv_sec += offset("PALANG_TEST_ELAPSED");
    return failed;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
    struct timespec now;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &now))
        return -1;
    time->tv_sec = now.tv_sec;
    time->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *where) {
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME, &now))
        return -1;
    if (where)
        *where = now.tv_sec;
    return now.tv_sec;
}
"#;

/// A clock that a test sets.
pub struct Clock {
    off_by: PathBuf,
    elapsed: PathBuf,
}

impl Clock {
    /// Gives a daemon a clock, from its next start on.
    pub fn of(daemon: &mut Daemon) -> Clock {
        let off_by = daemon.folder().join("the-clock-is-off-by");
        let elapsed = daemon.folder().join("further-seconds-have-elapsed");
        let library = library(daemon.folder(), CLOCK);
        daemon.env("LD_PRELOAD", library);
        daemon.env("PALANG_TEST_CLOCK", off_by.clone());
        daemon.env("PALANG_TEST_ELAPSED", elapsed.clone());
        Clock { off_by, elapsed }
    }

    /// Sets it to this number of seconds after the right time.
    pub fn set(&self, seconds: i64) {
        write(&self.off_by, seconds);
    }

    /// Lets this number of further seconds elapse since the start, for all that the daemon measures.
    /// The number never falls.
    pub fn set_elapsed(&self, seconds: i64) {
        write(&self.elapsed, seconds);
    }
}

/// Writes a number of seconds, at once for those who read it.
fn write(file: &Path, seconds: i64) {
    let new = file.with_extension("new");
    fs::write(&new, seconds.to_string()).unwrap();
    fs::rename(new, file).unwrap();
}

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
