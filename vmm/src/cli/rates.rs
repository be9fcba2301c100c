//! How the rates of ticks are written on the command line: `100`, or `400:64,100:64`.
//!
//! Owns the syntax and the agreement with `--vms`. Must not know what ticks.

use crate::bench::{Group, Rates};

/// Most ticks a second of a guest.
const MOST_HZ: u32 = 10_000;
/// Most guests of all rates.
pub(super) const MOST_VMS: u32 = 4096;
/// Most rates of a mix: each has rows of its own.
const MOST_RATES: usize = 8;

/// A value of `--hz`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// All guests tick at this rate.
    One(u32),
    /// So many guests of each rate.
    Mix(Vec<Group>),
}

/// Reads a value of `--hz`.
pub(super) fn parse(text: &str) -> Result<Written, String> {
    let rate = |text: &str| {
        let hz = text.parse().ok().filter(|hz| (1..=MOST_HZ).contains(hz));
        hz.ok_or_else(|| format!("write 1 to {MOST_HZ} ticks a second, or a mix as 400:64,100:64"))
    };
    if !text.contains([',', ':']) {
        return rate(text).map(Written::One);
    }
    let mut groups: Vec<Group> = Vec::new();
    for part in text.split(',') {
        let (hz, vms) = part.split_once(':').ok_or_else(|| {
            format!("'{part}' has no number of guests; write a mix as 400:64,100:64")
        })?;
        let hz = rate(hz)?;
        let vms = vms.parse().ok().filter(|vms| (1..=MOST_VMS).contains(vms));
        let vms = vms.ok_or_else(|| format!("'{part}': write 1 to {MOST_VMS} guests"))?;
        if groups.iter().any(|group| group.hz == hz) {
            return Err(format!("{hz} Hz is named twice"));
        }
        groups.push(Group { hz, vms });
    }
    if groups.len() > MOST_RATES {
        return Err(format!("at most {MOST_RATES} rates"));
    }
    let all = groups.iter().map(|group| group.vms).sum::<u32>();
    if all > MOST_VMS {
        return Err(format!("{all} guests; at most {MOST_VMS}"));
    }
    Ok(Written::Mix(groups))
}

impl Written {
    /// The guests, `vms` of them if that was given: of one rate that many (`otherwise` if not), of
    /// a mix what it says.
    ///
    /// # Errors
    /// `vms` is not the sum of the mix; the line says so.
    pub(super) fn rates(&self, vms: Option<u32>, otherwise: u32) -> Result<Rates, String> {
        match self {
            Written::One(hz) => Ok(Rates::same(*hz, vms.unwrap_or(otherwise))),
            Written::Mix(groups) => {
                let rates = Rates::mix(groups.clone());
                match vms.filter(|&vms| vms != rates.vms()) {
                    None => Ok(rates),
                    Some(vms) => Err(format!(
                        "--vms {vms} contradicts --hz, whose numbers of guests add up to {}; leave \
                         --vms out",
                        rates.vms()
                    )),
                }
            }
        }
    }

    /// So many guests, a mix in its proportions.
    pub(super) fn scaled(&self, vms: u32) -> Rates {
        match self {
            Written::One(hz) => Rates::same(*hz, vms),
            Written::Mix(groups) => Rates::mix(groups.clone()).scaled(vms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mix(groups: &[(u32, u32)]) -> Written {
        Written::Mix(groups.iter().map(|&(hz, vms)| Group { hz, vms }).collect())
    }

    #[test]
    fn one_rate_or_a_mix() {
        assert_eq!(parse("100"), Ok(Written::One(100)));
        assert_eq!(parse("400:64,100:32"), Ok(mix(&[(400, 64), (100, 32)])));
        assert_eq!(parse("250:1"), Ok(mix(&[(250, 1)])));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, part) in [
            ("", "1 to 10000"),
            ("0", "1 to 10000"),
            ("10001", "1 to 10000"),
            ("-1", "1 to 10000"),
            ("100,200", "'100' has no number of guests"),
            ("100:4,", "'' has no number of guests"),
            ("100:4,200", "'200' has no number"),
            ("100:0", "'100:0': write 1 to 4096"),
            ("100:x", "'100:x': write 1 to 4096"),
            ("100:4:4", "'100:4:4': write 1 to 4096"),
            ("0:4", "1 to 10000"),
            ("100:4,100:5", "100 Hz is named twice"),
            ("100:4000,200:97", "4097 guests; at most 4096"),
            ("1:1,2:1,3:1,4:1,5:1,6:1,7:1,8:1,9:1", "at most 8 rates"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(part), "'{text}': {error}");
        }
    }

    #[test]
    fn a_mix_says_itself_how_many_guests_there_are() {
        assert_eq!(Written::One(100).rates(None, 64), Ok(Rates::same(100, 64)));
        assert_eq!(Written::One(100).rates(Some(5), 64), Ok(Rates::same(100, 5)));
        let written = mix(&[(400, 64), (100, 32)]);
        assert_eq!(written.rates(None, 64).map(|rates| rates.vms()), Ok(96));
        assert_eq!(written.rates(Some(96), 64).map(|rates| rates.vms()), Ok(96));
        let error = written.rates(Some(64), 64).expect_err("contradicts");
        assert!(error.contains("--vms 64") && error.contains("add up to 96"), "{error}");
        assert_eq!(
            written.scaled(3),
            Rates::mix(vec![Group { hz: 400, vms: 2 }, Group { hz: 100, vms: 1 },])
        );
    }
}
