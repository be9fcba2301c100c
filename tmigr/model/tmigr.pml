/*
 * The timer migration hierarchy as a Promela model, for spin.
 *
 *                     root (6)
 *                    /        \
 *            group (4)        group (5)
 *             /     \          /    \
 *        cpu 0     cpu 1   cpu 2   (cpu 3)
 *
 * A node n has the parent UP(n); the numbers are chosen so. Each CPU is a process, the thread that
 * owns the vCPU of that slot; the clock is another. What is one step here is one exchange of a group
 * word, one load, or one section under a group's lock. The lock of a CPU is held across steps.
 *
 * Every run is finite in the number of timers, interrupts and ticks, so the liveness properties are:
 * there is no cycle at all (pan -l, with no progress label anywhere), and whenever all CPUs are at
 * rest with no reason to wake, at any value of the clock, no armed timer is due (QUIET, below).
 *
 * Configurations (-D): NCPU (3; the fixed tree may have 4), TIMERS and WAKES (in all), LAST (the last expiry that is
 * chosen), GROW (cpu 2's branch and the root are made while cpu 0 and 1 run), NOTIFY (an active CPU
 * has no tick: it works when its host timer is due, or when told), ONE_EXPIRY (LAST alone is chosen).
 * Mutants (-D): see the word MUTANT.
 */

#ifndef NCPU
#define NCPU 3
#endif
#ifndef TIMERS
#define TIMERS 1
#endif
#ifndef WAKES
#define WAKES 1
#endif
#ifndef LAST
#define LAST 1
#endif

#define NEVER 15          /* no timer; the clock stays below */
#define NOBODY 15
#define ROOT 6
#define UP(n) (4 + (n) / 2)
#define KID(g, i) (((g) - 4) * 2 + (i))
#define SIBLING(n) ((n) ^ 1)
#define MIN(a, b) ((a) < (b) -> (a) : (b))
#define MAX(a, b) ((a) > (b) -> (a) : (b))

/* Who has a vCPU: its thread, nobody (it sleeps), a remote pass, or a pass has just given it back to
 * its thread, which has to wake. */
#define HOME 0
#define PARKED 1
#define BORROWED 2
#define WAKING 3

/* ---- the tree ---- */

/* The group word: `act` and `mig` (0: none). There is no `seq`: its effect, that an exchange fails
 * whenever the word was updated since it was read, is had by `fresh`, which every update clears.
 * That is a `seq` that never wraps, and it does not multiply the states. */
byte act[7];
byte mig[7];
bit fresh[NCPU];

byte mask[7];             /* the place in the parent */
bit linked[7];            /* of a group: the parent is published */

/* The event of a node, queued in its parent. */
bit queued[7];
byte expiry[7];
byte names[7];            /* of a group's event: the CPU it stands for */
bit ignored[7];
bit second[7];            /* of a group: its children's expiries are equal and the first child came later */
byte stored[7];           /* next_expiry as last stored */

/* ---- the CPUs ---- */

bit locked[NCPU];
bit idle[NCPU];
bit remote[NCPU];         /* a pass is expiring this CPU's timers */
byte wakeup[NCPU];
byte event[NCPU];         /* the expiry its event got last; 0 while it is ignored */
byte own[NCPU];           /* the own next expiry; kept while `remote`, as only then it is read */

/* ---- outside of the hierarchy ---- */

byte now;
byte timers[NCPU];        /* the armed timers: bit e is one for time e */
byte run_word[NCPU];
bit attention[NCPU];      /* the thread must look at its timers before it may park */
byte may_arm = TIMERS;
byte may_wake = WAKES;
bit rests[NCPU];          /* sleeps, or is in its guest */
bit prepared = 1;         /* cpu 2 has its place */

#ifdef NOTIFY
byte known[NCPU];
byte host_timer[NCPU];
bit told[NCPU];
#endif

