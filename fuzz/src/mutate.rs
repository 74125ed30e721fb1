//! Small changes of an input: of bytes, of numbers, of the words of its language.

/// A source of choices that is the same for the same seed.
pub(crate) struct Choices(u64);

impl Choices {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed ^ 0x9E37_79B9_7F4A_7C15)
    }

    /// A number below `end`; 0 for 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        // Vigna's splitmix64.
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        ((u128::from(mixed) * end as u128) >> 64) as usize
    }

    pub(crate) fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// Inputs do not grow beyond this.
const LARGEST: usize = 80_000;

/// What readers of numbers and texts get wrong.
const EVERYWHERE: [&str; 30] = [
    "0",
    "-1",
    "-0",
    "1e9",
    "1e400",
    "0.0000000001",
    "1000000000",
    "1000000001",
    "4294967296",
    "9223372036854775808",
    "18446744073709551616",
    "99999999999999999999999999",
    "NaN",
    "null",
    "true",
    "\"\"",
    "{}",
    "[]",
    "[[[[[[[[",
    "{\"a\":",
    "\"\\ud800\"",
    "\"\\u0000\"",
    "\u{feff}",
    "ü",
    "%2F",
    "\n",
    "*",
    "|",
    "~",
    "&a *a",
];

/// Changes `input` in one to four places. `others` are further inputs to take pieces from, `words`
/// the words of the target's language.
pub(crate) fn mutate(
    input: &mut Vec<u8>,
    others: &[Vec<u8>],
    words: &[&str],
    choices: &mut Choices,
) {
    for _ in 0..=choices.below(4) {
        let at = choices.below(input.len() + 1);
        let length = choices.below((input.len() - at).min(40) + 1);
        match choices.below(10) {
            0 if !input.is_empty() => {
                let at = choices.below(input.len());
                input[at] ^= 1 << choices.below(8);
            }
            1 if !input.is_empty() => {
                let at = choices.below(input.len());
                input[at] = *choices.of(&[0, 1, 0x7f, 0x80, 0xff, b'"', b'{', b':', b'-', b' ']);
            }
            2 => {
                input.drain(at..at + length);
            }
            3 => input.truncate(at),
            4 => {
                let piece = input[at..at + length].to_vec();
                let times = 1 + choices.below(4);
                let to = choices.below(input.len() + 1);
                input.splice(to..to, piece.repeat(times));
            }
            5 if !others.is_empty() => {
                let other = choices.of(others);
                let from = choices.below(other.len() + 1);
                let end = from + choices.below(other.len() - from + 1);
                input.splice(at..at + length, other[from..end].iter().copied());
            }
            6 => {
                let bytes: Vec<u8> = (0..8).map(|_| choices.below(256) as u8).collect();
                let kept = 1 + choices.below(8);
                input.splice(at..at, bytes.into_iter().take(kept));
            }
            7 => replace_number(input, choices),
            8 if !words.is_empty() => {
                input.splice(at..at + length, choices.of(words).bytes());
            }
            _ => {
                input.splice(at..at + length, choices.of(&EVERYWHERE).bytes());
            }
        }
    }
    input.truncate(LARGEST);
}

/// Puts something else where a number stands.
fn replace_number(input: &mut Vec<u8>, choices: &mut Choices) {
    let from = choices.below(input.len() + 1);
    let Some(start) = input[from..].iter().position(u8::is_ascii_digit) else {
        return;
    };
    let start = from + start;
    let digits = input[start..]
        .iter()
        .take_while(|byte| byte.is_ascii_digit());
    let end = start + digits.count();
    input.splice(start..end, choices.of(&EVERYWHERE).bytes());
}
