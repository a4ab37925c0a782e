//! Commands that root can run when the daemon does not answer (docs/design.md §3.5).

use nix::unistd::geteuid;

use crate::api::client::Error;
use crate::exit::{Exit, Failure};

/// Names the party that carried out a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The daemon.
    Daemon,
    /// This command, directly on the kernel's maps.
    Offline,
}

/// Returns the daemon's answer, or the result of `direct` if the daemon does not answer.
///
/// # Errors
/// Returns an error if the daemon refuses; `NoDaemon` with both reasons if neither way works.
pub fn or_directly<T>(
    answer: Result<T, Error>,
    direct: impl FnOnce() -> Result<T, Failure>,
) -> Result<(T, By), Failure> {
    let why = match answer {
        Ok(answer) => return Ok((answer, By::Daemon)),
        Err(Error::Silent(why)) => why,
        Err(error) => return Err(error.into()),
    };
    if !geteuid().is_root() {
        return Err(neither(
            &why,
            "only root can change the kernel's maps directly: run it with sudo",
        ));
    }
    match direct() {
        Ok(answer) => {
            eprintln!(
                "palang: the daemon does not answer ({why}); used the kernel's maps directly"
            );
            Ok((answer, By::Offline))
        }
        // The maps were reached, so this is the answer.
        Err(failure) if matches!(failure.exit, Exit::Usage | Exit::NotFound | Exit::Partly) => {
            Err(Failure::new(failure.exit, format!("{}\n{why}", failure.message)))
        }
        Err(failure) => Err(neither(&why, &failure.message)),
    }
}

fn neither(why: &str, directly: &str) -> Failure {
    Failure::new(
        Exit::NoDaemon,
        format!("{why}\n{directly}\nstate of the daemon: systemctl status palang"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::wire::{Problem, ProblemKind};

    fn silent() -> Result<u8, Error> {
        Err(Error::Silent("nobody listens".into()))
    }

    #[test]
    fn daemon_answer_is_final() {
        let unasked = || -> Result<u8, Failure> { panic!("the daemon answered") };
        assert_eq!(or_directly(Ok(1), unasked), Ok((1, By::Daemon)));
        let no = Problem { kind: ProblemKind::Refused, message: "no".into() };
        let failure = or_directly(Err(Error::Problem(no)), unasked).unwrap_err();
        assert_eq!(failure, Failure::new(Exit::Refused, "no"));
    }

    #[test]
    fn silent_daemon_error_names_both_reasons() {
        let failure =
            or_directly(silent(), || Err(Failure::new(Exit::Failed, "nothing is pinned")))
                .unwrap_err();
        assert_eq!(failure.exit, Exit::NoDaemon);
        assert!(failure.message.starts_with("nobody listens\n"), "{}", failure.message);
        // Without root, the maps are not tried.
        let directly = if geteuid().is_root() { "nothing is pinned" } else { "only root" };
        assert!(failure.message.contains(directly), "{}", failure.message);
    }
}
