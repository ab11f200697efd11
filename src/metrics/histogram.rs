//! Buckets of times: powers of two of a microsecond, so that finding one is an instruction.
//! Runs in: both.
//!
//! ```text
//! words  0        1        …  21        22       23
//!        ≤ 4 µs   ≤ 8 µs      ≤ 8.4 s   longer   sum, ns
//! ```

/// Upper bound of the first bucket, as a power of two, in µs.
const FIRST_LOG2_US: u32 = 2;
/// Buckets with an upper bound.
pub const BOUNDS: usize = 22;
/// Words of one histogram.
pub const WORDS: usize = BOUNDS + 2;
/// Where the sum is.
pub const SUM: usize = WORDS - 1;

/// Upper bound of a bucket, in s.
pub fn bound_s(bucket: usize) -> f64 {
    (1u64 << (bucket as u32 + FIRST_LOG2_US)) as f64 / 1e6
}

/// The bucket of a time.
#[inline]
pub fn bucket(ns: u64) -> usize {
    // The least n with us <= 2^n.
    let us = ns.div_ceil(1000);
    let log2 = u64::BITS - us.saturating_sub(1).leading_zeros();
    (log2.saturating_sub(FIRST_LOG2_US) as usize).min(BOUNDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_within_its_bucket_and_beyond_the_one_before() {
        for ns in [0, 1, 999, 3_999, 4_000, 4_001, 8_000, 8_001, 1_000_000, 123_456_789, 8_388_608_000] {
            let n = bucket(ns);
            assert!(n < BOUNDS && ns as f64 / 1e9 <= bound_s(n), "{ns} in {n}");
            assert!(n == 0 || ns as f64 / 1e9 > bound_s(n - 1), "{ns} in {n}");
        }
        assert_eq!((bucket(8_388_609_000), bucket(u64::MAX)), (BOUNDS, BOUNDS));
    }
}
