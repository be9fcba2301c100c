//! How sizes, durations and names are written on the command line.
//!
//! Pure. Owns nothing.

use std::time::Duration;

/// The size of a balloon: as [`memory_size`], or 0. In bytes.
pub(crate) fn balloon_size(text: &str) -> Result<u64, String> {
    if text == "0" { Ok(0) } else { memory_size(text) }
}

/// A memory size: a number with K, M or G behind it; without, MiB. In bytes.
pub(crate) fn memory_size(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 10),
        Some((at, 'm' | 'M')) => (&text[..at], 20),
        Some((at, 'g' | 'G')) => (&text[..at], 30),
        _ => (text, 20),
    };
    let number: u64 =
        digits.parse().map_err(|_| "write a number of MiB, or 512M, or 2G".to_string())?;
    if number == 0 {
        return Err("a VM needs memory: 64M is enough for the embedded images".into());
    }
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| "more than can be mapped; write a number of MiB, or 512M, or 2G".to_string())
}

/// The shortest period of a guest's timers: a duration of 1 us to 1 s.
pub(crate) fn timer_period(text: &str) -> Result<Duration, String> {
    let period = duration(text)?;
    let range = Duration::from_micros(1)..=Duration::from_secs(1);
    range.contains(&period).then_some(period).ok_or_else(|| "between 1us and 1s".into())
}

/// A duration: a number with ns, us, ms or s behind it.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    const HINT: &str = "write a number with its unit, as 500us, 1ms or 2s (at most 3600s)";
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let at = text.find(|c: char| c.is_ascii_alphabetic()).ok_or(HINT)?;
    let number: f64 = text[..at].trim().parse().map_err(|_| HINT)?;
    let seconds = match &text[at..] {
        "ns" => number * 1e-9,
        "us" => number * 1e-6,
        "ms" => number * 1e-3,
        "s" => number,
        _ => return Err(HINT.into()),
    };
    if !(0.0..=3600.0).contains(&seconds) {
        return Err(HINT.into());
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// A time in seconds, with a fraction if wanted; more than 0, at most `most`.
pub(super) fn seconds_up_to(text: &str, most: f64) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "write a number of seconds".to_string())?;
    if value > 0.0 && value <= most {
        Ok(value)
    } else {
        Err(format!("write a number of seconds above 0, at most {most}"))
    }
}

/// A time limit in seconds.
pub(super) fn time_limit(text: &str) -> Result<Duration, String> {
    seconds_up_to(text, 1e6).map(Duration::from_secs_f64)
}

/// The closest of `names` to what was written, if any is close (edit distance of at most a third).
pub(crate) fn closest<'a>(written: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    names
        .map(|name| (edits(written, name), name))
        .filter(|(distance, name)| *distance <= name.len().max(3) / 3 + 1)
        .min()
        .map(|(_, name)| name)
}

/// Levenshtein's distance, one row at a time.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_sizes_are_mib_unless_they_say_otherwise() {
        assert_eq!(memory_size("64"), Ok(64 << 20));
        assert_eq!(memory_size("64M"), Ok(64 << 20));
        assert_eq!(memory_size("512k"), Ok(512 << 10));
        assert_eq!(memory_size("2G"), Ok(2 << 30));
        for wrong in [
            "",
            "0",
            "0G",
            "M",
            "-1",
            "1.5G",
            "64MiB",
            "99999999999999999999",
            "99999999999999G",
            "6é",
        ] {
            assert!(memory_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations_carry_their_unit() {
        assert_eq!(duration("1ms"), Ok(Duration::from_millis(1)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        assert_eq!(duration("1.5us"), Ok(Duration::from_nanos(1500)));
        for wrong in ["", "1", "ms", "1h", "-1ms", "nan s", "infs", "4000s", "1m s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn seconds_are_positive_and_finite() {
        assert_eq!(seconds_up_to("2.5", 10.0), Ok(2.5));
        for wrong in ["0", "-1", "NaN", "inf", "11", "x"] {
            assert!(seconds_up_to(wrong, 10.0).is_err(), "{wrong}");
        }
    }

    #[test]
    fn closest_name_is_found_and_nonsense_is_not() {
        let names = ["hello", "tick", "busy", "ipi", "halt"];
        assert_eq!(closest("helo", names.into_iter()), Some("hello"));
        assert_eq!(closest("tock", names.into_iter()), Some("tick"));
        assert_eq!(closest("linux-kernel", names.into_iter()), None);
    }
}
