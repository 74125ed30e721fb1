//! What is made up is made up the same way in every run: by hashes of what it is for.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A number for the `index`-th thing of the kind `what`.
pub fn number(what: &str, index: u64) -> u64 {
    xxh3_64_with_seed(what.as_bytes(), index)
}

/// A number from `from` to `to`, both included.
pub fn between(what: &str, index: u64, from: u64, to: u64) -> u64 {
    from + number(what, index) % (to - from + 1)
}

/// One of `options`, by their weights.
pub fn one_of<T: Copy>(what: &str, index: u64, options: &[(T, u64)]) -> T {
    let total: u64 = options.iter().map(|(_, weight)| weight).sum();
    let mut left = number(what, index) % total;
    for (option, weight) in options {
        if left < *weight {
            return *option;
        }
        left -= weight;
    }
    options[0].0
}
