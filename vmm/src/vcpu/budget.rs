//! How much of its time a thread may lend to other vCPUs.
//!
//! Owns the average service time of a vCPU, the token bucket behind `--borrow-share`, and whose turn it
//! is. Pure: time
//! is an argument. Must not know who lends to whom.

/// How well a vCPU can be served on others' threads: the average of its last borrowed runs, and
/// whether it was late, or had to be cut short, several times in a row.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServiceTime {
    average: u64,
    strikes: u8,
    served_at: Option<u64>,
}

/// A vCPU that was late or cut short so many times in a row has its own thread look after it.
const STRIKES: u8 = 2;

impl ServiceTime {
    /// Takes a run of `ns` nanoseconds into the average (weight 1/8). `good`: the run began in time
    /// and ended by itself.
    pub fn record(&mut self, ns: u64, good: bool) {
        self.average =
            if self.average == 0 { ns } else { self.average - self.average / 8 + ns / 8 };
        self.strikes = if good { 0 } else { self.strikes.saturating_add(1) };
    }

    /// A vCPU that was not served here because of its average gets another chance some time.
    pub fn forgive(&mut self) {
        self.average -= self.average / 8;
    }

    /// A service that the limit would cut is not worth starting on a foreign thread.
    #[must_use]
    pub fn fits(&self, limit_ns: u64) -> bool {
        self.average <= limit_ns
    }

    /// Whether its timer fires at `now` sooner after the last time than `period_ns`.
    #[must_use]
    pub fn too_often(&mut self, now: u64, period_ns: u64) -> bool {
        let before = self.served_at.replace(now);
        before.is_some_and(|at| now.saturating_sub(at) < period_ns)
    }

    /// Whether the vCPU is better off by itself; `late`: so it is now. It starts afresh when it is
    /// back.
    #[must_use]
    pub fn out(&mut self, late: bool) -> bool {
        let out = self.strikes + u8::from(late) >= STRIKES;
        if out {
            self.strikes = 0;
        }
        out
    }
}

/// How long somebody stays away who was driven out of the hierarchy: coming back only to be driven
/// out again doubles the time, so that slots do not flap.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    ns: u64,
    back: u64,
}

/// The first time, and the longest.
const FIRST_LEAVE_NS: u64 = 100_000_000;
const LONGEST_LEAVE_NS: u64 = 3_200_000_000;

impl Backoff {
    /// Nobody was driven out so far.
    #[must_use]
    pub fn new(now: u64) -> Self {
        Backoff { ns: FIRST_LEAVE_NS, back: now }
    }

    /// Driven out at `now`: answers until when.
    #[must_use]
    pub fn leave(&mut self, now: u64) -> u64 {
        let quiet = now.saturating_sub(self.back) > self.ns.saturating_mul(4);
        self.ns = if quiet { FIRST_LEAVE_NS } else { (self.ns * 2).min(LONGEST_LEAVE_NS) };
        now.saturating_add(self.ns)
    }

    /// Back in the hierarchy at `now`.
    pub fn back(&mut self, now: u64) {
        self.back = now;
    }
}

/// Length of the burst that the share allows at once: `share` of this many nanoseconds.
const WINDOW_NS: u64 = 10_000_000;
/// A token bucket: a thread whose own guest wants to run earns `share` of the time that passes and
/// pays for its borrowed runs.
#[derive(Clone, Debug)]
pub struct Share {
    /// Parts per thousand; 1000: no limit.
    per_mille: u64,
    tokens: i64,
    updated: u64,
    backoff: Backoff,
}

impl Share {
    /// A full bucket of a thread that may lend `percent` of its time (0-100; 100: no limit).
    ///
    /// With 0 the bucket is always empty: the first charge already says so, and the thread leaves.
    #[must_use]
    pub fn new(percent: u8, now: u64) -> Self {
        let per_mille = u64::from(percent.min(100)) * 10;
        Share {
            per_mille,
            tokens: (WINDOW_NS * per_mille / 1000) as i64,
            updated: now,
            backoff: Backoff::new(now),
        }
    }

    /// Pays for a borrowed run of `spent` nanoseconds that ended at `now`. Answers whether the
    /// share still lasts.
    #[must_use]
    pub fn charge(&mut self, spent: u64, now: u64) -> bool {
        if self.per_mille >= 1000 {
            return true;
        }
        let passed = now.saturating_sub(self.updated).min(WINDOW_NS);
        self.updated = now;
        let most = (WINDOW_NS * self.per_mille / 1000) as i64;
        let earned = (passed * self.per_mille / 1000) as i64;
        let spent = i64::try_from(spent).unwrap_or(i64::MAX);
        self.tokens = (self.tokens + earned).min(most).saturating_sub(spent).max(-most);
        self.tokens > 0
    }

