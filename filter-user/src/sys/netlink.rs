//! Lists network interfaces over rtnetlink and reports their changes. Both apply to the network
//! namespace of the calling thread.

use std::io;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::future::{Either, FutureExt as _, select};
use futures_util::stream::{self, Stream, StreamExt as _, TryStreamExt as _};
use nix::errno::Errno;
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::packet_route::link::{
    InfoKind, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
    LinkXdp,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{Handle, MulticastGroup};

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Name.
    pub name: String,
    /// Index; a device that is deleted and created again gets another one.
    pub index: u32,
    /// Whether it is set up (`ip link set … up`).
    pub up: bool,
    /// Whether it has a carrier: its cable or its lower interface is connected.
    pub carrier: bool,
    /// MTU in bytes; 0 if the kernel reports none.
    pub mtu: u32,
    /// Index of the parent interface, if it is a VLAN.
    pub vlan_of: Option<u32>,
    /// Index of the interface that it is a port of: a bond, a bridge, an `hv_netvsc` over its fast path.
    pub port_of: Option<u32>,
    /// Whether its frames begin with an Ethernet header. Tunnels (tun, wg, ppp, gre) have none.
    pub has_ethernet: bool,
    /// Its Ethernet address; `None`: it has none.
    pub address: Option<[u8; 6]>,
    /// Whether it takes in frames for other machines: a port of a bridge, a capture, a mirror port.
    pub promiscuous: bool,
    /// The XDP program on it, ours or another.
    pub xdp: Option<Xdp>,
}

/// An XDP program on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Xdp {
    /// Where it runs.
    pub mode: Attached,
    /// ID of the program.
    pub program: u32,
}

/// Places where an XDP program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    /// In the driver, before a socket buffer is allocated.
    Native,
    /// In the kernel's network core, on a socket buffer.
    Generic,
    /// On the network card.
    Offloaded,
}

impl Attached {
    /// Returns the name in the API and the CLI.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Attached::Native => "native",
            Attached::Generic => "generic",
            Attached::Offloaded => "offloaded",
        }
    }
}

/// A change reported by [`watch`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The interface is new or has changed. An XDP program that is attached or removed with a BPF link
    /// is not reported: the kernel sends no message for it.
    Is(Link),
    /// The interface is gone: it was deleted or moved to another network namespace.
    Gone {
        /// Its former name.
        name: String,
        /// Its former index.
        index: u32,
    },
    /// Some messages were lost because they were not read in time: call [`links`] again.
    Missed,
}

/// Returns all interfaces.
///
/// # Errors
/// Returns the error of the netlink socket.
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

/// Returns all interfaces as soon as `program` is no longer on the interface `name`. The kernel removes
/// a program some time after its link is gone. After 1 s, returns the interfaces as they are.
///
/// # Errors
/// Returns the error of the netlink socket.
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

/// Returns the interface with this name, if there is one.
///
/// # Errors
/// Returns the error of the netlink socket.
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
        Err(error) if error.raw_os_error() == Some(Errno::ENODEV as i32) => Ok(None),
        answer => answer,
    }
}

