//! The output of a command, for the tests of the command line.

use std::process::Output;

/// Returns a stream of the command as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Checks the exit code, and returns standard output and standard error.
#[track_caller]
pub fn assert_exit(output: &Output, exit: i32) -> (String, String) {
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(exit), "{out}{err}");
    (out, err)
}