    /// The share is used up: answers until when the thread stays away.
    #[must_use]
    pub fn leave(&mut self, now: u64) -> u64 {
        self.backoff.leave(now)
    }

    /// The thread is back in the hierarchy because its guest halted: whether it flaps is judged from
    /// here, but nothing was earned by that.
    pub fn halted(&mut self, now: u64) {
        self.backoff.back(now);
    }

    /// The thread is back in the hierarchy, with a full bucket; or stays in it, because nobody else
    /// could do better.
    pub fn rejoin(&mut self, now: u64) {
        self.backoff.back(now);
        self.updated = now;
        self.tokens = (WINDOW_NS * self.per_mille / 1000) as i64;
    }
}

/// Who has the thread: the own guest or those whose timers are due.
///
/// The own guest gets a turn when it has an interrupt to deliver, but not a second one before the
/// others had theirs, and when they had the thread for longer than one limit without a break.
#[derive(Clone, Copy, Debug, Default)]
pub struct Turns {
    /// The own guest's turn ends here.
    until: u64,
    /// The own guest had a turn because of an interrupt, and nobody was looked after since.
    owed: bool,
    /// Others have had the thread since then.
    serving_since: Option<u64>,
    /// The own guest has not halted since then.
    running_since: Option<u64>,
}

impl Turns {
    /// Whether others may be served now; `wants_entry`: the own guest has an interrupt to deliver.
    #[must_use]
    pub fn others(&mut self, wants_entry: bool, now: u64) -> bool {
        if now < self.until {
            return false;
        }
        if wants_entry && !self.owed {
            self.owed = true;
            self.until = now.saturating_add(LEAST_TURN_NS);
            return false;
        }
        true
    }

    /// Others were served, or nobody was due, and the own guest was not entered since.
    pub fn served(&mut self, began: u64, now: u64, limit_ns: u64) {
        self.owed = false;
        let since = *self.serving_since.get_or_insert(began);
        if now.saturating_sub(since) > limit_ns {
            self.until = now.saturating_add(LEAST_TURN_NS);
            self.serving_since = None;
        }
    }

    /// The own guest is entered.
    pub fn entered(&mut self) {
        self.serving_since = None;
    }

    /// When others may be served again, at the earliest.
    #[must_use]
    pub fn until(&self) -> u64 {
        self.until
    }

    /// Whether the own guest wants to run, so that others' time is taken from its share. One that
    /// has been running for less than one limit is about to halt again, as far as anybody knows: the
    /// handler of its own tick must not be taken for work.
    #[must_use]
    pub fn own_wants(&mut self, runnable: bool, now: u64, limit_ns: u64) -> bool {
        if !runnable {
            self.running_since = None;
            return false;
        }
        now.saturating_sub(*self.running_since.get_or_insert(now)) > limit_ns
    }

    /// The own guest has halted: its turn is over, and nobody is owed one.
    pub fn halted(&mut self) {
        *self = Turns { until: 0, owed: false, serving_since: None, running_since: None };
    }
}

/// When a borrowed run ends for the sake of the borrower's own timer, which is due at `own`: it may be as late as any
/// other timer may be that this thread looks after. A handler that is half done ends sooner than another thread
/// begins, and to hand it over costs that thread's wakeup.
#[must_use]
pub fn cut_for_own_timer(own: Option<u64>, patience_ns: u64) -> Option<u64> {
    own.map(|at| at.saturating_add(patience_ns))
}

