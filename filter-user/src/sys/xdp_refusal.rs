//! Reads the kernel's text about why it does not attach an XDP program to an interface. The error of a
//! BPF link is only a number. rtnetlink also returns a text (extended acknowledgement, Linux 4.12,
//! `NLMSGERR_ATTR_MSG`), so this repeats the request there.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload, NlasIterator,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage, LinkXdp};
use rtnetlink::sys::Socket;
use rtnetlink::sys::protocols::NETLINK_ROUTE;

/// linux/if_link.h: keep an older program; the place where the program runs.
const XDP_FLAGS_UPDATE_IF_NOEXIST: u32 = 1;
const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// linux/netlink.h
const NLMSG_ERROR: u16 = 2;
const NLMSGERR_ATTR_MSG: u16 = 1;
/// Lengths in bytes of the header of a message, and of an acknowledgement after it. An acknowledgement is
/// the number of the error and the header of the request.
const HEADER: usize = 16;
const ACKNOWLEDGEMENT: usize = 4 + HEADER;

/// Returns the kernel's text about why it refuses to attach this program to an interface; `None` if it
/// has no text. The program is to run in the driver or in the kernel's core. If it can be attached now,
/// it is detached again.
///
/// # Errors
/// Returns the error of the netlink socket.
pub fn why(index: u32, program: BorrowedFd<'_>, in_driver: bool) -> io::Result<Option<String>> {
    let mode = if in_driver { XDP_FLAGS_DRV_MODE } else { XDP_FLAGS_SKB_MODE };
    let socket = Socket::new(NETLINK_ROUTE)?;
    socket.set_ext_ack(true)?;
    // The kernel then returns only the header of the request.
    socket.set_cap_ack(true)?;
    let answer = ask(&socket, index, program.as_raw_fd(), mode | XDP_FLAGS_UPDATE_IF_NOEXIST)?;
    if answer.error == 0 {
        ask(&socket, index, -1, mode)?;
    }
    Ok(answer.message)
}

/// An acknowledgement.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    /// Number of the error; 0 for success.
    error: i32,
    message: Option<String>,
}

fn ask(socket: &Socket, index: u32, program: i32, flags: u32) -> io::Result<Answer> {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.attributes = vec![LinkAttribute::Xdp(vec![LinkXdp::Fd(program), LinkXdp::Flags(flags)])];
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_ACK;
    let payload = NetlinkPayload::InnerMessage(RouteNetlinkMessage::SetLink(link));
    let mut message = NetlinkMessage::new(header, payload);
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let (bytes, _) = socket.recv_from_full()?;
    answer(&bytes).ok_or_else(|| io::Error::other("not an acknowledgement"))
}

fn answer(bytes: &[u8]) -> Option<Answer> {
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    if kind != NLMSG_ERROR {
        return None;
    }
    let error = i32::from_ne_bytes(bytes.get(HEADER..HEADER + 4)?.try_into().ok()?);
    let attributes = bytes.get(HEADER + ACKNOWLEDGEMENT..)?;
    let message = NlasIterator::new(attributes)
        .map_while(Result::ok)
        .find(|attribute| attribute.kind() == NLMSGERR_ATTR_MSG)
        .map(|attribute| {
            let text = String::from_utf8_lossy(attribute.value());
            text.trim_end_matches('\0').trim().to_owned()
        });
    Some(Answer { error, message: message.filter(|message| !message.is_empty()) })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;
    use crate::sys::netlink::{Attached, by_name};
    use crate::sys::test_netns::{in_new_namespace, ip, load_pass, put_foreign_xdp};

    #[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
    #[test]
    fn refusal_has_the_text_of_the_kernel() {
        in_new_namespace(async {
            ip("link add left type veth peer name right");
            let program = load_pass().unwrap();
            let index = async |name| by_name(name).await.unwrap().unwrap().index;
            let of = |index, in_driver| why(index, program.as_fd(), in_driver).unwrap();
            let lo = of(index("lo").await, true).expect("a reason");
            assert!(lo.contains("native"), "{lo}");
            put_foreign_xdp("left", Attached::Generic).await;
            let busy = of(index("left").await, true).expect("a reason");
            assert!(busy.contains("same time") || busy.contains("exist"), "{busy}");
            // An attempt that succeeds leaves no program.
            let right = index("right").await;
            assert_eq!((of(right, true), of(right, false)), (None, None));
            assert_eq!(by_name("right").await.unwrap().unwrap().xdp, None);
            assert!(by_name("left").await.unwrap().unwrap().xdp.is_some(), "it is another's");
        });
    }

    #[test]
    fn broken_answer_is_refused_and_a_complete_one_is_read() {
        let mut bytes = vec![0; HEADER + ACKNOWLEDGEMENT];
        bytes[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
        bytes[HEADER..HEADER + 4].copy_from_slice(&(-95_i32).to_ne_bytes());
        assert_eq!(answer(&bytes), Some(Answer { error: -95, message: None }));
        bytes.extend([8, 0, 1, 0, b'n', b'o', 0, 0]);
        let message = Some("no".to_owned());
        assert_eq!(answer(&bytes), Some(Answer { error: -95, message }));
        bytes[4] = 9;
        assert_eq!(answer(&bytes), None);
        for len in 0..HEADER + ACKNOWLEDGEMENT {
            assert_eq!(answer(&bytes[..len]), None);
        }
    }
}
