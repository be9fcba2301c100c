//! The races of the inbox, each in every order of its threads' accesses that the bound on preemptions
//! allows. Run by `.ci/loom`.
//!
//! Owns the scenarios, and a small run word ([`Word`]) and thread ([`Place`]) of the kind that a holder
//! and its posters share: what they do is the protocol that the inbox asks of them.
//!
//! # Mutations
//!
//! Each was made once, by itself. Whoever changes such a line breaks it again.
//!
//! | line | broken | models that fail |
//! |---|---|---|
//! | `inbox`: `post` in one order with the look | release, or relaxed | `race_4_two_edges_*` (both), `race_4_an_edge_and_a_level_meet_a_look` |
//! | `inbox`: the look at `vectors` in that order | relaxed | `race_4_two_edges_in_two_words_meet_a_look`, `race_4_an_edge_and_a_level_meet_a_look` |
//! | `inbox`: a word is taken by an exchange | what was looked at is taken, what is there is cleared | `race_4_two_edges_in_one_word_meet_a_look`, `race_3_two_levels_meet_a_look` |
//! | `inbox`: `post_level` sets the bit, then `LEVEL` | the other way round, or `LEVEL` by release | `race_3_two_levels_meet_a_look` |
//! | `inbox`: `change` in one order with the look | release | `race_1_*` (all), `race_5_a_vector_before_init_is_gone_after_it` |
//! | `inbox`: `change` is an exchange of what was seen | a store | `race_1_sipi_meets_an_nmi_and_an_external_interrupt` |
//! | `inbox`: INIT withdraws a SIPI | not | `race_1_init_withdraws_the_sipi_before_it_and_leaves_the_one_after_it` |
//! | `inbox`: INIT withdraws an NMI | not | `race_1_init_withdraws_the_nmi_before_it_and_leaves_the_one_after_it` |
//! | `inbox`: the first SIPI counts | the bits of both | `race_2_two_sipis_start_it_once_where_one_of_them_says` |
//! | `mod`: a software-disabled APIC accepts nothing | everything | `race_5_a_vector_before_init_is_gone_after_it` |
//! | here: `PENDING` set after the post | before it | `race_3_a_level_meets_a_look`, `race_4_an_edge_meets_a_look` |
//! | here: `PENDING` cleared before the look | after it | `race_4_a_post_meets_a_holder_that_enters`, `race_4_a_post_meets_a_holder_that_parks` |
//! | here: parking expects `PENDING` clear | not | `race_4_a_post_meets_a_holder_that_parks` |
//! | here: a second look from the guest | none, or before the thread says that it is there; no fence of the poster's | `race_4_a_post_meets_a_holder_that_enters` |
//!
//! These no model refutes, as the fences that the checker puts around other accesses do their work:
//!
//! - the look at `events` relaxed (the look at `vectors` is before it);
//! - the exchange of a word relaxed (the look at `events` is before the guest runs);
//! - the bit of `post_level` relaxed (`LEVEL` comes after it);
//! - the poster's reading of `PENDING` relaxed (the post is before it).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64 as Tally, Ordering::Relaxed as Plain};

use loom::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, SeqCst};
use loom::sync::atomic::{AtomicU32, fence};
use loom::thread::{JoinHandle, spawn};

use super::*;

const PENDING: u32 = 1;
const PARKED: u32 = 2;
const WAKING: u32 = 4;

/// Whether the holder runs (neither bit), is parked or was called, and whether it is to look.
///
/// Its accesses are `SeqCst` in a program. Here they are weaker, so that the order of race 4 has to
/// come from the fences that stand for the inbox's `SeqCst` (`sync::checked`): a weaker access there
/// would go unnoticed otherwise.
struct Word(AtomicU32);

impl Word {
    /// After a post. True if a parked holder was called by this.
    fn post(&self) -> bool {
        let mut old = self.0.load(Acquire);
        loop {
            let calls = old & PARKED != 0;
            if old & PENDING != 0 && !calls {
                return false;
            }
            let new = if calls { WAKING | PENDING } else { old | PENDING };
            match self.0.compare_exchange(old, new, AcqRel, Acquire) {
                Ok(_) => return calls,
                Err(seen) => old = seen,
            }
        }
    }

