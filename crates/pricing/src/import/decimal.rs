//! Decimal numbers of a price file to integer rates, without ever being a float.

/// Digits that a double holds exactly. Price files are written by programs that compute in doubles,
/// and `0.00000005` comes out as `5.0000000000000004e-08`; a sixteenth digit is always such noise.
const EXACT_DIGITS: usize = 15;

/// Dollars per token → nano-dollars per million tokens.
pub(super) const PER_MILLION_TOKENS: i32 = 15;
/// Dollars per unit → nano-dollars per unit.
pub(super) const PER_UNIT: i32 = 9;

/// The JSON number `text` times 10^`scale`, rounded up to an integer; `None` where it is no
/// number, is negative, or does not fit.
///
/// Digits beyond the fifteenth significant one are rounded to the nearest first.
pub(super) fn scaled(text: &str, scale: i32) -> Option<u64> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_start_matches('0');
    let mut power = exponent
        .checked_sub(i32::try_from(fraction.len()).ok()?)?
        .checked_add(scale)?;
    let kept = &significant[..significant.len().min(EXACT_DIGITS)];
    let dropped = &significant[kept.len()..];
    power += i32::try_from(dropped.len()).ok()?;
    let mut value: u128 = if kept.is_empty() {
        0
    } else {
        kept.parse().ok()?
    };
    if dropped.bytes().next().is_some_and(|digit| digit >= b'5') {
        value += 1;
    }
    let factor = 10_u128.checked_pow(power.unsigned_abs());
    let scaled = match (power < 0, factor) {
        (false, factor) => value.checked_mul(factor?)?,
        (true, Some(factor)) => value.div_ceil(factor),
        (true, None) => u128::from(value > 0),
    };
    u64::try_from(scaled).ok()
}

/// The same as a rational: `value` × 10^`power`, for products that are rounded later.
pub(super) fn times(text: &str, factor: u64, scale: i32) -> Option<u64> {
    // Twelve more digits survive the multiplication; pixels of an image are below 10^9.
    const GUARD: i32 = 12;
    let precise = u128::from(scaled(text, scale + GUARD)?) * u128::from(factor);
    u64::try_from(precise.div_ceil(10_u128.pow(GUARD.unsigned_abs()))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_texts_become_exact_integers() {
        for (text, expected) in [
            ("1.5e-07", 150_000_000),
            ("0.0000025", 2_500_000_000),
            ("5.0000000000000004e-08", 50_000_000),
            ("4.6999999999999995e-07", 470_000_000),
            ("0", 0),
            ("0.0", 0),
            ("1e-16", 1),
            ("2", 2_000_000_000_000_000),
            ("1E-6", 1_000_000_000),
        ] {
            assert_eq!(scaled(text, PER_MILLION_TOKENS), Some(expected), "{text}");
        }
        assert_eq!(scaled("0.001333333333333", PER_UNIT), Some(1_333_334));
        for text in ["-1", "", "1.2.3", "null", "\"1\"", "1e400", "abc"] {
            assert_eq!(scaled(text, PER_UNIT), None, "{text}");
        }
        assert_eq!(scaled("1e-400", PER_UNIT), Some(1));
    }

    #[test]
    fn pixels_are_multiplied_before_rounding() {
        // 1.9073486328125e-08 × 1024 × 1024 = 0.02 exactly.
        assert_eq!(
            times("1.9073486328125e-08", 1024 * 1024, PER_UNIT),
            Some(20_000_000)
        );
    }
}