#define DUE(c, t) (timers[c] & ((1 << ((t) + 1)) - 1))
#define IS_ARMED(c, t) (timers[c] & (1 << (t)))

/* The first timer of c. Times are 0 .. LAST + 3 at most, see Clock. */
#define FIRST_TIMER(c) \
    (IS_ARMED(c, 0) -> 0 : (IS_ARMED(c, 1) -> 1 : (IS_ARMED(c, 2) -> 2 : (IS_ARMED(c, 3) -> 3 : \
    (IS_ARMED(c, 4) -> 4 : (IS_ARMED(c, 5) -> 5 : (IS_ARMED(c, 6) -> 6 : NEVER)))))))

#define FALLS_TO(n) (mig[UP(n)] == 0 || mig[UP(n)] == mask[n])

/* requires_handle_remote of an active CPU. */
#define CALLED(c) (FALLS_TO(c) && (stored[UP(c)] <= now || \
    (linked[UP(c)] && FALLS_TO(UP(c)) && stored[ROOT] <= now)))

/* Why an active CPU leaves its guest, apart from its own timers. */
#ifdef NOTIFY
#define REASON(c) (told[c] || host_timer[c] <= now)
#else
#define REASON(c) CALLED(c)
#endif

/* Why the thread of a parked vCPU wakes: it is given back, or it is the keeper. */
#define RECALLED(c) (run_word[c] == WAKING || (run_word[c] == PARKED && wakeup[c] <= now))

#define CALM(c) (rests[c] && !(idle[c] && RECALLED(c)) && !(!idle[c] && REASON(c)))

/* An armed timer of an idle CPU is due and not taken care of. One that was armed in the past while a pass had
 * the CPU is put off by one tick. An active CPU's own timers are no matter of the hierarchy. */
#define NEGLECTED(c) (idle[c] && DUE(c, now) && !(!ignored[c] && event[c] == now + 1))

#if NCPU == 3
#define ALL(p) (p(0) && p(1) && p(2))
#define ANY(p) (p(0) || p(1) || p(2))
#else
#define ALL(p) (p(0) && p(1) && p(2) && p(3))
#define ANY(p) (p(0) || p(1) || p(2) || p(3))
#endif

#define RESTS(c) rests[c]
#define COUNTS(n) (queued[n] && !ignored[n])
#define TOP (linked[4] -> ROOT : 4)
#define FIRST_OF(g) MIN((COUNTS(KID(g, 0)) -> expiry[KID(g, 0)] : NEVER), \
                        (COUNTS(KID(g, 1)) -> expiry[KID(g, 1)] : NEVER))
#define KEEPS(c) (idle[c] && wakeup[c] <= FIRST_OF(TOP))

/* A child's bit is set exactly when the child is active. */
#define MIRRORED(n) (!linked[n] || ((act[ROOT] & mask[n]) != 0) == (act[n] != 0))

/* What holds whenever all walks are finished: looked at by the clock, at every value. */
inline check_rest() {
    if
    :: ALL(RESTS) ->
        assert(MIRRORED(4) && MIRRORED(5));
        assert(act[TOP] != 0 || FIRST_OF(TOP) == NEVER || ANY(KEEPS));
        assert(!(ALL(CALM) && ANY(NEGLECTED)))     /* QUIET */
    :: else
    fi
}

/* ---- the group word ---- */

/* After every exchange: the migrator is one bit of `act`, or none exactly when `act` is 0. */
inline exchanged(g) {
    assert((mig[g] == 0 && act[g] == 0) || mig[g] == 1 || mig[g] == 2);
    assert((mig[g] & act[g]) == mig[g]);
    if
    :: g == ROOT ->
        fresh[0] = 0; fresh[1] = 0; fresh[2] = 0;
#if NCPU > 3
        fresh[3] = 0
#endif
    :: else
    fi
}

inline set_active(g, bits) {
    assert(bits != 0);
    act[g] = act[g] | bits;
    took = (mig[g] == 0);
    if :: took -> mig[g] = bits :: else fi;
    exchanged(g)
}

