//! Where the requests of a registration came from, and the networks that rules name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ganglion_api::MatrixError;
use ipnet::{IpNet, Ipv4Net};

use super::super::list_file::{BadList, Entry};

/// The addresses of a registration. A homeserver gives those of all requests that took part, in no order that means
/// anything.
#[derive(Debug)]
pub(super) struct Addresses {
    known: Vec<IpAddr>,
    /// Whether there is one that cannot be read.
    has_unreadable: bool,
}

impl Addresses {
    pub(super) fn of<'a>(texts: impl Iterator<Item = &'a str>) -> Self {
        let (mut known, mut has_unreadable) = (Vec::new(), false);
        for text in texts {
            match address(text) {
                Some(address) => known.push(address),
                None => has_unreadable = true,
            }
        }
        known.sort_unstable();
        known.dedup();
        Self { known, has_unreadable }
    }

    /// All of them.
    ///
    /// # Errors
    /// One cannot be read: nobody can say whether it is in a network. The text is not repeated.
    ///
    /// Where a proxy passes on what clients say, any client can cause this. So it is an error of that client: no failure
    /// policy lets it pass, and the breaker does not take it for an illness of the module and refuse everybody.
    pub(super) fn known(&self) -> Result<&[IpAddr], MatrixError> {
        if self.has_unreadable {
            let text = "it cannot be told which address this registration comes from";
            return Err(MatrixError::new(400, "M_UNKNOWN", text));
        }
        Ok(&self.known)
    }
}

/// An IPv6 address without its zone; one that stands for an IPv4 address is that one.
fn address(text: &str) -> Option<IpAddr> {
    let address = text.split_once('%').map_or(text, |(address, _zone)| address);
    address.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

/// Networks that are asked together.
#[derive(Debug)]
pub(super) struct Networks {
    ipv4: Spans<Ipv4Addr>,
    ipv6: Spans<Ipv6Addr>,
}

impl Networks {
    pub(super) fn parse(entries: &[Entry<'_>]) -> Result<Self, BadList> {
        let (mut ipv4, mut ipv6) = (Vec::new(), Vec::new());
        for entry in entries {
            match network(entry.text) {
                Some(IpNet::V4(network)) => ipv4.push((network.network(), network.broadcast())),
                Some(IpNet::V6(network)) => ipv6.push((network.network(), network.broadcast())),
                None => {
                    return Err(entry
                        .refuse("expected an address or a network, such as 192.0.2.1, 192.0.2.0/24 or 2001:db8::/32"));
                }
            }
        }
        Ok(Self {
            ipv4: Spans::of(ipv4),
            ipv6: Spans::of(ipv6),
        })
    }

    pub(super) fn contain(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.ipv4.contain(address),
            IpAddr::V6(address) => self.ipv6.contain(address),
        }
    }
}

/// A network of IPv6 addresses that all stand for IPv4 addresses is a network of those.
fn network(text: &str) -> Option<IpNet> {
    let network = text.parse::<IpNet>().ok();
    let network = network.or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))?;
    let IpNet::V6(ipv6) = network else {
        return Some(network);
    };
    let mapped = ipv6.addr().to_ipv4_mapped().zip(ipv6.prefix_len().checked_sub(96));
    let mapped = mapped.and_then(|(address, prefix)| Ipv4Net::new(address, prefix).ok());
    Some(mapped.map_or(network, IpNet::V4))
}

/// Spans of addresses, in order, none with an address of another: one is found by halving, however many there are.
#[derive(Debug)]
struct Spans<A>(Vec<(A, A)>);

impl<A: Copy + Ord> Spans<A> {
    fn of(mut spans: Vec<(A, A)>) -> Self {
        spans.sort_unstable();
        spans.dedup_by(|(first, last), (_, last_before)| {
            let overlaps = *first <= *last_before;
            if overlaps {
                *last_before = (*last_before).max(*last);
            }
            overlaps
        });
        Self(spans)
    }

    fn contain(&self, address: A) -> bool {
        let begun = self.0.partition_point(|(first, _)| *first <= address);
        begun.checked_sub(1).is_some_and(|at| address <= self.0[at].1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_address_that_stands_for_another_is_that_one() {
        let of = |text: &str| address(text).map(|address| address.to_string());
        assert_eq!(of("::ffff:192.0.2.1").as_deref(), Some("192.0.2.1"));
        assert_eq!(of("fe80::1%eth0").as_deref(), Some("fe80::1"));
        assert_eq!(of("192.0.2.1:80"), None);
        assert_eq!(of(""), None);
    }

    #[test]
    fn a_network_may_be_one_address_and_a_mapped_one_is_of_ipv4() {
        let of = |text: &str| network(text).map(|network| network.to_string());
        assert_eq!(of("192.0.2.1").as_deref(), Some("192.0.2.1/32"));
        assert_eq!(of("::ffff:192.0.2.0/120").as_deref(), Some("192.0.2.0/24"));
        // Others are in there too.
        assert_eq!(of("::ffff:0:0/90").as_deref(), Some("::ffff:0.0.0.0/90"));
        assert_eq!(of("192.0.2.0/33"), None);
        assert_eq!(of("192.0.2"), None);
    }

    proptest! {
        #[test]
        fn spans_say_what_they_say_one_by_one(
            pairs in prop::collection::vec((0_u8..60, 0_u8..60), 0..10),
            asked in 0_u8..60,
        ) {
            let spans: Vec<(u8, u8)> = pairs.iter().map(|(a, b)| (*a.min(b), *a.max(b))).collect();
            let expected = spans.iter().any(|(first, last)| (*first..=*last).contains(&asked));
            prop_assert_eq!(Spans::of(spans).contain(asked), expected);
        }
    }
}
