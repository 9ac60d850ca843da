//! Identity of this computer: its addresses, and the data that distinguishes it from others that
//! share a folder with it.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::OnceLock;

/// Prints the identity of a computer. Two machines with the same output have one kernel and see the
/// same processes.
pub const WHO: &str = "cat /proc/sys/kernel/random/boot_id 2>/dev/null; readlink /proc/self/ns/pid 2>/dev/null";
/// The initial process namespace of a system, in contrast to that of a container.
const FIRST_NAMESPACE: &str = "pid:[4026531836]";

/// Empty fields are unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    pub host: String,
    /// The installation.
    pub machine: String,
    /// The running kernel, new with each boot.
    pub boot: String,
    /// The process namespace, which each container has.
    pub namespace: String,
}

/// The identity of this computer, or of this container on it.
pub fn identity() -> &'static Identity {
    static IDENTITY: OnceLock<Identity> = OnceLock::new();
    IDENTITY.get_or_init(|| {
        let word = |path: &str| {
            fs::read_to_string(path).unwrap_or_default().split_whitespace().next().unwrap_or("").to_string()
        };
        let namespace = fs::read_link("/proc/self/ns/pid").unwrap_or_default().display().to_string();
        let machine = word("/etc/machine-id");
        Identity { host: host_name(), machine, boot: word("/proc/sys/kernel/random/boot_id"), namespace }
    })
}

impl Identity {
    /// True if processes of `other` can be seen and distinguished here.
    pub fn sees(&self, other: &Self) -> bool {
        self == other && (!self.boot.is_empty() || cfg!(not(target_os = "linux")))
    }

    /// True if `other` is this computer before its last boot, so that none of its processes is
    /// left. Containers cannot be distinguished.
    pub fn was(&self, other: &Self) -> bool {
        let host = |identity: &Self| (identity.host.clone(), identity.machine.clone(), identity.namespace.clone());
        let known = !self.machine.is_empty() && !self.host.is_empty() && !other.boot.is_empty();
        known && host(self) == host(other) && self.namespace == FIRST_NAMESPACE && self.boot != other.boot
    }

    /// True if a machine with this output of `WHO` is this one.
    pub fn is(&self, said: &str) -> bool {
        let words: Vec<&str> = said.split_whitespace().collect();
        !self.boot.is_empty() && words == [&self.boot, &self.namespace]
    }
}

fn host_name() -> String {
    let mut name = [0u8; 256];
    // SAFETY: the buffer has this length, and its last byte stays 0.
    unsafe { libc::gethostname(name.as_mut_ptr().cast(), name.len() - 1) };
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(0);
    String::from_utf8_lossy(&name[..end]).split_whitespace().collect::<Vec<_>>().join("-")
}

/// True if a listener at this address is on this computer: loopback, the unspecified address, or
/// one of its own.
pub(super) fn is_own_address(address: IpAddr) -> bool {
    let address = address.to_canonical();
    address.is_loopback() || address.is_unspecified() || own_addresses().contains(&address)
}

/// Addresses of all interfaces.
fn own_addresses() -> Vec<IpAddr> {
    let mut first: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: on success the list is valid until it is freed below, and addresses have the type of
    // their family.
    unsafe {
        if libc::getifaddrs(&raw mut first) != 0 {
            return Vec::new();
        }
        let mut found = Vec::new();
        let mut next = first;
        while let Some(interface) = next.as_ref() {
            if let Some(address) = interface.ifa_addr.as_ref() {
                match i32::from(address.sa_family) {
                    libc::AF_INET => {
                        let address = interface.ifa_addr.cast::<libc::sockaddr_in>().read_unaligned();
                        found.push(Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr)).into());
                    }
                    libc::AF_INET6 => {
                        let address = interface.ifa_addr.cast::<libc::sockaddr_in6>().read_unaligned();
                        found.push(Ipv6Addr::from(address.sin6_addr.s6_addr).into());
                    }
                    _ => (),
                }
            }
            next = interface.ifa_next;
        }
        libc::freeifaddrs(first);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_addresses_are_known_in_every_spelling() {
        for address in ["127.0.0.1", "127.8.9.10", "::1", "0.0.0.0", "::", "::ffff:127.0.0.1"] {
            assert!(is_own_address(address.parse().unwrap()), "{address}");
        }
        for address in own_addresses() {
            assert!(is_own_address(address), "{address}");
        }
        assert!(!is_own_address("192.0.2.7".parse().unwrap()) && !is_own_address("2001:db8::7".parse().unwrap()));
    }

    #[test]
    fn others_are_not_this_one() {
        let here = Identity {
            host: "a".to_string(),
            machine: "m".to_string(),
            boot: "b".to_string(),
            namespace: FIRST_NAMESPACE.to_string(),
        };
        let other = |change: fn(&mut Identity)| {
            let mut other = here.clone();
            change(&mut other);
            other
        };
        assert!(here.sees(&here) && here.is("b\npid:[4026531836]\n") && !here.is("b\n") && !here.is(""));
        assert!(here.was(&other(|i| i.boot = "c".to_string())), "started anew");
        let strangers: [fn(&mut Identity); 4] = [
            |i| i.host = "x".to_string(),
            |i| i.namespace = "pid:[4026532000]".to_string(),
            |i| (i.boot, i.machine) = ("c".to_string(), "n".to_string()),
            |i| (i.boot, i.host) = ("c".to_string(), "x".to_string()),
        ];
        for change in strangers {
            let stranger = other(change);
            assert!(!here.sees(&stranger) && !here.was(&stranger), "{stranger:?}");
        }
    }
}
