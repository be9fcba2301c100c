//! Writes the guest images as files, for other monitors:
//! `cargo run -p guest-images --example write-images -- DIR`.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(directory) = std::env::args_os().nth(1) else {
        eprintln!("usage: write-images DIR");
        return ExitCode::from(2);
    };
    if let Err(error) = std::fs::create_dir_all(&directory) {
        eprintln!("{}: {error}", Path::new(&directory).display());
        return ExitCode::FAILURE;
    }
    for image in guest_images::all() {
        let path = Path::new(&directory).join(format!("{}.elf", image.name));
        if let Err(error) = std::fs::write(&path, image.elf) {
            eprintln!("{}: {error}", path.display());
            return ExitCode::FAILURE;
        }
        println!("{:8} {:6} bytes  {}", image.name, image.elf.len(), image.summary);
    }
    ExitCode::SUCCESS
}