#define STAYS 0
#define HANDED 1
#define VACANT 2

inline clear_active(g, bits, is_idle) {
    assert(bits != 0);
    left = STAYS;
    if
    :: is_idle ->
        act[g] = act[g] & (3 - bits);
        if
        :: mig[g] != bits
        :: mig[g] == bits && act[g] != 0 -> mig[g] = (act[g] & 1 -> 1 : 2); left = HANDED
        :: mig[g] == bits && act[g] == 0 -> mig[g] = 0; left = VACANT
        fi
    :: else
    fi;
    exchanged(g)
}

/* ---- the queue of a group, always under its lock ---- */

inline unqueue(n) {
    queued[n] = 0; expiry[n] = 0; names[n] = 0; second[UP(n)] = 0
}

inline head(g) {
    if
    :: queued[KID(g, 0)] && (!queued[KID(g, 1)] || expiry[KID(g, 0)] < expiry[KID(g, 1)] ||
        (expiry[KID(g, 0)] == expiry[KID(g, 1)] && !second[g])) -> front = KID(g, 0)
    :: else -> front = (queued[KID(g, 1)] -> KID(g, 1) : NOBODY)
    fi
}

/* The first event that counts; ignored ones before it are dropped. */
inline first_event(g) {
    head(g);
    if
    :: front != NOBODY && ignored[front] ->
        unqueue(front); head(g);
        if
        :: front != NOBODY && ignored[front] -> unqueue(front); front = NOBODY
        :: else
        fi
    :: else
    fi;
    stored[g] = (front == NOBODY -> NEVER : expiry[front])
}

inline put(n, ignore, e, c) {
    if
    :: queued[n] && !(ignore) && expiry[n] == e ->
        names[n] = c
    :: else ->
        if
        :: queued[n] ->
            unqueue(n);
            if :: !queued[SIBLING(n)] -> stored[UP(n)] = NEVER :: else fi
        :: else
        fi;
        if
        :: ignore
        :: else ->
            queued[n] = 1; expiry[n] = e; names[n] = c;
            if
            :: !queued[SIBLING(n)] || e < expiry[SIBLING(n)] -> stored[UP(n)] = e
            :: else -> second[UP(n)] = (e == expiry[SIBLING(n)] && (n & 1) == 0)
            fi
        fi
    fi
}

/* The end of update events, in the group above n. `word_act` and `word_mig` are the word. */
inline settle(n, ignore, e, c, by_pass) {
    before = stored[UP(n)];
    put(n, ignore, e, c);
    climb = !((ignore) && !(by_pass && word_act == 0));
    if
    :: word_mig == 0 && !linked[UP(n)] ->
        climb = 0;
        if :: !(by_pass) -> first_event(UP(n)); first = stored[UP(n)] :: else fi
    :: else
    fi;
#if defined(NOTIFY) && !defined(SILENT)  /* MUTANT: a new first event is told nobody */
    if :: stored[UP(n)] < before -> touched = touched | (UP(n) == ROOT -> 2 : 1) :: else fi;
#endif
    before = 0; front = 0
}

inline read_words(n) {
    word_act = act[UP(n)]; word_mig = mig[UP(n)];
    below_act = (n < 4 -> 0 : act[n])
}

/* Update events for node n, on a walk of c with c's expiry e: under the locks of n and of the group above,
 * and one step. */
inline section(n, e, c, by_pass) {
    if
    :: n < 4 -> settle(n, ignored[n], e, c, by_pass)
    :: n >= 4 && below_act != 0 -> climb = 0
    :: n >= 4 && below_act == 0 ->
        first_event(n);
        ignored[n] = (stored[n] == NEVER);
        named = (front == NOBODY -> c : names[front]);
        settle(n, stored[n] == NEVER, stored[n], named, by_pass);
        named = 0
    fi;
    found_idle = (word_act == 0);
    word_act = 0; word_mig = 0; below_act = 0;
    n = UP(n)
}

