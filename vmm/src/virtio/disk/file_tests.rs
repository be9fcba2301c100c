//! Tests of a disk's file.

use super::*;
use crate::virtio::disk::{self, DiskConfig};

fn config(path: &Path, options: &str) -> DiskConfig {
    format!("{}{options}", path.display()).parse().expect("it is right")
}

fn says(config: &DiskConfig, part: &str) {
    let text = disk::open(config, 0).expect_err("it cannot be used").to_string();
    assert!(text.starts_with("--disk ") && text.contains(part), "{text}");
    assert!(text.contains(config.path.to_str().unwrap()) && text.lines().count() == 1, "{text}");
}

#[test]
fn each_unusable_file_has_its_own_message() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    says(&config(&path, ""), "no such file; create it");
    says(&config(&path, ",rw"), "',ro' and ',direct'");
    says(&config(folder.path(), ""), "neither a regular file nor a block device");
    says(&config(Path::new("/dev/null"), ",ro"), "neither a regular file nor a block device");
    File::create(&path).unwrap();
    says(&config(&path, ""), "is empty");
    std::fs::write(&path, [0; 700]).unwrap();
    says(&config(&path, ""), "700 bytes are not a multiple of 512; make it 1024 bytes");
    let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("socket")).unwrap();
    says(&config(&folder.path().join("socket"), ""), "neither");
}

#[test]
fn disk_is_locked_for_one_writer_or_for_readers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    std::fs::write(&path, [0; 4096]).unwrap();
    let (writing, reading) = (config(&path, ""), config(&path, ",ro"));
    let writer = disk::open(&writing, 0).expect("it is free");
    says(&writing, "in use");
    says(&reading, "in use");
    drop(writer);
    let readers = [0, 1].map(|n| disk::open(&reading, n).expect("readers share"));
    says(&writing, "in use");
    drop(readers);
    assert!(disk::open(&writing, 0).is_ok());
}

#[test]
fn operations_reach_the_file() {
    let folder = tempfile::tempdir().unwrap();
    for (name, options) in [("cached", ""), ("uncached", ",direct")] {
        let path = folder.path().join(name);
        std::fs::write(&path, [7; 64 << 10]).unwrap();
        let mut file = match DiskFile::open(&config(&path, options)) {
            Err(DiskFault::NotDirect) => continue,
            other => other.unwrap(),
        };
        assert_eq!(file.bytes(), 64 << 10);
        let mut buffer = AlignedBuffer::new(4096);
        let bytes = buffer.bytes();
        assert!(bytes.as_ptr().addr().is_multiple_of(4096));
        file.read_at(4096, bytes).unwrap();
        assert!(bytes.iter().all(|byte| *byte == 7));
        bytes.fill(9);
        file.write_at(8192, bytes).unwrap();
        file.flush().unwrap();
        file.write_zeroes(16384, 4096, false).unwrap();
        file.write_zeroes(20480, 4096, true).unwrap();
        file.discard(32768, 4096).unwrap();
        let found = std::fs::read(&path).unwrap();
        assert_eq!(found.len(), 64 << 10, "no operation changes the size");
        let page = |number: usize| &found[number * 4096..][..4096];
        for (number, value) in [(0, 7), (1, 7), (2, 9), (3, 7), (4, 0), (5, 0), (6, 7), (9, 7)] {
            let odd = page(number).iter().position(|byte| *byte != value);
            assert_eq!(odd.map(|at| (at, page(number)[at])), None, "page {number} {name}");
        }
        let mut beyond = [0; 512];
        assert!(file.read_at(64 << 10, &mut beyond).is_err());
    }
}

#[test]
fn file_that_is_read_only_is_opened_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    std::fs::write(&path, [1; 512]).unwrap();
    let mut file = DiskFile::open(&config(&path, ",ro")).unwrap();
    assert!(file.write_at(0, &[0; 512]).is_err());
    assert_eq!(std::fs::read(&path).unwrap(), [1; 512]);
}
