//! Sticky assignment: a user's bucket, the same on every replica.

use aws_lc_rs::hmac;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::track::BUCKETS;

use super::seal::Seal;

/// How users of a service keep their track.
#[derive(Clone, Debug)]
pub struct Sticky {
    /// Where a request carries its user's key.
    pub key: StickyKey,
    /// The seed of the hash, from [`salt`].
    pub salt: u64,
    /// What makes the draw unforeseeable to those who choose their key; without one it is published.
    pub secret: Option<hmac::Key>,
}

/// Where the user's key stands.
#[derive(Clone, Debug)]
pub enum StickyKey {
    /// In a header field (lower case); a request without it draws afresh.
    Header(Box<str>),
    /// In a cookie that is set when absent or not signed by us, and how long it lasts (seconds;
    /// `None`: the session).
    Cookie {
        /// The cookie's name.
        name: Box<str>,
        /// `Max-Age`.
        max_age_s: Option<u64>,
        /// Signs its key.
        seal: Seal,
    },
}

/// Keeps these draws apart from all else that the secret may ever sign.
const PURPOSE: &[u8] = b"splitway sticky draw\0";

/// The hash seed of a service: `xxh3(text, version)`, where `text` is `sticky.salt` or else the
/// service's name. A new canary version draws other users.
#[must_use]
pub fn salt(text: &str, canary_version: &str) -> u64 {
    // The zero byte keeps ("ab", "c") and ("a", "bc") apart.
    xxh3_64(format!("{text}\0{canary_version}").as_bytes())
}

impl Sticky {
    /// The user's fingerprint: what tells users apart without naming them.
    ///
    /// # Panics
    /// Never: a signature has enough bytes.
    #[must_use]
    pub fn fingerprint(&self, key: &[u8]) -> u64 {
        let Some(secret) = &self.secret else { return xxh3_64_with_seed(key, self.salt) };
        let mut signing = hmac::Context::with_key(secret);
        signing.update(PURPOSE);
        signing.update(&self.salt.to_le_bytes());
        signing.update(key);
        let tag = signing.sign();
        u64::from_le_bytes(tag.as_ref()[..8].try_into().expect("a signature has 32 bytes"))
    }
}

/// The bucket of a fingerprint, 0 to 9,999.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "below BUCKETS")]
pub fn bucket(fingerprint: u64) -> u16 {
    (fingerprint % u64::from(BUCKETS)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_a_published_function() {
        // Replicas of different builds must agree, so these figures may never change.
        // xxh3 with the two reference seeds, computed with PyPI's xxhash 3.5.
        let sticky = Sticky {
            key: StickyKey::Header("x-user-id".into()),
            salt: salt("vcci-backend-api", "v2.0.0"),
            secret: None,
        };
        let found: Vec<u16> =
            ["alice", "bob", ""].map(|key| bucket(sticky.fingerprint(key.as_bytes()))).into();
        assert_eq!(found, REFERENCE);
    }

    const REFERENCE: [u16; 3] = [8_743, 1_886, 4_537];

    #[test]
    fn buckets_are_even() {
        for secret in [None, Some(hmac::Key::new(hmac::HMAC_SHA256, b"a secret of ours"))] {
            let key = StickyKey::Header("u".into());
            let sticky = Sticky { key, salt: salt("s", "v"), secret };
            let users = 100_000_u32;
            let canary = (0..users)
                .filter(|user| bucket(sticky.fingerprint(user.to_string().as_bytes())) < 500)
                .count();
            // 5 % of 100,000 within five standard deviations (69 each); the hash is fixed.
            assert!((4_655..=5_345).contains(&canary), "{canary}");
        }
    }

    #[test]
    fn another_version_draws_other_users() {
        assert_ne!(salt("a", "v1"), salt("a", "v2"));
        assert_ne!(salt("ab", "c"), salt("a", "bc"));
    }
}