/* ---- walks ---- */

/* The parent is read in the step that uses it: once published it does not change, and a walk that saw none
 * may as well have ended later. What a walk does at its end is under the lock of its CPU, which it gives up:
 * that is done in its last step. */
#define GOES_UP(n) (n < 4 || linked[n])

inline activate(c) {
    atomic {
        !locked[c];
        locked[c] = 1; idle[c] = 0; wakeup[c] = NEVER; ignored[c] = 1; event[c] = 0;
        node = c
    };
    do
    :: atomic {
        GOES_UP(node) ->
        set_active(UP(node), mask[node]);
        node = UP(node)
       };
       atomic {
        /* Whatever is queued above for this group is void: its own migrator cares. */
        if :: linked[node] -> ignored[node] = 1 :: else fi;
        if :: took -> took = 0 :: else -> locked[c] = 0; node = 0; break fi
       }
    :: atomic { !GOES_UP(node) -> locked[c] = 0; node = 0; break }
    od
}

/* Update events from c upwards, until a level says that it is done. */
inline update_upwards(c, e, by_pass) {
    do
    :: atomic { climb && GOES_UP(node) -> read_words(node)
#ifdef WORDS_EARLY        /* MUTANT: the words are read before the locks are taken */
       }; atomic {
#else
       ;
#endif
       section(node, e, c, by_pass); found_idle = 0 }
    :: atomic { !climb || !GOES_UP(node) -> climb = 0; node = 0; break }
    od
}

inline deactivated(c) {
    wakeup[c] = first; idle[c] = 1; locked[c] = 0;
    first = 0; node = 0; left = 0; climb = 0; next = 0
}

/* e: the first timer of c. The result is wakeup[c]. */
inline deactivate(c, e) {
    atomic {
        !locked[c];
        locked[c] = 1; first = NEVER; node = c;
        if :: remote[c] -> own[c] = e :: else fi;
        if :: e != NEVER -> ignored[c] = 0; event[c] = e :: else fi
    };
    /* Level 0: there is no child to ask, so reading and exchanging are one step. */
    atomic {
        clear_active(UP(c), mask[c], 1);
#ifdef NOTIFY
        if :: left == HANDED -> touched = 1 :: else fi
#endif
    };
#ifdef GROW
    /* The level above cleans up what is ignored; without one the first event has to be reported. */
#ifdef EARLY_RETURN       /* MUTANT: the same where there is no level above */
    if :: ignored[c] -> node = UP(c) :: else fi;
#else
    if :: ignored[c] && linked[UP(c)] -> node = UP(c) :: else fi;
#endif
#endif
    atomic {
        if
        :: node != c
#ifndef GROW
        :: node == c && ignored[c] -> node = UP(c)     /* the level above cleans up */
#endif
        :: else -> read_words(node); section(node, e, c, 0); 
#ifdef NO_CARRY           /* MUTANT: only a deactivation that leaves the group idle goes on */
            climb = 0
#else
            /* All others have gone idle since the exchange, and the last of them may have passed the level
             * above before this event was queued here: it has to be carried on. */
            climb = (climb && found_idle && left != VACANT)
#endif
        fi;
        found_idle = 0;
        if :: left != VACANT && !climb -> deactivated(c) :: else fi
    };
    if
    :: climb -> update_upwards(c, e, 0); atomic { deactivated(c) }
    :: else
    fi;
    do
    :: node == 0 -> break
    :: atomic { node != 0 && GOES_UP(node) ->
        fresh[c] = 1; child_idle = (act[node] == 0);
#ifdef NO_SEQ
        word_act = act[UP(node)]; word_mig = mig[UP(node)]
#endif
       };
       atomic {
        if
#ifdef NO_SEQ             /* MUTANT: the exchange compares the masks alone */
        :: word_act == act[UP(node)] && word_mig == mig[UP(node)] ->
#else
        :: fresh[c] ->
#endif
            clear_active(UP(node), mask[node], child_idle);
#ifdef NOTIFY
            if :: left == HANDED -> touched = touched | 2 :: else fi;
#endif
            climb = 1
        :: else              /* the word has moved on: look at the child again */
        fi;
        fresh[c] = 0; child_idle = 0; word_act = 0; word_mig = 0
       };
       atomic {
        if
        :: climb ->
            read_words(node); section(node, e, c, 0); climb = 0; found_idle = 0;
            if :: left != VACANT || node == ROOT -> deactivated(c) :: else fi
        :: else
        fi
       }
    :: atomic { node != 0 && !GOES_UP(node) -> deactivated(c) }
    od
}

