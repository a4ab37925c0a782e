//! Network interfaces, as the kernel tells of them over rtnetlink: what is there now, and
//! what changes. Both speak of the network namespace of the calling thread.

use std::io;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::future::{Either, FutureExt as _, select};
use futures_util::stream::{self, Stream, StreamExt as _, TryStreamExt as _};
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::packet_route::link::{
    InfoKind, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkMessage, LinkXdp,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{Handle, MulticastGroup};

/// "No such device".
const ENODEV: i32 = 19;

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Its index; a device that is deleted and made again gets another one.
    pub index: u32,
    /// It was set up (`ip link set … up`).
    pub up: bool,
    /// It has a carrier: its own cable or what it stands on is there.
    pub carrier: bool,
    /// Its MTU in bytes; 0: the kernel told none.
    pub mtu: u32,
    /// Index of the interface that it is a VLAN of.
    pub vlan_of: Option<u32>,
    /// The XDP program on it, ours or another's.
    pub xdp: Option<Xdp>,
}

/// An XDP program on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Xdp {
    /// Where it runs.
    pub mode: Attached,
    /// Its id.
    pub program: u32,
}

/// Where an XDP program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    /// In the driver, before a socket buffer is made.
    Native,
    /// In the kernel's core, on a socket buffer.
    Generic,
    /// On the network card.
    Offloaded,
}

impl Attached {
    /// As the API and the CLI name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Attached::Native => "native",
            Attached::Generic => "generic",
            Attached::Offloaded => "offloaded",
        }
    }
}

/// What [`watch`] tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The interface is new, or something about it is. An XDP program that comes or goes
    /// with a BPF link is no change of this kind: the kernel does not tell of it.
    Is(Link),
    /// The interface is gone: deleted, or moved into another network namespace.
    Gone {
        /// The name that it had.
        name: String,
        /// The index that it had.
        index: u32,
    },
    /// The kernel told more than was read in time: look at [`links`] again.
    Missed,
}

/// All interfaces.
///
/// # Errors
/// Those of the netlink socket.
pub async fn links() -> io::Result<Vec<Link>> {
    ask(async |handle| {
        let request = handle
            .link()
            .get()
            .set_filter_mask(AddressFamily::Unspec, vec![LinkExtentMask::SkipStats]);
        request.execute().map_ok(|message| link(&message)).try_collect().await
    })
    .await
}

