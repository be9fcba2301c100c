//! The `siesta` command: see `vmm::cli`.

fn main() -> std::process::ExitCode {
    vmm::cli::main(std::env::args_os()).into()
}