/* A timer was armed for c, which is idle; e is its first one now. */
inline new_timer(c, e) {
    atomic {
        !locked[c];
        locked[c] = 1;
        if :: remote[c] -> own[c] = e :: else fi;
        if
        :: e == event[c] && !ignored[c] -> locked[c] = 0
        :: else ->
            if
            :: remote[c] -> wakeup[c] = NEVER; locked[c] = 0
            :: else -> ignored[c] = 0; event[c] = e; first = NEVER; climb = 1; node = c
            fi
        fi
    };
    if
    :: climb ->
        update_upwards(c, e, 0);
        atomic { wakeup[c] = first; first = 0; locked[c] = 0 }
    :: else
    fi
}

/* ---- notices ---- */

#ifdef NOTIFY

/* r: the first expiry of the groups that fall to b. */
inline duty(b, r) {
    r = NEVER; rung = b;
    do
    :: GOES_UP(rung) && FALLS_TO(rung) ->
       atomic { r = MIN(r, stored[UP(rung)]); rung = UP(rung) }
    :: else -> rung = 0; break
    od
}

/* Tells whoever looks after the levels that the walk from that CPU touched, unless it is the teller. */
inline notices(from, teller) {
    level = UP(from);
    do
    :: level == 0 -> break
    :: level != 0 && !(touched & (level == ROOT -> 2 : 1)) -> level = (linked[level] -> ROOT : 0)
    :: level != 0 && (touched & (level == ROOT -> 2 : 1)) ->
        whom = level;
        do
        :: atomic { whom >= 4 && whom != NOBODY && mig[whom] != 0 ->
             whom = KID(whom, mig[whom] - 1) }
        :: atomic { whom >= 4 && whom != NOBODY && mig[whom] == 0 -> whom = NOBODY }
        :: else -> break
        od;
        if
        :: whom != NOBODY && whom != teller ->
            duty(whom, expires);
            atomic {
                if :: expires < known[whom] -> known[whom] = expires; told[whom] = 1 :: else fi;
                expires = 0
            }
        :: else
        fi;
        atomic { whom = 0; level = (linked[level] -> ROOT : 0) }
    od;
    touched = 0
}

/* Before c enters its guest: what it has to be back for. */
inline ask(c) {
    atomic { told[c] = 0; known[c] = NEVER };
    duty(c, expires);
    atomic { known[c] = MIN(known[c], expires); host_timer[c] = expires; expires = 0 }
}

#else
#define notices(from, teller) skip
#define ask(c) skip
#endif

/* ---- the remote pass ---- */

/* Another timer for c, at some time from now on. */
inline arm_some(c) {
    may_arm--;
    if
    :: timers[c] = timers[c] | (1 << MAX(now, LAST))
#ifndef ONE_EXPIRY
    :: now < LAST -> timers[c] = timers[c] | (1 << MAX(now, LAST - 1))
#endif
    fi
}

/* Taking the due timers of c, by whoever may. */
inline take_due(c) {
    timers[c] = timers[c] - DUE(c, now)
}

