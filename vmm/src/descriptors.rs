//! The process's limit of open descriptors, of which every VM takes some.
//!
//! Owns nothing: the limit is the process's (getrlimit(2), `RLIMIT_NOFILE`). Must not know what the
//! descriptors are for.

#![allow(unsafe_code)] // getrlimit and setrlimit

/// Raises the limit as far as the process may. A process that uses select(2) would have to stay below
/// 1024; this one does not.
pub fn raise() {
    let mut limit = get();
    if limit.rlim_cur < limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: the structure outlives the call. A failure leaves the limit as it was, which is said
        // when it is met.
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) };
    }
}

/// What is to be said after an error's text if it means that there are no descriptors left.
#[must_use]
pub fn hint(errno: Option<i32>) -> String {
    match errno {
        Some(libc::EMFILE) => format!(
            "; the process's limit is {} descriptors: raise it with 'ulimit -n' or, of a service, with \
             LimitNOFILE=",
            get().rlim_cur
        ),
        Some(libc::ENFILE) => "; the host's limit is /proc/sys/fs/file-max".to_owned(),
        _ => String::new(),
    }
}

fn get() -> libc::rlimit {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure outlives the call, which fails for an unknown resource alone.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    limit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_named_where_they_are_met() {
        assert!(hint(Some(libc::EMFILE)).contains("ulimit -n"));
        assert!(hint(Some(libc::ENFILE)).contains("file-max"));
        assert_eq!(hint(Some(libc::ENOMEM)) + &hint(None), "");
    }

    #[test]
    fn limit_is_as_high_as_it_may_be() {
        raise();
        let limit = get();
        assert_eq!(limit.rlim_cur, limit.rlim_max);
    }
}
