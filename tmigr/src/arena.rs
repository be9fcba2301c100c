//! Where the groups live: they are never freed, and found by number without a lock.
//!
//! Owns memory. Must not know the tree.
//!
//! Chunks of growing size are allocated by growth, which is serialised by its mutex, and published
//! by `OnceLock`; a group's number reaches a reader through a release store (a parent link, a
//! slot's place), so what it names is there.

use crate::group::{Group, GroupId};
use crate::sync::{AtomicU32, OnceLock, Ordering};

const FIRST_CHUNK: u32 = 8;
const CHUNKS: usize = 26;

/// Room for a group: whole lines, in pairs as processors fetch them, so that neighbours share none.
/// What says whether the group is there is among them, so it is this that is aligned.
#[repr(align(128))]
struct Room<const FANOUT: usize>(OnceLock<Group<FANOUT>>);

type Chunk<const FANOUT: usize> = Box<[Room<FANOUT>]>;

/// The memory is used up.
#[derive(Debug)]
pub(crate) struct OutOfMemory;

/// All groups of a hierarchy.
pub(crate) struct Arena<const FANOUT: usize> {
    chunks: [OnceLock<Chunk<FANOUT>>; CHUNKS],
    /// Written by growth with release, after the group; views read it with acquire.
    len: AtomicU32,
}

fn locate(id: GroupId) -> (usize, usize) {
    let chunk = (id / FIRST_CHUNK + 1).ilog2();
    (chunk as usize, (id - FIRST_CHUNK * ((1 << chunk) - 1)) as usize)
}

impl<const FANOUT: usize> Arena<FANOUT> {
    pub(crate) fn new() -> Self {
        Arena { chunks: std::array::from_fn(|_| OnceLock::new()), len: AtomicU32::new(0) }
    }

    /// How many groups there are.
    pub(crate) fn len(&self) -> u32 {
        self.len.load(Ordering::Acquire)
    }

    /// The group of a number that was handed out.
    #[inline]
    pub(crate) fn get(&self, id: GroupId) -> &Group<FANOUT> {
        let (chunk, at) = locate(id);
        self.chunks[chunk]
            .get()
            .and_then(|chunk| chunk[at].0.get())
            .expect("a group is in the arena before its number is published")
    }

    /// Makes room for `more` groups, so that as many `push` succeed.
    pub(crate) fn reserve(&self, more: u32) -> Result<(), OutOfMemory> {
        let end = self.len().checked_add(more).ok_or(OutOfMemory)?;
        let Some(last) = end.checked_sub(1) else {
            return Ok(());
        };
        for chunk in 0..=locate(last).0 {
            let slot = self.chunks.get(chunk).ok_or(OutOfMemory)?;
            if slot.get().is_some() {
                continue;
            }
            let size = (FIRST_CHUNK as usize) << chunk;
            let mut groups = Vec::new();
            groups.try_reserve_exact(size).map_err(|_| OutOfMemory)?;
            groups.resize_with(size, || Room(OnceLock::new()));
            let _ = slot.set(groups.into_boxed_slice());
        }
        Ok(())
    }

    /// Adds a group, for which there is room. Calls are serialised by the caller.
    pub(crate) fn push(&self, group: Group<FANOUT>) -> GroupId {
        let id = self.len();
        let (chunk, at) = locate(id);
        let chunk = self.chunks[chunk].get().expect("room was reserved before");
        let fresh = chunk[at].0.set(group).is_ok();
        debug_assert!(fresh, "pushes are serialised");
        self.len.store(id + 1, Ordering::Release);
        id
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn a_group_takes_four_lines() {
        assert_eq!(size_of::<Room<8>>(), 256);
    }

    #[test]
    fn numbers_fill_the_chunks_without_a_gap() {
        assert_eq!(locate(0), (0, 0));
        assert_eq!(locate(7), (0, 7));
        assert_eq!(locate(8), (1, 0));
        assert_eq!(locate(23), (1, 15));
        assert_eq!(locate(24), (2, 0));
    }

    #[test]
    fn groups_are_found_by_number() {
        let arena = Arena::<8>::new();
        arena.reserve(100).unwrap();
        for level in 0..100 {
            assert_eq!(arena.push(Group::new(level, None, false, 0)), level);
        }
        assert!((0..100).all(|id| arena.get(id).level == id));
    }
}
