//! Keys in cookies, signed: a user keeps the key that was drawn for him, and can make no other.

use std::fmt::Write;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac::{self, HMAC_SHA256};

/// Secrets whose signatures a service believes: its own, older ones of its file, and those of other
/// services that set the same cookie.
pub const SECRETS_MAX: usize = 8;
/// Cookies of one name that are looked at in a request; browsers send one.
pub const COOKIES_MAX: usize = 4;

/// Characters of a key: 128 bits, in hexadecimal.
const KEY_BYTES: usize = 32;
/// What of the 32 bytes of HMAC-SHA-256 is shown: a forger guesses 128 bits (RFC 2104 §5).
const SHOWN_BYTES: usize = 16;
/// Characters of a cookie's value: the key, and what is shown.
const VALUE_BYTES: usize = KEY_BYTES + 2 * SHOWN_BYTES;
/// Keeps these signatures apart from all others that the secret may ever make.
const PURPOSE: &[u8] = b"splitway sticky cookie\0";

/// What tells a user: his key, and the half of its signature that is never shown. Without the secret
/// nobody computes from a key which bucket it leads to.
pub type Identity = [u8; KEY_BYTES + SHOWN_BYTES];

/// Signs keys by one secret, and believes those that several signed.
#[derive(Clone, Debug)]
pub struct Seal(Vec<hmac::Key>);

impl Seal {
    /// Signs by the first of `secrets`, believes all, up to [`SECRETS_MAX`].
    #[must_use]
    pub fn new<'a>(secrets: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut known: Vec<&[u8]> = Vec::new();
        for secret in secrets {
            if known.len() < SECRETS_MAX && !known.contains(&secret) {
                known.push(secret);
            }
        }
        Self(known.into_iter().map(|secret| hmac::Key::new(HMAC_SHA256, secret)).collect())
    }

    /// The value of a cookie with `key`, and who has it.
    #[must_use]
    pub fn close(&self, key: u128) -> (String, Identity) {
        let mut value = format!("{key:032x}");
        let tag = self.0.first().map_or([0; 32], |secret| sign(secret, value.as_bytes()));
        let identity = identity(value.as_bytes(), &tag);
        for byte in &tag[..SHOWN_BYTES] {
            // A String takes every write.
            let _ = write!(value, "{byte:02x}");
        }
        (value, identity)
    }

    /// Whether `value` can be a cookie's at all, before anything is computed.
    #[must_use]
    pub fn may_open(value: &[u8]) -> bool {
        value.len() == VALUE_BYTES
    }

    /// Who has the cookie with `value`; `None` when it was not made here, nor by a replica.
    #[must_use]
    pub fn open(&self, value: &[u8]) -> Option<Identity> {
        let (key, shown) = value.split_at_checked(KEY_BYTES)?;
        let shown = unhex(shown)?;
        self.0.iter().find_map(|secret| {
            let tag = sign(secret, key);
            verify_slices_are_equal(&tag[..SHOWN_BYTES], &shown).ok()?;
            Some(identity(key, &tag))
        })
    }
}

fn sign(secret: &hmac::Key, key: &[u8]) -> [u8; 32] {
    let mut signing = hmac::Context::with_key(secret);
    signing.update(PURPOSE);
    signing.update(key);
    signing.sign().as_ref().try_into().expect("HMAC-SHA-256 has 32 bytes")
}

fn identity(key: &[u8], tag: &[u8; 32]) -> Identity {
    let mut identity = [0; KEY_BYTES + SHOWN_BYTES];
    identity[..KEY_BYTES].copy_from_slice(key);
    identity[KEY_BYTES..].copy_from_slice(&tag[SHOWN_BYTES..]);
    identity
}

fn unhex(text: &[u8]) -> Option<[u8; SHOWN_BYTES]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; SHOWN_BYTES];
    if text.len() != 2 * SHOWN_BYTES {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.chunks(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seal(secrets: &[&str]) -> Seal {
        Seal::new(secrets.iter().map(|secret| secret.as_bytes()))
    }

    #[test]
    fn what_was_closed_opens_and_nothing_else_does() {
        let here = seal(&["one"]);
        let (value, identity) = here.close(7);
        assert_eq!(value.len(), VALUE_BYTES);
        assert_eq!(here.open(value.as_bytes()), Some(identity));
        // Every single change is noticed: the key's, and the signature's.
        for at in 0..value.len() {
            for byte in [b'0', b'1', b'f', b'F', b'g', b' ', 0xff] {
                let mut other = value.clone().into_bytes();
                if other[at] != byte {
                    other[at] = byte;
                    assert_eq!(here.open(&other), None, "{at} {byte}");
                }
            }
        }
        for other in ["", "7", &value[..32], &value[..63], &format!("{value}0")] {
            assert_eq!(here.open(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn replicas_agree_and_strangers_do_not() {
        let (value, identity) = seal(&["one"]).close(u128::MAX);
        assert_eq!(seal(&["one"]).close(u128::MAX), (value.clone(), identity));
        assert_eq!(seal(&["two"]).open(value.as_bytes()), None);
        assert_ne!(seal(&["two"]).close(u128::MAX).1, identity, "the bucket depends on the secret");
        // A secret that is being replaced is believed yet, and its users stay who they are.
        assert_eq!(seal(&["two", "one"]).open(value.as_bytes()), Some(identity));
        let (new, _) = seal(&["two", "one"]).close(1);
        assert!(seal(&["two"]).open(new.as_bytes()).is_some());
    }

    #[test]
    fn the_signature_is_the_published_one() {
        // HMAC-SHA-256 by Python's hmac over the purpose and the key: replicas of different builds
        // must agree, so this may never change.
        let (value, _) = seal(&["secret-of-sixteen"]).close(0x0123_4567_89ab_cdef);
        assert_eq!(value, REFERENCE);
    }

    const REFERENCE: &str = "00000000000000000123456789abcdef6d553c7a77077fcdfda5e8a48b6c9878";
}
