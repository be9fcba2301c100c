//! Tests of the multiboot header and of its addresses, with hand-made kernels; and random ones.

use super::*;
use crate::boot::layout::TAKEN;
use crate::memory;
use proptest::prelude::*;

const MIB: u64 = 1 << 20;
const LOAD: u32 = 0x20_0000;
const CODE: &[u8] = b"kernel code.";

/// A header with these flags, and the words behind its checksum.
pub(in crate::boot) fn header(flags: u32, words: &[u32]) -> Vec<u8> {
    let sum = MAGIC.wrapping_add(flags).wrapping_neg();
    [&[MAGIC, flags, sum], words].concat().iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// The addresses of a kernel whose first bytes are the header, and its code right behind.
fn plain() -> [u32; 5] {
    [LOAD, LOAD, 0, 0, LOAD + 32]
}

fn kernel(addresses: &[u32; 5]) -> Vec<u8> {
    [header(ADDRESSES | 3, addresses).as_slice(), CODE].concat()
}

fn guest() -> GuestMemory {
    memory::create(16 * MIB).unwrap()
}

fn load_at(memory: &GuestMemory, file: &[u8]) -> Result<Loaded, MultibootError> {
    let header = find(file).expect("a header");
    header.check()?;
    load(memory, file, header.offset, &header.addresses.expect("addresses"))
}

#[track_caller]
fn refused(file: &[u8], part: &str) {
    let text = load_at(&guest(), file).unwrap_err().to_string();
    assert!(text.contains(part) && !text.contains('\n'), "{text:?} lacks {part:?}");
}

#[test]
fn header_is_found_at_words_of_the_first_8_kib_only() {
    let header = header(3, &[]);
    for (before, found) in [(0, true), (4, true), (2, false), (8180, true), (8184, false)] {
        let file = [vec![0; before], header.clone(), vec![0; 100]].concat();
        assert_eq!(find(&file).map(|h| h.offset), found.then_some(before), "{before}");
    }
    assert_eq!(find(&header[..11]), None);
    assert_eq!(find(&[]), None);
}

#[test]
fn wrong_checksum_is_no_header_and_does_not_hide_the_next() {
    let mut wrong = header(3, &[]);
    wrong[8] ^= 1;
    assert_eq!(find(&wrong), None);
    wrong.extend(header(1, &[]));
    assert_eq!(find(&wrong).map(|h| (h.offset, h.flags)), Some((12, 1)));
}

#[test]
fn unknown_requirements_are_refused_and_optional_flags_are_not() {
    for bit in 3..16 {
        let file = [header(ADDRESSES | 1 << bit, &plain()).as_slice(), CODE].concat();
        refused(&file, "unknown requirements");
    }
    for flags in [0, 1, 2, 4, 7, 1 << 17, 1 << 31] {
        let file = [header(ADDRESSES | flags, &plain()).as_slice(), CODE].concat();
        assert!(load_at(&guest(), &file).is_ok(), "{flags:#x}");
    }
}

#[test]
fn whole_file_is_loaded_where_no_end_is_given() {
    let memory = guest();
    let file = kernel(&plain());
    let loaded = load_at(&memory, &file).unwrap();
    let end = u64::from(LOAD) + file.len() as u64;
    let range = LOAD.into()..end;
    let expected = Loaded::new(Start::Multiboot(u64::from(LOAD) + 32), vec![range]);
    assert_eq!(loaded, expected);
    let mut found = [0; 12];
    memory.read_slice(&mut found, GuestAddress(u64::from(LOAD) + 32)).unwrap();
    assert_eq!(&found, CODE);
}

#[test]
fn addresses_choose_the_part_of_the_file_and_the_memory_behind_it() {
    let memory = guest();
    let file = [
        b"not loaded..".as_slice(),
        b"data",
        &kernel(&[LOAD + 4, LOAD, LOAD + 40, LOAD + 0x3000, LOAD + 36]),
    ]
    .concat();
    let loaded = load_at(&memory, &file).unwrap();
    let range = u64::from(LOAD)..u64::from(LOAD) + 0x3000;
    assert_eq!(loaded.used, [range]);
    assert_eq!(memory.read_obj::<[u8; 4]>(GuestAddress(LOAD.into())).unwrap(), *b"data");
    let tail: [u8; 5] = memory.read_obj(GuestAddress(u64::from(LOAD) + 36)).unwrap();
    assert_eq!(&tail, b"kern\0", "only up to load_end");
}

#[test]
fn contradictory_addresses_are_named() {
    let with = |change: fn(&mut [u32; 5])| {
        let mut addresses = plain();
        change(&mut addresses);
        kernel(&addresses)
    };
    refused(&with(|a| a[0] -= 1), "begins after the header");
    refused(&with(|a| a[0] += 1), "begins before the file");
    refused(&with(|a| a[2] = LOAD - 1), "ends before it begins");
    refused(&with(|a| a[2] = LOAD + 45), "ends after the file");
    refused(&with(|a| a[3] = LOAD + 43), "the memory ends before the image");
    refused(&with(|a| a[4] = LOAD + 44), "entry point is outside");
    refused(&with(|a| a[4] = LOAD - 1), "entry point is outside");
    refused(&with(|a| a[3] = 0x200_0000), "--memory 32M");
    refused(&with(|a| a[3] = 0xffff_ffff), "device hole");
    refused(&with(|a| a[..2].fill(0x7000)), "the zero page");
    assert!(load_at(&guest(), &with(|a| a[2] = LOAD + 44)).is_ok());
}

fn interesting() -> impl Strategy<Value = u32> {
    prop_oneof![any::<u32>(), 0..0x100u32, LOAD - 64..LOAD + 128, (0..16u32).prop_map(|n| !n)]
}

proptest! {
    #[test]
    fn random_addresses_never_panic_and_load_only_into_memory(
        addresses in prop::array::uniform5(interesting()),
        near in 0usize..6, before in 0usize..40,
    ) {
        let mut addresses = addresses;
        // Some of them right, else nearly everything is refused.
        addresses[..near.min(5)].copy_from_slice(&plain()[..near.min(5)]);
        let file = [vec![1; before * 4], kernel(&addresses)].concat();
        let memory = guest();
        if let Ok(loaded) = load_at(&memory, &file) {
            prop_assert!(loaded.start.address() < 16 * MIB);
        }
        for (what, range) in TAKEN {
            let mut found = vec![0; (range.end - range.start) as usize];
            memory.read_slice(&mut found, GuestAddress(range.start)).unwrap();
            prop_assert!(found.iter().all(|b| *b == 0), "{what} was written");
        }
    }
}
