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
/// As many as those bits can number, so that whatever they say is one.
const CHUNKS: usize = 1 << (u32::BITS - INDEX_BITS);
/// How many groups have names: the chunks beyond would have more places than indices.
const GROUPS: u32 = GroupId::before(INDEX_BITS - FIRST_CHUNK.ilog2() + 1);

/// The name of a group: its chunk and its index there. A walk looks for a group at every level, and
/// to find it by its number takes longer than an exchange.
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
    const fn before(chunk: u32) -> u32 {
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
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct OutOfMemory;

/// How many chunks so many groups take.
fn chunks_for(groups: u32) -> Result<usize, OutOfMemory> {
    match groups.checked_sub(1) {
        None => Ok(0),
        Some(last) if last < GROUPS => Ok(GroupId::of_number(last).chunk() + 1),
        Some(_) => Err(OutOfMemory),
    }
}

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
        for (chunk, slot) in self.chunks.iter().enumerate().take(chunks_for(end)?) {
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
    fn there_are_as_many_groups_as_names() {
        let last = GroupId::of_number(GROUPS - 1);
        assert_eq!((last.number(), last.index()), (GROUPS - 1, (1 << INDEX_BITS) - 1));
        assert_ne!(last.bits(), GroupId::NOBODY);
        assert_eq!(chunks_for(GROUPS), Ok(last.chunk() + 1));
        assert_eq!(chunks_for(GROUPS + 1), Err(OutOfMemory));
        assert_eq!([0, 1, 8, 9].map(chunks_for), [Ok(0), Ok(1), Ok(1), Ok(2)]);
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