    /// Without the relaxed look that spares the exchange: it can miss what was just set, which is the
    /// exchange coming earlier, and the checker would not take the two for dependent.
    fn clear_pending(&self) -> bool {
        self.0.fetch_and(!PENDING, AcqRel) & PENDING != 0
    }

    fn park(&self) -> bool {
        self.0.compare_exchange(0, PARKED, AcqRel, Acquire).is_ok()
    }
}

const HOST: u32 = 0;
const GUEST: u32 = 1;
const KICKED: u32 = 2;

/// Whether the holder's thread is in the guest, where only a kick makes it look.
struct Place(AtomicU32);

struct World {
    inbox: Inbox,
    word: Word,
    place: Place,
    /// What the poster of vector 0x41, or of another, wrote for the guest before it posted.
    memory: [AtomicU32; 2],
}

impl World {
    fn new() -> Arc<Self> {
        Arc::new(World {
            inbox: Inbox::new(),
            word: Word(AtomicU32::new(0)),
            place: Place(AtomicU32::new(HOST)),
            memory: [AtomicU32::new(0), AtomicU32::new(0)],
        })
    }

    fn written_for(&self, vector: u8) -> &AtomicU32 {
        &self.memory[usize::from(vector != 0x41)]
    }

    /// What a poster does.
    fn tell(&self) {
        let _ = self.word.post();
        // This and the holder's fence stand for the one order of all `SeqCst` accesses.
        fence(SeqCst);
        let _ = self.place.0.compare_exchange(GUEST, KICKED, SeqCst, SeqCst);
    }

    /// What a holder does before it enters or parks.
    fn look(&self, apic: &mut LocalApic) -> Pulled {
        if self.word.clear_pending() { apic.pull(&self.inbox) } else { Pulled::default() }
    }

    /// The same, and the guest takes what it can: with it comes what was written before.
    fn look_and_deliver(&self, apic: &mut LocalApic, taken: &mut Vec<u8>) {
        let _ = self.look(apic);
        while let Some(vector) = apic.next_vector() {
            apic.acknowledge(vector);
            let _ = apic.write_msr(0x80b, 0, Moment::default()).expect("an EOI");
            let written = self.written_for(vector).load(Relaxed);
            assert_eq!(written, 1, "{vector:#x} is seen before what was written");
            taken.push(vector);
        }
    }
}

/// Runs the body in every order with at most so many preemptions, and says how many orders those
/// were.
fn check(preemptions: usize, body: impl Fn() + Send + Sync + 'static) {
    let runs = Arc::new(Tally::new(0));
    let mut builder = loom::model::Builder::new();
    builder.max_branches = 20_000;
    let bound = *builder.preemption_bound.get_or_insert(preemptions);
    let counter = Arc::clone(&runs);
    builder.check(move || {
        counter.fetch_add(1, Plain);
        body();
    });
    println!("{} executions with up to {bound} preemptions", runs.load(Plain));
}

fn apic() -> LocalApic {
    let mut apic = LocalApic::new(ApicConfig {
        id: 1,
        bsp: false,
        tsc_khz: 1_000_000,
        timer_hz: 1_000_000_000,
        tsc_deadline: true,
        least_period_ns: 0,
        physical_bits: 40,
        cmci: false,
        pv_eoi: false,
    });
    apic.set_base(apic.base_msr() | 1 << 10).expect("a legal transition");
    let _ = apic.write_msr(0x80f, 0x1ff, Moment::default()).expect("a legal value");
    apic
}

fn poster(world: &Arc<World>, post: impl FnOnce(&World) + 'static) -> JoinHandle<()> {
    let world = Arc::clone(world);
    spawn(move || post(&world))
}

/// A poster of one vector, and a holder that looks twice meanwhile and once after it: the vector is
/// taken once, and what was written before is seen with it.
fn posted_during_a_look(post: impl Fn(&Inbox) + Copy + Send + Sync + 'static) {
    check(6, move || {
        let world = World::new();
        let mut other = Some(poster(&world, move |world| {
            world.written_for(0x41).store(1, Relaxed);
            post(&world.inbox);
            world.tell();
        }));
        let (mut apic, mut taken) = (apic(), Vec::new());
        for last in [false, false, true] {
            if last && let Some(other) = other.take() {
                other.join().expect("the poster");
            }
            world.look_and_deliver(&mut apic, &mut taken);
        }
        assert_eq!(taken, [0x41]);
    });
}

