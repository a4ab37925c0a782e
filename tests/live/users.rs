//! Users that every Linux has, and calls as one of them.

use std::thread;

use nix::libc;
use nix::unistd::{Group, User};

/// The user with the role `read`.
pub const READER: &str = "daemon";
/// The user with the role `operate`.
pub const OPERATOR: &str = "bin";
/// The group of the socket.
pub const GROUP: &str = "sys";

/// Runs something on a thread of its own that is another user's, in the group of the socket.
pub fn as_user<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> T {
    if name == "root" {
        return work();
    }
    let user = User::from_name(name).expect("the users").expect(name);
    let group = Group::from_name(GROUP).expect("the groups").expect(GROUP);
    let become_user = move || {
        // Not those of libc, which change all threads.
        let groups = [group.gid.as_raw()];
        // SAFETY: the kernel reads one group from the array, which outlives the call, and changes
        // nothing but this thread.
        let done = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
        for (call, id) in
            [(libc::SYS_setresgid, user.gid.as_raw()), (libc::SYS_setresuid, user.uid.as_raw())]
        {
            // SAFETY: it has no pointers, and changes nothing but this thread.
            let done = unsafe { libc::syscall(call, -1, id, -1) };
            assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
        }
        work()
    };
    thread::scope(|scope| scope.spawn(become_user).join().expect("the user's thread"))
}
