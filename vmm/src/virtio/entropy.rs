//! The host's entropy.
//!
//! Owns nothing. Must not know the device. The source is `getrandom(2)`, which gives what
//! `/dev/urandom` does and blocks only while the host itself has not collected any entropy yet.

use devices::virtio::rng::Entropy;
use rand::TryRngCore;
use rand::rngs::OsRng;

use super::on_loop::HostSide;

/// The host's random numbers.
#[derive(Clone, Copy, Debug)]
pub struct HostEntropy;

impl Entropy for HostEntropy {
    fn fill(&mut self, bytes: &mut [u8]) -> bool {
        OsRng.try_fill_bytes(bytes).is_ok()
    }
}

impl<E: Entropy> HostSide for devices::virtio::rng::Rng<E> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_reads_differ() {
        let (mut one, mut other) = ([0; 32], [0; 32]);
        assert!(HostEntropy.fill(&mut one) && HostEntropy.fill(&mut other));
        assert_ne!(one, other);
    }
}