#[test]
fn race_4_an_edge_meets_a_look() {
    posted_during_a_look(|inbox| inbox.post(0x41));
}

#[test]
fn race_3_a_level_meets_a_look() {
    posted_during_a_look(|inbox| inbox.post_level(0x41));
}

/// Two posters: what the one sets `PENDING` for, the other finds set. Both vectors are taken, each with
/// what was written before it.
fn two_posted_during_a_look(
    vectors: [u8; 2],
    post: impl Fn(&Inbox, u8) + Copy + Send + Sync + 'static,
) {
    check(5, move || {
        let world = World::new();
        let others = vectors.map(|vector| {
            poster(&world, move |world| {
                world.written_for(vector).store(1, Relaxed);
                post(&world.inbox, vector);
                world.tell();
            })
        });
        let (mut apic, mut taken) = (apic(), Vec::new());
        world.look_and_deliver(&mut apic, &mut taken);
        others.into_iter().for_each(|other| other.join().expect("a poster"));
        world.look_and_deliver(&mut apic, &mut taken);
        taken.sort_unstable();
        assert_eq!(taken, vectors);
    });
}

#[test]
fn race_4_two_edges_in_one_word_meet_a_look() {
    two_posted_during_a_look([0x41, 0x42], |inbox, vector| inbox.post(vector));
}

#[test]
fn race_4_two_edges_in_two_words_meet_a_look() {
    two_posted_during_a_look([0x41, 0x81], |inbox, vector| inbox.post(vector));
}

#[test]
fn race_3_two_levels_meet_a_look() {
    two_posted_during_a_look([0x41, 0x42], |inbox, vector| inbox.post_level(vector));
}

#[test]
fn race_4_an_edge_and_a_level_meet_a_look() {
    two_posted_during_a_look([0x41, 0x81], |inbox, vector| match vector {
        0x41 => inbox.post(vector),
        _ => inbox.post_level(vector),
    });
}

/// A holder that finds nothing parks; whoever posts calls one that is parked.
#[test]
fn race_4_a_post_meets_a_holder_that_parks() {
    check(6, || {
        let world = World::new();
        let called = Arc::new(AtomicU32::new(0));
        let other = {
            let called = Arc::clone(&called);
            poster(&world, move |world| {
                world.written_for(0x41).store(1, Relaxed);
                world.inbox.post(0x41);
                called.store(u32::from(world.word.post()), Relaxed);
            })
        };
        let (mut apic, mut taken) = (apic(), Vec::new());
        loop {
            world.look_and_deliver(&mut apic, &mut taken);
            if !taken.is_empty() || world.word.park() {
                break;
            }
        }
        other.join().expect("the poster");
        assert!(taken == [0x41] || called.load(Relaxed) == 1, "parked beside a post");
    });
}

/// A holder that looked goes into the guest, and looks at its word once more from there: either it
/// sees the post, or the poster sees that it is in the guest.
#[test]
fn race_4_a_post_meets_a_holder_that_enters() {
    check(6, || {
        let world = World::new();
        let other = poster(&world, |world| {
            world.written_for(0x41).store(1, Relaxed);
            world.inbox.post(0x41);
            world.tell();
        });
        let (mut apic, mut taken) = (apic(), Vec::new());
        world.look_and_deliver(&mut apic, &mut taken);
        world.place.0.swap(GUEST, SeqCst);
        fence(SeqCst);
        if world.word.0.load(SeqCst) & PENDING != 0 {
            world.place.0.swap(HOST, SeqCst);
            world.look_and_deliver(&mut apic, &mut taken);
        }
        other.join().expect("the poster");
        assert!(taken == [0x41] || world.place.0.load(SeqCst) == KICKED, "in the guest, uncalled");
    });
}

/// What a vCPU does with INIT and SIPI: it waits for the SIPI from INIT on, and starts once.
#[derive(Default)]
struct Startup {
    waits: bool,
    started: Vec<u8>,
    /// NMIs of its life since the last INIT.
    nmis: u8,
}

