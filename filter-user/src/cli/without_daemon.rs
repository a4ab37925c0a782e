//! What root can do when the daemon does not answer (docs/design.md §3.5).

use nix::unistd::geteuid;

use crate::client::Error;
use crate::exit::{Exit, Failure};

/// Who did what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The daemon.
    Daemon,
    /// This command, on the kernel's maps.
    Hand,
}

/// The daemon's answer, or where it gives none, what working on the kernel's maps gave.
///
/// # Errors
/// The daemon's no; or why neither way works.
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
            "only root can work directly on the kernel's maps: sudo palang …",
        ));
    }
    match direct() {
        Ok(answer) => {
            eprintln!(
                "palang: the daemon does not answer ({why}); worked directly on the kernel's maps"
            );
            Ok((answer, By::Hand))
        }
        // The maps were reached: what they say is the answer.
        Err(failure) if matches!(failure.exit, Exit::Usage | Exit::NotFound | Exit::Partly) => {
            Err(Failure::new(failure.exit, format!("{}\n{why}", failure.message)))
        }
        Err(failure) => Err(neither(&why, &failure.message)),
    }
}

fn neither(why: &str, directly: &str) -> Failure {
    Failure::new(
        Exit::NoDaemon,
        format!("{why}\n{directly}\nwhat the daemon does: systemctl status palang"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Problem, ProblemKind};

    fn silent() -> Result<u8, Error> {
        Err(Error::Silent("nobody listens".into()))
    }

    #[test]
    fn the_daemon_has_the_say() {
        let unasked = || -> Result<u8, Failure> { panic!("the daemon answered") };
        assert_eq!(or_directly(Ok(1), unasked), Ok((1, By::Daemon)));
        let no = Problem { kind: ProblemKind::Refused, message: "no".into() };
        let failure = or_directly(Err(Error::Problem(no)), unasked).unwrap_err();
        assert_eq!(failure, Failure::new(Exit::Refused, "no"));
    }

    #[test]
    fn both_reasons_are_told() {
        let failure =
            or_directly(silent(), || Err(Failure::new(Exit::Failed, "nothing is pinned")))
                .unwrap_err();
        assert_eq!(failure.exit, Exit::NoDaemon);
        assert!(failure.message.starts_with("nobody listens\n"), "{}", failure.message);
        // Without root the maps are not even tried.
        let directly = if geteuid().is_root() { "nothing is pinned" } else { "only root" };
        assert!(failure.message.contains(directly), "{}", failure.message);
    }
}