/// All interfaces, as soon as this program is off that one: the kernel takes it off some time
/// after its link is gone. As they are after a second at the latest.
///
/// # Errors
/// Those of the netlink socket.
pub async fn links_without(program: u32, name: &str) -> io::Result<Vec<Link>> {
    let deadline = Instant::now() + Duration::from_secs(1);
    loop {
        let links = links().await?;
        let is_on =
            |link: &Link| link.name == name && link.xdp.is_some_and(|xdp| xdp.program == program);
        if !links.iter().any(is_on) || Instant::now() > deadline {
            return Ok(links);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// The interface of this name; `None` when there is none.
///
/// # Errors
/// Those of the netlink socket.
pub async fn by_name(name: &str) -> io::Result<Option<Link>> {
    let answer = ask(async |handle| {
        handle
            .link()
            .get()
            .match_name(name)
            .execute()
            .map_ok(|message| link(&message))
            .try_next()
            .await
    });
    match answer.await {
        Err(error) if error.raw_os_error() == Some(ENODEV) => Ok(None),
        answer => answer,
    }
}

/// Every change of an interface from now on. Make the stream first and ask for [`links`] then,
/// so that nothing happens unseen in between. Its end means that the socket failed.
///
/// # Errors
/// Those of the netlink socket.
pub fn watch() -> io::Result<impl Stream<Item = Change> + Send + Unpin> {
    let (connection, handle, mut messages) =
        rtnetlink::new_multicast_connection(&[MulticastGroup::Link])?;
    let mut connection = connection.fuse();
    Ok(stream::poll_fn(move |context| {
        // The connection ends when nobody can ask it any more.
        let _ = &handle;
        let ended = connection.poll_unpin(context).is_ready();
        while let Poll::Ready(message) = messages.poll_next_unpin(context) {
            let Some((message, _)) = message else {
                return Poll::Ready(None);
            };
            if let Some(change) = change(message.payload) {
                return Poll::Ready(Some(change));
            }
        }
        if ended { Poll::Ready(None) } else { Poll::Pending }
    }))
}

/// Opens a connection for one question.
async fn ask<T>(
    question: impl AsyncFnOnce(Handle) -> Result<T, rtnetlink::Error>,
) -> io::Result<T> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    let answer = match select(pin!(question(handle)), connection).await {
        Either::Left((answer, _)) => answer,
        // The socket failed; the question ends with an error, too.
        Either::Right(((), question)) => question.await,
    };
    answer.map_err(|error| {
        if let rtnetlink::Error::NetlinkError(message) = &error {
            message.to_io()
        } else {
            io::Error::other(error)
        }
    })
}

fn change(payload: NetlinkPayload<RouteNetlinkMessage>) -> Option<Change> {
    if let NetlinkPayload::Overrun(_) = payload {
        return Some(Change::Missed);
    }
    let NetlinkPayload::InnerMessage(message) = payload else {
        return None;
    };
    // A bridge tells of its ports with messages of the same type.
    let of_a_link =
        |message: &LinkMessage| message.header.interface_family == AddressFamily::Unspec;
    if let RouteNetlinkMessage::NewLink(message) = message {
        return of_a_link(&message).then(|| Change::Is(link(&message)));
    }
    if let RouteNetlinkMessage::DelLink(message) = message {
        let Link { name, index, .. } = link(&message);
        return of_a_link(&message).then_some(Change::Gone { name, index });
    }
    None
}

fn link(message: &LinkMessage) -> Link {
    let flags = message.header.flags;
    let mut link = Link {
        name: String::new(),
        index: message.header.index,
        up: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::LowerUp),
        mtu: 0,
        vlan_of: None,
        xdp: None,
    };
    let mut below = None;
    let mut vlan = false;
    for attribute in &message.attributes {
        if let LinkAttribute::IfName(name) = attribute {
            link.name.clone_from(name);
        } else if let LinkAttribute::Mtu(mtu) = attribute {
            link.mtu = *mtu;
        } else if let LinkAttribute::Link(index) = attribute {
            below = Some(*index);
        } else if let LinkAttribute::LinkInfo(infos) = attribute {
            vlan = infos.contains(&LinkInfo::Kind(InfoKind::Vlan));
        } else if let LinkAttribute::Xdp(attributes) = attribute {
            link.xdp = xdp(attributes);
        }
    }
    link.vlan_of = below.filter(|_| vlan);
    link
}

/// The program that judges what comes in. Beside one in the driver or the core there may be
/// another on the card.
fn xdp(attributes: &[LinkXdp]) -> Option<Xdp> {
    let mut found: Option<Xdp> = None;
    for attribute in attributes {
        let (mode, program) = if let LinkXdp::DrvProgId(id) = attribute {
            (Attached::Native, *id)
        } else if let LinkXdp::SkbProgId(id) = attribute {
            (Attached::Generic, *id)
        } else if let LinkXdp::HwProgId(id) = attribute {
            (Attached::Offloaded, *id)
        } else {
            continue;
        };
        if found.is_none_or(|xdp| xdp.mode == Attached::Offloaded) {
            found = Some(Xdp { mode, program });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_netns::{in_new_namespace, ip, put_strange_xdp};

    #[test]
    fn the_program_in_the_driver_or_the_core_goes_before_the_card() {
        let card = LinkXdp::HwProgId(7);
        let told =
            |attributes: &[LinkXdp]| xdp(attributes).map(|xdp| (xdp.mode.name(), xdp.program));
        assert_eq!(told(&[]), None);
        assert_eq!(told(&[LinkXdp::Flags(0)]), None);
        assert_eq!(told(std::slice::from_ref(&card)), Some(("offloaded", 7)));
        assert_eq!(told(&[LinkXdp::DrvProgId(8), card.clone()]), Some(("native", 8)));
        assert_eq!(told(&[card, LinkXdp::SkbProgId(9)]), Some(("generic", 9)));
    }

    #[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
    #[test]
    fn links_of_a_namespace() {
        in_new_namespace(async {
            ip("link add left type veth peer name right mtu 1400");
            ip("link set left up");
            let links = links().await.unwrap();
            let names: Vec<_> = links.iter().map(|link| link.name.as_str()).collect();
            assert_eq!(names, ["lo", "right", "left"]);
            let [_, right, left] = &links[..] else { panic!() };
            assert_eq!((right.up, right.mtu, right.xdp), (false, 1400, None));
            assert_eq!((left.up, left.carrier, left.mtu, left.vlan_of), (true, false, 1500, None));
            assert_eq!(by_name("left").await.unwrap().as_ref(), Some(left));
            assert_eq!(by_name("middle").await.unwrap(), None);
        });
    }

    #[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
    #[test]
    fn a_program_is_seen_where_it_runs() {
        in_new_namespace(async {
            ip("link add left type veth peer name right");
            put_strange_xdp("left", Attached::Native).await;
            put_strange_xdp("right", Attached::Generic).await;
            let xdp = async |name| by_name(name).await.unwrap().unwrap().xdp.unwrap();
            let (left, right) = (xdp("left").await, xdp("right").await);
            assert_eq!((left.mode, right.mode), (Attached::Native, Attached::Generic));
            assert!(left.program != 0 && right.program != 0 && left.program != right.program);
            let all = links().await.unwrap();
            assert!(all.iter().any(|link| link.xdp == Some(left)));
            ip("link set dev left xdpdrv off");
            assert_eq!(by_name("left").await.unwrap().unwrap().xdp, None);
        });
    }

    /// Not every kernel that tests run on can make VLANs.
    #[test]
    fn a_vlan_stands_on_another_interface() {
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName("eth0.7".to_owned()),
            LinkAttribute::Link(3),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Vlan)]),
        ];
        assert_eq!(link(&message).vlan_of, Some(3));
        message.attributes[2] = LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth)]);
        assert_eq!(link(&message).vlan_of, None);
    }

    #[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
    #[test]
    fn changes_are_told() {
        in_new_namespace(async {
            let mut changes = watch().unwrap();
            ip("link add left type veth peer name right");
            let index = by_name("left").await.unwrap().unwrap().index;
            ip("link set left up");
            ip("link set right up");
            ip("link set left name west");
            ip("link del west");
            let mut told = Vec::new();
            loop {
                let change = changes.next().await.unwrap();
                match &change {
                    Change::Is(link) if link.index == index => {
                        told.push((link.name.clone(), link.up, link.carrier));
                    }
                    Change::Gone { name, index: gone } if *gone == index => {
                        assert_eq!(name, "west");
                        break;
                    }
                    Change::Is(_) | Change::Gone { .. } | Change::Missed => {}
                }
            }
            told.dedup();
            let state = |name: &str, up, carrier| (name.to_owned(), up, carrier);
            assert_eq!(told.first(), Some(&state("left", false, false)));
            assert!(told.contains(&state("left", true, true)), "{told:?}");
            assert!(told.iter().any(|(name, ..)| name == "west"), "{told:?}");
        });
    }

    #[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
    #[test]
    fn what_was_not_read_in_time_is_said() {
        in_new_namespace(async {
            let mut changes = watch().unwrap();
            ip("link add left type veth peer name right");
            // More than a receive buffer of the usual 208 KiB holds.
            for _ in 0..400 {
                ip("link set left mtu 1400");
                ip("link set left mtu 1500");
            }
            assert_eq!(changes.next().await, Some(Change::Missed));
            // Afterwards it goes on as before.
            ip("link del left");
            let gone =
                |change: &Change| matches!(change, Change::Gone { name, .. } if name == "left");
            while !changes.next().await.is_some_and(|change| gone(&change)) {}
        });
    }
}
