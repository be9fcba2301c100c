//! `siesta images`.

use std::io::{self, Write};

use super::{Failure, OK, values};

/// Lists the embedded images, one a line.
pub(super) fn list() -> Result<u8, Failure> {
    let mut out = io::stdout().lock();
    for image in guest_images::all() {
        let size = image.elf.len().div_ceil(1024);
        if writeln!(out, "{:<8} {:>3} KiB  {}", image.name, size, image.summary).is_err() {
            // A reader that closed the pipe has read enough.
            break;
        }
    }
    Ok(OK)
}

/// The image of that name.
pub(super) fn find(name: &str) -> Result<&'static guest_images::Image, Failure> {
    guest_images::find(name).ok_or_else(|| {
        let names = || guest_images::all().iter().map(|image| image.name);
        let hint = match values::closest(name, names()) {
            Some(closest) => format!("did you mean '{closest}'?"),
            None => format!("there are {}", names().collect::<Vec<_>>().join(", ")),
        };
        Failure::input(format!("--image: no image '{name}'; {hint}"))
    })
}
