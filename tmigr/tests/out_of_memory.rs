//! Memory that runs out at any allocation: whatever needs some is refused and leaves the hierarchy
//! as it was, everything else needs none.
//!
//! Owns the allocator of this test's process. Must not know where the crate allocates: it refuses
//! the first allocation of a call, then the second, until the call makes no more.
#![allow(unsafe_code)] // an allocator cannot be written without
#![allow(clippy::unwrap_used)] // a test: a panic is its way to fail

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use tmigr::{CreateError, Expire, Expired, GroupView, Hierarchy, Next, Notice, PrepareError, Slot};

const SLOTS: u32 = 100;

/// Which allocations of a thread are refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Refuse {
    Nothing,
    /// The one after so many.
    One(usize),
    /// That one and all that follow.
    AllFrom(usize),
}

thread_local! {
    // Neither a lazy start nor a destructor, either of which would allocate.
    static REFUSE: Cell<Refuse> = const { Cell::new(Refuse::Nothing) };
    static ASKED: Cell<usize> = const { Cell::new(0) };
}

struct Scarce;

// SAFETY: every allocation is the system allocator's own, with the caller's layout, or null, which
// stands for exhausted memory. Neither the cells nor `Cell::get` and `set` allocate or unwind.
unsafe impl GlobalAlloc for Scarce {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let asked = ASKED.get();
        ASKED.set(asked + 1);
        let refused = match REFUSE.get() {
            Refuse::Nothing => false,
            Refuse::One(at) => asked == at,
            Refuse::AllFrom(at) => asked >= at,
        };
        if refused {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's promises about the layout are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block is the system allocator's, and the layout is the one it was asked with.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Scarce = Scarce;

/// The answer of a call under a shortage, and how often it asked for memory.
fn with<T>(refuse: Refuse, call: impl FnOnce() -> T) -> (T, usize) {
    ASKED.set(0);
    REFUSE.set(refuse);
    let answer = call();
    REFUSE.set(Refuse::Nothing);
    (answer, ASKED.get())
}

/// Makes a call under every shortage that it notices; how many these are. What is made before each
/// call knows no shortage, and is looked at afterwards.
fn under_every_shortage<S, T>(
    mut start: impl FnMut() -> S,
    mut call: impl FnMut(&S) -> T,
    mut refused: impl FnMut(&S, T, Refuse),
) -> usize {
    let mut shortages = 0;
    for at in 0.. {
        for refuse in [Refuse::AllFrom(at), Refuse::One(at)] {
            let state = start();
            let (answer, asked) = with(refuse, || call(&state));
            if asked <= at {
                return shortages;
            }
            shortages += 1;
            refused(&state, answer, refuse);
        }
    }
    shortages
}

struct Fired(Vec<(Slot, u64)>);

impl Expire for Fired {
    fn expire(&mut self, slot: Slot, now: u64) -> Expired {
        self.0.push((slot, now));
        Expired { next: Next::Owned(Some(now + 500)), stop: false }
    }

    fn release(&mut self, _slot: Slot) {}

    fn notify(&mut self, _notice: Notice) {}
}

/// Everything that the members can tell about their hierarchy. Slot 0 is active, before and after.
fn behaviour(tree: &Hierarchy, members: &[Slot], now: u64) -> String {
    let mut seen = format!("{:?}\n", tree.groups());
    let fresh = Slot(members.len() as u32);
    seen += &format!("{:?}\n", tree.available(fresh, false).err());
    for &slot in members.iter().rev().take(9).filter(|slot| slot.0 != 0) {
        seen += &format!("{slot}: {:?}\n", tree.deactivate(slot, Some(now + u64::from(slot.0))));
    }
    seen += &format!("{:?}\n", tree.responsibility(Slot(0)));
    let mut fired = Fired(Vec::with_capacity(members.len()));
    seen += &format!("{:?}\n", tree.handle_remote(Slot(0), now + 90, &mut fired));
    seen += &format!("{:?}\n{:?}\n", fired.0, tree.groups());
    for &slot in members.iter().rev().take(9).filter(|slot| slot.0 != 0) {
        seen += &format!("{:?}\n", tree.activate(slot));
    }
    seen
}

fn one_root(groups: &[GroupView]) {
    let roots = groups.iter().filter(|group| group.parent.is_none()).count();
    assert_eq!(roots, usize::from(!groups.is_empty()), "{groups:?}");
}

type Grow = fn(&Hierarchy, Slot, u32) -> Result<Slot, PrepareError>;

fn by_number(tree: &Hierarchy, slot: Slot, node: u32) -> Result<Slot, PrepareError> {
    let _nobody_to_tell = tree.prepare(slot, node, Slot(0))?;
    Ok(slot)
}

fn handed_out(tree: &Hierarchy, _next: Slot, node: u32) -> Result<Slot, PrepareError> {
    Ok(tree.acquire(node, Slot(0))?.0)
}

/// A hierarchy with so many members, all active.
fn grown(members: u32, nodes: u32, node_of: fn(u32) -> u32, grow: Grow) -> Hierarchy {
    let tree = Hierarchy::new(SLOTS, nodes).unwrap();
    for slot in (0..members).map(Slot) {
        assert_eq!(grow(&tree, slot, node_of(slot.0)), Ok(slot));
        let _nobody_to_tell = tree.available(slot, false).unwrap();
    }
    tree
}

/// Adds each member of a hierarchy under every shortage; how many there were.
fn shortages_of_growth(nodes: u32, node_of: fn(u32) -> u32, grow: Grow) -> usize {
    let mut shortages = 0;
    for slot in (0..SLOTS).map(Slot) {
        let members: Vec<Slot> = (0..slot.0).map(Slot).collect();
        let node = node_of(slot.0);
        let start = || grown(slot.0, nodes, node_of, grow);
        let wanted = grown(slot.0 + 1, nodes, node_of, grow);
        one_root(&wanted.groups());
        shortages += under_every_shortage(
            start,
            |tree| grow(tree, slot, node),
            |tree, answer, refuse| {
                let case = format!("slot {slot}, {refuse:?}");
                assert_eq!(answer, Err(PrepareError::NoMemory), "{case}");
                let twin = start();
                assert_eq!(tree.groups(), twin.groups(), "{case}");
                if !members.is_empty() {
                    let [left, right] = [tree, &twin].map(|tree| behaviour(tree, &members, 1000));
                    assert_eq!(left, right, "{case}");
                }
                for tree in [tree, &twin] {
                    assert_eq!(grow(tree, slot, node), Ok(slot), "{case}");
                    let _nobody_to_tell = tree.available(slot, false).unwrap();
                }
                assert_eq!(tree.groups(), twin.groups(), "{case}");
                one_root(&tree.groups());
            },
        );
    }
    shortages
}

/// Field fault 13, a half-made branch: a new level, the first group of another node and the
/// connection of an old root are all among what is refused.
#[test]
fn row_13_growth_without_memory_changes_nothing() {
    let in_turn = |slot| slot % 3;
    let one_after_the_other = |slot| slot / 34;
    for how in [by_number as Grow, handed_out] {
        assert!(shortages_of_growth(1, |_| 0, how) >= 10);
        assert!(shortages_of_growth(3, in_turn, how) >= 10);
        assert!(shortages_of_growth(3, one_after_the_other, how) >= 10);
    }
}

#[test]
fn a_hierarchy_without_memory_is_not_made() {
    for slots in [2, SLOTS, 600] {
        let shortages = under_every_shortage(
            || (),
            |()| Hierarchy::<8>::new(slots, 3).map(|tree| tree.levels()),
            |(), answer, refuse| {
                assert_eq!(answer, Err(CreateError::NoMemory), "{slots} slots, {refuse:?}");
            },
        );
        assert!(shortages >= 4, "the slots and the levels take memory");
    }
}

#[test]
fn what_members_do_takes_no_memory() {
    let tree = Hierarchy::<8>::new(SLOTS, 1).unwrap();
    for slot in (0..SLOTS).map(Slot) {
        assert_eq!(by_number(&tree, slot, 0), Ok(slot));
        let _nobody_to_tell = tree.available(slot, false).unwrap();
    }
    let mut fired = Fired(Vec::with_capacity(SLOTS as usize));
    let ((), asked) = with(Refuse::AllFrom(0), || {
        for slot in (1..SLOTS).map(Slot) {
            let wakeup = tree.deactivate(slot, Some(u64::from(slot.0))).unwrap();
            assert_eq!(wakeup.first, None);
        }
        let _nobody_to_tell = tree.new_timer(Slot(9), Some(5)).unwrap();
        assert!(tree.requires_handle_remote(Slot(0), 90));
        let _responsibility = tree.handle_remote(Slot(0), 90, &mut fired);
        for slot in (1..SLOTS).map(Slot) {
            let _nobody_to_tell = tree.activate(slot).unwrap();
            let _nobody_to_tell = tree.unavailable(slot);
        }
    });
    assert_eq!(asked, 0);
    assert_eq!(fired.0.len(), 90);
}

#[test]
fn giving_up_a_slot_takes_no_memory() {
    let tree = Hierarchy::<8>::new(SLOTS, 1).unwrap();
    for slot in (0..SLOTS).map(Slot) {
        assert_eq!(by_number(&tree, slot, 0), Ok(slot));
        let _nobody_to_tell = tree.available(slot, false).unwrap();
    }
    let ((), asked) = with(Refuse::AllFrom(0), || {
        for slot in (0..SLOTS).map(Slot) {
            let _nobody_to_tell = tree.give_up(slot).unwrap();
        }
    });
    assert_eq!(asked, 0);
}