inline released(t) {
    if :: !foreign -> run_word[t] = (send_home -> WAKING : PARKED) :: else fi;
    foreign = 0; send_home = 0; node = 0;
    own[t] = 0; remote[t] = 0; locked[t] = 0
}

inline expire(c, t) {
    atomic {
        !locked[t];
        if
        :: remote[t] || ignored[t] || at < event[t] -> t = NOBODY
        :: else -> remote[t] = 1; own[t] = NEVER; wakeup[t] = NEVER
        fi
    };
    if
    :: t == NOBODY
    :: else ->
        /* No lock is held. Either the vCPU can be borrowed, and is served here or sent home; or
         * somebody has it, and will look at its timers. */
        atomic {
            if
            :: run_word[t] == PARKED ->
                run_word[t] = BORROWED; take_due(t);
                if :: may_arm > 0 -> arm_some(t) :: true fi;
                owned = FIRST_TIMER(t)
            :: run_word[t] == PARKED && may_wake > 0 ->
                may_wake--; run_word[t] = BORROWED; send_home = 1; owned = NEVER
            :: run_word[t] != PARKED -> attention[t] = 1; foreign = 1;
#ifdef STALE_REQUEUE
                owned = FIRST_TIMER(t)
#endif
#ifdef REQUEUE_DUE
                own[t] = FIRST_TIMER(t)
#endif
            fi
        };
        atomic {
            !locked[t];
            locked[t] = 1;
#ifdef STALE_REQUEUE      /* MUTANT: what was seen before the lock was dropped is queued */
            own[t] = owned;
#else
            if :: !foreign -> own[t] = owned :: else fi;
#endif
            owned = 0; climb = idle[t];
#ifndef KEEP_IGNORED      /* MUTANT: an event that its CPU's activation has voided stays so */
            if :: climb && own[t] != NEVER -> ignored[t] = 0 :: else fi;
#endif
#ifndef REQUEUE_DUE       /* MUTANT: what is due still is queued as it is */
            own[t] = MAX(own[t], at + 1);
#endif
            if :: climb && !ignored[t] -> event[t] = own[t] :: else fi;
#ifdef STOP_WALK          /* MUTANT: without a new timer there is nothing to tell */
            if :: own[t] == NEVER -> climb = 0 :: else fi;
#endif
            /* Nothing of this is seen without the lock of t, so the first section may follow at once. */
            if
            :: climb -> node = t; read_words(node); section(node, own[t], t, 1); found_idle = 0
            :: else
            fi;
            if :: !climb -> released(t) :: else fi
        };
        if
        :: climb ->
            update_upwards(t, own[t], 1);
            atomic { released(t) }
        :: else
        fi;
        notices(t, c)
    fi;
    t = 0
}

/* By the thread of c, which is active and has taken its own due timers. */
inline pass(c) {
    rung_p = c;
    do
    :: GOES_UP(rung_p) && FALLS_TO(rung_p) ->
        atomic {
            first_event(UP(rung_p));
            if
            :: front != NOBODY && expiry[front] <= at ->
                target = names[front]; took = 1;
                unqueue(front); first_event(UP(rung_p))
            :: else -> rung_p = UP(rung_p)
            fi;
            front = 0
        };
        if
        :: took -> took = 0; expire(c, target)
        :: else
        fi
    :: atomic { !(GOES_UP(rung_p) && FALLS_TO(rung_p)) ->
        /* What is stored as its wakeup is not looked at: it is active. */
        rung_p = 0; at = 0; break }
    od
}

/* ---- the processes ---- */

