//! Who asks, and what they may: by the user at the other end of the Unix socket.

use axum::extract::FromRequestParts;
use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::http::request::Parts;
use axum::serve::IncomingStream;
use nix::unistd::{Gid, Group, Uid, User, getgrouplist};
use tokio::net::UnixListener;

use super::api::App;
use super::control::{Role, Who};
use crate::config::Roles;
use crate::wire::{Problem, ProblemKind};

/// The process at the other end (`SO_PEERCRED`, unix(7)).
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    uid: Option<u32>,
    gid: Option<u32>,
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Peer {
        let credentials = stream.io().peer_cred().ok();
        Peer {
            uid: credentials.as_ref().map(tokio::net::unix::UCred::uid),
            gid: credentials.as_ref().map(tokio::net::unix::UCred::gid),
        }
    }
}

impl FromRequestParts<App> for Who {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Who, Problem> {
        let peer = parts.extensions.get::<ConnectInfo<Peer>>().map(|ConnectInfo(peer)| *peer);
        let (Some(uid), Some(gid)) =
            (peer.and_then(|peer| peer.uid), peer.and_then(|peer| peer.gid))
        else {
            return Err(refused("it is not known who asks"));
        };
        let roles = app.control.config().roles.clone();
        // Users and groups may come from a directory far away.
        let who = tokio::task::spawn_blocking(move || who(uid, gid, &roles)).await;
        who.map_err(|error| Problem { kind: ProblemKind::Failed, message: error.to_string() })
    }
}

fn who(uid: u32, gid: u32, roles: &Roles) -> Who {
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    let name = user.map_or_else(|| format!("uid {uid}"), |user| user.name);
    if uid == 0 {
        return Who { name, role: Role::Admin };
    }
    let gid = Gid::from_raw(gid);
    let listed = std::ffi::CString::new(name.as_bytes()).ok();
    let mut gids = listed.and_then(|name| getgrouplist(&name, gid).ok()).unwrap_or_default();
    gids.push(gid);
    let groups: Vec<String> = gids
        .into_iter()
        .filter_map(|gid| Group::from_gid(gid).ok().flatten())
        .map(|group| group.name)
        .collect();
    let is_in = |wanted: &[String]| groups.iter().any(|group| wanted.contains(group));
    let role = if is_in(&roles.admin) {
        Role::Admin
    } else if is_in(&roles.operate) {
        Role::Operate
    } else if is_in(&roles.report) {
        Role::Report
    } else if is_in(&roles.read) {
        Role::Read
    } else {
        Role::None
    };
    Who { name, role }
}

impl Who {
    /// Lets those pass who may.
    ///
    /// # Errors
    /// Which role is missing.
    pub fn may(&self, role: Role) -> Result<(), Problem> {
        if self.role >= role {
            return Ok(());
        }
        let needed = match role {
            Role::None => return Ok(()),
            Role::Read => "read",
            Role::Report => "report",
            Role::Operate => "operate",
            Role::Admin => "admin",
        };
        Err(refused(&format!(
            "{} has not the role {needed}: see [roles] in palang.toml for the groups that have it",
            self.name
        )))
    }

    /// A number as this user may see it.
    #[must_use]
    pub fn sees(&self, number: String) -> String {
        if self.role >= Role::Operate { number } else { masked(&number) }
    }
}

fn refused(message: &str) -> Problem {
    Problem { kind: ProblemKind::Refused, message: message.to_owned() }
}

/// A number with its middle hidden: `6281*******90`.
#[must_use]
pub fn masked(number: &str) -> String {
    let digits = number.chars().filter(char::is_ascii_digit).count();
    let (head, tail) = if digits > 8 { (4, 2) } else { (1, 0) };
    let mut index = 0;
    number
        .chars()
        .map(|c| {
            if !c.is_ascii_digit() {
                return c;
            }
            index += 1;
            if index > head && index <= digits - tail { '*' } else { c }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_hidden() {
        assert_eq!(masked("6281234567890"), "6281*******90");
        assert_eq!(masked("112"), "1**");
        assert_eq!(masked("62431*"), "6*****");
    }

    #[test]
    fn each_role_includes_those_before_it() {
        let who = |role| Who { name: "siti".into(), role };
        assert!(who(Role::Admin).may(Role::Read).is_ok());
        assert!(who(Role::Operate).may(Role::Operate).is_ok());
        let refused = who(Role::Read).may(Role::Operate).unwrap_err();
        assert!(refused.message.contains("siti") && refused.message.contains("operate"));
        assert!(who(Role::None).may(Role::Read).is_err());
    }

    #[test]
    fn root_is_admin_and_a_stranger_nothing() {
        let roles = Roles::default();
        assert_eq!(who(0, 0, &roles).role, Role::Admin);
        assert_eq!(who(54_321, 54_321, &roles).role, Role::None);
    }
}
