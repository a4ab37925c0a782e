//! A SIP stack that reads messages, and two libraries in C that are one.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A SIP stack.
pub trait Stack {
    /// Returns what the stack reads; `None` if it refuses the message.
    fn read(&mut self, message: &[u8]) -> Option<Read>;
}

/// `From` and `To` as a stack reads them.
pub struct Read {
    pub scheme: String,
    pub user: String,
    pub tag: String,
}

/// A library, in a process that reads messages and prints its findings.
pub struct Library {
    name: &'static str,
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Library {
    /// Compiles and starts the program of a library.
    pub fn start(name: &'static str, libraries: &[&str], folder: &Path) -> Library {
        let source =
            palang_tests::fixtures().parent().unwrap().join(format!("differential/{name}.c"));
        let program = folder.join(name);
        let flags = ["-O1", "-Wall", "-Wextra", "-Werror"];
        let mut compile = Command::new("gcc");
        compile.args(flags).arg("-o").arg(&program).arg(source).args(libraries);
        let compiled = compile.status().unwrap();
        assert!(compiled.success(), "{name}: cargo xtask setup installs its library");
        let mut command = Command::new(&program);
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (input, output) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        Library { name, process, input, output: BufReader::new(output) }
    }
}

impl Stack for Library {
    fn read(&mut self, message: &[u8]) -> Option<Read> {
        self.input.write_all(&u32::try_from(message.len()).unwrap().to_le_bytes()).unwrap();
        self.input.write_all(message).unwrap();
        self.input.flush().unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        let line = line.strip_suffix('\n').unwrap_or_else(|| panic!("{} has ended", self.name));
        let texts: Vec<_> = line.split(' ').collect();
        let [scheme, user, tag] = texts[..] else {
            assert_eq!(line, "-", "{}", self.name);
            return None;
        };
        Some(Read { scheme: text(scheme), user: text(user), tag: text(tag) })
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Returns the text whose bytes are written in hexadecimal digits.
pub fn text(hex: &str) -> String {
    let bytes: Vec<u8> = (0..hex.len() / 2)
        .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap())
        .collect();
    String::from_utf8_lossy(&bytes).into_owned()
}
