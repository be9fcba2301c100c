//! The numbered races of the crate, each in every order of its threads' accesses that the bound on
//! preemptions allows. Run by `.ci/loom`; fan-out 2, two or three threads.
//!
//! Owns the scenarios and what must hold at their end (`check`): the words agree; nobody sleeps past
//! what it is responsible for, unless it was told; and, once the clock runs, every timer fires, once
//! and in time.
//!
//! # Mutations
//!
//! Each was made once, by itself, and all models were run with at most 2 preemptions. Whoever changes
//! such a line breaks it again.
//!
//! | line | broken | models that fail |
//! |---|---|---|
//! | `word`: `seq` | not incremented by activations, or at all | `race_1_*` (both), `race_2_a_walk_meets_a_new_parent`, `race_5_growth_meets_one_who_comes`, `race_9_the_last_active_one_leaves_and_another_comes` |
//! | `word`: the child is looked at before each attempt | only before the first | `race_1_a_late_deactivation_meets_a_newer_activation`, `race_2_a_walk_meets_a_new_parent`, `race_5_growth_meets_one_who_comes`, `race_9_the_last_active_one_leaves_and_another_comes` |
//! | `group`: `parent` by release and acquire | either one relaxed | `race_2_*` (both), two of `race_5_*` |
//! | `hierarchy`: the way up is looked for after the work at a group | before it | `race_2_*` (both), `race_5_growth_meets_one_who_comes`, `race_5_growth_meets_one_who_goes_idle` |
//! | `growth`: the old root is marked active above | left out | 13 models, `race_1_*`, `race_2_*`, `race_5_*` among them |
//! | `events`: the word is read under the group's lock, from a slot | before it | `race_3_the_last_one_of_a_single_level_meets_a_first_timer` |
//! | `events`: the same, from a group | before the locks | `race_3_the_last_one_meets_a_first_timer`, `race_3_the_last_one_meets_two_first_timers`, `race_9_the_last_active_one_leaves_and_a_timer_is_armed`, `race_9_the_last_two_leave_and_go_idle` |
//! | `events`: the child's first event is taken and queued above under both locks | taken in a critical section of its own | `race_4_a_sibling_arms_while_a_slot_is_expired`, `race_4_the_last_one_goes_idle_during_a_pass`, `race_8_a_role_handed_over_at_the_top_meets_a_first_event` and three more |
//! | `walk`: a look at the word after the event is queued | left out, or before | `race_10_*` (all), `race_2_the_last_ones_go_idle_below_a_new_parent`, `race_4_the_last_one_goes_idle_during_a_pass`, `race_9_the_last_two_leave_and_go_idle` and more |
//! | `walk`: a role handed over counts as touched | not | `race_8_*` (both), `race_9_the_last_active_one_leaves_and_another_comes`, `race_10_siblings_go_idle_while_another_comes` |
//! | `walk`: notices after the walk | before it, by `new_timer` | `race_6_*` (three), `race_8_*` (both), `race_4_a_sibling_arms_while_a_slot_is_expired` |
//! | `remote`: what is queued again is read in the critical section that ends `remote` | before, in one of its own | `race_4_a_slot_arms_while_it_is_expired`, `race_7_a_slot_runs_during_a_pass` |
//! | `remote`: `release` in that critical section | before it | the same two |
//! | `walk`: a new timer is noted as the slot's own next expiry | not | the first of them |
//! | `remote`: it queues as a pass | as a new timer | `race_3_the_last_one_of_three_levels_meets_a_first_timer`, `race_5_growth_meets_one_who_goes_idle` |
//! | `notify`: `known` is reset before words and expiries are read | not at all, or after | `race_6_a_notice_meets_a_receiver_whose_work_is_done`, `race_4_a_sibling_arms_while_a_slot_is_expired`, `race_7_a_sibling_comes_during_a_pass` |
//! | `notify`: `fetch_min` of `known` by who tells | a load and a store | `race_6_a_notice_meets_a_receiver_whose_work_is_done` |
//! | `word`, `group`, `notify`: words, expiries and `known` in one `SeqCst` order | all three acquire and release (only `race_6_*` were run) | `race_6_a_notice_meets_a_receiver_that_takes_the_role`, `race_6_a_notice_meets_a_receiver_whose_work_is_done` |
//! | `availability`: an idle slot that leaves is activated first | not | `race_9_the_keeper_leaves_and_so_does_another` |
//! | `availability`: the trigger | never | `race_9_*` (all but `race_9_the_last_active_one_leaves_and_another_comes`) |
//!
//! These no model refutes, and why:
//!
//! - `word`: the fence after a failed exchange. The failed exchange is an acquire and the look at the
//!   child `SeqCst`, and each suffices; leaving out the fence and the acquire is not refuted either.
//! - `group`: mask before parent, for the reader or the writer, even with a root that has no mask from
//!   its making. Whoever prepares is active, so nobody goes up from the old root before he has gone
//!   idle, and whoever sees that sees the links. It matters to a way up that is looked for early.
//! - `growth`: the old root's name in the new top written after its link. It is looked up by a bit of
//!   the word, which is set later still.
//! - `events`: the child's word read before the locks. Its event was queued before, so the argument of
//!   race 10 holds. The child unlocked early: its parent's lock, still held, keeps the order.
//! - `word`, `group`, `notify`: one of the words, `next_expiry` and `known` alone with acquire and
//!   release. The checker's fences around the other two order more than the language does
//!   (`sync::checked`).
//! - `walk`: a new timer queued at once while `remote`. The pass queues the same value again.
//! - `walk`: the parent's event ignored before the exchange of the word instead of after it.
//!   Sooner or later the event is dropped or named anew; in between a pass comes once too often.
//! - `remote`: `remote` or `idle` not asked. The run word keeps two from one slot's timers, and an
//!   active slot's event is ignored; `tests::races` refutes the first with a caller without one.
//! - `remote`: the level's first expiry read after the lock is dropped.

mod check;
mod notices;
mod passes;
mod walks;
mod world;

use check::{act, check, finish};
use world::World;
