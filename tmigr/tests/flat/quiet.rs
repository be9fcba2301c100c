//! Panics as results: a failing case panics hundreds of times while it is shrunk, and what is to be
//! read is the last time.
//!
//! Owns the panic hook. Must not know what is run.

use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
    static WHY: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs, and answers what a panic said, and where.
pub fn run(what: impl FnOnce()) -> Result<(), String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let loud = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if QUIET.get() {
                WHY.replace(panic.to_string());
            } else {
                loud(panic);
            }
        }));
    });
    QUIET.set(true);
    let done = panic::catch_unwind(AssertUnwindSafe(what));
    QUIET.set(false);
    done.map_err(|_| WHY.take())
}
