//! Hardware addresses: how they are written, and those of devices that were given none.
//!
//! Owns nothing. Must not know devices.

use std::fs;

use devices::virtio::net::Mac;

/// Reads `02:00:00:00:00:2a`.
///
/// # Errors
/// One line: it is no address of a device.
pub fn parse(text: &str) -> Result<Mac, String> {
    let wrong = || format!("mac={text}: not an address as 02:00:00:00:00:2a");
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        let part = parts.next().filter(|part| part.len() == 2).ok_or_else(wrong)?;
        *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
    }
    if parts.next().is_some() {
        return Err(wrong());
    }
    if mac[0] & 1 != 0 || mac == [0; 6] {
        return Err(format!(
            "mac={text}: a group's address, or none; the first byte is to be even"
        ));
    }
    Ok(mac)
}

/// As [`parse`] reads it.
#[must_use]
pub fn text(mac: &Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// The address that is `index` further. The manufacturer's part stays.
#[must_use]
pub fn plus(mac: Mac, index: u32) -> Mac {
    let [a, b, c, d, e, f] = mac;
    let [_, d, e, f] = u32::from_be_bytes([0, d, e, f]).wrapping_add(index).to_be_bytes();
    [a, b, c, d, e, f]
}

/// An address of one's own choice (locally administered, of one device) that is the same for the same
/// name on the same host, and most likely another for any other.
#[must_use]
pub fn stable(name: &str) -> Mac {
    // Absent in small systems; then hosts do not differ.
    let host = fs::read("/etc/machine-id").unwrap_or_default();
    let [_, _, a, b, c, d, e, f] =
        fnv(&[&host, &b"\0"[..], name.as_bytes()].concat()).to_be_bytes();
    [a & !1 | 2, b, c, d, e, f]
}

/// The hash FNV-1a of 64 bits: the standard library's hashes may change with it.
fn fnv(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325, step);
    // The low bits of short inputs' last byte reach all others.
    (hash ^ hash >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_names_are_stable_and_differ() {
        let one = stable("tap=tap0");
        assert_eq!(one, stable("tap=tap0"));
        assert_ne!(one, stable("tap=tap1"));
        let mut seen: Vec<_> = (0..1000).map(|n| stable(&format!("tap=tap{n}"))).collect();
        assert!(seen.iter().all(|mac| mac[0] & 3 == 2), "of one device, locally administered");
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 1000);
    }

    #[test]
    fn addresses_are_counted_within_the_manufacturers_part() {
        assert_eq!(plus([2, 0, 0, 0, 0, 0xff], 1), [2, 0, 0, 0, 1, 0]);
        assert_eq!(plus([2, 1, 3, 0xff, 0xff, 0xff], 2), [2, 1, 3, 0, 0, 1]);
    }
}
