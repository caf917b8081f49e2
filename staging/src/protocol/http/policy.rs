//! Which machines may be talked to.
//!
//! Names are checked where the connection is made, on the very addresses that it is made to, so
//! that a name which resolves to something else a moment later changes nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::protocol::TransferError;

/// Which addresses may be connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AddressPolicy {
    /// All.
    #[default]
    Any,
    /// Only those of the public Internet: neither this machine nor private networks, link-local
    /// addresses, carriers' shared ones, multicast, or the metadata services of clouds.
    Public,
}

/// Why no connection is made.
#[derive(Debug, thiserror::Error)]
#[error("{host} is at {found}, which is no public address")]
pub(super) struct Denied {
    host: String,
    found: IpAddr,
}

impl Denied {
    /// What the transfer ends with.
    pub(super) fn refusal(&self) -> TransferError {
        TransferError::Refused {
            found: self.to_string(),
            hint:
                "set `private_addresses = \"allow\"` under [staging] in keelboat.toml, if this one \
                   is meant"
                    .into(),
        }
    }
}

impl AddressPolicy {
    /// Checks a host that is written as a number; names are checked by the [`resolver`].
    pub(super) fn check(self, url: &Url) -> Result<(), TransferError> {
        let host = url.host_str().unwrap_or_default();
        match host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            Ok(found) if self == Self::Public && !is_public(found) => {
                Err(Denied { host: "it".into(), found }.refusal())
            }
            _ => Ok(()),
        }
    }

    /// Those of the addresses of a host that may be connected to.
    pub(in crate::protocol) fn admitted(
        self,
        host: &str,
        found: Vec<SocketAddr>,
    ) -> Result<Vec<SocketAddr>, TransferError> {
        if self == Self::Any {
            return Ok(found);
        }
        let (public, denied): (Vec<SocketAddr>, Vec<SocketAddr>) =
            found.into_iter().partition(|address| is_public(address.ip()));
        match denied.first() {
            Some(denied) if public.is_empty() => {
                Err(Denied { host: host.to_owned(), found: denied.ip() }.refusal())
            }
            _ => Ok(public),
        }
    }

    /// What finds the addresses of names, if it is not the client's own.
    pub(super) fn resolver(self) -> Option<PublicOnly> {
        (self == Self::Public).then_some(PublicOnly)
    }
}

/// Finds the public addresses of a name.
#[derive(Debug)]
pub(super) struct PublicOnly;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            // The port is set by whoever connects.
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let (public, denied): (Vec<SocketAddr>, Vec<SocketAddr>) =
                found.partition(|address| is_public(address.ip()));
            match denied.first() {
                Some(denied) if public.is_empty() => {
                    Err(Denied { host: name.as_str().to_owned(), found: denied.ip() }.into())
                }
                _ => Ok(Box::new(public.into_iter()) as Addrs),
            }
        })
    }
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// After the registries of special addresses (RFC 6890 and later).
fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_shared = a == 100 && (64..128).contains(&b);
    let is_special = matches!((a, b, c), (192, 0, 0) | (192, 88, 99)) || a == 198 && b & !1 == 18;
    let is_azure_metadata = address == Ipv4Addr::new(168, 63, 129, 16);
    let is_here = a == 0 || address.is_loopback() || address.is_private();
    let is_near = address.is_link_local() || is_shared || is_special || is_azure_metadata;
    !is_here && !is_near && !address.is_documentation() && a < 224
}

/// Addresses that stand for one of version 4 are what that one is.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let embedded = |high: u16, low: u16| {
        is_public_v4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
    };
    if let Some(mapped) = address.to_ipv4_mapped() {
        return is_public_v4(mapped);
    }
    match address.segments() {
        [0x0064, 0xff9b, 0, .., high, low] => embedded(high, low),
        [0x2002, high, low, ..] => embedded(high, low),
        [0x0064, 0xff9b, ..] | [0x2001, 0 | 0xdb8, ..] => false,
        // Only this part of the space is given out.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_public() {
        for private in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "0.0.0.0",
            "100.100.100.200",
            "198.19.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "168.63.129.16",
            "192.0.0.192",
            "::1",
            "::",
            "fe80::1",
            "fd00:ec2::254",
            "ff02::1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001:db8::1",
            "::127.0.0.1",
        ] {
            assert!(!is_public(private.parse().expect(private)), "{private}");
        }
        for public in ["1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1", "::ffff:1.1.1.1"] {
            assert!(is_public(public.parse().expect(public)), "{public}");
        }
    }

    #[test]
    fn what_is_admitted_is_public() {
        let addresses = |texts: &[&str]| -> Vec<SocketAddr> {
            texts.iter().map(|text| text.parse().expect(text)).collect()
        };
        let mixed = addresses(&["10.0.0.1:21", "1.1.1.1:21"]);
        let admitted = AddressPolicy::Public.admitted("h", mixed.clone());
        assert_eq!(admitted, Ok(addresses(&["1.1.1.1:21"])));
        assert_eq!(AddressPolicy::Any.admitted("h", mixed.clone()), Ok(mixed));
        let denied = AddressPolicy::Public.admitted("h", addresses(&["127.0.0.1:22"]));
        let told = denied.expect_err("private").to_string();
        assert!(told.contains("h is at 127.0.0.1"), "{told}");
    }

    #[test]
    fn numbers_are_seen_in_whatever_way_they_are_written() {
        for address in
            ["http://127.1/", "http://2130706433/", "http://0x7f.1/", "http://[::ffff:7f00:1]/"]
        {
            let url = Url::parse(address).expect(address);
            AddressPolicy::Public.check(&url).expect_err(address);
            AddressPolicy::Any.check(&url).expect(address);
        }
    }
}