/// Streams every change of an interface from now on. Create the stream before calling [`links`], so
/// that no change is missed. The stream ends if the socket fails.
///
/// # Errors
/// Returns the error of the netlink socket.
pub fn watch() -> io::Result<impl Stream<Item = Change> + Send + Unpin> {
    let (connection, handle, mut messages) =
        rtnetlink::new_multicast_connection(&[MulticastGroup::Link])?;
    let mut connection = connection.fuse();
    Ok(stream::poll_fn(move |context| {
        // The connection would end if the last handle were dropped.
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

/// Opens a connection for one request.
async fn ask<T>(
    question: impl AsyncFnOnce(Handle) -> Result<T, rtnetlink::Error>,
) -> io::Result<T> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    let answer = match select(pin!(question(handle)), connection).await {
        Either::Left((answer, _)) => answer,
        // The socket failed; the request ends with an error, too.
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
    // A bridge sends messages of the same type about its ports.
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
        port_of: None,
        has_ethernet: matches!(
            message.header.link_layer_type,
            LinkLayerType::Ether | LinkLayerType::Loopback
        ),
        address: None,
        promiscuous: false,
        xdp: None,
    };
    let mut below = None;
    let mut vlan = false;
    for attribute in &message.attributes {
        if let LinkAttribute::IfName(name) = attribute {
            link.name.clone_from(name);
        } else if let LinkAttribute::Mtu(mtu) = attribute {
            link.mtu = *mtu;
        } else if let LinkAttribute::Address(address) = attribute {
            link.address = address.as_slice().try_into().ok();
        } else if let LinkAttribute::Promiscuity(users) = attribute {
            link.promiscuous = *users > 0;
        } else if let LinkAttribute::Link(index) = attribute {
            below = Some(*index);
        } else if let LinkAttribute::Controller(index) = attribute {
            link.port_of = Some(*index).filter(|index| *index != 0);
        } else if let LinkAttribute::LinkInfo(infos) = attribute {
            vlan = infos.contains(&LinkInfo::Kind(InfoKind::Vlan));
        } else if let LinkAttribute::Xdp(attributes) = attribute {
            link.xdp = xdp(attributes);
        }
    }
    link.vlan_of = below.filter(|_| vlan);
    link
}

/// Returns the program that judges incoming packets. A second program may run on the card beside one
/// in the driver or the core.
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
impl Link {
    /// Returns an interface that is up, with this name and index.
    pub(crate) fn named(name: &str, index: u32) -> Link {
        Link {
            name: name.to_owned(),
            index,
            up: true,
            carrier: true,
            mtu: 1500,
            vlan_of: None,
            port_of: None,
            has_ethernet: true,
            address: Some([2; 6]),
            promiscuous: false,
            xdp: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::test_netns::{in_new_namespace, ip, put_foreign_xdp};

    #[test]
    fn program_in_driver_or_core_is_preferred_to_one_on_the_card() {
        let card = LinkXdp::HwProgId(7);
        let found =
            |attributes: &[LinkXdp]| xdp(attributes).map(|xdp| (xdp.mode.name(), xdp.program));
        assert_eq!(found(&[]), None);
        assert_eq!(found(&[LinkXdp::Flags(0)]), None);
        assert_eq!(found(std::slice::from_ref(&card)), Some(("offloaded", 7)));
        assert_eq!(found(&[LinkXdp::DrvProgId(8), card.clone()]), Some(("native", 8)));
        assert_eq!(found(&[card, LinkXdp::SkbProgId(9)]), Some(("generic", 9)));
    }

    #[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
    #[test]
    fn links_of_a_namespace_are_listed() {
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
    fn program_is_reported_with_its_mode() {
        in_new_namespace(async {
            ip("link add left type veth peer name right");
            put_foreign_xdp("left", Attached::Native).await;
            put_foreign_xdp("right", Attached::Generic).await;
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

    /// Builds the message by hand, because some test kernels have no VLAN support.
    #[test]
    fn vlan_names_its_parent_interface() {
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

    /// Builds the message by hand, because some test kernels have no bonds.
    #[test]
    fn port_names_the_interface_above_it() {
        let mut message = LinkMessage::default();
        message.attributes =
            vec![LinkAttribute::IfName("eth0".to_owned()), LinkAttribute::Controller(7)];
        assert_eq!(link(&message).port_of, Some(7));
        message.attributes[1] = LinkAttribute::Controller(0);
        assert_eq!(link(&message).port_of, None);
    }

    #[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
    #[test]
    fn changes_are_reported() {
        in_new_namespace(async {
            let mut changes = watch().unwrap();
            ip("link add left type veth peer name right");
            let index = by_name("left").await.unwrap().unwrap().index;
            ip("link set left up");
            ip("link set right up");
            ip("link set left name west");
            ip("link del west");
            let mut seen = Vec::new();
            loop {
                let change = changes.next().await.unwrap();
                match &change {
                    Change::Is(link) if link.index == index => {
                        seen.push((link.name.clone(), link.up, link.carrier));
                    }
                    Change::Gone { name, index: gone } if *gone == index => {
                        assert_eq!(name, "west");
                        break;
                    }
                    Change::Is(_) | Change::Gone { .. } | Change::Missed => {}
                }
            }
            seen.dedup();
            let state = |name: &str, up, carrier| (name.to_owned(), up, carrier);
            assert_eq!(seen.first(), Some(&state("left", false, false)));
            assert!(seen.contains(&state("left", true, true)), "{seen:?}");
            assert!(seen.iter().any(|(name, ..)| name == "west"), "{seen:?}");
        });
    }

    #[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
    #[test]
    fn lost_messages_are_reported() {
        in_new_namespace(async {
            let mut changes = watch().unwrap();
            ip("link add left type veth peer name right");
            // More than the default receive buffer of 208 KiB holds.
            for _ in 0..400 {
                ip("link set left mtu 1400");
                ip("link set left mtu 1500");
            }
            assert_eq!(changes.next().await, Some(Change::Missed));
            // The stream continues after that.
            ip("link del left");
            let gone =
                |change: &Change| matches!(change, Change::Gone { name, .. } if name == "left");
            while !changes.next().await.is_some_and(|change| gone(&change)) {}
        });
    }
}
