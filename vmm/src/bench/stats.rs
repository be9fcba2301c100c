//! Medians and extremes of a few runs.
//!
//! Must not know what the numbers mean. All numbers are finite.

/// The middle value; the mean of the two middle ones of an even number; `None` of nothing.
#[must_use]
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    if sorted.len() % 2 == 1 { Some(upper) } else { Some((sorted[middle - 1] + upper) / 2.0) }
}

/// The least value; `None` of nothing.
#[must_use]
pub fn least(values: &[f64]) -> Option<f64> {
    values.iter().copied().reduce(f64::min)
}

/// The greatest value; `None` of nothing.
#[must_use]
pub fn greatest(values: &[f64]) -> Option<f64> {
    values.iter().copied().reduce(f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_of_odd_even_and_none() {
        assert_eq!(median(&[3.0, 1.0, 200.0]), Some(3.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 100.0]), Some(3.0));
        assert_eq!(median(&[7.0]), Some(7.0));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn extremes() {
        assert_eq!(least(&[3.0, -1.0, 2.0]), Some(-1.0));
        assert_eq!(greatest(&[3.0, -1.0, 2.0]), Some(3.0));
        assert_eq!((least(&[]), greatest(&[])), (None, None));
    }
}
