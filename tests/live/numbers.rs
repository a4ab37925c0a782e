//! Numbers as people write and paste them, and the author of a change.

use palang_tests::lab::{Lab, run};

use crate::gate::Gate;

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn author_with_sudo_is_the_user_who_called_it() {
    let lab = Lab::new("author");
    let gate = Gate::start(&lab, "");
    let add = ["block", "add", "+6281234567890", "--for", "1h", "--reason", "prank"];
    let mut command = gate.daemon.command(&add);
    let output = run::run(command.env("SUDO_USER", "siti"));
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert_eq!(gate.last("block add").unwrap()["author"], "siti");
    // A text that is no name is not believed.
    let mut command = gate.daemon.command(&["block", "remove", "+6281234567890"]);
    let output = run::run(command.env("SUDO_USER", "siti\nroot"));
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert_eq!(gate.last("block remove").unwrap()["author"], "root");
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn doubtful_number_is_refused_and_a_prefix_shows_its_callers() {
    let lab = Lab::new("doubtful");
    let gate = Gate::start(&lab, "");
    let add = |number| ["block", "add", number, "--for", "1h", "--reason", "prank"];
    for number in ["5550123", "628123456789.0", "6.28E+11"] {
        gate.fails(2, &add(number));
    }
    assert!(gate.rows(&["block", "list"]).is_empty());
    let added = gate.does(&add("<sip:0812-3456-7890@ims.example>"));
    assert_eq!(added["now"]["number"], "6281234567890");
    let added = gate.does(&add("+62812*"));
    let note = "callers of 62812* in the last 7 days: 0, and their calls: 0";
    assert!(added["notes"].as_array().unwrap().contains(&note.into()), "{added}");
}