/// How long the own guest's turn is.
const LEAST_TURN_NS: u64 = 50_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn average_follows_and_long_service_no_longer_fits() {
        let mut service = ServiceTime::default();
        assert!(service.fits(100));
        service.record(80, true);
        assert!(service.fits(100));
        for _ in 0..40 {
            service.record(10_000, true);
        }
        assert!(!service.fits(5_000));
        for _ in 0..40 {
            service.record(80, true);
        }
        assert!(service.fits(1_000), "a vCPU that became short again is served inline again");
    }

    #[test]
    fn only_what_is_late_or_cut_twice_in_a_row_is_out() {
        let mut service = ServiceTime::default();
        assert!(!service.out(true));
        service.record(80, false);
        assert!(!service.out(false), "in time again");
        service.record(80, true);
        service.record(80, false);
        assert!(service.out(true));
        assert!(!service.out(true), "it starts afresh");
        service.record(80, false);
        service.record(80, false);
        assert!(service.out(false), "cut twice");
        for _ in 0..300 {
            service.record(80, false);
        }
    }

    #[test]
    fn timers_that_fire_too_often_are_noticed() {
        let mut service = ServiceTime::default();
        assert!(!service.too_often(1_000, 200_000));
        assert!(service.too_often(21_000, 200_000));
        assert!(!service.too_often(221_000, 200_000));
    }

    #[test]
    fn share_of_a_quarter_lasts_at_a_quarter_and_not_at_a_half() {
        for (spent, lasts) in [(20_000, true), (50_000, false)] {
            let mut share = Share::new(25, 0);
            let mut ok = true;
            for i in 1..2_000u64 {
                ok &= share.charge(spent, i * 100_000);
            }
            assert_eq!(ok, lasts, "{spent} ns of every 100 us");
        }
    }

    #[test]
    fn no_share_is_used_up_by_any_run() {
        let mut share = Share::new(0, 0);
        assert!((1..1000).all(|i| !share.charge(1, i * 1_000_000_000)));
        share.rejoin(u64::MAX / 2);
        assert!(!share.charge(0, u64::MAX / 2));
    }

    #[test]
    fn full_share_never_ends() {
        let mut share = Share::new(100, 0);
        assert!((1..1000).all(|i| share.charge(1_000_000, i * 1_000_000)));
    }

    #[test]
    fn coming_back_in_vain_doubles_the_absence_up_to_the_longest() {
        let mut share = Share::new(25, 0);
        let mut now = 0;
        let mut last = 0;
        for _ in 0..10 {
            let until = share.leave(now);
            assert!(until - now >= last);
            last = until - now;
            now = until;
            share.rejoin(now);
            now += 1_000_000;
        }
        assert_eq!(last, LONGEST_LEAVE_NS);
        now += 5 * LONGEST_LEAVE_NS;
        assert_eq!(share.leave(now) - now, FIRST_LEAVE_NS, "a quiet time resets it");
    }

    #[test]
    fn guest_with_an_interrupt_at_all_times_does_not_keep_others_waiting() {
        let mut turns = Turns::default();
        let mut waited = 0;
        for now in (0..10_000_000).step_by(5_000) {
            if turns.others(true, now) {
                turns.served(now, now + 1_000, 600_000);
                waited = 0;
            } else {
                waited += 5_000;
            }
            turns.entered();
            assert!(waited <= LEAST_TURN_NS + 5_000, "others wait {waited} ns");
        }
    }

    #[test]
    fn halt_ends_the_turn_and_the_debt() {
        let mut turns = Turns::default();
        assert!(!turns.others(true, 1_000), "the own tick");
        assert!(!turns.others(false, 2_000));
        turns.halted();
        assert!(turns.others(false, 3_000), "nobody waits for a halted guest");
        assert!(!turns.others(true, 4_000), "the next tick has its turn, too");
    }

    #[test]
    fn others_without_a_gap_do_not_keep_the_own_guest_waiting() {
        let (mut turns, limit) = (Turns::default(), 600_000);
        let mut since_entry = 0;
        for now in (0..50_000_000).step_by(70_000) {
            if turns.others(false, now) {
                turns.served(now, now + 70_000, limit);
                since_entry += 70_000;
            } else {
                turns.entered();
                since_entry = 0;
            }
            assert!(since_entry <= limit + 140_000, "the own guest waits {since_entry} ns");
        }
    }

    #[test]
    fn handler_of_the_own_tick_is_no_work_and_computing_is() {
        let mut turns = Turns::default();
        assert!(!turns.own_wants(true, 1_000, 600_000));
        assert!(!turns.own_wants(true, 500_000, 600_000));
        assert!(turns.own_wants(true, 700_000, 600_000));
        turns.halted();
        assert!(!turns.own_wants(true, 800_000, 600_000));
        assert!(!turns.own_wants(false, 900_000, 600_000));
        assert!(!turns.own_wants(true, 1_600_000, 600_000), "it halted in between");
    }

    #[test]
    fn own_timer_waits_for_a_borrowed_run_no_longer_than_others_may() {
        let (due, patience) = (Some(1_000_000), 500_000);
        let cut = cut_for_own_timer(due, patience).expect("it has a timer");
        assert!(cut > 1_100_000, "a run that is about to end when the timer is due is not cut");
        assert!(cut <= 1_500_000, "one that goes on is");
        assert_eq!(cut_for_own_timer(None, patience), None);
        assert_eq!(cut_for_own_timer(Some(u64::MAX - 1), patience), Some(u64::MAX));
    }

    #[test]
    fn huge_times_do_not_overflow() {
        let mut share = Share::new(25, u64::MAX - 10);
        assert!(!share.charge(u64::MAX, u64::MAX));
        let _ = share.leave(u64::MAX);
    }
}
