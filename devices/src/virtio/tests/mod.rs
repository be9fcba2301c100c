//! A driver's side, by hand.
