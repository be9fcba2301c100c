//! Where the groups live: they are never freed, and found by their name without a lock.
//!
//! Owns memory. Must not know the tree.
//!
//! Chunks of growing size are allocated by growth, which is serialised by its mutex, and published
//! by `OnceLock`; a group's name reaches a reader through a release store (a parent link, a
//! slot's place), so what it names is there.

use crate::group::Group;
use crate::sync::{AtomicU32, OnceLock, Ordering};

const FIRST_CHUNK: u32 = 8;
/// The bits of a name that are the index in a chunk; the others number the chunk.
const INDEX_BITS: u32 = 27;
/// As many as there are numbers for: a chunk is found without a look at their number.
const CHUNKS: usize = 1 << (u32::BITS - INDEX_BITS);
/// Those whose places all have numbers.
const CHUNKS_USED: usize = (INDEX_BITS - FIRST_CHUNK.ilog2() + 1) as usize;

/// The name of a group: its chunk and its index there. A walk looks a group up at every level, and
/// would spend as long on the way from a number to the place as on an exchange.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct GroupId(u32);

impl GroupId {
    /// What is no group's name, as bits.
    pub(crate) const NOBODY: u32 = u32::MAX;

    /// The name of the group of a number, in order of creation.
    pub(crate) fn of_number(number: u32) -> Self {
        let chunk = (number / FIRST_CHUNK + 1).ilog2();
        GroupId(chunk << INDEX_BITS | (number - Self::before(chunk)))
    }

    /// How many groups are in the chunks before one.
    fn before(chunk: u32) -> u32 {
        FIRST_CHUNK * ((1 << chunk) - 1)
    }

    /// The number of the group, in order of creation.
    pub(crate) fn number(self) -> u32 {
        Self::before(self.0 >> INDEX_BITS) + self.index() as u32
    }

    fn chunk(self) -> usize {
        (self.0 >> INDEX_BITS) as usize
    }

    fn index(self) -> usize {
        (self.0 & ((1 << INDEX_BITS) - 1)) as usize
    }

    /// The name as it is stored.
    pub(crate) fn bits(self) -> u32 {
        self.0
    }

    /// The name that was stored.
    pub(crate) fn of_bits(bits: u32) -> Self {
        GroupId(bits)
    }
}

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

impl<const FANOUT: usize> Arena<FANOUT> {
    pub(crate) fn new() -> Self {
        Arena { chunks: std::array::from_fn(|_| OnceLock::new()), len: AtomicU32::new(0) }
    }

    /// How many groups there are.
    fn len(&self) -> u32 {
        self.len.load(Ordering::Acquire)
    }

    /// The names of all groups, in order of creation.
    pub(crate) fn ids(&self) -> impl Iterator<Item = GroupId> {
        (0..self.len()).map(GroupId::of_number)
    }

    /// The group of a name that was handed out.
    #[inline]
    pub(crate) fn get(&self, id: GroupId) -> &Group<FANOUT> {
        self.chunks[id.chunk()]
            .get()
            .and_then(|chunk| chunk[id.index()].0.get())
            .expect("a group is in the arena before its name is published")
    }

    /// Makes room for `more` groups, so that as many `push` succeed.
    pub(crate) fn reserve(&self, more: u32) -> Result<(), OutOfMemory> {
        let end = self.len().checked_add(more).ok_or(OutOfMemory)?;
        let Some(last) = end.checked_sub(1) else {
            return Ok(());
        };
        if last >= GroupId::before(CHUNKS_USED as u32) {
            return Err(OutOfMemory);
        }
        for (chunk, slot) in
            self.chunks.iter().enumerate().take(GroupId::of_number(last).chunk() + 1)
        {
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
        let number = self.len();
        let id = GroupId::of_number(number);
        let chunk = self.chunks[id.chunk()].get().expect("room was reserved before");
        let fresh = chunk[id.index()].0.set(group).is_ok();
        debug_assert!(fresh, "pushes are serialised");
        self.len.store(number + 1, Ordering::Release);
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
        let located = |number| {
            let id = GroupId::of_number(number);
            assert_eq!(id.number(), number);
            (id.chunk(), id.index())
        };
        assert_eq!(located(0), (0, 0));
        assert_eq!(located(7), (0, 7));
        assert_eq!(located(8), (1, 0));
        assert_eq!(located(23), (1, 15));
        assert_eq!(located(24), (2, 0));
    }

    #[test]
    fn the_last_chunk_ends_where_names_do() {
        let end = GroupId::before(CHUNKS_USED as u32);
        let last = GroupId::of_number(end - 1);
        assert_eq!((last.chunk(), last.index()), (CHUNKS_USED - 1, (1 << INDEX_BITS) - 1));
        assert_ne!(last.bits(), GroupId::NOBODY);
        assert!(Arena::<8>::new().reserve(end + 1).is_err());
    }

    #[test]
    fn groups_are_found_by_name() {
        let arena = Arena::<8>::new();
        arena.reserve(100).unwrap();
        for level in 0..100 {
            assert_eq!(arena.push(Group::new(level, None, false, 0)).number(), level);
        }
        assert!(arena.ids().all(|id| arena.get(id).level == id.number()));
        assert_eq!(arena.ids().count(), 100);
    }
}
