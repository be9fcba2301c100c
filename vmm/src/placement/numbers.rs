//! Lists of small numbers, as `0-3,8`: of CPUs, NUMA nodes, vCPUs.
//!
//! Owns how they are written, in the way in which the kernel writes them, too. Must not know what
//! they number.

use std::fmt;
use std::str::FromStr;

use libc::c_ulong;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The largest number of a list. More than any host has CPUs.
pub const MOST: u32 = 65_535;

const WORD_BITS: u32 = c_ulong::BITS;

/// A set of numbers from 0 to [`MOST`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbers(Vec<u32>);

impl Numbers {
    /// The set of these, each at most [`MOST`]; others are left out.
    pub fn of(numbers: impl IntoIterator<Item = u32>) -> Self {
        let mut numbers: Vec<_> = numbers.into_iter().filter(|number| *number <= MOST).collect();
        numbers.sort_unstable();
        numbers.dedup();
        Numbers(numbers)
    }

    /// There is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this number is one of them.
    #[must_use]
    pub fn contains(&self, number: u32) -> bool {
        self.0.binary_search(&number).is_ok()
    }

    /// The numbers, in order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().copied()
    }

    /// The least that `others` do not have.
    #[must_use]
    pub fn first_missing_in(&self, others: &Numbers) -> Option<u32> {
        self.iter().find(|number| !others.contains(*number))
    }

    /// Those that `others` have, too.
    #[must_use]
    pub fn common(&self, others: &Numbers) -> Self {
        Numbers(self.iter().filter(|number| others.contains(*number)).collect())
    }

    /// A bit for each, as the kernel takes them; at least `words` words.
    #[must_use]
    pub fn mask(&self, words: usize) -> Vec<c_ulong> {
        let needed = self.0.last().map_or(0, |last| (last / WORD_BITS) as usize + 1);
        let mut mask = vec![0; needed.max(words)];
        for number in self.iter() {
            mask[(number / WORD_BITS) as usize] |= 1 << (number % WORD_BITS);
        }
        mask
    }

    /// From such a mask.
    #[must_use]
    pub fn from_mask(mask: &[c_ulong]) -> Self {
        let bits = (0..).zip(mask).flat_map(|(word, bits)| {
            (0..WORD_BITS)
                .filter(move |bit| bits >> bit & 1 != 0)
                .map(move |b| word * WORD_BITS + b)
        });
        Numbers::of(bits)
    }
}

impl fmt::Display for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        let mut separator = "";
        for run in self.0.chunk_by(|a, b| a + 1 == *b) {
            match run {
                [first, .., last] => write!(f, "{separator}{first}-{last}")?,
                _ => write!(f, "{separator}{}", run[0])?,
            }
            separator = ",";
        }
        Ok(())
    }
}

/// A text that is no list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write numbers up to {MOST} and ranges of them, as 0-3,8")]
pub struct NotNumbers;

impl FromStr for Numbers {
    type Err = NotNumbers;

    fn from_str(text: &str) -> Result<Self, NotNumbers> {
        let mut numbers = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(NotNumbers);
            }
            numbers.extend(first..=last);
            // A list that repeats itself costs no more than the longest that does not.
            if numbers.len() > 2 * MOST as usize {
                numbers = Numbers::of(numbers).0;
            }
        }
        Ok(Numbers::of(numbers))
    }
}

/// Digits alone: no sign, no blank.
fn number(text: &str) -> Result<u32, NotNumbers> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = if digits { text.parse().ok() } else { None };
    number.filter(|number| *number <= MOST).ok_or(NotNumbers)
}

impl Serialize for Numbers {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// How a list is written in a request or a configuration file: `2`, `[0, 2]`, `"0-1,4"`.
#[derive(Deserialize)]
#[serde(untagged, expecting = "write 2, [0, 2] or \"0-1,4\"")]
enum Written {
    One(u32),
    Each(Vec<u32>),
    Text(String),
}

impl<'d> Deserialize<'d> for Numbers {
    fn deserialize<D: Deserializer<'d>>(from: D) -> Result<Self, D::Error> {
        let each = match Written::deserialize(from)? {
            Written::One(number) => vec![number],
            Written::Each(numbers) => numbers,
            Written::Text(text) => return text.parse().map_err(D::Error::custom),
        };
        if each.is_empty() || each.iter().any(|number| *number > MOST) {
            return Err(D::Error::custom(NotNumbers));
        }
        Ok(Numbers::of(each))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Vec<u32> {
        text.parse::<Numbers>().expect(text).0
    }

    #[test]
    fn lists_have_numbers_and_ranges_in_any_order() {
        assert_eq!(parse("3"), [3]);
        assert_eq!(parse("8,0-2"), [0, 1, 2, 8]);
        assert_eq!(parse("1,1,0-1"), [0, 1]);
        assert_eq!(parse("5-5"), [5]);
        for wrong in [
            "",
            ",",
            "0,",
            ",0",
            "-",
            "1-",
            "-1",
            "2-1",
            "+1",
            " 1",
            "a",
            "0-1-2",
            "0x1",
            "65536",
            "0-65536",
            "4294967296",
            "all",
        ] {
            assert_eq!(wrong.parse::<Numbers>(), Err(NotNumbers), "{wrong}");
        }
        assert_eq!(parse(&vec!["0-65535"; 100].join(",")).len(), 65_536);
    }

    #[test]
    fn requests_and_files_may_have_one_number_a_list_or_a_text() {
        let read = |json: &str| serde_json::from_str::<Numbers>(json);
        for (json, numbers) in
            [("2", vec![2]), ("[2, 0]", vec![0, 2]), (r#""0-1,4""#, vec![0, 1, 4])]
        {
            assert_eq!(read(json).expect(json).0, numbers);
        }
        for wrong in ["[]", "-1", "[-1]", r#""""#, "true", "null", "[70000]", "1.5", r#"["0"]"#] {
            let error = read(wrong).expect_err(wrong).to_string();
            assert!(error.contains("write") && error.lines().count() == 1, "{error}");
        }
    }

    #[test]
    fn missing_and_common_ones_are_found() {
        let (few, more) = (Numbers::of([1, 4, 7]), Numbers::of(0..5));
        assert_eq!(few.first_missing_in(&more), Some(7));
        assert_eq!(Numbers::of([1, 4]).first_missing_in(&more), None);
        assert_eq!(few.common(&more).0, [1, 4]);
        assert_eq!(Numbers::default().to_string(), "none");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(set in prop::collection::btree_set(0..200u32, 1..60)) {
            let numbers = Numbers::of(set.iter().copied());
            prop_assert_eq!(&numbers.to_string().parse::<Numbers>().unwrap(), &numbers);
            prop_assert_eq!(&Numbers::from_mask(&numbers.mask(0)), &numbers);
            let json = serde_json::to_string(&numbers).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Numbers>(&json).unwrap(), &numbers);
            prop_assert!(numbers.iter().eq(set));
        }

        #[test]
        fn no_text_panics(text in "[0-9,\\-a ]{0,20}") {
            if let Ok(numbers) = text.parse::<Numbers>() {
                prop_assert!(!numbers.is_empty());
            }
        }
    }
}
