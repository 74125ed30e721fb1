//! README's first screens and the wrong turns do what they say.

use std::path::Path;

use spendfuse_tests::walk::{Place, Ports, walk};

#[test]
fn a_newcomer_gets_to_a_first_event_and_a_first_refusal_as_the_pages_say() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests are a folder of the repository");
    let place = Place::copy_of(root, Ports::Free).expect("the repository can be copied");
    let walked = walk(&place).unwrap_or_else(|error| panic!("{error}"));
    println!("{walked:?}");
}