proctype Cpu(byte c) {
    byte node, first, front, before, named, word_act, word_mig, below_act, left, owned, at, target,
        rung_p, next;
    bit took, climb, child_idle, foreign, send_home, found_idle;
#ifdef NOTIFY
    byte touched, rung, level, whom, expires;
#endif

#ifdef GROW
    if
    :: c == 2 ->
end_unprepared:
       atomic { prepared; rests[c] = 0; run_word[c] = HOME; goto wake }
    :: else
    fi;
#endif

work:
    /* Duty comes before the guest. */
    if
    :: atomic { CALLED(c) -> at = now; take_due(c) };
       pass(c);
       goto work
    :: atomic { else -> rests[c] = 1 }
    fi;
#ifdef NOTIFY
    rests[c] = 0;
    ask(c);
    rests[c] = 1;
#endif
    /* The guest runs. It may do so for ever: an active CPU need not halt. */
end_guest:
    if
    :: atomic { REASON(c) -> rests[c] = 0; goto work }
#ifdef GROW
    :: atomic { c == 0 && !prepared ->
         /* The new branch and the new root are complete before anybody can get there. */
         rests[c] = 0;
         mask[5] = 2; linked[5] = 1; prepared = 1 };
#ifdef LINK_FIRST         /* MUTANT: the parent is published before the mask */
       linked[4] = 1;
       mask[4] = 1;
#else
       mask[4] = 1;
       linked[4] = 1;
#endif
       atomic { set_active(ROOT, mask[4]); took = 0 };
#ifdef NOTIFY
       touched = 3;
#endif
       notices(c, c);
       goto work
#endif
    :: atomic {
         true -> rests[c] = 0; take_due(c); attention[c] = 0;
#ifdef NOTIFY
         host_timer[c] = NEVER;
#endif
         if :: may_arm > 0 -> arm_some(c) :: true fi;
         next = FIRST_TIMER(c)
       }
    fi;

    deactivate(c, next);
    notices(c, c);

park:
    next = 0;
    atomic {
        if
        :: attention[c] -> attention[c] = 0; goto wake
        :: else -> run_word[c] = PARKED; rests[c] = 1;
#ifdef NOTIFY
            known[c] = wakeup[c]
#endif
        fi
    };
end_parked:
    if
    :: atomic { RECALLED(c) -> run_word[c] = HOME; rests[c] = 0 }
    :: atomic { run_word[c] == PARKED && may_wake > 0 ->
         may_wake--; run_word[c] = HOME; rests[c] = 0 }
    :: atomic { run_word[c] == PARKED && may_arm > 0 ->
         /* Somebody who has the vCPU for that moment arms a timer for it. */
         run_word[c] = HOME; rests[c] = 0; arm_some(c); next = FIRST_TIMER(c) };
       new_timer(c, next);
       notices(c, c);
       goto park
    fi;

wake:
    activate(c);
    goto work
}

/* Ticks whenever it likes. Beyond LAST + 1 only for timers that were put off. */
#define PUT_OFF(c) (event[c] == now + 1 && !ignored[c])

proctype Clock() {
    do
    :: atomic { now <= LAST || ANY(PUT_OFF) -> check_rest(); assert(now < 6); now++ }
    :: atomic { now > LAST -> check_rest(); break }
    od
}

init {
    atomic {
        byte i = 0;
        do
        :: i < 7 ->
            mask[i] = (i & 1 -> 2 : 1);
            ignored[i] = 1; stored[i] = NEVER;
            if
            :: i < NCPU -> wakeup[i] = NEVER; act[UP(i)] = act[UP(i)] | mask[i];
#ifdef NOTIFY
                known[i] = NEVER; host_timer[i] = NEVER
#endif
            :: else
            fi;
            i++
        :: else -> break
        od;
        mig[4] = 1;
#ifdef GROW
        /* A single group, with cpu 0 and cpu 1; cpu 2 joins later. */
        mask[4] = 0; mask[5] = 0; act[5] = 0; idle[2] = 1; rests[2] = 1; run_word[2] = PARKED;
        prepared = 0;
#else
        mig[5] = 1; act[ROOT] = 3; mig[ROOT] = 1; linked[4] = 1; linked[5] = 1;
#endif
        i = 0;
        do
        :: i < NCPU -> run Cpu(i); i++
        :: else -> i = 0; break
        od;
        run Clock()
    }
}