impl Startup {
    fn look(&mut self, world: &World, apic: &mut LocalApic) {
        let pulled = world.look(apic);
        if pulled.init {
            apic.init_reset();
            self.waits = true;
            self.nmis = 0;
        }
        self.nmis += pulled.nmis;
        if let (Some(page), true) = (pulled.sipi, self.waits) {
            self.waits = false;
            self.started.push(page);
        }
    }
}

#[test]
fn race_1_init_withdraws_the_sipi_before_it_and_leaves_the_one_after_it() {
    check(6, || {
        let world = World::new();
        let other = poster(&world, |world| {
            world.inbox.post_sipi(1);
            world.tell();
            world.inbox.post_init();
            world.tell();
            world.inbox.post_sipi(2);
            world.tell();
        });
        let (mut apic, mut startup) = (apic(), Startup::default());
        startup.look(&world, &mut apic);
        startup.look(&world, &mut apic);
        other.join().expect("the poster");
        startup.look(&world, &mut apic);
        assert_eq!(startup.started, [2]);
    });
}

#[test]
fn race_1_init_withdraws_the_nmi_before_it_and_leaves_the_one_after_it() {
    check(6, || {
        let world = World::new();
        let other = poster(&world, |world| {
            world.inbox.post_nmi();
            world.tell();
            world.inbox.post_init();
            world.tell();
            world.inbox.post_nmi();
            world.tell();
        });
        let (mut apic, mut startup) = (apic(), Startup::default());
        startup.look(&world, &mut apic);
        startup.look(&world, &mut apic);
        other.join().expect("the poster");
        startup.look(&world, &mut apic);
        assert_eq!((startup.waits, startup.nmis), (true, 1));
    });
}

#[test]
fn race_2_two_sipis_start_it_once_where_one_of_them_says() {
    check(5, || {
        let world = World::new();
        let others = [1, 2].map(|page| {
            poster(&world, move |world| {
                world.inbox.post_sipi(page);
                world.tell();
            })
        });
        let (mut apic, mut startup) = (apic(), Startup { waits: true, ..Startup::default() });
        startup.look(&world, &mut apic);
        others.into_iter().for_each(|other| other.join().expect("a poster"));
        startup.look(&world, &mut apic);
        assert!(matches!(startup.started[..], [1 | 2]), "{:?}", startup.started);
    });
}

#[test]
fn race_5_a_vector_before_init_is_gone_after_it() {
    check(6, || {
        let world = World::new();
        let other = poster(&world, |world| {
            // For the first look, which then may find INIT and not the vector.
            world.inbox.post_nmi();
            world.tell();
            world.inbox.post(0x41);
            world.tell();
            world.inbox.post_init();
            world.tell();
        });
        let (mut apic, mut startup) = (apic(), Startup::default());
        startup.look(&world, &mut apic);
        startup.look(&world, &mut apic);
        other.join().expect("the poster");
        startup.look(&world, &mut apic);
        assert!(startup.waits);
        // Software-enabled again, as by its start-up code: nothing old may turn up.
        let _ = apic.write_msr(0x80f, 0x1ff, Moment::default()).expect("a legal value");
        startup.look(&world, &mut apic);
        assert_eq!(apic.next_vector(), None);
    });
}

/// Bits that are set and a word that is exchanged: neither takes the other's away.
#[test]
fn race_1_sipi_meets_an_nmi_and_an_external_interrupt() {
    check(5, || {
        let world = World::new();
        let others = [
            poster(&world, |world| {
                world.inbox.post_extint();
                world.inbox.post_nmi();
                world.tell();
            }),
            poster(&world, |world| {
                world.inbox.post_sipi(1);
                world.tell();
            }),
        ];
        let mut apic = apic();
        let first = world.look(&mut apic);
        others.into_iter().for_each(|other| other.join().expect("a poster"));
        let second = world.look(&mut apic);
        let once = |of: fn(&Pulled) -> bool| of(&first) != of(&second);
        assert!(
            once(|p| p.nmis == 1) && once(|p| p.extint) && once(|p| p.sipi.is_some()),
            "{first:?} {second:?}"
        );
    });
}
