//! Programs that a kernel refuses, planted in a real object: what Linux 7.1 did to a whole program.

use std::fs;
use std::path::Path;

use object::{Object as _, ObjectSection as _, ObjectSymbol as _};

use crate::lab::run;

/// The bytes of an instruction.
const INSTRUCTION: usize = 8;
/// `r0 = 0; do { r0 += 1 } while (r0 < 1000000000)`: a bounded loop that no verifier walks to its end.
const LOOP: [[u8; INSTRUCTION]; 3] = [
    [0xB7, 0, 0, 0, 0, 0, 0, 0],
    [0x07, 0, 0, 0, 1, 0, 0, 0],
    [0xA5, 0, 0xFE, 0xFF, 0x00, 0xCA, 0x9A, 0x3B],
];
/// Instructions that the loader changes: a load of 64 bits, which takes two places, and a call.
const LOADED: [u8; 2] = [0x18, 0x85];

/// Returns the object with such a loop at the beginning of these programs.
///
/// # Panics
/// When it has no such program, or one that begins with what the loader changes.
#[must_use]
pub fn exploding(object: &[u8], programs: &[&str]) -> Vec<u8> {
    let file = object::File::parse(object).expect("an object file");
    let mut planted = object.to_vec();
    for name in programs {
        let symbol = file.symbols().find(|symbol| symbol.name() == Ok(name));
        let symbol = symbol.unwrap_or_else(|| panic!("no program {name}"));
        let section = symbol.section_index().expect("a section");
        let section = file.section_by_index(section).expect("a section");
        let (start, _) = section.file_range().expect("bytes in the file");
        let start = (start + symbol.address() - section.address()) as usize;
        let place = &mut planted[start..][..LOOP.len() * INSTRUCTION];
        assert!(place.chunks(INSTRUCTION).all(|one| !LOADED.contains(&one[0])), "{name}");
        place.copy_from_slice(LOOP.as_flattened());
    }
    planted
}

/// Writes a `palang` whose object has such a loop in these programs, as an upgrade to a version that
/// the kernel does not take.
///
/// # Panics
/// When the program does not hold the object of this build, or cannot be copied.
pub fn write_palang(from: &Path, to: &Path, programs: &[&str]) {
    let object = palang::datapath::object::OBJECT;
    let mut bytes = fs::read(from).expect("the program");
    let places: Vec<_> = memchr::memmem::find_iter(&bytes, object).collect();
    assert_eq!(places.len(), 1, "{} has the object once", from.display());
    bytes[places[0]..][..object.len()].copy_from_slice(&exploding(object, programs));
    let part = to.with_extension("part");
    fs::write(&part, bytes).expect("room for another program");
    fs::set_permissions(&part, fs::metadata(from).expect("its mode").permissions()).expect("chmod");
    run::copy_program(&part, to);
}
