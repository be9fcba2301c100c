//! Models.

mod check;
mod notices;
mod passes;
mod walks;
mod world;

use check::{act, check, finish};
use world::World;
