//! Tests of the limits of waits and of their random spread.

use super::*;

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
}

#[test]
fn how_long_a_server_asks_to_wait() {
    let window = ("RateLimit", "\"resolvers\";r=0;t=55");
    assert_eq!(rate_wait(&headers(&[window])), Duration::from_secs(56));
    assert_eq!(rate_wait(&headers(&[window, ("Retry-After", "3")])), Duration::from_secs(3));
    // The header describes another limit.
    assert_eq!(rate_wait(&headers(&[("RateLimit", "\"api\";r=12;t=200")])), LONGEST_WAIT);
    assert_eq!(rate_wait(&headers(&[("Retry-After", "100000")])), LONGEST_RATE_WAIT);
    assert_eq!(rate_wait(&headers(&[])), LONGEST_WAIT);
    let end = u64::MAX.to_string();
    assert_eq!(retry_after(&headers(&[("Retry-After", &end)])), Some(LONGEST_RATE_WAIT));
    assert_eq!(rate_wait(&headers(&[("RateLimit", &format!("\"x\";r=0;t={end}"))])), LONGEST_RATE_WAIT);
}

#[test]
fn jitter_only_lengthens() {
    let wait = Duration::from_secs(4);
    assert!((0..100).all(|_| (wait..=wait + wait / 4).contains(&jittered(wait))));
}
