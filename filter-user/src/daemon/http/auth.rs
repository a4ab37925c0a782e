//! Finds the user at the other end of the Unix socket, and the user's role.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::extract::connect_info::ConnectInfo;
use axum::http::request::Parts;
use nix::unistd::{self, Gid, Group, Uid, getgrouplist};
use tokio::net::unix::UCred;

use crate::api::wire::{self, Problem};
use crate::config::Roles;
use crate::daemon::app::App;
use crate::daemon::connections::Handle;
use crate::daemon::limits::{self, User, Users};
use crate::daemon::role::{Principal, Role, refused};
use crate::sys::user;

/// The process at the other end (`SO_PEERCRED`, unix(7)), with its slots and its connection.
#[derive(Clone, Debug)]
pub struct Peer {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// The slots of its user.
    pub user: Arc<User>,
    /// Its connection.
    pub connection: Handle,
}

impl Peer {
    /// Creates the peer of a connection; `None`: the kernel did not name its user.
    #[must_use]
    pub fn new(credentials: Option<UCred>, users: &Users, connection: Handle) -> Option<Peer> {
        let credentials = credentials?;
        let (uid, gid) = (credentials.uid(), credentials.gid());
        Some(Peer { uid, gid, user: users.user(uid), connection })
    }
}

impl FromRequestParts<App> for Principal {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Principal, Problem> {
        let peer = parts.extensions.get::<ConnectInfo<Option<Peer>>>();
        let Some(Peer { uid, gid, .. }) = peer.and_then(|ConnectInfo(peer)| peer.clone()) else {
            return Err(refused("the kernel did not name the user of this connection"));
        };
        if uid == 0 {
            // An error in the user database does not keep root out.
            let author = parts.headers.get(wire::AUTHOR).and_then(|name| name.to_str().ok());
            let name = author.filter(|name| user::is_name(name)).unwrap_or("root").to_owned();
            return Ok(Principal { name, role: Role::Admin });
        }
        let roles = app.control.config().roles.clone();
        let slot = limits::slot();
        // Users and groups may come from a remote directory.
        let who = tokio::task::spawn_blocking(move || {
            let _slot = slot;
            who(uid, gid, &roles)
        });
        Ok(who.await?)
    }
}

fn who(uid: u32, gid: u32, roles: &Roles) -> Principal {
    let user = unistd::User::from_uid(Uid::from_raw(uid)).ok().flatten();
    let name = user.map_or_else(|| format!("uid {uid}"), |user| user.name);
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
    Principal { name, role }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_without_a_group_has_no_role() {
        let roles = Roles::default();
        assert_eq!(who(54_321, 54_321, &roles).role, Role::None);
    }
}
