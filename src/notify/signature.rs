//! Signatures by which a receiver knows that news are ours, and new
//! (<https://github.com/standard-webhooks/standard-webhooks>).

use std::fmt;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// What secrets begin with.
const PREFIX: &str = "whsec_";
/// The specification's bounds on the length of a key.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// A key that sender and receiver share.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(…)")
    }
}

impl Secret {
    /// Reads `whsec_` and Base64.
    ///
    /// # Errors
    /// In words, without the secret.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const REMEDY: &str = "is no secret of Standard Webhooks; write `whsec_` and 24 to 64 bytes \
                              in Base64, like `whsec_$(openssl rand -base64 32)`";
        let encoded = text.trim().strip_prefix(PREFIX).ok_or(REMEDY)?;
        let key = STANDARD.decode(encoded).map_err(|_| REMEDY)?;
        if KEY_BYTES.contains(&key.len()) { Ok(Self(key)) } else { Err(REMEDY) }
    }

    /// The signature of a message: HMAC-SHA256 over id, time and body.
    #[must_use]
    pub fn sign(&self, id: &str, timestamp_s: u64, body: &[u8]) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        let signed = [format!("{id}.{timestamp_s}.").as_bytes(), body].concat();
        format!("v1,{}", STANDARD.encode(hmac::sign(&key, &signed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_those_of_the_specification() {
        // The example of the specification's own libraries.
        let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a secret");
        let signature =
            secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn what_is_no_secret_is_refused_and_none_is_shown() {
        for bad in ["", "whsec_", "whsec_short", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_!!!"] {
            assert!(Secret::parse(bad).is_err(), "{bad}");
        }
        let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a secret");
        assert_eq!(format!("{secret:?}"), "Secret(…)");
    }
}
