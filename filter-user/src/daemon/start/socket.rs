//! Binds the socket of the control API.
//!
//! It gets its group while the daemon still has CAP_CHOWN, under a temporary name. It gets its own
//! name when everything is ready.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::net;
use std::path::{Path, PathBuf};

use nix::unistd::Group;
use tokio::net::UnixListener;

use crate::exit::Failure;
use crate::sys::lock::failed;

/// A socket that nobody can reach yet.
pub struct Bound {
    listener: net::UnixListener,
    path: PathBuf,
    /// Why the socket does not have its group.
    problem: Option<String>,
}

impl Bound {
    /// Binds the socket and gives it its group. The caller holds the lock of its folder.
    ///
    /// # Errors
    /// Returns an error if the folder cannot be written.
    pub fn new(path: &Path, group: &str) -> Result<Bound, Failure> {
        let new = &not_yet(path);
        // We hold the lock: the process that created it is gone.
        match fs::remove_file(new) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(new, &error)),
        }
        let listener = net::UnixListener::bind(new).map_err(|error| failed(new, &error))?;
        let mode = |mode| fs::set_permissions(new, Permissions::from_mode(mode));
        mode(0o600).map_err(|error| failed(new, &error))?;
        let shown = path.display();
        let problem = match Group::from_name(group) {
            Ok(Some(found)) => {
                let given = chown(new, None, Some(found.gid.as_raw())).and_then(|()| mode(0o660));
                given.err().map(|error| {
                    format!(
                        "only root can use {shown}: the group {group} does not get it (CAP_CHOWN): \
                         {error}"
                    )
                })
            }
            Ok(None) | Err(_) => {
                Some(format!("there is no group {group}: only root can use {shown}"))
            }
        };
        Ok(Bound { listener, path: path.to_owned(), problem })
    }

    /// Gives the socket its name: clients can connect from here on.
    ///
    /// # Errors
    /// Returns an error if the folder cannot be written.
    pub fn listen(self) -> Result<UnixListener, Failure> {
        if let Some(problem) = &self.problem {
            tracing::warn!("{problem}");
        }
        let Bound { listener, path, .. } = self;
        fs::rename(not_yet(&path), &path).map_err(|error| failed(&path, &error))?;
        listener
            .set_nonblocking(true)
            .and_then(|()| UnixListener::from_std(listener))
            .map_err(|error| failed(&path, &error))
    }
}

/// Returns the temporary name. It is not longer than the socket's name, which may have the maximum
/// length.
fn not_yet(path: &Path) -> PathBuf {
    path.with_extension("new")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
    #[test]
    fn socket_before_it_listens_refuses_clients() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("palang.sock");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _guard = runtime.enter();
        for group in ["root", "palang-nobody-has-it", "root"] {
            let bound = Bound::new(&path, group).unwrap();
            assert_eq!(bound.problem.is_some(), group != "root");
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            let wanted = if group == "root" { 0o660 } else { 0o600 };
            assert_eq!(mode(&not_yet(&path)), wanted);
            let _listener = bound.listen().unwrap();
            assert_eq!(mode(&path), wanted);
            assert!(!not_yet(&path).exists());
            net::UnixStream::connect(&path).unwrap();
        }
    }
}
