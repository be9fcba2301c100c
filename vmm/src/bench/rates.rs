//! How many guests tick at which rate.
//!
//! Owns the mix and how it is scaled. Must not know how it is written on a command line.

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::figures::Figure;

/// Guests of one rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Group {
    /// Ticks a second of each, 1 to 1,000,000.
    pub hz: u32,
    /// How many there are.
    pub vms: u32,
}

/// The tick guests of a run, by rate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rates(Vec<Group>);

impl Rates {
    /// Guests of one rate.
    #[must_use]
    pub fn same(hz: u32, vms: u32) -> Rates {
        Rates(vec![Group { hz, vms }])
    }

    /// Guests of several rates, which are told apart in the figures, in this order.
    #[must_use]
    pub fn mix(groups: Vec<Group>) -> Rates {
        Rates(groups)
    }

    /// The groups.
    #[must_use]
    pub fn groups(&self) -> &[Group] {
        &self.0
    }

    /// All tick guests.
    #[must_use]
    pub fn vms(&self) -> u32 {
        self.0.iter().fold(0, |sum, group| sum.saturating_add(group.vms))
    }

    /// Ticks a second of a guest on average; unknown without guests.
    #[must_use]
    pub fn mean_hz(&self) -> Figure {
        let ticks: f64 =
            self.0.iter().map(|group| f64::from(group.hz) * f64::from(group.vms)).sum();
        Figure::of(ticks / f64::from(self.vms()))
    }

    /// So many guests in the same proportions, to whole guests. A group may be left without any.
    #[must_use]
    pub fn scaled(&self, vms: u32) -> Rates {
        let whole = u64::from(self.vms()).max(1);
        let (mut before, mut given) = (0_u64, 0_u64);
        let scale = |group: &Group| {
            before += u64::from(group.vms);
            let until = (before * u64::from(vms) + whole / 2) / whole;
            let vms = until - given;
            given = until;
            Group { hz: group.hz, vms: u32::try_from(vms).unwrap_or(u32::MAX) }
        };
        Rates(self.0.iter().map(scale).collect())
    }

    /// As it is written on the command line and in the table: `100`, or `400:64,100:64`.
    #[must_use]
    pub fn text(&self) -> String {
        match self.0.as_slice() {
            [one] => one.hz.to_string(),
            groups => {
                let parts: Vec<_> =
                    groups.iter().map(|group| format!("{}:{}", group.hz, group.vms)).collect();
                parts.join(",")
            }
        }
    }
}

impl Serialize for Rates {
    /// `vms` and `hz` are those of all guests together.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Rates", 3)?;
        fields.serialize_field("vms", &self.vms())?;
        fields.serialize_field("hz", &self.mean_hz())?;
        fields.serialize_field("groups", &self.0)?;
        fields.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mix(groups: &[(u32, u32)]) -> Rates {
        Rates::mix(groups.iter().map(|&(hz, vms)| Group { hz, vms }).collect())
    }

    #[test]
    fn a_mix_has_all_guests_and_their_mean_rate() {
        let rates = mix(&[(400, 64), (100, 192)]);
        assert_eq!(rates.vms(), 256);
        assert_eq!(rates.mean_hz(), Figure::of(175.0));
        assert_eq!(rates.text(), "400:64,100:192");
        assert_eq!(Rates::same(100, 7).text(), "100");
        assert_eq!(Rates::default().mean_hz(), Figure::UNKNOWN);
    }

    #[test]
    fn scaling_keeps_the_sum_and_the_proportions() {
        let rates = mix(&[(1_000, 1), (400, 2), (100, 5)]);
        for vms in 0..300 {
            let scaled = rates.scaled(vms);
            assert_eq!(scaled.vms(), vms);
            for (group, share) in scaled.groups().iter().zip([1.0, 2.0, 5.0]) {
                let exact = f64::from(vms) * share / 8.0;
                assert!((f64::from(group.vms) - exact).abs() <= 1.0, "{vms}: {scaled:?}");
            }
        }
        assert_eq!(rates.scaled(8), rates);
        assert_eq!(Rates::same(100, 3).scaled(500), Rates::same(100, 500));
    }

    #[test]
    fn json_has_the_totals_beside_the_groups() {
        let json = serde_json::to_value(mix(&[(400, 1), (100, 1)])).expect("can be written");
        assert_eq!((&json["vms"], &json["hz"]), (&2.into(), &250.into()));
        assert_eq!(json["groups"][1]["hz"], 100);
    }
}
